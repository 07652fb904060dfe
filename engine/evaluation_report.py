"""
What an evaluation leaves to be read: one HTML file, and tables for papers and machines.

A `Summary`, the exact settings and pictures go in; out comes a page that explains itself: figures with intervals,
published rows beside them and what differs, bars, curves, who beats whom, best and worst maps, what each metric
means, what was skipped, and how to run it again. It asks nothing of any network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import plots
from .atomic import write_bytes
from .datasets.sample import Dataset
from .explainer import Explainer
from .galleries import gallery, judge_of
from .metrics import METRICS
from .metrics.curves import positions
from .metrics.flipping import flips
from .protocols import Protocol
from .report import Cell, Drawing, Figure, Section, Table, Value, page, provenance
from .summary import Curve, Summary
from .tables import (
    Column,
    columns,
    csv_of,
    json_of,
    latex_of,
    method_title,
    methods_of,
    published,
    reference_cells,
    rows_of,
    wins_of,
)

if TYPE_CHECKING:
    from .evaluation import Evaluation

__all__ = ["sections", "write_report", "write_results"]

SKIPPED = 200  # broken pictures that are listed; the rest are counted, every one is in the folder
RESULTS = {"report": "report.html", "csv": "summary.csv", "json": "summary.json", "latex": "summary.tex"}


def write_results(
    folder: str | os.PathLike[str],
    evaluation: Evaluation,
    explainer: Explainer,
    dataset: Dataset,
    protocol: Protocol | None = None,
    *,
    command: str = "",
) -> dict[str, Path]:
    """
    Write the report and the tables of a finished evaluation.

    Parameters
    ----------
    folder : str or path-like
        Where to.
    evaluation : Evaluation
        What was found; without a folder of rows there are no galleries.
    explainer : Explainer
        Its model, for the galleries.
    dataset : Dataset
        Its pictures, for the galleries.
    protocol : Protocol, optional
        What it follows.
    command : str
        The command line that made it.

    Returns
    -------
    dict of str to Path
        "report", "csv", "json" and "latex".

    Raises
    ------
    OutputError
        If a file cannot be written.
    MissingExtraError
        If Matplotlib is not installed.

    Notes
    -----
    Cost: six explanations a method for the galleries.
    """
    summary, run = evaluation.summary, evaluation.run
    column = judge_of(summary)
    found: Mapping[str, Sequence[Figure]] = {}
    if run is not None and column is not None:
        found = {f"Best and worst by {column.title}": gallery(run, explainer, dataset, column)}
    model = _model(evaluation.spec)
    paths = {name: Path(folder) / file for name, file in RESULTS.items()}
    write_bytes(paths["csv"], csv_of(summary).encode())
    write_bytes(paths["json"], json_of(summary).encode())
    write_bytes(paths["latex"], latex_of(summary, protocol=protocol, model=model).encode())
    write_report(
        paths["report"],
        summary,
        spec=evaluation.spec,
        problems=evaluation.problems,
        galleries=found,
        protocol=protocol,
        command=command,
    )
    return paths


def write_report(
    path: str | os.PathLike[str],
    summary: Summary,
    *,
    spec: Mapping[str, Any],
    problems: Sequence[Mapping[str, Any]] = (),
    galleries: Mapping[str, Sequence[Figure]] | None = None,
    protocol: Protocol | None = None,
    command: str = "",
) -> Path:
    """
    Write the report.

    Parameters
    ----------
    path : str or path-like
        The HTML file.
    summary : Summary
        The figures.
    spec : mapping
        What was evaluated, as `camrt.evaluate` writes it.
    problems : sequence of mapping
        Pictures that were skipped: "index", "id" and "reason".
    galleries : mapping of str to sequence of Figure, optional
        Pictures, by heading.
    protocol : Protocol, optional
        What it follows.
    command : str
        The command line that made it.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    OutputError
        If it cannot be written.
    MissingExtraError
        If Matplotlib is not installed.
    """
    parts = sections(summary, spec=spec, problems=problems, galleries=galleries, protocol=protocol, command=command)
    skipped = f", {len(problems)} skipped" if problems else ""
    subtitle = f"{_model(spec)} on {spec.get('dataset', {}).get('name', 'pictures')}: {summary.images} images{skipped}"
    return write_bytes(path, page("Explanations judged", parts, subtitle=subtitle).encode("utf-8", "replace"))


def sections(
    summary: Summary,
    *,
    spec: Mapping[str, Any],
    problems: Sequence[Mapping[str, Any]] = (),
    galleries: Mapping[str, Sequence[Figure]] | None = None,
    protocol: Protocol | None = None,
    command: str = "",
) -> list[Section]:
    """
    Lay the report out.

    Parameters
    ----------
    summary : Summary
        The figures.
    spec, problems, galleries, protocol, command : object
        As in `write_report`.

    Returns
    -------
    list of Section
        In reading order; those without content are left out.
    """
    main = columns(summary)
    others = [column for column in columns(summary, main=False) if not column.is_main]
    parts = [
        _results(summary, main),
        _published(main, protocol, _model(spec)),
        *_protocol(protocol, spec),
        Section(
            "Bars", _BARS if protocol is None else f"{_BARS} {_DIAMONDS}", _bars(summary, main, protocol, _model(spec))
        ),
        Section("Curves", _CURVES, _curves(summary, spec)),
        Section("Parts and pairs", _PARTS, _pairs(summary)),
        _wins(summary),
        *(Section(title, _GALLERY, figures) for title, figures in (galleries or {}).items()),
        Section(
            "Further fields", "", tables=[_table(summary, others, "Means ± half their intervals")] if others else ()
        ),
        Section("What the metrics mean", _MEANING, tables=[_meanings(spec, summary)]),
        _skipped(problems),
        Section("How to run it again", _AGAIN, tables=[provenance(spec, "Exact settings")], code=_code(spec, command)),
    ]
    return [part for part in parts if part.figures or part.tables or part.code]


def _places(choice: Mapping[str, Any], size: tuple[int, int], points: int) -> npt.NDArray[np.float64]:
    """Return where the points of a metric's curve lie: shares of the pixels, evenly spaced where nothing is known."""
    options = dict(choice.get("options", {}))
    x: Any = np.linspace(0, 1, points)
    if choice.get("id") in ("insertion", "deletion"):
        x = positions(size, variant=choice["variant"], **options)
    elif choice.get("id") == "pixel_flipping":
        total, counts = flips(size, variant=choice["variant"], **options)
        x = np.array(counts) / total
    elif "levels" in options:
        x = np.array(options["levels"]) / 100
    return x if len(x) == points else np.linspace(0, 1, points)


