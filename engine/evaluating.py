"""
The command ``camrt evaluate``: methods judged by metrics over a data set, and what the folder then holds.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .arguments import (
    Fixed,
    Input,
    Json,
    Labels,
    LayerNames,
    Memory,
    Model,
    Output,
    Preset,
    Providers,
    Quiet,
    Size,
    open_explainer,
    read_ends,
    read_options,
    read_preprocess,
)
from .choices import split
from .datasets import Dataset, Subset, known_of, open_dataset
from .errors import InputError
from .evaluation import Evaluation, Opener, Setting, finished, specification, steps_of
from .evaluation_report import write_results
from .explainer import Explainer
from .printing import errors_to, print_json, progress_bar
from .protocols import Protocol
from .protocols import resolve as resolve_protocol
from .shards import Run
from .tables import terminal_table
from .words import offer
from .workers import run_processes, work

__all__ = ["evaluate"]

DATA_OPTIONS = ("root", "split", "per", "only", "truth", "boxes", "synsets")


def evaluate(
    data: Annotated[str, typer.Argument(help="A folder, list (.csv, .parquet, .json) or archive (.tar) of pictures.")],
    model: Model,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods, separated by commas: id[:variant][,option=value...]. None: a few quick ones."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics, written the same way. None: AD, AI, AG, ADCC, insertion and deletion.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Settings of a published table: adcc, scorecam, opticam or rise.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of rows and results; what is there is not run again.")
    ] = (Path("camrt-evaluation")),
    classes: Annotated[str | None, typer.Option(help="Which class is explained: predicted or label.")] = None,
    layer: LayerNames = None,
    mask_space: Annotated[
        str | None, typer.Option(help="What hidden pixels show: normalised (mean colour) or raw (black).")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="What the data is, where it cannot be told by looking: see the README.")
    ] = None,
    data_option: Annotated[
        list[str] | None,
        typer.Option(
            help="What else opens the data, name=value: root, split, per, only, truth, boxes, synsets. Repeat for several."
        ),
    ] = None,
    class_map: Annotated[
        str | None,
        typer.Option(
            help="The model's class for each name of the data set: a file, sorted, or none for no labels. None given: --labels."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="So many pictures, drawn by --seed.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of the pictures drawn by --limit.")] = 0,
    batch: Annotated[int, typer.Option(help="Pictures judged together.", min=1)] = 8,
    shard: Annotated[int, typer.Option(help="Pictures written together.", min=1)] = 32,
    processes: Annotated[int, typer.Option(help="Processes on this machine, each with the model open.", min=1)] = 1,
    ray: Annotated[int | None, typer.Option(help="Actors on a Ray cluster instead.", min=1)] = None,
    part: Annotated[str | None, typer.Option(help="i/n: do the i-th of n parts, from 0; for job arrays.")] = None,
    preprocess: Preset = None,
    labels: Labels = None,
    output: Output = None,
    input: Input = None,
    fixed: Fixed = None,
    size: Size = None,
    providers: Providers = "cpu",
    threads: Annotated[int | None, typer.Option(help="Threads of one process.", min=1)] = None,
    memory: Memory = "400MB",
    plan_only: Annotated[bool, typer.Option("--plan", help="Say what would be run, and stop.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Judge methods by metrics over a data set: rows, figures with intervals, tables and a report."""
    followed = None if protocol is None else resolve_protocol(protocol)
    dataset = open_dataset(data, kind=kind, labels=class_map or labels, **_data_options(data_option))
    if limit is not None and limit < len(dataset):
        dataset = Subset.drawn(dataset, limit, seed)
    asked = {
        "methods": None if methods is None else tuple(split(methods)),
        "metrics": None if metrics is None else tuple(split(metrics)),
        "classes": classes,
        "layer": None if not layer else tuple(layer),
        "mask_space": mask_space,
    }
    setting = _setting(followed, dataset, {name: value for name, value in asked.items() if value is not None})
    setting = replace(setting, batch=batch, shard=shard)
    opener = Opener(
        str(model),
        {**read_ends(output, input, fixed, size), "memory": memory, "threads": threads, "providers": providers,
         "preprocess": read_preprocess(preprocess), "labels": None if labels is None else str(labels)},
        {} if followed is None or preprocess is not None else dict(followed.preprocess),
        dataset,
        setting,
    )  # fmt: skip
    explainer = open_explainer(
        model, preprocess, labels, providers, quiet, {**read_ends(output, input, fixed, size), "memory": memory, "threads": threads}
    )  # fmt: skip
    explainer = explainer.preprocessing(**opener.fields) if opener.fields else explainer
    spec = specification(explainer, dataset, setting)
    images, batches = len(dataset), -(-shard // batch) * -(-len(dataset) // shard)
    if not quiet or plan_only:
        errors_to().print(
            setting.plan(explainer.preprocess.size).described(images, len(setting.chosen_methods), batches)
        )
        for line in [] if followed is None else _departures(followed, explainer, setting):
            errors_to().print(line)
    if plan_only:
        return
    run = Run.open(out, spec, total=images, shard_size=shard)
    share = _read_part(part)
    with progress_bar("evaluating", images, quiet) as advance:
        if ray is not None:
            from .on_ray import work_on_ray

            work_on_ray(run, opener, workers=ray, progress=steps_of(run, advance))
        elif processes > 1:
            run_processes(run, opener, processes, progress=steps_of(run, advance))
        else:
            work(run, opener.around(explainer, advance), part=share)
    left = run.missing()
    if left:
        errors_to().print(
            f"{len(left)} of {len(run.ranges)} shards are left to others; results are written by whoever ends last"
        )
        return
    evaluation = finished(run, setting)
    files = write_results(out, evaluation, explainer, dataset, followed, command=shlex.join(["camrt", *sys.argv[1:]]))
    _show(evaluation, files, followed, explainer, quiet, as_json)


def _data_options(pairs: list[str] | None) -> dict[str, Any]:
    """Read ``name=value`` pairs for `open_dataset`."""
    options: dict[str, Any] = read_options(pairs)
    for name in options:
        if name not in DATA_OPTIONS:
            raise InputError(f"no data option is called {name!r}; {offer(name, DATA_OPTIONS)}")
    return options


def _setting(protocol: Protocol | None, dataset: Dataset, asked: Mapping[str, Any]) -> Setting:
    """Return what is evaluated: the protocol's settings, what was asked for in their place, defaults for the rest."""
    told: dict[str, Any] = {}
    if protocol is not None:
        told = protocol.settings(boxes="boxes" in known_of(dataset))
        told = {name: told[name] for name in ("methods", "metrics", "layer", "mask_space", "classes", "pipeline")}
        told |= {"methods": tuple(told["methods"]), "metrics": tuple(told["metrics"]), "protocol": protocol.id}
    return Setting(**(told | dict(asked)))


def _departures(protocol: Protocol, explainer: Explainer, setting: Setting) -> list[str]:
    """Say where a run departs from its protocol, and what nobody knows of it."""
    used = {
        "preprocess": explainer.preprocess.to_dict(),
        "layer": setting.layer,
        "mask_space": setting.mask_space,
        "classes": setting.classes,
        "pipeline": setting.pipeline,
    }
    return [*protocol.differences(used), *(f"not known: {line}" for line in protocol.unknowns)]


def _read_part(text: str | None) -> tuple[int, int] | None:
    """Read ``i/n``."""
    if text is None:
        return None
    first, slash, count = text.partition("/")
    if not slash or not first.strip().isdecimal() or not count.strip().isdecimal() or not int(first) < int(count):
        raise InputError(f"a part is i/n with i from 0 to n - 1, for example --part 0/4; got {text!r}")
    return int(first), int(count)


def _show(
    evaluation: Evaluation,
    files: Mapping[str, Path],
    protocol: Protocol | None,
    explainer: Explainer,
    quiet: bool,
    as_json: bool,
) -> None:
    """Print the figures, and where everything is."""
    if as_json:
        print_json({**evaluation.summary.to_dict(), "files": {name: str(path) for name, path in files.items()}})
        return
    if evaluation.problems and not quiet:
        errors_to().print(
            f"{len(evaluation.problems)} pictures were skipped, the first: {evaluation.problems[0]['reason']}"
        )
    name = str(explainer.manifest.model["name"])
    known = protocol is not None and any(row.is_of(name) for table in protocol.references for row in table.rows)
    typer.echo(terminal_table(evaluation.summary, protocol=protocol if known else None, model=name))
    for path in files.values():
        typer.echo(str(path))
