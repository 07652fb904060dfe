"""
From changes to pixels: each changed picture is written straight into its row of a chunk.

In: the inputs of a batch, the maps of one or more methods, and rows, each a change of one picture by one map. Out: a
filled buffer. What rows share is made once a batch: the order of a map's pixels, a blurred picture. One small function a
kind of change, found in one table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt import kernels

from ..device import on_host
from ..methods.arrays import namespace
from ..noise import standard_normal
from .changes import Change, Clean, Cropped, Imputed, Masked, Order, Shifted, Substrate, Swapped, Whole
from .cropping import crop_and_resize, largest_box
from .model import Model, hidden_of
from .shifting import channel_mean, shift_of

__all__ = ["Pictures", "Row"]

Array = npt.NDArray[Any]
MOST_THREADS = 8  # that draw noise
EXACT, UNDER_NOISE = 2e-5, 1e-4  # errors of imputed pixels, in shares of the range; ROAD's noise is 0.01 of white


@dataclass(frozen=True)
class Row:
    """
    One changed picture.

    Attributes
    ----------
    change : Change
        How it is changed.
    image : int
        Which picture of the batch.
    method : int
        By which maps; 0 for changes that no map has a part in.
    """

    change: Change
    image: int
    method: int = 0


@dataclass(frozen=True, eq=False)
class Pictures:
    """
    A batch, the maps of its methods, and what rows share.

    Attributes
    ----------
    x : ndarray, shape (N, ...)
        Inputs, on the host or a device.
    heats : sequence of ndarray, shape (N, H, W)
        One entry a method, where `x` lies.
    ids : ndarray of uint64, shape (N,)
        Content hashes of the inputs.
    model : Model
        Layout, black and units of the inputs.
    mask_space : {"normalised", "raw"}
        What ``Substrate("hidden")`` is.
    shift_means : dict of (Change, int) to ndarray, shape (H, W)
        Of noise that was taken away from a picture, the mean over channels; metrics that multiply it by maps need no second
        draw.
    """

    x: Array
    heats: Sequence[Array]
    ids: npt.NDArray[np.uint64]
    model: Model
    mask_space: str = "normalised"
    shift_means: dict[tuple[Change, int], Array] = field(default_factory=dict)
    _ranks: dict[tuple[int, Order], Array] = field(default_factory=dict)
    _substrates: dict[Substrate, Array] = field(default_factory=dict)

    @cached_property
    def host(self) -> Array:
        """The inputs on the host; for changes that are made there."""
        return on_host(self.x)

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """The threads that draw noise, each that of one row, without the interpreter's lock; they end with this object."""
        return ThreadPoolExecutor(min(MOST_THREADS, self.model.threads or os.cpu_count() or 1), "camrt-noise")

    def fill(self, buffer: Array, rows: Sequence[Row]) -> None:
        """
        Write rows into a buffer.

        Parameters
        ----------
        buffer : ndarray, shape (B, ...)
            As `x` but for its length; written in place.
        rows : sequence of Row
            B of them.

        Raises
        ------
        NumericError
            If imputation does not converge.

        Notes
        -----
        Cost: neighbouring rows of one kind of change take one call of a kernel.
        """
        place = 0
        for kind, group in groupby(rows, key=lambda row: type(row.change)):
            part = list(group)
            _FILLERS[kind](self, buffer[place : place + len(part)], part)
            place += len(part)

    def of(self, change: Change, method: int = 0) -> Array:
        """
        Return the whole batch, changed.

        Parameters
        ----------
        change : Change
            How.
        method : int
            By which maps.

        Returns
        -------
        ndarray, shape of `x`
            The changed pictures.
        """
        changed: Array = namespace(self.x).empty_like(self.x)
        self.fill(changed, [Row(change, i, method) for i in range(len(self.x))])
        return changed

    def substrate(self, substrate: Substrate) -> Array:
        """
        Return what shows where pixels are taken away.

        Parameters
        ----------
        substrate : Substrate
            What.

        Returns
        -------
        ndarray
            Broadcastable to `x`.
        """
        if substrate not in self._substrates:
            self._substrates[substrate] = _made(self, substrate)
        return self._substrates[substrate]

    def is_zero(self, substrate: Substrate) -> bool:
        """
        Tell whether a substrate is zero everywhere, so that nothing of it has to be added.

        Parameters
        ----------
        substrate : Substrate
            What.

        Returns
        -------
        bool
            Whether it is the mean colour, zero after preprocessing.
        """
        return substrate.kind == "grey" or (substrate.kind == "hidden" and self.mask_space == "normalised")

    def ranks(self, method: int, order: Order) -> Array:
        """
        Return each pixel's place in a map's order.

        Parameters
        ----------
        method : int
            Whose map.
        order : Order
            Which come first.

        Returns
        -------
        ndarray of int32, shape (N, H, W)
            From 0; of patches, the place of the pixel's patch.
        """
        key = (method, order)
        if key not in self._ranks:
            self._ranks[key] = ranks_of(self.heats[method], order, self.ids)
        return self._ranks[key]