def _results(summary: Summary, main: Sequence[Column]) -> Section:
    """Return the headline table."""
    text = (
        f"Means over {summary.images} images ± half the width of their {100 * summary.level:g} % intervals "
        f"({summary.resamples} bootstrap resamples of the images). The best of a column is bold; arrows say which way "
        "is better."
    )
    return Section("Results", text, tables=[_table(summary, main, "")])


def _published(main: Sequence[Column], protocol: Protocol | None, model: str) -> Section:
    """Return published rows, where they come from and what must be known of them."""
    told, tables = [_COMPARING], []
    for source, rows in published(protocol, model, main):
        shown = [column for column in main if any(column.key in row.values for row in rows)]
        lines: list[list[Cell]] = [
            [label, *(Value(cell.value) for cell in cells)] for label, cells in reference_cells(rows, shown)
        ]
        tables.append(Table(("network and method", *(column.head for column in shown)), lines, source.title))
        notes = dict.fromkeys(f"{method_title(row.method)}: {row.note}." for row in rows if row.note)
        told.append(" ".join([f"{source.title}: read in {source.source}.", source.caveat, *notes]))
    return Section("Published numbers", "\n\n".join(told), tables=tables)


def _table(summary: Summary, shown: Sequence[Column], caption: str) -> Table:
    """Return figures of all methods."""
    rows: list[list[Cell]] = [
        [method_title(method), *(Value(cell.text, cell.best) for cell in cells)]
        for method, cells in rows_of(summary, shown)
    ]
    return Table(("method", *(column.head for column in shown)), rows, caption)


