"""
The commands of ``camrt``: each reads its arguments, calls the engine, and prints.

Progress and notes go to stderr and are absent when stderr is no terminal or ``--quiet`` is given; ``--json`` puts one
JSON object on stdout. Mistakes are `camrt.errors`, which `camrt.cli` turns into one line and exit code 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .arguments import (
    Colormap,
    Fixed,
    Grid,
    Input,
    Json,
    Labels,
    LayerNames,
    MaxForwards,
    MaxSeconds,
    Memory,
    Model,
    Options,
    Out,
    Output,
    Prefix,
    Preset,
    Providers,
    Quiet,
    Size,
    Stability,
    Targets,
    Timeout,
    find_pictures,
    open_explainer,
    read_budget,
    read_ends,
    read_options,
    read_ways,
)
from .errors import InputError, MethodError
from .evaluating import evaluate
from .explanation import Explanation
from .methods import resolve, validate
from .opening import load
from .printing import errors_to, print_agreement, print_inspection, print_json, print_summary, progress_bar, summarise
from .propagation import programs_of
from .saving import save_all
from .server.command import serve
from .stages import stages_of

__all__ = ["app"]

app = typer.Typer(
    help="Explain image classifiers: class activation maps for any ONNX model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

LISTED = 60  # paths printed at most; --json lists every one
CHUNK = 32  # pictures read before maps are made, so that memory does not grow with a folder


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


app.command()(evaluate)
app.command()(serve)


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
        errors_to().print(f"parity with the given model: {figures['parity']['max_rel']:.1e} relative")
        for name, figure in figures.get("gradient", {}).items():
            errors_to().print(f"gradient at {name}: {figure['rel_error']:.1e} from finite differences")
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
