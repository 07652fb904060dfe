"""
Compare methods on the same pictures and targets: a grid a picture, and one HTML report.

In: an `Explainer`, pictures, method ids. Out: PNG grids (rows are targets, columns methods), a self-contained
``report.html``, and figures for machines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .atomic import write_bytes
from .explainer import Explainer
from .explanation import Explanation
from .methods import METHODS, resolve
from .render import grid, overlay, png
from .report import Figure, Section, Table, provenance, write_report

__all__ = ["Comparison", "compare_methods", "grid_of"]


@dataclass(frozen=True)
class Comparison:
    """
    What a comparison wrote.

    Attributes
    ----------
    paths : tuple of Path
        Every file, the report last.
    figures : dict
        ``results``: one row an image, target and method.
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
    paths, sections, rows = [], [], []
    used: set[str] = set()
    for source in images:
        results = []
        for method in ids:
            results.append(explainer.explain(source, method=method, target=target, layer=layer))
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
            peaks.append("constant map" if r.degenerate[0, t] else f"row {y}, column {x}; mean {heat.mean():.2f}")
        rows.append((label, f"{first.probabilities[0, t]:.3f}", *peaks))
    return Table(
        ("target", "probability", *(r.method for r in results)), rows, "Where each map peaks, in pixels of the input"
    )


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
            "mean": float(r.heatmaps[0, t].mean()),
        }
        for r in results
        for t in range(r.targets.shape[1])
    ]
