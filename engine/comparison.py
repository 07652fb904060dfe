"""
Compare methods, or two ways of running one model, on the same pictures and targets: a grid a picture, and one report.

In: an `Explainer`, pictures, method ids; or two of the same model, in two precisions or on two providers. Out: PNG grids
(rows are targets, columns methods or ways), a self-contained ``report.html``, and figures for machines: where maps peak,
or how far the two ways' maps agree (`camrt.agreement`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .agreement import agreement
from .anytime import Budget
from .atomic import write_bytes
from .choices import choose
from .errors import MethodError
from .explainer import Explainer
from .explanation import Explanation
from .image import prepare
from .methods import METHODS, resolve
from .metrics import judge
from .metrics import resolve as resolve_metric
from .metrics import validate as validate_metric
from .render import grid, heatmap, overlay, png
from .report import Figure, Section, Table, provenance, write_report

__all__ = ["FIGURES", "STEPS", "Comparison", "compare_methods", "compare_ways", "grid_of"]

STEPS = 28  # of an insertion or deletion curve: RISE's quick setting, two curves of 28 forwards a map
FIGURES = ("cosine", "rank", "top10", "top20", "largest", "insertion", "deletion")  # of two ways' maps


@dataclass(frozen=True)
class Comparison:
    """
    What a comparison wrote.

    Attributes
    ----------
    paths : tuple of Path
        Every file, the report last.
    figures : dict
        ``results``: one row an image, target and method; ``summary`` of two ways: one row a method.
    """

    paths: tuple[Path, ...]
    figures: dict[str, Any]


def compare_methods(
    explainer: Explainer,
    images: Sequence[Any],
    methods: Sequence[str],
    out: Path,
    *,
    target: Any = None,
    layer: str | Sequence[str] | None = None,
    budget: Budget | None = None,
    timeout: float | None = None,
    colormap: str = "jet",
    advance: Callable[[int], None] = lambda steps: None,
) -> Comparison:
    """
    Explain pictures by several methods and lay the maps side by side.

    Parameters
    ----------
    explainer : Explainer
        The model.
    images : sequence
        Pictures, as `Explainer.explain` takes them.
    methods : sequence of str
        Method ids or aliases; all are checked before anything runs.
    out : Path
        The folder to write to; made if it is not there.
    target : optional
        As in `Explainer.explain`.
    layer : str or sequence of str, optional
        As in `Explainer.explain`.
    budget : Budget, optional
        As in `Explainer.explain`, for those methods that masked forwards are run for.
    timeout : float, optional
        Seconds that one method may take for one picture.
    colormap : {"jet", "viridis"}, default "jet"
        The colours.
    advance : callable, optional
        Called with 1 after each picture and method.

    Returns
    -------
    Comparison
        The files written and their figures.

    Raises
    ------
    CamrtError
        What `Explainer.explain` raises; nothing is written then for the picture at hand.
    OutputError
        If `out` cannot be written.
    """
    ids = list(dict.fromkeys(resolve(name).id for name in methods))
    asked: dict[str, Any] = {"layer": layer, "budget": _spendable(budget, ids), "timeout": timeout}
    paths, sections, rows = [], [], []
    used: set[str] = set()
    for source in images:
        results = []
        for method in ids:
            results.append(_explained(explainer, source, method, target, **asked))
            advance(1)
        name = _fresh(results[0].names[0], used)
        sheet = grid_of(results, colormap=colormap, title=name)
        paths.append(write_bytes(out / f"{name}_grid.png", png(sheet)))
        sections.append(Section(name, figures=[Figure(sheet, _alt(results, name))], tables=[_table(results)]))
        rows += _figures(results, name)
    subtitle = f"{explainer.manifest.model['name']}, layers {', '.join(results[0].layers)}"
    made = Section("How it was made", tables=[provenance(results[0].provenance)])
    paths.append(write_report(out / "report.html", "Methods compared", [*sections, made], subtitle=subtitle))
    return Comparison(tuple(paths), {"methods": ids, "results": rows})


def compare_ways(
    ways: Sequence[tuple[str, Explainer]],
    images: Sequence[Any],
    methods: Sequence[str],
    out: Path,
    *,
    target: Any = None,
    layer: str | Sequence[str] | None = None,
    budget: Budget | None = None,
    timeout: float | None = None,
    steps: int = STEPS,
    colormap: str = "jet",
    advance: Callable[[int], None] = lambda steps: None,
) -> Comparison:
    """
    Explain pictures in two ways of running one model, and say how far the maps agree.

    Parameters
    ----------
    ways : sequence of (str, Explainer), two
        What each way is called, and the model opened that way. The first is the reference: where no target is given,
        both explain the class that it predicts, and its probabilities make the insertion and deletion curves of both.
    images : sequence
        Pictures, as `Explainer.explain` takes them.
    methods : sequence of str
        Method ids or aliases; all are checked before anything runs.
    out : Path
        The folder to write to; made if it is not there.
    target : optional
        As in `Explainer.explain`.
    layer : str or sequence of str, optional
        As in `Explainer.explain`.
    budget : Budget, optional
        As in `Explainer.explain`, for those methods that masked forwards are run for.
    timeout : float, optional
        Seconds that one method may take for one picture.
    steps : int, default 28
        Of the insertion and deletion curves; 0 leaves them out.
    colormap : {"jet", "viridis"}, default "jet"
        The colours.
    advance : callable, optional
        Called with 1 after each picture and method.

    Returns
    -------
    Comparison
        The files written and their figures.

    Raises
    ------
    MethodError
        If there are not two ways, no such method, or `steps` is negative.
    CamrtError
        What `Explainer.explain` raises; nothing is written then for the picture at hand.
    OutputError
        If `out` cannot be written.

    Notes
    -----
    Cost: each method twice, and two curves of ``steps`` forwards a map.
    """
    if len(ways) != 2:
        raise MethodError(f"two ways of running the model are compared; {len(ways)} came")
    if steps < 0:
        raise MethodError(f"steps must be at least 0; got {steps}")
    ids = list(dict.fromkeys(resolve(name).id for name in methods))
    asked: dict[str, Any] = {"layer": layer, "budget": _spendable(budget, ids), "timeout": timeout}
    (first, reference), (second, other) = ways
    paths, sections, rows = [], [], []
    used: set[str] = set()
    for source in images:
        pairs = []
        for method in ids:
            one = _explained(reference, source, method, target, **asked)
            same = one.targets[0].tolist() if target is None else target
            pairs.append((one, _explained(other, source, method, same, **asked)))
            advance(1)
        name = _fresh(pairs[0][0].names[0], used)
        found = [row for pair in pairs for row in _agreements(reference, source, pair, name, steps)]
        sheet = _sheet(pairs, found, (first, second), colormap, name)
        paths.append(write_bytes(out / f"{name}_agreement.png", png(sheet)))
        shown = Figure(sheet, f"Maps of {name} by {', '.join(ids)}, {first} beside {second}")
        sections.append(Section(name, figures=[shown], tables=[_agreement_table(found)]))
        rows += found
    summary = [_summary(method, [row for row in rows if row["method"] == method]) for method in ids]
    caption = f"Means over pictures and targets; insertion and deletion: {second} less {first}, judged by {first}"
    table = Table(("method", *_shown(summary[0])), [(r["method"], *_shown(r).values()) for r in summary], caption)
    last = pairs[-1]
    made = [
        Section(
            "How it was made", tables=[provenance(r.provenance, w) for r, w in zip(last, (first, second), strict=True)]
        )
    ]
    subtitle = f"{reference.manifest.model['name']}: {first} against {second}"
    report = [Section("All pictures", tables=[table]), *sections, *made]
    paths.append(write_report(out / "report.html", "Two ways compared", report, subtitle=subtitle))
    return Comparison(tuple(paths), {"ways": [first, second], "methods": ids, "summary": summary, "results": rows})


def grid_of(results: Sequence[Explanation], *, colormap: str = "jet", title: str | None = None) -> Image.Image:
    """
    Lay the maps of one picture side by side: rows are targets, columns methods.

    Parameters
    ----------
    results : sequence of Explanation
        One a method, each of the same one picture and the same targets.
    colormap : {"jet", "viridis"}, default "jet"
        The colours.
    title : str, optional
        Written above.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    first = results[0]
    picture = first.pictures[0]
    cells: list[list[Image.Image | None]] = []
    for t in range(first.targets.shape[1]):
        row: list[Image.Image | None] = [Image.fromarray(picture)]
        row += [overlay(picture, r.heatmaps[0, t], colormap=colormap, colorbar=False, side=224) for r in results]
        cells.append(row)
    labels = [f"{first.labels[0][t]} {first.probabilities[0, t]:.2f}" for t in range(first.targets.shape[1])]
    columns = ["picture", *(METHODS[r.method].title for r in results)]
    return grid(cells, row_titles=labels, column_titles=columns, title=title, colormap=colormap)


