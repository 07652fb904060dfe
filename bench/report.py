"""
Figures as rows: a table to read, JSON to keep, markdown for the README.

In: rows. Out: text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .contest import Spread

__all__ = ["Agreement", "Goal", "Row", "agreements", "aligned", "load_rows", "markdown", "plain", "table"]

HEAD = ("suite", "model", "batch", "figure", "median", "min", "quartiles", "runs", "goal", "")


@dataclass(frozen=True)
class Goal:
    """
    What a figure's median should be.

    Attributes
    ----------
    limit : float
        In the row's unit.
    most : bool
        The median is at most the limit, rather than at least.
    """

    limit: float
    most: bool

    def met(self, value: float) -> bool:
        """
        Tell whether a value reaches the goal.

        Parameters
        ----------
        value : float
            In the row's unit.

        Returns
        -------
        bool
            On the right side of the limit, or on it.
        """
        return value <= self.limit if self.most else value >= self.limit


@dataclass(frozen=True)
class Row:
    """
    One figure.

    Attributes
    ----------
    suite, model, figure : str
        What was measured, on which model; the figure names both sides of a ratio.
    batch : int or None
        Images a call, where it matters.
    unit : str
        ``x`` for a ratio, or ms, MB, calls/s.
    spread : Spread
        Over the rounds.
    goal : Goal or None
        What was wanted.
    """

    suite: str
    model: str
    batch: int | None
    figure: str
    unit: str
    spread: Spread
    goal: Goal | None = None

    @property
    def verdict(self) -> str:
        """Say whether the median reaches the goal; empty where there is none."""
        if self.goal is None:
            return ""
        return "met" if self.goal.met(self.spread.median) else "MISSED"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Row:
        """
        Make a row from what `plain` wrote.

        Parameters
        ----------
        data : mapping
            One of the ``rows`` of the JSON.

        Returns
        -------
        Row
            The same row.
        """
        goal = data["goal"]
        parts = {**data, "spread": Spread(**data["spread"]), "goal": None if goal is None else Goal(**goal)}
        return cls(**parts)


@dataclass(frozen=True)
class Agreement:
    """
    How nearly two libraries drew the same heatmaps, or said the same of them.

    Attributes
    ----------
    model, method, peer : str
        What was compared with what.
    cosine : float or None
        The smallest cosine over the images; None where numbers were compared and not heatmaps.
    difference : float
        The largest difference of a pixel, on the scale [0, 1]; of numbers, as a share of the largest one.
    flat : int
        Images whose map is empty for both; they count neither way.
    images : int
        Images in all.
    """

    model: str
    method: str
    peer: str
    cosine: float | None
    difference: float
    flat: int
    images: int


def plain(
    machine: Mapping[str, Any], settings: Mapping[str, Any], rows: Sequence[Row], agreed: Sequence[Agreement]
) -> dict[str, Any]:
    """
    Return a run as plain values for JSON.

    Parameters
    ----------
    machine, settings : mapping
        Where and how it was measured.
    rows : sequence of Row
        The figures.
    agreed : sequence of Agreement
        The comparisons that went before.

    Returns
    -------
    dict
        ``machine``, ``settings``, ``agreement`` and ``rows``.
    """
    return {
        "machine": dict(machine),
        "settings": dict(settings),
        "agreement": [asdict(item) for item in agreed],
        "rows": [asdict(row) for row in rows],
    }


def load_rows(data: Mapping[str, Any]) -> list[Row]:
    """
    Read the figures of a kept run.

    Parameters
    ----------
    data : mapping
        What `plain` returned.

    Returns
    -------
    list of Row
        In the order they were measured.

    Raises
    ------
    ValueError
        If it is not a run.
    """
    try:
        return [Row.from_dict(item) for item in data["rows"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the JSON of a bench run was wanted; {type(error).__name__} {error}") from error


def _number(value: float, unit: str) -> str:
    """Write a number with three significant digits or so, and its unit."""
    digits = 2 if abs(value) < 100 else 0
    text = f"{value:.{digits}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3f}"
    return f"{text}{unit}" if unit == "x" else f"{text} {unit}"


def _cells(row: Row) -> tuple[str, ...]:
    """Return a row's texts, in the order of `HEAD`."""
    s, unit = row.spread, row.unit
    goal = "" if row.goal is None else f"{'<=' if row.goal.most else '>='} {_number(row.goal.limit, unit)}"
    quartiles = f"{_number(s.lower, unit)} .. {_number(s.upper, unit)}" if s.runs > 1 else ""
    low = _number(s.low, unit) if s.runs > 1 else ""
    batch = "" if row.batch is None else str(row.batch)
    return (
        row.suite, row.model, batch, row.figure, _number(s.median, unit), low, quartiles, str(s.runs), goal, row.verdict,
    )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """
    Lay figures out for a terminal.

    Parameters
    ----------
    rows : sequence of Row
        The figures.

    Returns
    -------
    str
        One line a figure under a head, columns aligned.
    """
    return aligned([HEAD, *(_cells(row) for row in rows)])


def agreements(agreed: Sequence[Agreement]) -> str:
    """
    Lay comparisons out for a terminal.

    Parameters
    ----------
    agreed : sequence of Agreement
        The comparisons.

    Returns
    -------
    str
        One line each under a head, columns aligned.
    """
    head = ("model", "method", "same as", "least cosine", "largest difference", "images", "of them empty")
    lines = [(a.model, a.method, a.peer, _cosine(a), f"{a.difference:.1e}", str(a.images), str(a.flat)) for a in agreed]
    return aligned([head, *lines])


def _cosine(agreed: Agreement) -> str:
    """Write a cosine, where there is one."""
    return "" if agreed.cosine is None else f"{agreed.cosine:.7f}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """
    Pad cells to columns.

    Parameters
    ----------
    lines : sequence of sequence of str
        Lines of as many cells each.

    Returns
    -------
    str
        The lines, two blanks between columns.
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(machine: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """
    Lay figures out for the README.

    Parameters
    ----------
    machine : mapping
        What `bench.machine.facts` returned.
    rows : sequence of Row
        The figures; only those with a goal are shown.

    Returns
    -------
    str
        A markdown table, and a line that says where and when it was measured.
    """
    lines = ["| model | batch | figure | median | quartiles | goal |", "|---|---|---|---|---|---|"]
    for row in rows:
        if row.goal is not None:
            _, model, batch, figure, median, _, quartiles, _, goal, verdict = _cells(row)
            shown = f"**{median}**" if verdict == "met" else f"{median} (missed)"
            lines.append(f"| {model} | {batch} | {figure} | {shown} | {quartiles} | {goal} |")
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    where = f"{machine['cpu']}, {machine['cores']} cores; {versions}; commit {machine['commit']}; {machine['date']}"
    return "\n".join([*lines, "", f"Measured on {where}."])
