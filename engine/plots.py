"""
The figures of an evaluation as drawings.

A `Summary`, or mean curves, go in; SVG or PNG comes out, each as wide as a telephone so that letters stay readable
there and three stand side by side on a desk. A method has one colour, dash and mark in all drawings. Colours are told
apart by people who confuse red and green, and an SVG turns dark where its reader's page does.

Matplotlib (extra ``eval`` or ``cli``) is loaded when something is drawn, through its figures alone: no window, no
pyplot.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import MethodError, MissingExtraError
from .summary import Curve, Summary
from .tables import Column, method_title, methods_of, wins_of, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Look", "Plot", "bars", "breakdown", "curves", "looks", "scatter", "wins"]

Kind = Literal["svg", "png"]

WIDTH = 380  # pixels: three in a row of the report, one on a telephone
DPI = 96  # a pixel of the page; PNG has twice as many
LETTERS = 21  # of a method's name: two stand side by side in a legend
NUMBERED = 12  # methods whose win rates are written into the cells; of more, the cells are too small
INK, FAINT, LINE, PAPER = "#1f2328", "#59636e", "#d1d9e0", "#ffffff"  # the report's
PALETTE = ("#0072b2", "#e0600b", "#00a077", "#b0609a", "#3b0f6b", "#6b4300")
DARK = {
    INK: "#f0f6fc",
    FAINT: "#9198a1",
    LINE: "#3d444d",
    PAPER: "#0d1117",
    **dict(zip(PALETTE, ("#4aa3e0", "#f0762b", "#2fd6a3", "#f3b9da", "#8458e6", "#f2e863"), strict=True)),
}  # what each colour becomes on a dark page
DASHES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p", "h")
STYLE: Mapping[str, Any] = {
    "axes.edgecolor": FAINT,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "figure.facecolor": PAPER,
    "font.size": 9,
    "grid.color": LINE,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "svg.hashsalt": "camrt",  # the same figures give the same bytes
    "text.color": INK,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Plot:
    """
    A finished drawing.

    Attributes
    ----------
    data : bytes
        The file, SVG or PNG.
    size : tuple of int
        Width and height in pixels at which letters have their size.
    alt : str
        What it shows, for those who do not see it.
    """

    data: bytes = field(repr=False)
    size: tuple[int, int]
    alt: str


@dataclass(frozen=True)
class Look:
    """
    How a method is drawn.

    Attributes
    ----------
    color : str
        One of `PALETTE`.
    dash, mark : str
        As Matplotlib calls them.
    """

    color: str
    dash: str
    mark: str


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """
    Give each method its look.

    Parameters
    ----------
    methods : sequence of str
        All methods of an evaluation, in order.

    Returns
    -------
    dict of str to Look
        Different for up to 24 methods: six colours, then the same ones in another dash and mark.
    """
    size = len(PALETTE)
    return {
        method: Look(PALETTE[i % size], DASHES[i // size % len(DASHES)], MARKS[(i % size + i // size) % len(MARKS)])
        for i, method in enumerate(methods)
    }


def bars(summary: Summary, column: Column, *, published: Mapping[str, float] | None = None, kind: Kind = "svg") -> Plot:
    """
    Draw one field of all methods as bars with intervals.

    Parameters
    ----------
    summary : Summary
        The figures.
    column : Column
        Which field.
    published : mapping of str to float, optional
        Published values by method, drawn as open diamonds.
    kind : {"svg", "png"}, default "svg"
        The format.

    Returns
    -------
    Plot
        One bar a method, from 0, its value beside it.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    found = {f.method: f for f in summary.figures if (f.metric, f.field) == (column.metric, column.field)}
    methods = [m for m in methods_of(summary) if m in found]
    factor = 100 if column.percent else 1
    values = np.array([found[m].value for m in methods]) * factor
    ends = np.array([[found[m].low, found[m].high] for m in methods]).reshape(-1, 2) * factor
    look = looks(methods_of(summary))
    with _drawing(42 + 21 * len(methods) + 24, kind) as (figure, finish):
        axes = figure.add_subplot()
        rows = np.arange(len(methods))
        axes.barh(rows, np.nan_to_num(values), 0.62, color=[look[m].color for m in methods])
        for row, (low, high) in enumerate(ends):
            axes.plot([low, high], [row, row], color=INK, linewidth=1.6, solid_capstyle="butt")
        marks = {m: v * factor for m, v in (published or {}).items() if m in methods}
        if marks:
            at = [methods.index(m) for m in marks]
            axes.plot(list(marks.values()), at, "D", markerfacecolor=PAPER, markeredgecolor=INK, markersize=5.5)
        reach = np.nanmax(np.abs([0, *values, *ends.ravel(), *marks.values()])) or 1.0  # nothing but zeros: any scale
        for row, (method, value) in enumerate(zip(methods, values, strict=True)):
            edge = np.nanmax([value, ends[row, 1], marks.get(method, value), 0])
            text = written(found[method].value, percent=column.percent)
            beside = 0.06 if edge - marks.get(method, -np.inf) < 0.04 * reach else 0.025  # clear of a diamond
            axes.text((0 if np.isnan(edge) else edge) + reach * beside, row, text, va="center", fontsize=8, color=INK)
        everything = [0, *values, *ends.ravel(), *marks.values()]
        least, most = np.nanmin(everything), np.nanmax(everything)
        axes.set_xlim(1.05 * least, most + 0.24 * reach)  # room for the number of the longest
        axes.set_xticks([tick for tick in axes.get_xticks() if least <= tick <= max(most, reach)])
        _rows(axes, methods)
        _title(axes, column.head)
    told = ", ".join(f"{method_title(m)} {written(found[m].value, percent=column.percent)}" for m in methods)
    return finish(f"Bars of {column.head}: {told}")