def _spendable(budget: Budget | None, methods: Sequence[str]) -> Budget | None:
    """Refuse a budget that no method can spend."""
    if budget is not None and all(METHODS[method].runs is None for method in methods):
        raise MethodError(f"a budget is for methods of many masked forwards; {', '.join(methods)}: none to leave out")
    return budget


def _explained(
    explainer: Explainer, source: Any, method: str, target: Any, *, budget: Budget | None, **asked: Any
) -> Explanation:
    """Explain one picture; a budget is for the methods that have one."""
    spent = budget if METHODS[method].runs is not None else None
    return explainer.explain(source, method=method, target=target, budget=spent, **asked)


def _fresh(name: str, used: set[str]) -> str:
    """Return a file name that no other picture of this run has."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".") or "image"
    fresh, n = safe, 2
    while fresh in used:
        fresh, n = f"{safe}_{n}", n + 1
    used.add(fresh)
    return fresh


def _alt(results: Sequence[Explanation], name: str) -> str:
    """Say what a grid shows."""
    return f"Maps of {name} by {', '.join(r.method for r in results)} for {', '.join(results[0].labels[0])}"


def _table(results: Sequence[Explanation]) -> Table:
    """Tabulate targets and where each method's map peaks."""
    first = results[0]
    rows = []
    for t, label in enumerate(first.labels[0]):
        peaks = []
        for r in results:
            heat = r.heatmaps[0, t]
            y, x = divmod(int(heat.argmax()), heat.shape[1])
            peak = "constant map" if r.degenerate[0, t] else f"row {y}, column {x}; mean {heat.mean():.2f}"
            peaks.append(peak if _complete(r, t) else f"{peak}; {r.flags['forwards'][0, t]} masked forwards, not all")
        rows.append((label, f"{first.probabilities[0, t]:.3f}", *peaks))
    return Table(
        ("target", "probability", *(r.method for r in results)), rows, "Where each map peaks, in pixels of the input"
    )


