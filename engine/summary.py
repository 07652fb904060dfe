"""
What an evaluation found: means over images with bootstrap intervals, and how often one method beats another.

The rows of a `Run` and the metrics that were chosen go in; figures come out, one for each method and field. A field is the
mean of its column over images, or what the metric's `overall` makes of several means. Columns are ``<name>`` and
``<name>.<field>``, the name being that of the choice; `overall` sees the metric's own id in its place.

Intervals are percentile bootstrap intervals (Efron and Tibshirani 1993, section 13.3): images are drawn with replacement,
the same draws for every method. A draw is a row of counts, how often each image was drawn, so all resampled means of a
method are one product of counts and values; `overall` is applied to each resample, so that the interval of a harmonic mean
or of a best threshold needs no formula of its own. Rows are read in groups of shards: memory does not grow with curves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import InputError, ShapeError
from .metrics.table import Better, Field, Metric
from .parquet import arrow
from .resampling import COUNTS, Counts, Floats, Group, Spread, draws, interval, means, spread, win_rates
from .shards import Run

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Chosen", "Curve", "Figure", "Summary", "Win", "summarise"]

CLASS, DEGENERATE = "class", "degenerate"  # columns that no metric brings
GROUP = 1024  # images read at a time: 16 MB of counts as float64 for 2000 resamples


class Chosen(Protocol):
    """A metric, its variant and its options, under the name that columns have: a `camrt.choices.Choice`."""

    @property
    def name(self) -> str:
        """The name of its columns."""

    @property
    def row(self) -> Metric:
        """The row of the table of metrics."""

    @property
    def variant(self) -> str:
        """The variant."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Every option."""


@dataclass(frozen=True)
class Figure:
    """
    One number of a table.

    Attributes
    ----------
    method, metric, field : str
        Names: the method's, the choice's, and the field's within its metric.
    value, low, high : float
        The mean, or what `overall` made of means, and the ends of its interval.
    n : int
        Images that have a value.
    std : float or None
        Standard deviation over images, with n - 1; None for one image and for a field that is no mean.
    better : {"higher", "lower", "neither"}
        Which way is better.
    percent : bool
        Whether tables print it times 100.
    """

    method: str
    metric: str
    field: str
    value: float
    low: float
    high: float
    n: int
    std: float | None
    better: Better
    percent: bool


@dataclass(frozen=True)
class Win:
    """
    How often one method beats another on the same image.

    Attributes
    ----------
    metric, field : str
        By what.
    first, second : str
        The methods.
    share : float
        Share of images on which the first is strictly better; a tie is nobody's.
    n : int
        Images on which both have a value.
    """

    metric: str
    field: str
    first: str
    second: str
    share: float
    n: int


@dataclass(frozen=True)
class Curve:
    """
    A column of curves, averaged over images point by point.

    Attributes
    ----------
    method, metric, name : str
        Names: the method's, the choice's, and the curve's by the metric's id, as ``insertion.curve``.
    mean, low, high : tuple of float
        The mean at each point and the ends of its interval.
    n : int
        Images that have one.
    """

    method: str
    metric: str
    name: str
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int


@dataclass(frozen=True)
class Summary:
    """
    Every figure of an evaluation.

    Attributes
    ----------
    figures : tuple of Figure
        By method, metric and field; each method's ``degenerate_rate`` last.
    wins : tuple of Win
        For each field that has a better way, each ordered pair of methods.
    curves : tuple of Curve
        By method and metric.
    images : int
        Images with rows.
    resamples, seed : int
        Of the bootstrap.
    level : float
        Of the intervals.
    """

    figures: tuple[Figure, ...]
    wins: tuple[Win, ...]
    curves: tuple[Curve, ...]
    images: int
    resamples: int
    seed: int
    level: float

    def to_dict(self) -> dict[str, Any]:
        """
        Return the summary as JSON can hold it.

        Returns
        -------
        dict
            The attributes by name; figures, wins and curves are dicts likewise.
        """
        return dataclasses.asdict(self)