def ranks_of(heat: Array, order: Order, ids: npt.NDArray[np.uint64]) -> Array:
    """
    Return each pixel's place in the order of its map.

    Parameters
    ----------
    heat : ndarray of float, shape (N, H, W)
        Maps.
    order : Order
        Which come first.
    ids : ndarray of uint64, shape (N,)
        Content hashes; ties and jitter depend on them.

    Returns
    -------
    ndarray of int32, shape (N, H, W)
        Places from 0.
    """
    if order.jitter:
        noise = np.stack([standard_normal(heat.shape[1:], order.seed or 0, 1, int(image)) for image in ids])
        heat = heat + namespace(heat).asarray(np.float32(order.jitter) * noise)
    if order.patch > 1:
        ranks: Array = kernels.patch_ranks(heat, order.patch, order.overlap, descending=order.descending)
        return ranks
    if order.seed is None or order.jitter:
        plain: Array = kernels.pixel_ranks(heat, descending=order.descending)
        return plain
    shuffles = np.stack([_shuffle(heat[0].size, order.seed, int(image)) for image in ids])
    places = namespace(heat).asarray(shuffles)
    flat = heat.reshape(len(heat), -1)
    mixed = namespace(heat).take_along_axis(flat, places, 1).reshape(heat.shape)
    found = kernels.pixel_ranks(mixed, descending=order.descending).reshape(flat.shape)
    back = namespace(heat).empty_like(found)
    namespace(heat).put_along_axis(back, places, found, 1)
    ordered: Array = back.reshape(heat.shape)
    return ordered


