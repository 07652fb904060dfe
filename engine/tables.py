"""
The figures of an evaluation as tables: CSV, JSON, LaTeX, and for the terminal.

A `Summary` goes in, text comes out. CSV and JSON hold every figure exactly as it is, for machines; LaTeX and the
terminal hold one column a metric, written as papers do: percentages where papers have them, an arrow for the better
direction, the best in bold, half the width of the interval beside it, and published rows below where a protocol has
some.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .methods import METHODS
from .metrics import METRICS
from .protocols import Protocol
from .references import ReferenceRow, ReferenceTable
from .summary import Figure, Summary

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Cell",
    "Column",
    "columns",
    "csv_of",
    "json_of",
    "latex_of",
    "method_title",
    "methods_of",
    "published",
    "reference_cells",
    "rows_of",
    "terminal",
    "terminal_table",
    "wins_of",
    "written",
]

ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
CSV_FIELDS = ("method", "metric", "field", "value", "low", "high", "n", "std", "better", "percent")
DASH = "–"


@dataclass(frozen=True)
class Column:
    """
    One field of one metric.

    Attributes
    ----------
    metric, field : str
        As in `Figure`.
    better : {"higher", "lower", "neither"}
        Which way is better.
    percent : bool
        Whether it is printed times 100.
    """

    metric: str
    field: str
    better: str
    percent: bool

    @property
    def key(self) -> str:
        """The name in result files: ``metric`` or ``metric.field``."""
        return f"{self.metric}{self._rest}"

    @property
    def title(self) -> str:
        """What stands above it, without the arrow."""
        id, _, setting = self.metric.partition("-")
        name = METRICS[id].title if id in METRICS else id.replace("_", " ").capitalize()
        inside = [setting] if setting else []
        inside += [self._rest[1:].replace("_", " ")] if self._rest else []
        return f"{name} ({', '.join(inside)})" if inside else name

    @property
    def unit(self) -> str:
        """The percent sign, or nothing."""
        return "%" if self.percent else ""

    @property
    def head(self) -> str:
        """Title, unit and arrow."""
        return " ".join(part for part in (self.title, self.unit, ARROWS[self.better]) if part)

    @property
    def is_main(self) -> bool:
        """Whether it is the metric's headline."""
        id = self.metric.partition("-")[0]
        return self._rest == _beyond(METRICS[id].fields[0].name, id) if id in METRICS else not self._rest

    @property
    def _rest(self) -> str:
        """What the field's name has beyond the metric's id."""
        return _beyond(self.field, self.metric.partition("-")[0])


@dataclass(frozen=True)
class Cell:
    """
    One number, written.

    Attributes
    ----------
    value : str
        The number; a dash where there is none.
    half : str
        Half the width of its interval; empty where there is none.
    best : bool
        Whether no other in the column, as printed, is better.
    """

    value: str
    half: str = ""
    best: bool = False

    @property
    def text(self) -> str:
        """Number and interval."""
        return f"{self.value} ± {self.half}" if self.half else self.value


def columns(summary: Summary, *, main: bool = True) -> list[Column]:
    """
    List what a summary has figures of.

    Parameters
    ----------
    summary : Summary
        The figures.
    main : bool, default True
        Only the headline of each metric.

    Returns
    -------
    list of Column
        In the summary's order.
    """
    found = [Column(f.metric, f.field, f.better, f.percent) for f in summary.figures]
    return [column for column in dict.fromkeys(found) if column.is_main or not main]


def methods_of(summary: Summary) -> list[str]:
    """
    List the methods of a summary.

    Parameters
    ----------
    summary : Summary
        The figures.

    Returns
    -------
    list of str
        In its order.
    """
    return list(dict.fromkeys(figure.method for figure in summary.figures))


def wins_of(summary: Summary) -> dict[tuple[str, str], npt.NDArray[np.float64]]:
    """
    Lay win rates out as squares.

    Parameters
    ----------
    summary : Summary
        The figures.

    Returns
    -------
    dict of (str, str) to ndarray of float64, shape (M, M)
        By metric and field: how often the row's method beats the column's, in the order of `methods_of`; NaN where they
        were not compared.
    """
    place = {method: i for i, method in enumerate(methods_of(summary))}
    squares: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    for win in summary.wins:
        square = squares.setdefault((win.metric, win.field), np.full((len(place), len(place)), np.nan))
        square[place[win.first], place[win.second]] = win.share
    return squares


def rows_of(summary: Summary, shown: Sequence[Column]) -> list[tuple[str, list[Cell]]]:
    """
    Write a summary as rows, one a method.

    Parameters
    ----------
    summary : Summary
        The figures.
    shown : sequence of Column
        Which of them.

    Returns
    -------
    list of (str, list of Cell)
        A method and its numbers; the best of each column are marked, those that print alike together, unless all do.
    """
    there = {(f.method, f.metric, f.field): f for f in summary.figures}
    rows = [(m, [_cell(there.get((m, c.metric, c.field)), c) for c in shown]) for m in methods_of(summary)]
    for j, column in enumerate(shown):
        numbers = [float(cells[j].value) for _, cells in rows if cells[j].value != DASH]
        if column.better != "neither" and len(set(numbers)) > 1:
            top = max(numbers) if column.better == "higher" else min(numbers)
            for _, cells in rows:
                if cells[j].value != DASH and float(cells[j].value) == top:
                    cells[j] = Cell(cells[j].value, cells[j].half, best=True)
    return rows