def _complete(result: Explanation, target: int) -> bool:
    """Tell whether a budget left nothing out."""
    return bool(result.flags["complete"][0, target]) if "complete" in result.flags else True


def _figures(results: Sequence[Explanation], name: str) -> list[dict[str, Any]]:
    """Return one row an image, target and method."""
    return [
        {
            "image": name,
            "method": r.method,
            "variant": r.variant,
            "target": int(r.targets[0, t]),
            "label": r.labels[0][t],
            "probability": float(r.probabilities[0, t]),
            "degenerate": bool(r.degenerate[0, t]),
            "complete": _complete(r, t),
            "mean": float(r.heatmaps[0, t].mean()),
        }
        for r in results
        for t in range(r.targets.shape[1])
    ]


# two ways --------------------------------------------------------------------------------------------------------


def _agreements(
    reference: Explainer, source: Any, pair: tuple[Explanation, Explanation], name: str, steps: int
) -> list[dict[str, Any]]:
    """Return one row a target: how far the maps of one method agree."""
    one, two = pair
    rows = []
    for t, label in enumerate(one.labels[0]):
        row: dict[str, Any] = {
            "image": name,
            "method": one.method,
            "variant": one.variant,
            "target": int(one.targets[0, t]),
            "label": label,
            "probabilities": [float(r.probabilities[0, t]) for r in pair],
            "degenerate": [bool(r.degenerate[0, t]) for r in pair],
            "same_class": int(one.logits[0].argmax()) == int(two.logits[0].argmax()),
            **agreement(one.heatmaps[0, t], two.heatmaps[0, t]).to_dict(),
        }
        if steps and row["target"] >= 0:  # a vector has no probability
            maps = [r.heatmaps[0, t] for r in pair]
            for kind, areas in _areas(reference, source, maps, row["target"], steps).items():
                row[kind], row[f"{kind}_areas"] = areas[1] - areas[0], areas
        rows.append(row)
    return rows


