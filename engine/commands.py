"""
The commands of ``camrt``: each reads its arguments, calls the engine, and prints.

Progress and notes go to stderr and are absent when stderr is no terminal or ``--quiet`` is given; ``--json`` puts one
JSON object on stdout. Mistakes are `camrt.errors`, which `camrt.cli` turns into one line and exit code 2.
"""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from .anytime import Budget
from .errors import ImageError, InputError, MethodError
from .explainer import Explainer
from .explanation import Explanation
from .methods import resolve, validate
from .opening import KEPT, load
from .propagation import programs_of
from .saving import save_all
from .stages import stages_of

__all__ = ["app"]

app = typer.Typer(
    help="Explain image classifiers: class activation maps for any ONNX model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
LISTED = 60  # paths printed at most; --json lists every one
RULE_WORDS = {"gradient": "yes", "no flow": "none flows", "none": "no rule"}
CHUNK = 32  # pictures read before maps are made, so that memory does not grow with a folder

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


@app.command()
def explain(
    images: Annotated[list[str], typer.Argument(help="Pictures, folders or globs.")],
    model: Model,
    method: Annotated[str, typer.Option(help="A method id or alias, for example gradcam or Score-CAM.")] = "gradcam",
    target: Targets = None,
    layer: LayerNames = None,
    variant: Annotated[str | None, typer.Option(help="One of the method's variants.")] = None,
    option: Options = None,
    out: Out = Path("camrt-out"),
    preprocess: Preset = None,
    labels: Labels = None,
    output: Output = None,
    input: Input = None,
    fixed: Fixed = None,
    size: Size = None,
    grid: Grid = None,
    prefix: Prefix = None,
    providers: Providers = "cpu",
    pipeline: Annotated[str, typer.Option(help="camrt, pytorch-grad-cam or torchcam.")] = "camrt",
    fuse: Annotated[str | None, typer.Option(help="How maps of several layers are joined.")] = None,
    eigen_smooth: Annotated[bool, typer.Option(help="Leading component of the weighted activations.")] = False,
    tta: Annotated[bool, typer.Option(help="Average six mirrored and brightened runs.")] = False,
    mask_space: Annotated[
        str, typer.Option(help="What masked pixels show: normalised (mean colour) or raw (black).")
    ] = ("normalised"),
    max_forwards: MaxForwards = None,
    max_seconds: MaxSeconds = None,
    stability: Stability = None,
    timeout: Timeout = None,
    memory: Memory = "400MB",
    colormap: Colormap = "jet",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Explain pictures: overlays, arrays and a manifest for each."""
    paths = find_pictures(images)
    ends = {**read_ends(output, input, fixed, size, grid, prefix), "memory": memory}
    explainer = open_explainer(model, preprocess, labels, providers, quiet, ends)
    options = read_options(option)
    budget = read_budget(max_forwards, max_seconds, stability)
    asked: Any = list(target) if target else None
    lines: list[dict[str, Any]] = []

    def results(advance: Callable[[float], None]) -> Iterator[Explanation]:
        for start in range(0, len(paths), CHUNK):
            chunk = [str(path) for path in paths[start : start + CHUNK]]
            done = 0.0

            def report(images: float, total: int) -> None:
                nonlocal done
                advance(images - done)
                done = images

            result = explainer.explain(
                chunk, method=method, target=asked, layer=layer, variant=variant, options=options, pipeline=pipeline,
                fuse=fuse, eigen_smooth=eigen_smooth, tta=tta, mask_space=mask_space, budget=budget, timeout=timeout,
                progress=report,
            )  # fmt: skip
            lines.extend(summarise(result, chunk))
            yield result

    with progress_bar("explaining", len(paths), quiet) as advance:
        files = save_all(results(advance), out, colormap=colormap)
    if as_json:
        print_json({"model": explainer.manifest.model, "out": str(out), "results": lines, "files": files})
        return
    print_summary(lines, quiet)
    typer.echo(
        "\n".join(map(str, files if len(files) <= LISTED else [*files[:LISTED], f"... {len(files)} files in {out}"]))
    )


@app.command()
def compare(
    images: Annotated[list[str], typer.Argument(help="Pictures, folders or globs.")],
    model: Model,
    methods: Annotated[
        str, typer.Option(help="Method ids, separated by commas.")
    ] = "gradcam,gradcampp,hirescam,layercam,eigencam",
    target: Targets = None,
    layer: LayerNames = None,
    out: Out = Path("camrt-out"),
    preprocess: Preset = None,
    labels: Labels = None,
    output: Output = None,
    input: Input = None,
    fixed: Fixed = None,
    size: Size = None,
    grid: Grid = None,
    prefix: Prefix = None,
    providers: Providers = "cpu",
    precision: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Compare two precisions instead: float32, tf32, float16, bfloat16, twin."),
    ] = None,
    provider: Annotated[
        tuple[str, str] | None, typer.Option(help="Compare two provider lists instead, for example cpu cuda.")
    ] = None,
    twin: Annotated[bool, typer.Option("--twin", help="Compare a quantised model with its float twin.")] = False,
    steps: Annotated[
        int | None, typer.Option(help="Of the insertion and deletion curves of two ways; 0 leaves them out.")
    ] = None,
    max_forwards: MaxForwards = None,
    max_seconds: MaxSeconds = None,
    stability: Stability = None,
    timeout: Timeout = None,
    memory: Memory = "400MB",
    colormap: Colormap = "jet",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare methods, or two ways of running the model: a grid for each picture, figures, and one HTML report."""
    from .comparison import STEPS, compare_methods, compare_ways

    names = [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise MethodError("at least one method was wanted, for example --methods gradcam,layercam; none came")
    pair = read_ways(precision, provider, twin, providers)
    if steps is not None and len(pair) == 1:
        raise InputError("--steps belongs to two ways of running the model: give --precision, --provider or --twin")
    budget = read_budget(max_forwards, max_seconds, stability)
    paths = find_pictures(images)
    ends = {**read_ends(output, input, fixed, size, grid, prefix), "memory": memory}
    ways = [
        (title, open_explainer(model, preprocess, labels, where, quiet or i > 0, ends, how))
        for i, (title, where, how) in enumerate(pair)
    ]
    sources, asked = [str(path) for path in paths], list(target) if target else None
    settings: dict[str, Any] = {
        "target": asked, "layer": layer, "colormap": colormap, "budget": budget, "timeout": timeout,
    }  # fmt: skip
    with progress_bar("comparing", len(paths) * len(names), quiet) as advance:
        settings["advance"] = advance
        if len(ways) == 1:
            written = compare_methods(ways[0][1], sources, names, out, **settings)
        else:
            written = compare_ways(ways, sources, names, out, steps=STEPS if steps is None else steps, **settings)
    if as_json:
        files = [str(path) for path in written.paths]
        print_json({"model": ways[0][1].manifest.model, "out": str(out), **written.figures, "files": files})
        return
    if len(ways) == 2:
        print_agreement(written.figures)
    typer.echo("\n".join(map(str, written.paths)))


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="An .onnx file or a bundle folder.")],
    every_layer: Annotated[
        bool, typer.Option("--all", help="Every candidate layer, not only the telling ones.")
    ] = False,
    output: Output = None,
    input: Input = None,
    fixed: Fixed = None,
    size: Size = None,
    grid: Grid = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Show what a model offers: input, head, layers with the default and its reason, operators and their rules."""
    from .inspection import inspect_model

    described = inspect_model(
        load(model, **read_ends(output, input, fixed, size, grid, prefix)), every_layer=every_layer
    )
    if as_json:
        print_json(described)
    else:
        print_inspection(described)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="An .onnx file.")],
    out: Annotated[Path, typer.Argument(help="The bundle folder to write; with --explained, the .onnx file.")],
    explained: Annotated[
        str | None, typer.Option(metavar="METHOD", help="Write one self-contained .onnx that explains itself instead.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="Layers to prepare; the first is the default.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="Prepare this method too, where it needs programs of its own."),
    ] = None,
    labels: Labels = None,
    preprocess: Preset = None,
    output: Output = None,
    input: Input = None,
    fixed: Fixed = None,
    size: Size = None,
    grid: Grid = None,
    prefix: Prefix = None,
    variant: Annotated[str | None, typer.Option(help="With --explained: a variant of the method.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Prepare a bundle: programs, weights and manifest, verified; or, with --explained, one .onnx for any runtime."""
    ends = read_ends(output, input, fixed, size, grid, prefix)
    if explained is not None:
        if labels is not None or preprocess is not None:
            raise InputError(
                "an explained model takes prepared input and gives numbers: --labels and --preprocess are a bundle's; "
                "leave them out"
            )
        if method is not None:
            raise InputError("an explained model holds the one method that --explained names: leave --method out")
        export_explained(model, out, explained, layer, variant, ends, overwrite, as_json)
        return
    if variant is not None:
        raise InputError("--variant goes with --explained METHOD; a bundle serves every variant")
    from camrt.export.write import export as write_bundle

    wanted = [resolve(name) for name in method or ()]
    also = [kind for row in wanted for kind in programs_of(row)]
    explainer = open_explainer(model, preprocess, labels, "cpu", quiet, ends)
    if layer is None and any(row.stages for row in wanted):
        layer = list(reversed(stages_of(explainer.layers)))
    bundle = write_bundle(
        model, out, layers=layer, also=also, labels=explainer.labels, preprocess=explainer.preprocess.to_dict(),
        open_size=explainer.preprocess.size, overwrite=overwrite, **ends,
    )  # fmt: skip
    figures = bundle.manifest.verification
    if as_json:
        print_json({"bundle": str(out), "programs": [p.kind for p in bundle.programs], "verification": figures})
        return
    if not quiet:
        _err().print(f"parity with the given model: {figures['parity']['max_rel']:.1e} relative")
        for name, figure in figures.get("gradient", {}).items():
            _err().print(f"gradient at {name}: {figure['rel_error']:.1e} from finite differences")
    typer.echo(str(out))


def export_explained(
    model: Path, out: Path, method: str, layer: list[str] | None, variant: str | None,
    ends: Mapping[str, Any], overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write a model that explains itself, and say where it is."""
    from camrt.export import explained_model

    row = resolve(method)
    chosen, _ = validate(row, variant)
    explained_model(model, out, method=row.id, layer=layer, variant=chosen, overwrite=overwrite, **ends)
    if as_json:
        print_json({"explained": str(out), "method": row.id, "variant": chosen})
    else:
        typer.echo(str(out))


@app.command()
def demo(
    out: Out = Path("camrt-demo"),
    colormap: Colormap = "jet",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Explain the embedded model on pictures it draws: overlays, a grid, and a report; no network, no data."""
    from .demo.run import STEPS, run_demo

    with progress_bar("demo", STEPS, quiet) as advance:
        paths = run_demo(out, colormap=colormap, advance=advance)
    if as_json:
        print_json({"out": str(out), "files": [str(path) for path in paths]})
    else:
        typer.echo("\n".join(map(str, paths)))


# arguments -------------------------------------------------------------------------------------------------------


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
    given: Any = preprocess
    if preprocess is not None and preprocess.endswith(".json"):
        try:
            given = json.loads(Path(preprocess).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ImageError(
                f"a .json file of preprocessing fields was wanted; {preprocess!r} cannot be read: {error}"
            ) from error
    explainer = load(model, preprocess=given, labels=labels, providers=providers, precision=precision, **(ends or {}))
    if not quiet and preprocess is None and explainer.preprocess_reason != KEPT:
        _err().print(
            f"preprocessing {explainer.preprocess.name}: {explainer.preprocess_reason} Change it with --preprocess."
        )
    return explainer


# printing --------------------------------------------------------------------------------------------------------


def _err() -> Console:
    """Return the console notes and progress go to."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(title: str, total: int, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Show progress on stderr while a command runs; yields a function that advances it."""
    if quiet or not sys.stderr.isatty():
        yield lambda steps: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_err(), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda steps: progress.advance(task, steps)


def print_json(data: Any) -> None:
    """Put one JSON object on stdout."""
    typer.echo(json.dumps(data, indent=1, default=str))


def summarise(result: Explanation, sources: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row an image and target."""
    probabilities = result.probabilities
    return [
        {
            "image": source,
            "target": int(result.targets[i, t]),
            "label": result.labels[i][t],
            "probability": float(probabilities[i, t]),
            "value": float(result.values[i, t]),
            "degenerate": bool(result.degenerate[i, t]),
            **{name: flag[i, t].item() for name, flag in result.flags.items()},
        }
        for i, source in enumerate(sources)
        for t in range(result.targets.shape[1])
    ]


def print_summary(rows: Sequence[dict[str, Any]], quiet: bool) -> None:
    """Show what was explained, on stderr."""
    if quiet:
        return
    table = Table("image", "target", "label", "probability", "note", box=None)
    for row in rows[:CHUNK]:
        notes = ["constant map"] * row["degenerate"]
        if not row.get("complete", True):
            notes.append(f"{row['forwards']} masked forwards, not all")
        table.add_row(
            Path(row["image"]).name, str(row["target"]), row["label"], f"{row['probability']:.3f}", ", ".join(notes)
        )
    _err().print(table)


def print_agreement(figures: dict[str, Any]) -> None:
    """Show on stdout how far two ways of running a model agree, one line a method."""
    console = Console(highlight=False, soft_wrap=True, width=110)  # eleven columns
    first, second = figures["ways"]
    names = list(figures["summary"][0]["mean"])
    table = Table("method", "maps", "same class", *names, box=None)
    for row in figures["summary"]:
        counts = (str(row["maps"]), str(row["same_class"]))
        table.add_row(row["method"], *counts, *(f"{row['mean'][name]:.4f}" for name in names))
        table.add_row("  worst", "", "", *(f"{row['worst'][name]:.4f}" for name in names))
    console.print(table)
    console.print(f"{first} against {second}; insertion and deletion: {second} less {first}, judged by {first}")


def print_inspection(described: dict[str, Any]) -> None:
    """Show a model on stdout as short tables."""
    console = Console(highlight=False, soft_wrap=True)
    model, given = described["model"], described["input"]
    console.print(f"{model['name']}  opset {model['opset']}  {model['producer']}  sha256 {model['sha256'][:12]}")
    batch = "any batch" if described["batch"] is None else f"batch {described['batch']} only"
    console.print(
        f"input {given['name']} {given['shape']} {given['dtype']}, {batch}; {described['classes']} classes, head {described['head']}"
    )
    if model.get("precision", "float32") != "float32":
        console.print(f"the model holds {model['precision']}; programs run its float32 twin, with the same weights")
    if model.get("quantised"):
        console.print(_twin_words(model["quantised"], described["twin"]))
    for name, value in given.get("held", {}).items():
        console.print(f"input {name} is held at {value}")
    console.print(f"preprocessing {described['preprocess']['name']}: {described['preprocess']['reason']}")
    names = (Column(name, overflow="fold") for name in ("layer", "module", "operator"))
    table = Table("", *names, "K", "grid", "why", box=None)
    for layer in described["layers"]:
        mark = "*" if layer["default"] else ""
        grid = f"{layer['grid'][0]}x{layer['grid'][1]}"
        table.add_row(mark, layer["name"], layer["module"], layer["op"], str(layer["channels"]), grid, layer["reason"])
    console.print(table)
    console.print(f"{len(described['layers'])} of {described['layers_in_all']} layers; --all shows every one")
    if described["linear_layers"]:
        console.print(f"GAP + linear head: cam works at {', '.join(described['linear_layers'])}")
    if described["tokens"] is not None:
        console.print(f"tokens at the default layer: {described['tokens']['said']}")
    rows, space = described["masked"]["rows"], _short(described["masked"]["bytes"], "B")
    console.print(f"masked forwards: {rows} a run, which take at most {space} on top of the opened model")
    if "operators" in described:
        console.print(f"attention: {described['attention']['said']}")
        print_operators(console, described["operators"])
        print_work(console, described["work"], described["methods"])


def _twin_words(operators: dict[str, int], twin: dict[str, Any] | None) -> str:
    """Say that a model is quantised, and how well its float twin agrees with it."""
    said = f"quantised ({', '.join(f'{op} {n}' for op, n in operators.items())}): logits are its own, gradients its float twin's"
    if twin is None:
        return said
    figures = [(f"behind {twin['layer']}", twin), ("computed anew from the first layer", twin["whole"])]
    return "\n".join(
        [said]
        + [
            f"the twin's logits {where} differ by {row['mean_rel']:.2%} of their spread, at most {row['max_rel']:.2%}; "
            f"top-1 agrees on {row['top1']:.0%} of {row['images']} noise inputs"
            for where, row in figures
        ]
    )


def print_operators(console: Console, operators: dict[str, Any]) -> None:
    """Show operators with their rules, and what stands in a gradient's way."""
    table = Table("operator", "count", "behind the layer", "gradient", box=None)
    for op, entry in operators.items():
        table.add_row(op, str(entry["count"]), str(entry["behind"]), RULE_WORDS[entry["rule"]])
    console.print(table)
    lacking = {op: entry["behind"] for op, entry in operators.items() if entry["rule"] == "none"}
    console.print(f"without a gradient rule: {', '.join(lacking) or 'none'}")
    if any(lacking.values()):
        console.print("some of those lie behind the default layer: gradient methods need a later layer")


def print_work(console: Console, work: dict[str, Any], methods: dict[str, Any]) -> None:
    """Show what one image costs, and what each method makes of it."""
    console.print(
        f"one image: {_short(work['forward'])} multiply-adds, {_short(work['tail'])} of them behind the layer; "
        f"{_short(work['weights_bytes'], 'B')} of weights, tensors of at most {_short(work['peak_bytes'], 'B')} at a time"
    )
    if work["uncounted"]:
        console.print(f"not in these figures: {', '.join(work['uncounted'])}")
    table = Table("method", "cost", "multiply-adds", "forwards' worth", "memory", box=None)
    for name, entry in methods.items():
        worth = "" if entry["relative"] is None else f"{entry['relative']:.2f}"
        table.add_row(name, entry["cost"], _short(entry["multiply_adds"]), worth, f"{_short(entry['bytes'], 'B')}")
    console.print(table)
    console.print(
        "cost: F forward, T tail, b gradient to the layer, B gradient to the image; memory: tensors of one image"
    )


def _short(number: float, unit: str = "") -> str:
    """Write a number with three digits, a prefix and a unit."""
    for prefix in ("", "k", "M", "G"):
        if number < 1000 or prefix == "G":
            break
        number /= 1000
    return f"{number:.3g} {prefix}{unit}".rstrip()