def written(value: float | None, *, percent: bool = False) -> str:
    """
    Write a number as tables have it.

    Parameters
    ----------
    value : float or None
        A figure; NaN or None where there is none.
    percent : bool
        Whether it is printed times 100.

    Returns
    -------
    str
        Two decimals of a percentage, else about four digits.

    Examples
    --------
    >>> written(0.81663, percent=True), written(0.35712), written(1234.567), written(3.2e-7)
    ('81.66', '0.3571', '1235', '3.2e-07')
    """
    if value is None or math.isnan(value):
        return DASH
    if percent:
        return f"{100 * value:.2f}"
    size = abs(value)
    if size and not 1e-3 <= size < 1e7:
        return f"{value:.4g}"
    return f"{value:.{4 if size < 10 else 2 if size < 1000 else 0}f}"


def method_title(name: str) -> str:
    """
    Return how papers write a method, its setting in brackets.

    Parameters
    ----------
    name : str
        As in result files.

    Returns
    -------
    str
        The name itself where there is no such method.

    Examples
    --------
    >>> method_title("scorecam-torchcam-0.2"), method_title("mask")
    ('Score-CAM (torchcam-0.2)', 'mask')
    """
    id, _, setting = name.partition("-")
    if id not in METHODS:
        return name
    return f"{METHODS[id].title} ({setting})" if setting else METHODS[id].title