def _protocol(protocol: Protocol | None, spec: Mapping[str, Any]) -> list[Section]:
    """Return what is followed, and where it is not."""
    if protocol is None:
        return []
    setting = spec.get("setting", {})
    differs = protocol.differences({**setting, "preprocess": spec.get("preprocess", {})})
    for kind in ("methods", "metrics"):
        left = [word for word in getattr(protocol, kind) if word not in setting.get(kind, (word,))]
        differs += [f"{kind} not run: {', '.join(left)}"] if left else []
    rows = [("differs", line) for line in differs] + [("not known", line) for line in protocol.unknowns]
    facts = [("pictures", protocol.subset), ("aggregation", protocol.aggregation)]
    text = f"The settings follow {protocol.title} ({protocol.paper}) as far as they are known."
    return [Section("Protocol", text, tables=[Table(("what", "how"), [*facts, *rows])])]


def _bars(summary: Summary, main: Sequence[Column], protocol: Protocol | None, model: str) -> list[Drawing]:
    """Draw every headline."""
    drawn = []
    for column in main:
        marks: dict[str, float] = {}
        for _, rows in published(protocol, model, [column]):
            if len({(row.net, row.data) for row in rows}) == 1:  # of several networks none is the user's
                marks |= {row.method: row.values[column.key] for row in rows}
        by_method = {m: marks[m.partition("-")[0]] for m in methods_of(summary) if m.partition("-")[0] in marks}
        drawn.append(_drawing(plots.bars(summary, column, published=by_method)))
    return drawn


def _curves(summary: Summary, spec: Mapping[str, Any]) -> list[Drawing]:
    """Draw every family of curves."""
    chosen = {choice["name"]: choice for choice in spec.get("metrics", ())}
    height, width = spec.get("preprocess", {}).get("size", (224, 224))
    families: dict[tuple[str, str], list[Curve]] = {}
    for curve in summary.curves:
        families.setdefault((curve.metric, curve.name), []).append(curve)
    return [
        _drawing(
            plots.curves(
                found,
                _places(chosen.get(metric, {}), (height, width), len(found[0].mean)),
                methods_of(summary),
                _curve_title(metric, name),
            )
        )
        for (metric, name), found in families.items()
        if name.rpartition(".")[2].startswith("curve")
    ]


def _curve_title(metric: str, name: str) -> str:
    """Return what a curve is called: the metric's title, and which of its curves."""
    rest = name.rpartition(".")[2].removeprefix("curve").strip("_")
    return Column(metric, rest, "neither", False).title


def _pairs(summary: Summary) -> list[Drawing]:
    """Draw ADCC with its parts, and gain against drop."""
    drawn = []
    by_name = {
        (f.method, f.metric): f.value for f in summary.figures if Column(f.metric, f.field, f.better, False).is_main
    }
    parts = {
        method: {
            "coherency": by_name[method, "coherency"],
            "1 - complexity": 1 - by_name[method, "complexity"],
            "1 - drop": 1 - by_name[method, "average_drop"],
            "ADCC": by_name[method, "adcc"],
        }
        for method in methods_of(summary)
        if all((method, name) in by_name for name in ("coherency", "complexity", "average_drop", "adcc"))
    }
    if parts:
        drawn.append(_drawing(plots.breakdown(parts, "ADCC", "ADCC, the harmonic mean, and its parts")))
    there = {column.key: column for column in columns(summary)}
    for across, up in (("average_drop", "average_gain"), ("deletion", "insertion")):
        if across in there and up in there:
            drawn.append(_drawing(plots.scatter(summary, there[across], there[up])))
    return drawn


def _wins(summary: Summary) -> Section:
    """Return who beats whom, drawn and in numbers."""
    methods = methods_of(summary)
    squares = {key: square for key, square in wins_of(summary).items() if Column(*key, "", False).is_main}
    tables = []
    for (metric, field), square in squares.items():
        rows: list[list[Cell]] = [
            [f"{i} {method_title(method)}", *(Value("" if np.isnan(rate) else f"{100 * rate:.1f}") for rate in line)]
            for i, (method, line) in enumerate(zip(methods, square, strict=True), 1)
        ]
        title = Column(metric, field, "neither", False).title
        head = ("row beats column in % of images", *(str(i) for i in range(1, len(methods) + 1)))
        tables.append(Table(head, rows, f"{title}: a tie is nobody's"))
    return Section("Who beats whom", _WINS, [_drawing(plots.wins(summary, *key)) for key in squares], tables)