def curves(
    found: Sequence[Curve],
    x: npt.NDArray[np.float64],
    methods: Sequence[str],
    title: str,
    *,
    across: str = "share of pixels changed",
    kind: Kind = "svg",
) -> Plot:
    """
    Draw the mean curve of every method with its band.

    Parameters
    ----------
    found : sequence of Curve
        One a method.
    x : ndarray of float, shape (P,)
        Where their points lie.
    methods : sequence of str
        All methods of the evaluation, for their looks.
    title : str
        What the curves are.
    across : str
        What x is.
    kind : {"svg", "png"}, default "svg"
        The format.

    Returns
    -------
    Plot
        Lines over bands of 95 %.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    look = looks(methods)
    with _drawing(268 + 17 * -(-len(found) // 2), kind) as (figure, finish):
        axes = figure.add_subplot()
        for i, curve in enumerate(found):
            how = look[curve.method]
            axes.fill_between(x, curve.low, curve.high, color=how.color, alpha=min(0.16, 1.6 / len(found)), linewidth=0)
            every = max(1, len(x) // 6)
            axes.plot(
                x,
                curve.mean,
                color=how.color,
                linestyle=how.dash,
                marker=how.mark,
                markersize=4,
                markevery=(i % every, every),  # marks of curves that run together do not hide each other
                linewidth=1.5,
                label=_short(method_title(curve.method)),
            )
        axes.set_xlabel(across)
        axes.set_ylabel("probability of the class")
        _title(axes, title)
        _legend(figure, axes)
    told = ", ".join(f"{method_title(c.method)} from {c.mean[0]:.3f} to {c.mean[-1]:.3f}" for c in found)
    return finish(f"Mean curves of {title}: {told}")


def wins(summary: Summary, metric: str, field: str, *, kind: Kind = "svg") -> Plot:
    """
    Draw how often each method beats each other one.

    Parameters
    ----------
    summary : Summary
        The figures.
    metric, field : str
        Of a `Win` of the summary.
    kind : {"svg", "png"}, default "svg"
        The format.

    Returns
    -------
    Plot
        A square of cells; the row's method beats the column's in that share of the images, ties count for neither.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    rates, methods = wins_of(summary)[metric, field], methods_of(summary)
    title = Column(metric, field, "neither", False).title
    count = len(methods)
    with _drawing(92 + 21 * max(count, 4), kind) as (figure, finish):
        axes = figure.add_subplot()
        shown = np.where(np.eye(count, dtype=bool), np.nan, rates)
        axes.grid(visible=False)
        mesh = axes.pcolormesh(np.ma.masked_invalid(shown), cmap="PuOr_r", vmin=0, vmax=1)
        if count <= NUMBERED:
            for (i, j), rate in np.ndenumerate(shown):
                if not np.isnan(rate):
                    color = "#fefefe" if abs(rate - 0.5) > 0.26 else "#101010"  # on the cell, on any page
                    axes.text(
                        j + 0.5, i + 0.5, f"{100 * rate:.0f}", ha="center", va="center", fontsize=7.5, color=color
                    )
        places = np.arange(count) + 0.5
        rows = [f"{_short(method_title(m))}  {i}" for i, m in enumerate(methods, 1)]
        turned = 90 if count > NUMBERED else 0
        axes.set_xticks(places, [str(i) for i in range(1, count + 1)], rotation=turned, fontsize=7.5 if turned else 9)
        axes.set_yticks(places, rows)
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.7, aspect=30, pad=0.02, ticks=[0, 0.5, 1])
        bar.ax.set_xticklabels(["0", "50", "100 %"])
        bar.outline.set_visible(False)
        _title(axes, f"{title}: row beats column")
    return finish(
        f"Share of images where one method beats another by {title}, {count} by {count}; the table has the numbers"
    )