def csv_of(summary: Summary) -> str:
    """
    Write every figure as CSV, one a line.

    Parameters
    ----------
    summary : Summary
        The figures.

    Returns
    -------
    str
        With a head; numbers as Python writes them, so that they are read back exactly; empty where there is none.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for figure in summary.figures:
        row = _finite({name: getattr(figure, name) for name in CSV_FIELDS})
        writer.writerow({**row, "percent": "true" if row["percent"] else "false"})
    return file.getvalue()


def json_of(summary: Summary) -> str:
    """
    Write every figure and all win rates as JSON.

    Parameters
    ----------
    summary : Summary
        The figures.

    Returns
    -------
    str
        `Summary` by its attributes' names; what is no number is null.
    """
    return json.dumps(_finite(summary.to_dict()), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def latex_of(summary: Summary, *, protocol: Protocol | None = None, model: str = "", main: bool = True) -> str:
    """
    Write the figures as a LaTeX table.

    Parameters
    ----------
    summary : Summary
        The figures.
    protocol : Protocol, optional
        Its published rows come below.
    model : str
        The model's name, which chooses among published rows.
    main : bool, default True
        Only the headline of each metric.

    Returns
    -------
    str
        A ``tabular`` for the package booktabs.
    """
    shown = columns(summary, main=main)
    arrows = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "neither": ""}
    head = [_tex(f"{c.title} {c.unit}".strip()) + arrows[c.better] for c in shown]
    lines = [rf"\begin{{tabular}}{{l{'r' * len(shown)}}}", r"\toprule", _line(["Method", *head]), r"\midrule"]
    lines += [_line([_tex(method_title(method)), *map(_tex_cell, cells)]) for method, cells in rows_of(summary, shown)]
    for table, rows in published(protocol, model, shown):
        source = _tex(f"{table.title}: {table.source}")
        lines += [r"\midrule", rf"\multicolumn{{{len(shown) + 1}}}{{l}}{{\footnotesize {source}}} \\"]
        lines += [
            _line([_tex(label), *(_tex_cell(cell) for cell in cells)]) for label, cells in reference_cells(rows, shown)
        ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def terminal(
    summary: Summary, *, protocol: Protocol | None = None, model: str = "", main: bool = True, width: int = 100
) -> list[Table]:
    """
    Lay the figures out for a terminal.

    Parameters
    ----------
    summary : Summary
        The figures.
    protocol : Protocol, optional
        Its published rows come below.
    model : str
        The model's name, which chooses among published rows.
    main : bool, default True
        Only the headline of each metric.
    width : int, default 100
        Letters that fit in a line.

    Returns
    -------
    list of rich.table.Table
        As many as the columns need, each with all methods.
    """
    from rich.table import Table
    from rich.text import Text

    shown = columns(summary, main=main)
    rows = rows_of(summary, shown)
    blocks = [(table, reference_cells(found, shown)) for table, found in published(protocol, model, shown)]
    labels = [method_title(m) for m, _ in rows] + [label for _, lines in blocks for label, _ in lines]
    room = width - max(map(len, [*labels, "method"])) - 2
    lists = [cells for _, cells in rows] + [cells for _, lines in blocks for _, cells in lines]
    widths = [max([*(len(cells[j].text) for cells in lists), *map(len, c.head.split())]) for j, c in enumerate(shown)]
    tables = []
    for part in _parts(widths, room):
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("method", no_wrap=True, vertical="bottom")
        for j in part:
            table.add_column(Text(shown[j].head), justify="right", width=widths[j], vertical="bottom")
        for method, cells in rows:
            drawn = [Text(cells[j].text, style="bold" if cells[j].best else "") for j in part]
            table.add_row(Text(method_title(method)), *drawn)
        for source, lines in blocks:
            if any(cells[j].value != DASH for _, cells in lines for j in part):
                table.add_section()
                table.add_row(Text(f"published: {source.id}", style="italic dim"), *[""] * len(part))
                for label, cells in lines:
                    table.add_row(Text(label, style="dim"), *(Text(cells[j].text, style="dim") for j in part))
        tables.append(table)
    return tables


def terminal_table(
    summary: Summary, *, protocol: Protocol | None = None, model: str = "", main: bool = True, width: int | None = None
) -> str:
    """
    Write the figures as text, bold where the terminal can.

    Parameters
    ----------
    summary : Summary
        The figures.
    protocol : Protocol, optional
        Its published rows come below.
    model : str
        The model's name, which chooses among published rows.
    main : bool, default True
        Only the headline of each metric.
    width : int, optional
        Letters that fit in a line; the terminal's where None.

    Returns
    -------
    str
        One or several tables, an empty line between them.
    """
    from rich.console import Console

    console = Console(width=width)
    with console.capture() as captured:
        for i, table in enumerate(terminal(summary, protocol=protocol, model=model, main=main, width=console.width)):
            console.print(*([""] if i else []), table, sep="\n")
    return captured.get().rstrip("\n")


def published(
    protocol: Protocol | None, model: str, shown: Sequence[Column]
) -> list[tuple[ReferenceTable, list[ReferenceRow]]]:
    """
    Find published rows that have a number in some column.

    Parameters
    ----------
    protocol : Protocol or None
        Whose tables.
    model : str
        The model's name, which chooses among rows.
    shown : sequence of Column
        The columns.

    Returns
    -------
    list of (ReferenceTable, list of ReferenceRow)
        Tables that have such rows.
    """
    keys = {column.key for column in shown}
    found = [
        (table, [row for row in rows if keys & row.values.keys()])
        for table, rows in (protocol.rows_for(model) if protocol is not None else ())
    ]
    return [(table, rows) for table, rows in found if rows]


def reference_cells(rows: Sequence[ReferenceRow], shown: Sequence[Column]) -> list[tuple[str, list[Cell]]]:
    """
    Write published rows for some columns.

    Parameters
    ----------
    rows : sequence of ReferenceRow
        Published.
    shown : sequence of Column
        The columns.

    Returns
    -------
    list of (str, list of Cell)
        Network and method, and the numbers; none is marked best.
    """
    return [
        (
            f"{row.net} {method_title(row.method)}",
            [Cell(written(row.values.get(c.key), percent=c.percent)) for c in shown],
        )
        for row in rows
    ]


def _beyond(field: str, id: str) -> str:
    """Return a field's name as it stands behind its metric's: nothing, or a dot and a word."""
    return "" if field in ("", id) else f".{field.removeprefix(f'{id}.')}"


def _cell(figure: Figure | None, column: Column) -> Cell:
    """Write one figure."""
    if figure is None or math.isnan(figure.value):
        return Cell(DASH)
    value, half = written(figure.value, percent=column.percent), (figure.high - figure.low) / 2
    if math.isnan(half):
        return Cell(value)
    if "e" in value:
        return Cell(value, f"{half:.2g}")
    return Cell(value, f"{(100 if column.percent else 1) * half:.{len(value.partition('.')[2])}f}")


def _finite(value: Any) -> Any:
    """Return plain data with None in place of what is no number."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parts(widths: Sequence[int], room: int) -> list[list[int]]:
    """Divide columns into as few runs as fit."""
    parts: list[list[int]] = [[]]
    for j, width in enumerate(widths):
        if parts[-1] and sum(widths[k] + 2 for k in parts[-1]) + width > room:
            parts.append([])
        parts[-1].append(j)
    return parts


def _line(cells: Sequence[str]) -> str:
    """Return one line of a LaTeX table."""
    return " & ".join(cells) + r" \\"


def _tex_cell(cell: Cell) -> str:
    """Write a number for LaTeX."""
    value = "--" if cell.value == DASH else rf"\textbf{{{cell.value}}}" if cell.best else cell.value
    return value + (rf" {{\scriptsize$\pm$\,{cell.half}}}" if cell.half else "")


def _tex(text: str) -> str:
    """Escape what LaTeX would take for commands."""
    return "".join(_TEX.get(letter, letter) for letter in text)


_TEX = {letter: rf"\{letter}" for letter in "#$%&_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
