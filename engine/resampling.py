"""
Averages over images that are drawn again and again, without holding the images.

Groups of rows come one after another; out come how columns spread, and the mean of every column in every draw. A draw is a
row of counts, how often each image was drawn, so that a group adds one product of counts and values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ShapeError
from .metrics.table import Better

__all__ = ["Group", "Spread", "draws", "interval", "means", "spread", "win_rates"]

Floats: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.uint8]

COUNTS = 100_000_000  # bytes of counts held at a time: 2000 resamples of 50,000 images


@dataclass(frozen=True)
class Group:
    """
    Rows of some images.

    Attributes
    ----------
    places : ndarray of int, shape (N,)
        Where each stands among all images: its column of the counts.
    classes : ndarray of int64, shape (N,)
        Classes, for columns that are averaged over them.
    values : mapping of str to ndarray of float64
        Columns, (N,) or (N, P); NaN where an image has no value.
    """

    places: npt.NDArray[np.intp]
    classes: npt.NDArray[np.int64]
    values: Mapping[str, Floats]


@dataclass(frozen=True)
class Spread:
    """
    How a column spreads over images.

    Attributes
    ----------
    n : int
        Images that have a value.
    least, most : ndarray of float64
        The least and the greatest value, at each point.
    std : float or None
        Standard deviation, with n - 1; None for curves and for one image.
    """

    n: int
    least: Floats
    most: Floats
    std: float | None = None


def draws(images: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """
    Draw images with replacement, and count how often each is drawn.

    Parameters
    ----------
    images : int
        How many there are, and are drawn each time.
    resamples : int
        How many times.
    seed : int
        Of the generator; the same draws each time.

    Yields
    ------
    ndarray of uint8, shape (R, images)
        Counts, each row the sum `images`; as many rows at a time as 100 MB hold. A count of 256 is beyond all chance.
    """
    rng = np.random.default_rng(seed)
    most = max(1, COUNTS // images)
    for start in range(0, resamples, most):
        counts = np.empty((min(most, resamples - start), images), np.uint8)
        for row in counts:
            row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
        yield counts


def interval(samples: Floats, level: float) -> tuple[Floats, Floats]:
    """
    Return the ends of a percentile interval.

    Parameters
    ----------
    samples : ndarray of float64, shape (R, ...)
        A statistic of each resample; NaN where a resample has none, which are left out.
    level : float
        Share of the samples inside.

    Returns
    -------
    low, high : ndarray of float64, shape (...)
        The quantiles, interpolated; NaN where no sample is a number.
    """
    samples = np.asarray(samples, np.float64)
    none = np.isnan(samples).all(axis=0)
    filled = np.where(none, 0.0, samples)
    ends = (np.nanquantile if np.isnan(filled).any() else np.quantile)(
        filled, [(1 - level) / 2, (1 + level) / 2], axis=0
    )
    low, high = np.where(none, np.nan, ends)
    return low, high


def win_rates(values: Floats, better: Better) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """
    Count on how many images each method is strictly better than each other one.

    Parameters
    ----------
    values : ndarray of float64, shape (M, N)
        One value a method and image; NaN where there is none.
    better : {"higher", "lower"}
        Which way is better.

    Returns
    -------
    wins : ndarray of int64, shape (M, M)
        Images on which the row's method is better than the column's; a tie is nobody's.
    both : ndarray of int64, shape (M, M)
        Images on which both have a value.
    """
    first, second = values[:, None], values[None, :]
    wins = first > second if better == "higher" else first < second
    there = ~np.isnan(values)
    return wins.sum(axis=2), (there[:, None] & there[None, :]).sum(axis=2)


def spread(groups: Iterable[Group]) -> dict[str, Spread]:
    """
    Measure how columns spread.

    Parameters
    ----------
    groups : iterable of Group
        All rows.

    Returns
    -------
    dict of str to Spread
        By column; one without any value is left out.

    Raises
    ------
    ShapeError
        If a column's curves differ in length.
    """
    numbers: dict[str, list[Floats]] = {}
    found: dict[str, Spread] = {}
    for group in groups:
        for name, values in group.values.items():
            there = values[~np.isnan(values.reshape(len(values), -1)).any(axis=1)]
            if not len(there):
                continue
            if there.ndim == 1:
                numbers.setdefault(name, []).append(there)
            before = found.get(name, Spread(0, there[0], there[0]))
            if before.least.shape != there.shape[1:]:
                raise ShapeError(
                    f"the curves {name!r} differ in length, {before.least.shape} and {there.shape[1:]}; a mean needs one"
                )
            least, most = np.minimum(before.least, there.min(axis=0)), np.maximum(before.most, there.max(axis=0))
            found[name] = Spread(before.n + len(there), least, most)
    for name, parts in numbers.items():
        values = np.concatenate(parts)
        if len(values) > 1:  # less the first: zero to the bit for a constant
            found[name] = replace(found[name], std=float(np.std(values - values[0], ddof=1)))
    return found


def means(
    groups: Iterable[Group], counts: Counts, spreads: Mapping[str, Spread], by_class: Collection[str] = ()
) -> dict[str, Floats]:
    """
    Average columns in every draw.

    Parameters
    ----------
    groups : iterable of Group
        All rows.
    counts : ndarray of uint8, shape (R, images)
        How often each image was drawn; ones for the plain mean.
    spreads : mapping of str to Spread
        The columns to average, as `spread` found them.
    by_class : collection of str, optional
        Those that are averaged over the images of each class first, then over classes.

    Returns
    -------
    dict of str to ndarray of float64, shape (R,) or (R, P)
        The means; NaN where a draw has no image with a value. None lies outside the column's least and greatest value, so
        that rounding does not move the mean of a constant.
    """
    kinds = {kind: [name for name in spreads if (name in by_class) is kind] for kind in (False, True)}
    sums: dict[bool, dict[int, tuple[Any, Any]]] = {False: {}, True: {}}
    for group in groups:
        weights = counts[:, group.places].astype(np.float64)
        for kind, names in kinds.items():
            if not names:
                continue
            values = np.concatenate([_flat(group.values[name], spreads[name]) for name in names], axis=1)
            there = ~np.isnan(values)
            filled = np.where(there, values, 0.0)
            for label in np.unique(group.classes).tolist() if kind else [0]:
                rows = group.classes == label if kind else slice(None)
                w, here = weights[:, rows], there[rows]
                total, weight = sums[kind].get(label, (0.0, 0.0))
                some = w.sum(axis=1, keepdims=True) if here.all() else w @ here.astype(np.float64)
                sums[kind][label] = total + w @ filled[rows], weight + some
    found: dict[str, Floats] = {}
    for kind, names in kinds.items():
        if names:
            ends = np.cumsum([spreads[name].least.size for name in names])
            parts = np.split(_mean_of_means(sums[kind].values()), ends[:-1], axis=1)
            for name, part in zip(names, parts, strict=True):
                of = spreads[name]
                found[name] = np.clip(part.reshape(len(counts), *of.least.shape), of.least, of.most)
    return found


def _flat(values: Floats, of: Spread) -> Floats:
    """Return a column as a matrix; one without a value in this group may not know how long its curves are."""
    return (
        values.reshape(len(values), -1)
        if values.shape[1:] == of.least.shape
        else np.full((len(values), of.least.size), np.nan)
    )


def _mean_of_means(sums: Iterable[tuple[Floats, Floats]]) -> Floats:
    """Divide sums by weights, then average over those that have any weight."""
    total, number = np.zeros(()), np.zeros(())
    for values, weights in sums:
        there = np.broadcast_to(weights > 0, values.shape)
        total = total + np.divide(values, weights, out=np.zeros_like(values), where=there)
        number = number + there
    mean: Floats = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return mean