def summarise(
    rows: Run | pa.Table,
    metrics: Sequence[Chosen],
    methods: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Summary:
    """
    Average the rows of an evaluation.

    Parameters
    ----------
    rows : Run or pyarrow.Table
        The evaluation, or its `Run.table`. A `Run` is read in groups of shards, so that memory does not grow with curves; of
        one that is not finished, what is there counts.
    metrics : sequence of Chosen
        What was measured.
    methods : sequence of str, optional
        Which methods, in which order; all, by name, where None.
    resamples : int, default 2000
        Of the bootstrap.
    level : float, default 0.95
        Share of resamples inside an interval.
    seed : int, default 0
        Of the draws.

    Returns
    -------
    Summary
        The figures. A field without a single value, for example where a method lacks the metric, has none. An image whose
        column ``<name>.counts`` is 0 has no value of that metric.

    Raises
    ------
    InputError
        If there are no rows, or `resamples` or `level` are out of range.

    Notes
    -----
    Cost: ``resamples * images`` multiplications for each number of a method's row, at most 100 MB for the draws and some
    tens for what is read; two passes over the rows.
    """
    if resamples < 1 or not 0 < level < 1:
        raise InputError(f"a bootstrap needs 1 resample and a level inside (0, 1); got {resamples} and {level}")
    source = _Source(rows)
    images = source.images()
    if not len(images):
        raise InputError("there are no rows to summarise; run the evaluation, or give one that has rows")
    names = source.methods() if methods is None else list(methods)
    draw = _drawing(len(images), resamples, seed)
    figures: list[Figure] = []
    curves: list[Curve] = []
    for name in names:
        columns = _columns(source.schema(name), metrics)
        found, drawn = _measured(source, name, columns, images, draw, level)
        figures += found
        curves += drawn
    wins = _wins(source, names, metrics, images)
    return Summary(tuple(figures), tuple(wins), tuple(curves), len(images), resamples, seed, level)


@dataclass(frozen=True)
class _Source:
    """Rows on the disk or in memory, read alike."""

    rows: Run | pa.Table

    def images(self) -> npt.NDArray[np.int64]:
        """Return the index of every image that has a row."""
        table = self.rows.table([]) if isinstance(self.rows, Run) else self.rows
        found: npt.NDArray[np.int64] = np.unique(table["index"].to_numpy())
        return found

    def methods(self) -> list[str]:
        """Return every method that has rows."""
        return self.rows.methods if isinstance(self.rows, Run) else sorted(set(self.rows["method"].to_pylist()))

    def schema(self, method: str | None) -> list[str]:
        """Return the columns of a method, or of all."""
        return list(self.rows.schema(method).names if isinstance(self.rows, Run) else self.rows.column_names)

    def groups(self, columns: Sequence[str], method: str | None = None) -> Iterator[pa.Table]:
        """Yield the rows of some images at a time, every row of an image together, sorted by index."""
        if isinstance(self.rows, Run):
            done, step = self.rows.done(), -(-GROUP // self.rows.shard_size)
            for start in range(0, len(done), step):
                yield self.rows.table(columns, method, done[start : start + step])
            return
        table = self.rows.select(["index", "method", *columns])
        if method is not None:
            table = table.filter(arrow().compute.equal(table["method"], method))
        table = table.sort_by("index")
        index = table["index"].to_numpy()
        starts = np.searchsorted(index, np.unique(index)[::GROUP])
        for start, stop in zip(starts, [*starts[1:], len(index)], strict=True):
            yield table.slice(int(start), int(stop - start))


@dataclass(frozen=True)
class _Column:
    """A column of a metric; `key` has the metric's id in place of the choice's name, `counts` says which images have it."""

    name: str
    key: str
    choice: Chosen
    counts: str | None

    def read(self, table: pa.Table) -> Floats:
        """Return its values, (N,) or (N, P), NaN where there is none."""
        pa = arrow()
        column = table[self.name].combine_chunks()
        if pa.types.is_list(column.type):
            lengths = set(pa.compute.list_value_length(column.drop_null()).to_pylist())
            if len(lengths) > 1:
                raise ShapeError(
                    f"the curves {self.name!r} differ in length: {sorted(lengths)}; a mean needs equal ones"
                )
            values = np.full((len(column), *(lengths or {1})), np.nan)
            values[column.is_valid().to_numpy(zero_copy_only=False)] = (
                pa.compute.list_flatten(column).to_numpy().reshape(-1, values.shape[1])
            )
        else:
            values = np.array(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
        if self.counts is not None:
            values[table[self.counts].to_numpy() == 0] = np.nan
        return values


@dataclass(frozen=True)
class _Rate:
    """The share of constant maps, as if a metric had measured it."""

    name: str = "degenerate_rate"
    row: Metric = dataclasses.field(
        default_factory=lambda: Metric(
            id="degenerate_rate",
            title="Degenerate maps",
            paper="",
            settings="",
            fields=(Field("degenerate_rate", "neither", 0, 1, "share of maps that are constant", percent=True),),
            variants=("",),
            values=lambda _case: {},
        )
    )
    variant: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _columns(names: Sequence[str], metrics: Sequence[Chosen]) -> list[_Column]:
    """Find the columns of every metric, in the order of metrics; where two names fit, the longer one has it."""
    owner: dict[str, Chosen] = {}
    for choice in sorted(metrics, key=lambda choice: len(choice.name)):
        owner |= {name: choice for name in names if name == choice.name or name.startswith(f"{choice.name}.")}
    found = [
        _Column(
            name,
            choice.row.id + name[len(choice.name) :],
            choice,
            counts if (counts := f"{choice.name}.counts") in owner else None,
        )
        for choice in metrics
        for name in names
        if owner.get(name) is choice
    ]
    if DEGENERATE in names:
        rate = _Rate()
        found.append(_Column(DEGENERATE, rate.row.id, rate, None))
    return found


def _drawing(images: int, resamples: int, seed: int) -> Callable[[], Iterator[Counts]]:
    """Return what yields the draws, time and again: kept where they fit, drawn anew where they do not."""
    if images * resamples <= COUNTS:
        kept = list(draws(images, resamples, seed))
        return lambda: iter(kept)
    return lambda: draws(images, resamples, seed)


def _measured(
    source: _Source,
    method: str,
    columns: Sequence[_Column],
    images: npt.NDArray[np.int64],
    draw: Callable[[], Iterator[Counts]],
    level: float,
) -> tuple[list[Figure], list[Curve]]:
    """Return the figures and curves of one method."""

    classed = any(column.choice.row.by_class for column in columns)
    needed = [*dict.fromkeys(name for column in columns for name in (column.name, column.counts) if name)]

    def groups() -> Iterator[Group]:
        for table in source.groups([*needed, *([CLASS] if classed else [])], method):
            yield Group(
                np.searchsorted(images, table["index"].to_numpy()),
                table[CLASS].to_numpy() if classed else np.zeros(len(table), np.int64),
                {column.name: column.read(table) for column in columns},
            )

    spreads = spread(groups())
    columns = [column for column in columns if column.name in spreads]
    by_class = {column.name for column in columns if column.choice.row.by_class}
    chosen = list({column.choice.name: column.choice for column in columns}.values())
    whole = means(groups(), np.ones((1, len(images)), np.uint8), spreads, by_class)
    point = {choice.name: _overall(choice, columns, whole) for choice in chosen}
    parts: dict[str, list[Mapping[str, Floats]]] = {choice.name: [] for choice in chosen}
    for counts in draw():
        drawn = means(groups(), counts, spreads, by_class)
        for choice in chosen:
            parts[choice.name].append(_overall(choice, columns, drawn))
    figures: list[Figure] = []
    curves: list[Curve] = []
    for choice in chosen:
        of = {column.key: spreads[column.name] for column in columns if column.choice is choice}
        fields = {field.name: field for field in choice.row.fields_of(choice.variant)}
        for name in sorted(point[choice.name], key=[*fields, *of].index):
            value = point[choice.name][name][0]
            low, high = interval(np.concatenate([part[name] for part in parts[choice.name]]), level)
            about = of.get(name, Spread(max(one.n for one in of.values()), value, value))
            if name not in fields:
                curves.append(Curve(method, choice.name, name, _numbers(value), _numbers(low), _numbers(high), about.n))
            elif not choice.row.pairwise:
                field = fields[name]
                figures.append(
                    Figure(
                        method,
                        choice.name,
                        name,
                        float(value),
                        float(low),
                        float(high),
                        about.n,
                        about.std,
                        field.better,
                        field.percent,
                    )
                )
    return figures, curves


def _numbers(values: Floats) -> tuple[float, ...]:
    """Return an array as plain numbers."""
    return tuple(values.tolist())


def _overall(choice: Chosen, columns: Sequence[_Column], averages: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return a metric's fields, and its curves where they are not only what `overall` needs."""
    given = {column.key: averages[column.name] for column in columns if column.choice is choice}
    row = choice.row
    found = given if row.overall is None else row.overall(given, variant=choice.variant, **choice.options)
    fields = {field.name for field in row.fields_of(choice.variant)}
    return {
        name: np.asarray(values, np.float64)
        for name, values in found.items()
        if name in fields or (row.overall is None and np.ndim(values) == 2)
    }


def _wins(
    source: _Source, methods: Sequence[str], metrics: Sequence[Chosen], images: npt.NDArray[np.int64]
) -> list[Win]:
    """Compare each two methods on each image, by each field that an image has and that has a better way."""
    columns = {column.name: column for column in _columns(source.schema(None), metrics)}
    ways: dict[tuple[str, str], tuple[_Column, Better]] = {}
    for choice in metrics:
        for field in choice.row.fields_of(choice.variant):
            column = columns.get(choice.name + field.name[len(choice.row.id) :])
            if column is not None and column.choice is choice and field.better != "neither":
                ways[choice.name, field.name] = column, "lower" if choice.row.pairwise else field.better
    tally = {way: np.zeros((2, len(methods), len(methods)), np.int64) for way in ways}
    place = {method: number for number, method in enumerate(methods)}
    needed = dict.fromkeys(name for column, _ in ways.values() for name in (column.name, column.counts) if name)
    for table in source.groups(list(needed)) if ways and len(methods) > 1 else ():
        rows = np.array([place.get(method, -1) for method in table["method"].to_pylist()])
        at = np.searchsorted(images, table["index"].to_numpy())
        at -= at.min(initial=len(images))
        for way, (column, better) in ways.items():
            read = column.read(table)
            values = np.full((len(methods), at.max(initial=0) + 1), np.nan)
            values[rows[rows >= 0], at[rows >= 0]] = read[rows >= 0]
            tally[way] += np.stack(win_rates(values, better))
    return [
        Win(metric, field, first, second, float(wins[i, j] / both[i, j]), int(both[i, j]))
        for (metric, field), (wins, both) in tally.items()
        for i, first in enumerate(methods)
        for j, second in enumerate(methods)
        if i != j and both[i, j]
    ]