def scatter(summary: Summary, across: Column, up: Column, *, kind: Kind = "svg") -> Plot:
    """
    Draw one field against another, one mark a method.

    Parameters
    ----------
    summary : Summary
        The figures.
    across, up : Column
        Which fields.
    kind : {"svg", "png"}, default "svg"
        The format.

    Returns
    -------
    Plot
        Marks with both intervals.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    there = {(f.method, f.metric, f.field): f for f in summary.figures}
    look = looks(methods_of(summary))
    both = [
        (m, there[m, across.metric, across.field], there[m, up.metric, up.field])
        for m in methods_of(summary)
        if (m, across.metric, across.field) in there and (m, up.metric, up.field) in there
    ]
    a, b = (100 if column.percent else 1 for column in (across, up))
    with _drawing(268 + 17 * -(-len(both) // 2), kind) as (figure, finish):
        axes = figure.add_subplot()
        for method, x, y in both:
            how = look[method]
            axes.plot([a * x.low, a * x.high], [b * y.value] * 2, color=how.color, linewidth=1, alpha=0.7)
            axes.plot([a * x.value] * 2, [b * y.low, b * y.high], color=how.color, linewidth=1, alpha=0.7)
            label = _short(method_title(method))
            axes.plot(a * x.value, b * y.value, how.mark, color=how.color, markersize=6.5, label=label)
        axes.set_xlabel(across.head)
        axes.set_ylabel(up.head)
        _title(axes, f"{up.title} against {across.title}")
        _legend(figure, axes)
    told = ", ".join(
        f"{method_title(m)} ({written(x.value, percent=across.percent)}, {written(y.value, percent=up.percent)})"
        for m, x, y in both
    )
    return finish(f"{up.head} against {across.head}: {told}")


def breakdown(parts: Mapping[str, Mapping[str, float]], whole: str, title: str, *, kind: Kind = "svg") -> Plot:
    """
    Draw a mean of several parts, and the parts, one row a method.

    Parameters
    ----------
    parts : mapping of str to mapping of str to float
        By method, then by part, in [0, 1]; the mean among them.
    whole : str
        Which of the parts is the mean.
    title : str
        What is drawn.
    kind : {"svg", "png"}, default "svg"
        The format.

    Returns
    -------
    Plot
        Small marks for the parts, a large one for the mean, which lies between them.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    methods = list(parts)
    names = list(dict.fromkeys(name for values in parts.values() for name in values))
    with _drawing(42 + 21 * len(methods) + 24 + 17 * -(-len(names) // 2), kind) as (figure, finish):
        axes = figure.add_subplot()
        rows = np.arange(len(methods))
        for row, method in enumerate(methods):
            axes.plot([min(parts[method].values()), max(parts[method].values())], [row, row], color=FAINT, linewidth=1)
        for i, name in enumerate([*(name for name in names if name != whole), whole]):
            values = [parts[method].get(name, np.nan) for method in methods]
            big = name == whole
            color = INK if big else PALETTE[i % len(PALETTE)]
            axes.plot(values, rows, "D" if big else MARKS[i], color=color, markersize=7 if big else 5.5, label=name)
        axes.set_xlim(-0.03, 1.03)
        _rows(axes, methods)
        _title(axes, title)
        _legend(figure, axes)
    told = "; ".join(
        f"{method_title(m)}: {', '.join(f'{name} {written(value)}' for name, value in parts[m].items())}"
        for m in methods
    )
    return finish(f"{title}. {told}")


class _Finish:
    """Makes the `Plot` once the figure is drawn: ``finish(alt)``."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.data = size, b""

    def __call__(self, alt: str) -> Plot:
        """Return the plot."""
        return Plot(self.data, self.size, alt)


@contextmanager
def _drawing(height: int, kind: Kind) -> Iterator[tuple[Figure, _Finish]]:
    """Give a figure to draw on, in our style whatever the user's is; it is written when the block ends."""
    if kind not in ("svg", "png"):
        raise MethodError(f"a drawing is svg or png; got {kind!r}")
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawings need matplotlib: pip install 'camrt[eval]'") from error
    finish = _Finish((WIDTH, height))
    with matplotlib.style.context(["default", dict(STYLE)]):
        figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, layout="constrained")
        yield figure, finish
        file = io.BytesIO()
        if kind == "png":
            figure.savefig(file, format="png", dpi=2 * DPI, metadata={"Software": None})
        else:
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    finish.data = file.getvalue() if kind == "png" else _following(file.getvalue())


def _following(svg: bytes) -> bytes:
    """Let a drawing turn dark where the page it stands on does."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    style = f'<style type="text/css">@media (prefers-color-scheme: dark){{{rules}}}</style>'.encode()
    head, tag, rest = svg.partition(b"<defs>")
    return head + style + tag + rest


def _short(name: str) -> str:
    """Leave out the middle of a name that would push the drawing aside; variants differ at the end."""
    half = LETTERS // 2
    return name if len(name) <= LETTERS else f"{name[:half].rstrip()}…{name[-half:].lstrip()}"


def _rows(axes: Axes, methods: Sequence[str]) -> None:
    """Name the rows of a drawing, the first at the top."""
    axes.set_yticks(range(len(methods)), [_short(method_title(m)) for m in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _title(axes: Axes, text: str) -> None:
    """Write the title over the whole width, in as many lines as it needs."""
    figure = axes.get_figure()
    assert figure is not None
    figure.suptitle("\n".join(textwrap.wrap(text, 46)) or " ", x=0.02, ha="left", fontsize=10.5, fontweight="bold")


def _legend(figure: Figure, axes: Axes) -> None:
    """Name the methods below the drawing, in two columns."""
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, handlelength=2.6, columnspacing=1
    )
