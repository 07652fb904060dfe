"""
What commands are told: the options they share, and how words become what the engine takes.

A mistake is one of `camrt.errors`; its message says what to write instead.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .anytime import Budget
from .errors import ImageError, InputError, MethodError
from .explainer import Explainer
from .opening import KEPT, load
from .printing import errors_to

__all__ = [
    "find_pictures",
    "open_explainer",
    "read_budget",
    "read_ends",
    "read_options",
    "read_preprocess",
    "read_sides",
    "read_ways",
]

SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}

Model = Annotated[Path, typer.Option("--model", "-m", help="An .onnx file or a bundle folder.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder that results are written to.")]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", "-t", help="Class index or label; also prob:C, logprob:C, contrast:A-B. Repeat for several."
    ),
]
LayerNames = Annotated[
    list[str] | None, typer.Option("--layer", "-l", help="Tensor, node or module path. Repeat to fuse.")
]
Labels = Annotated[Path | None, typer.Option(help="Class names: .txt, .json or .csv.")]
Preset = Annotated[
    str | None, typer.Option(help="imagenet, caffe, tf, raw, half, cifar10, or a .json file with the fields.")
]
Providers = Annotated[
    str,
    typer.Option(
        help="Execution providers in order: cpu, cuda, openvino, tensorrt. TensorRT: untested by this project."
    ),
]
Output = Annotated[
    str | None, typer.Option(help="The output that holds the scores, for a model with several; or a tensor inside.")
]
Input = Annotated[str | None, typer.Option(help="The input that takes the picture, for a model with several.")]
Fixed = Annotated[
    list[str] | None,
    typer.Option(help="What another input is held at, name=value; numbers or JSON lists of them. Repeat for several."),
]
Grid = Annotated[str | None, typer.Option(help="h,w that the tokens of a raw model make up, row by row.")]
Prefix = Annotated[int | None, typer.Option(help="Tokens before the grid: class token, registers.")]
Size = Annotated[str | None, typer.Option(help="H,W of the input, for a model that leaves them open.")]
Colormap = Annotated[str, typer.Option(help="jet or viridis.")]
MaxForwards = Annotated[
    int | None, typer.Option(help="Stop masked forwards of each image after so many, the best first.")
]
MaxSeconds = Annotated[float | None, typer.Option(help="Stop masked forwards of each image after so long.")]
Stability = Annotated[
    float | None, typer.Option(help="Stop masked forwards when the map's ranks correlate so much with the last.")
]
Timeout = Annotated[float | None, typer.Option(help="Fail where a call takes more seconds.")]
Memory = Annotated[str, typer.Option(help="What a chunk of masked forwards may take, for example 400MB.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", help="A method's option, name=value. Repeat for several.")
]


def find_pictures(patterns: Sequence[str]) -> list[Path]:
    """Expand files, folders and globs into pictures, in order, each once."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise ImageError(
                    f"pictures were wanted, the folder {pattern!r} holds none ({', '.join(sorted(SUFFIXES))})"
                )
        elif path.exists():
            inside = [path]
        else:
            inside = [Path(p) for p in sorted(glob.glob(pattern, recursive=True)) if Path(p).is_file()]
            if not inside:
                raise ImageError(f"a picture, folder or glob was wanted; nothing is there for {pattern!r}")
        found.update(dict.fromkeys(inside))
    return list(found)


def read_options(pairs: Sequence[str] | None) -> dict[str, object]:
    """Read ``name=value`` pairs; the method checks names and values."""
    options: dict[str, object] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise MethodError(f"an option is name=value, for example --option n=10; got {pair!r}")
        options[name.strip()] = value.strip()
    return options


def read_ends(
    output: str | None,
    input: str | None,
    fixed: Sequence[str] | None,
    size: str | None,
    grid: str | None = None,
    prefix: int | None = None,
) -> dict[str, Any]:
    """Read which input and output were chosen, what other inputs are held at, the size, and how tokens lie."""
    held: dict[str, Any] = {}
    for pair in fixed or ():
        name, equals, value = pair.rpartition("=")
        try:
            held[name] = json.loads(value)
        except ValueError as error:
            raise InputError(
                f"an input is held by --fixed name=value, the value a number or a JSON list; got {pair!r}"
            ) from error
        if not equals or not name:
            raise InputError(f"an input is held by --fixed name=value, for example --fixed gain=1; got {pair!r}")
    given = {
        "output": output,
        "input": input,
        "fixed": held or None,
        "size": read_sides(size, "--size H,W, for example --size 224,224"),
        "grid": read_sides(grid, "--grid h,w, for example --grid 14,14"),
        "prefix": prefix,
    }
    return {name: value for name, value in given.items() if value is not None}


def read_budget(forwards: int | None, seconds: float | None, stability: float | None) -> Budget | None:
    """Read what masked forwards may cost; None where nothing is said."""
    return None if forwards is seconds is stability is None else Budget(forwards, seconds, stability)


def read_ways(
    precision: tuple[str, str] | None, provider: tuple[str, str] | None, twin: bool, providers: str
) -> list[tuple[str, str, str]]:
    """Read the way, or the two ways, that a model is run: title, providers and precision of each."""
    if twin and precision is not None:
        raise InputError("--twin is --precision float32 twin: give one of them")
    if precision is None and provider is None and not twin:
        return [("", providers, "float32")]
    hows = ("float32", "twin") if twin else precision or ("float32", "float32")
    wheres = provider or (providers, providers)
    titles = ["quantised", "twin"] if twin else list(hows)
    if wheres[0] != wheres[1]:
        titles = list(wheres) if hows[0] == hows[1] else [f"{w} {t}" for w, t in zip(wheres, titles, strict=True)]
    if titles[0] == titles[1]:
        raise InputError(f"two different ways of running the model are compared; both are {titles[0]}")
    return list(zip(titles, wheres, hows, strict=True))


def read_sides(text: str | None, form: str) -> tuple[int, int] | None:
    """Read two sides; one alone is a square's."""
    if text is None:
        return None
    sides = [int(side) for side in text.split(",") if side.strip().isdecimal()]
    if len(sides) not in (1, 2) or len(sides) != text.count(",") + 1 or 0 in sides:
        raise InputError(f"two sides are given as {form}; got {text!r}")
    return sides[0], sides[-1]


def read_preprocess(text: str | None) -> Any:
    """Read a preset's name, or the fields in a ``.json`` file."""
    if text is None or not text.endswith(".json"):
        return text
    try:
        return json.loads(Path(text).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ImageError(
            f"a .json file of preprocessing fields was wanted; {text!r} cannot be read: {error}"
        ) from error


def open_explainer(
    model: Path,
    preprocess: str | None,
    labels: Path | None,
    providers: str,
    quiet: bool,
    ends: Mapping[str, Any] | None = None,
    precision: str = "float32",
) -> Explainer:
    """Open the model, and say on stderr what was assumed about its input."""
    explainer = load(
        model,
        preprocess=read_preprocess(preprocess),
        labels=labels,
        providers=providers,
        precision=precision,
        **(ends or {}),
    )
    if not quiet and preprocess is None and explainer.preprocess_reason != KEPT:
        errors_to().print(
            f"preprocessing {explainer.preprocess.name}: {explainer.preprocess_reason} Change it with --preprocess."
        )
    return explainer