def _meanings(spec: Mapping[str, Any], summary: Summary) -> Table:
    """Say what each field is."""
    chosen = {choice["name"]: choice for choice in spec.get("metrics", ())}
    rows = []
    for column in columns(summary, main=False):
        choice = chosen.get(column.metric, {"id": column.metric.partition("-")[0], "variant": ""})
        metric = METRICS.get(choice["id"])
        if metric is None:
            continue
        same = [
            f for f in metric.fields_of(choice["variant"]) if Column(column.metric, f.name, "", False).key == column.key
        ]
        for field in same:
            way = f"{field.better} is better" if field.better != "neither" else "neither way is better"
            known = f"{metric.paper}. {metric.settings}" if column.is_main else ""
            used = ", ".join([choice["variant"], *(f"{k}={v}" for k, v in choice.get("options", {}).items())])
            rows.append(
                (
                    column.title,
                    field.help,
                    way,
                    f"{_end(field.low)} to {_end(field.high)}",
                    used if column.is_main else "",
                    known,
                )
            )
    return Table(("field", "what it is", "direction", "range", "here", "source, and who uses which setting"), rows)


def _end(value: float) -> str:
    """Write the end of a range."""
    return f"{value:.4g}".replace("inf", "∞").replace("-", "−")


def _skipped(problems: Sequence[Mapping[str, Any]]) -> Section:
    """List pictures that could not be judged."""
    rows = [(str(p.get("id", p.get("index", ""))), str(p.get("reason", ""))) for p in problems[:SKIPPED]]
    more = len(problems) - len(rows)
    counted = "1 picture" if len(problems) == 1 else f"{len(problems)} pictures"
    text = f"{counted} could not be judged and left out of every figure" + (
        f"; {more} more than listed." if more else "."
    )
    return Section("Skipped pictures", text, tables=[Table(("picture", "why"), rows)] if rows else ())


def _code(spec: Mapping[str, Any], command: str) -> str:
    """Write what makes the same figures again."""
    setting = {k: v for k, v in spec.get("setting", {}).items() if k not in ("protocol",) and v is not None}
    words = [f"    {name}={_literal(value)}," for name, value in setting.items()]
    data = spec.get("dataset", {}).get("name", "pictures")
    fields = f", preprocess={dict(spec['preprocess'])!r}" if "preprocess" in spec else ""
    python = [f"explainer = camrt.load({_model(spec)!r}{fields})", f"camrt.evaluate(explainer, {data!r},", *words, ")"]
    return "\n".join([*([command, ""] if command else []), "import camrt", "", *python])


def _literal(value: Any) -> str:
    """Write plain data as Python."""
    return repr(list(value) if isinstance(value, tuple) else value)


def _model(spec: Mapping[str, Any]) -> str:
    """Return the model's name."""
    return str(spec.get("model", {}).get("name", "model"))


def _drawing(plot: plots.Plot) -> Drawing:
    """Put a drawing on the page."""
    return Drawing(plot.data, plot.size, plot.alt)


_COMPARING = (
    "Published numbers come from other weights, pictures and code, and from settings that are not all known: compare "
    "the order of methods, not decimals."
)
_BARS = "One bar a method, with its interval. A method has one colour, dash and mark in all drawings."
_DIAMONDS = "Diamonds are published numbers, where a network of the same name has some."
_CURVES = "Means over images and their 95 % bands."
_PARTS = "The harmonic mean lies between its parts and is drawn down by the smallest. Short lines are intervals."
_WINS = (
    "On how many images the method of the row is strictly better than that of the column. Numbers over the columns are "
    "those before the methods' names."
)
_GALLERY = "Each method's own pictures: best above, worst below, with the value and the picture's name."
_MEANING = "Fields marked % are printed times 100, as papers do; everything in files is a fraction."
_AGAIN = "With the same model, pictures and versions the same rows come out, to the bit on the same kind of machine."