def _areas(
    reference: Explainer, source: Any, maps: Sequence[npt.NDArray[Any]], index: int, steps: int
) -> dict[str, list[float]]:
    """Return the areas under each map's insertion and deletion curves."""
    x = prepare(source, reference.preprocess).x
    chosen = choose([f"{kind},steps={steps}" for kind in ("insertion", "deletion")], resolve_metric, validate_metric)
    found = judge(chosen, reference, np.repeat(x, len(maps), 0), np.stack(maps), np.full(len(maps), index))
    return {choice.row.id: found[choice.name].tolist() for choice in chosen}


def _sheet(
    pairs: Sequence[tuple[Explanation, Explanation]],
    found: Sequence[dict[str, Any]],
    ways: tuple[str, str],
    colormap: str,
    title: str,
) -> Image.Image:
    """Lay the two ways' maps and their difference side by side: rows are methods and targets."""
    cells: list[list[Image.Image | None]] = []
    for pair in pairs:
        picture = pair[0].pictures[0]
        for t in range(pair[0].targets.shape[1]):
            one, two = (r.heatmaps[0, t] for r in pair)
            row: list[Image.Image | None] = [Image.fromarray(picture)]
            row += [overlay(picture, heat, colormap=colormap, colorbar=False, side=224) for heat in (one, two)]
            cells.append([*row, heatmap(np.abs(one - two), colormap=colormap, side=224)])
    captions = [
        ["", *(f"p {p:.3f}" for p in row["probabilities"]), f"cosine {row['cosine']:.4f}, top 10 % {row['top10']:.2f}"]
        for row in found
    ]
    return grid(
        cells,
        row_titles=[f"{METHODS[row['method']].title} {row['label']}" for row in found],
        column_titles=["picture", *ways, "difference"],
        captions=captions,
        title=title,
        colormap=colormap,
    )


def _agreement_table(found: Sequence[dict[str, Any]]) -> Table:
    """Tabulate one picture's figures."""
    rows = [(row["method"], row["label"], *(row.get(name) for name in FIGURES)) for row in found]
    short = [tuple(f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row) for row in rows]
    return Table(("method", "target", *FIGURES), short, "How far the two ways' maps agree")


def _summary(method: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean and the worst of every figure over one method's rows."""
    return {
        "method": method,
        "maps": len(rows),
        "same_class": sum(row["same_class"] for row in rows),
        "mean": {name: float(np.mean(values)) for name, values in _columns(rows).items()},
        "worst": {
            name: max(values, key=abs) if name in ("largest", "insertion", "deletion") else min(values)
            for name, values in _columns(rows).items()
        },
    }


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return every figure that there is, over all rows."""
    columns = {name: [row[name] for row in rows if name in row] for name in FIGURES}
    return {name: values for name, values in columns.items() if values}


def _shown(summary: dict[str, Any]) -> dict[str, str]:
    """Return a summary's means as text, for a table."""
    return {
        "maps": str(summary["maps"]),
        "same class": str(summary["same_class"]),
        **{name: f"{value:.4f}" for name, value in summary["mean"].items()},
    }