def _shuffle(n: int, *words: int) -> Array:
    """Return a permutation that depends on some numbers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((2, *words)))).permutation(n)


def _made(pictures: Pictures, substrate: Substrate) -> Array:
    """Make a substrate."""
    x, model = pictures.x, pictures.model
    axes = (1, 2) if model.channels_last else (2, 3)
    layout: Any = "channels_last" if model.channels_last else "channels_first"
    if substrate.kind == "hidden":
        return hidden_of(model, pictures.mask_space, x)
    if substrate.kind == "grey":
        return model.constant((0.0,), x)
    if substrate.kind == "black":
        return model.constant(model.black, x)
    real = x.astype(np.float32) if x.dtype.kind != "f" else x
    if substrate.kind == "mean":
        return _typed(real.mean(axes, keepdims=True, dtype=np.float64), x)
    if substrate.kind == "minimum":
        return _typed(real.min((1, 2, 3), keepdims=True), x)
    if substrate.kind == "gaussian":
        return _typed(kernels.gaussian_blur(real, substrate.size, substrate.sigma, layout=layout), x)
    if substrate.kind == "rise":
        return _typed(kernels.rise_blur(real, substrate.size, substrate.sigma, layout=layout), x)
    return _typed(kernels.box_blur(real, substrate.size, layout=layout), x)


def _typed(values: Array, x: Array) -> Array:
    """Return values in the inputs' type; whole numbers are rounded."""
    if x.dtype.kind != "f":
        values = values.round().clip(np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    typed: Array = values.astype(x.dtype, copy=False)
    return typed


def _images(pictures: Pictures, rows: Sequence[Row]) -> Array:
    """Return which picture each row is made of, where the pictures lie."""
    index: Array = namespace(pictures.x).asarray(np.array([row.image for row in rows], np.int64))
    return index


def _fill_clean(pictures: Pictures, buffer: Array, rows: Sequence[Row]) -> None:
    """Write the pictures themselves."""
    for place, row in enumerate(rows):
        buffer[place] = pictures.x[row.image]


def _fill_whole(pictures: Pictures, buffer: Array, rows: Sequence[Row]) -> None:
    """Write substrates alone."""
    for place, row in enumerate(rows):
        assert isinstance(row.change, Whole)
        substrate = pictures.substrate(row.change.substrate)
        buffer[place] = substrate[row.image if len(substrate) > 1 else 0]


def _fill_masked(pictures: Pictures, buffer: Array, rows: Sequence[Row]) -> None:
    """Write pictures times their maps."""

    def how(row: Row) -> tuple[Substrate, bool]:
        assert isinstance(row.change, Masked)
        return row.change.substrate, row.change.inverted

    place = 0
    for (substrate, inverted), group in groupby(rows, key=how):
        part = list(group)
        maps = namespace(pictures.x).stack([pictures.heats[row.method][row.image] for row in part])
        out, which = buffer[place : place + len(part)], _images(pictures, part)
        hidden, last = (
            None if pictures.is_zero(substrate) else pictures.substrate(substrate),
            pictures.model.channels_last,
        )
        kernels.fill_masks(
            out, pictures.x, which, maps, scaling="none", inverted=inverted, hidden=hidden, channels_last=last
        )
        place += len(part)


def _fill_swapped(pictures: Pictures, buffer: Array, rows: Sequence[Row]) -> None:
    """Write pictures with some ranks replaced."""

    def how(row: Row) -> tuple[int, Order, Substrate]:
        assert isinstance(row.change, Swapped)
        return row.method, row.change.order, row.change.substrate

    place, asarray = 0, namespace(pictures.x).asarray
    for (method, order, substrate), group in groupby(rows, key=how):
        part = list(group)
        which = _images(pictures, part)
        start, stop = (
            asarray(np.array([getattr(row.change, at) for row in part], np.int64)) for at in ("start", "stop")
        )
        kernels.fill_swapped(
            buffer[place : place + len(part)],
            pictures.x,
            which,
            pictures.ranks(method, order),
            which,
            start,
            stop,
            pictures.substrate(substrate),
            channels_last=pictures.model.channels_last,
        )
        place += len(part)


def _fill_imputed(pictures: Pictures, buffer: Array, rows: Sequence[Row]) -> None:
    """Write pictures with some pixels told by their neighbours, and noise on those."""

    def noisy(row: Row) -> bool:
        assert isinstance(row.change, Imputed)
        return row.change.sigma > 0

    def draw(row: Row) -> Array:
        return _noise(pictures, row)

    x, place = pictures.x, 0
    real = x if x.dtype.kind == "f" else x.astype(np.float32)
    for has_noise, group in groupby(rows, key=noisy):
        part = list(group)
        missing = namespace(x).stack(
            [pictures.ranks(row.method, row.change.order)[row.image] < row.change.count for row in part]  # type: ignore[union-attr]
        )
        drawn = pictures.pool.map(draw, part) if has_noise else None
        filled = kernels.impute(
            real,
            missing,
            which=_images(pictures, part),
            channels_last=pictures.model.channels_last,
            tolerance=UNDER_NOISE if has_noise else EXACT,
            threads=pictures.model.threads,
        )
        if drawn is not None:
            for picture, holes, noise in zip(filled, missing, drawn, strict=True):
                _add_noise(picture, holes, noise, channels_last=pictures.model.channels_last)
        for picture in filled:
            buffer[place] = _typed(picture, x)
            place += 1


def _noise(pictures: Pictures, row: Row) -> Array:
    """Return the noise (C, n) of the n missing pixels, in raster order, in units of the input."""
    assert isinstance(row.change, Imputed)
    model, change = pictures.model, row.change
    channels = pictures.x.shape[-1 if model.channels_last else 1]
    words = (change.seed, int(pictures.ids[row.image]), change.count, int(change.order.descending))
    noise = standard_normal((channels, change.count), *words)
    noise *= change.sigma * (np.broadcast_to(model.unit, channels)[:, None] if change.unit == "raw" else 1)
    return noise


def _add_noise(picture: Array, missing: Array, noise: Array, *, channels_last: bool) -> None:
    """Add noise to the missing pixels of one picture, in place."""
    xp = namespace(picture)
    planes = xp.moveaxis(picture, -1, 0) if channels_last else picture
    which = missing.reshape(-1).cumsum(dtype=np.int64).reshape(missing.shape) - 1  # of the noise is a pixel's
    spread = xp.asarray(noise, dtype=picture.dtype).take(which, axis=1)  # indexing by a mask would wait for the device
    spread *= missing
    planes += spread


def _fill_shifted(pictures: Pictures, buffer: Array, rows: Sequence[Row]) -> None:
    """Write pictures with noise added or subtracted; several threads draw it, each that of one row, in place on a CPU."""
    x, last = pictures.x, pictures.model.channels_last
    host = pictures.host if any(row.change.kind == "square" for row in rows) else None  # type: ignore[union-attr]
    is_here = isinstance(buffer, np.ndarray) and x.dtype == np.float32

    def draw(row: Row, place: int) -> Array:
        assert isinstance(row.change, Shifted)
        shown, room = None if host is None else host[row.image], buffer[place] if is_here else None
        shift = shift_of(row.change, x.shape[1:], int(pictures.ids[row.image]), shown, channels_last=last, out=room)
        if row.change.sign < 0:
            pictures.shift_means[row.change, row.image] = channel_mean(shift, channels_last=last)
        if room is not None:
            (np.add if row.change.sign > 0 else np.subtract)(x[row.image], shift, out=room)
        return shift

    for place, (row, shift) in enumerate(zip(rows, pictures.pool.map(draw, rows, range(len(rows))), strict=True)):
        assert isinstance(row.change, Shifted)
        if not is_here:
            moved = x[row.image] + row.change.sign * namespace(x).asarray(shift)
            buffer[place] = _typed(moved, x)


def _fill_cropped(pictures: Pictures, buffer: Array, rows: Sequence[Row]) -> None:
    """Write the maps' boxes, resized."""
    last, x = pictures.model.channels_last, pictures.host
    heats = on_host(namespace(pictures.x).stack([pictures.heats[row.method][row.image] for row in rows]))
    crops = [
        crop_and_resize(x[row.image].astype(np.float32, copy=False), largest_box(heat), last)
        for row, heat in zip(rows, heats, strict=True)
    ]
    buffer[:] = namespace(buffer).asarray(_typed(np.stack(crops), x))


_FILLERS: Mapping[type, Callable[[Pictures, Array, Sequence[Row]], None]] = {
    Clean: _fill_clean,
    Whole: _fill_whole,
    Masked: _fill_masked,
    Swapped: _fill_swapped,
    Imputed: _fill_imputed,
    Shifted: _fill_shifted,
    Cropped: _fill_cropped,
}
