"""
What a layer's tail makes of edited activations: one channel set to a value, or all cells but one set to zero.

In: a batch's activations, what goes around the layer, and a way to run the tail program. Out: `Scored`, the logits of
every edit, whatever class is explained. The model before the layer is not run again.

Where global average pooling and one linear layer follow, no row is run at all. With W and b the head's weights, Z the
number of cells and m the channel means::

    channel k set to v           logits - (m_k - v) W_k
    cell u alone, times s        s / Z sum_k A_k(u) W_k + b

W is read from the tail itself (`read_head`), and both lines are compared with it before they are used.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt import kernels
from camrt.export.manifest import Layer
from camrt.kernels import is_cupy

from .device import on_host
from .masks import Scored
from .methods.arrays import namespace

__all__ = ["AGREES", "ALIVE", "GAUSSIAN", "MOST_ROWS", "Heads", "LinearHead", "Tail", "read_head", "rows_within"]

Array = npt.NDArray[Any]
Run = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]

GAUSSIAN = np.outer([1, 2, 1], [1, 2, 1]) / 16  # ReciproCAM's neighbourhood
MOST_ROWS = 128  # rows a run: VGG-16's tail takes 1.37 ms a row at 16, 0.79 at 64, 0.68 at 128, 0.64 at 256
ALIVE = 5  # an operator's input and output, and what ONNX Runtime's arena holds beside them: it grows by doubling
AGREES: Mapping[str, float] = MappingProxyType(  # of the largest logit, by what the model is run in
    {"float32": 1e-5, "twin": 1e-5, "tf32": 5e-3, "float16": 5e-3, "bfloat16": 4e-2}
)  # float32: sums of some thousand terms; the others: ten times what a product's factors round by
TILE = (
    64  # M, N and K of a product: up to M*N*K = 64^3 OpenBLAS uses one thread; several wait for each other where cores
)
# are busy: (49 x 512) @ (512 x 1000) took 0.3 ms on two idle cores and up to 60 on busy ones, 0.9 in tiles on either
_CHECKED = (4, 2)  # channels and cells on which a closed form is compared with the tail


@dataclass(frozen=True, eq=False)
class LinearHead:
    """
    Global average pooling and one linear layer, as numbers.

    Attributes
    ----------
    weight : ndarray of float32, shape (K, C)
        What a channel's mean adds to each logit.
    bias : ndarray of float32, shape (C,)
        The logits of activations of zero.
    """

    weight: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Tail:
    """
    One layer of one batch, and the way from there to the logits.

    Attributes
    ----------
    run : callable
        ``run("tail", feeds)`` returns a mapping that holds ``logits``; the first axis of ``activations.0`` is the rows.
    acts : ndarray of float, shape (N, K, h, w)
        Activations of the layer; edits are made where they lie.
    contexts : mapping of str to ndarray
        ``context.j``: prefix tokens, and what else goes around the layer; for N images.
    logits : ndarray of float32, shape (N, C)
        The model's scores of the clean images, on the host.
    rows : int
        Most rows a run. Results depend on it by float32's rounding alone.
    tokens_first : bool
        Whether the model's tokens lie along the first axis, (T, N, K).
    head : LinearHead, optional
        The closed form, where the layer has one.
    """

    run: Run
    acts: Array
    contexts: Mapping[str, Array]
    logits: Array
    rows: int = MOST_ROWS
    tokens_first: bool = False
    head: LinearHead | None = None

    def ablated_of(self, values: Array, only: Array | None = None) -> Scored:
        """
        Set one channel at a time to a value.

        Parameters
        ----------
        values : ndarray of float, shape (N, K)
            What each channel is set to.
        only : ndarray of bool, shape (N, K), optional
            Which channels; all of them where None.

        Returns
        -------
        Scored
            Logits (N, K, C): the clean logits and what the edit changes, both ends of the change by the tail. So the logits
            of a quantised model stay its own, though its tail is its float twin's. Live where `only` asks.

        Notes
        -----
        Cost: one row of the tail for each channel that the edit changes, and one an image; none with a linear head.
        """
        xp = namespace(self.acts)
        wanted = np.ones(self.acts.shape[:2], bool) if only is None else np.asarray(on_host(only), bool)
        values = np.asarray(on_host(values), self.acts.dtype)
        if self.head is not None:
            change = (on_host(self.acts.mean(axis=(2, 3))) - values).astype(np.float32)
            logits = change[:, :, None] * self.head.weight  # (N, K, C), and the one array of this size
            np.subtract(self.logits[:, None], logits, out=logits)
            return Scored(_blanked(logits, wanted), wanted)
        logits = np.where(wanted[:, :, None], self.logits[:, None], np.float32(0))
        changed = wanted & on_host((self.acts != xp.asarray(values)[:, :, None, None]).any(axis=(2, 3)))
        images = np.flatnonzero(changed.any(axis=1))
        clean = np.zeros_like(self.logits)
        for which, got in self._runs(images, self._copied(images)):
            clean[which] = got
        rows, channels = np.nonzero(changed)
        edits = self._filled(kernels.wipe_channels, rows, channels, values[rows, channels])
        for place, (which, got) in zip(self._parts(len(rows)), self._runs(rows, edits), strict=True):
            logits[which, channels[place]] += got - clean[which]
        return Scored(logits, wanted)

    def cells_of(self, gaussian: bool, only: Array | None = None) -> Scored:
        """
        Keep one cell at a time, and set all others to zero; prefix tokens stay as they are.

        Parameters
        ----------
        gaussian : bool
            Spread the cell's channels over its neighbours, weighted by `GAUSSIAN` and cut off at the borders.
        only : ndarray of bool, shape (N, Z), optional
            Which cells, row by row; all of them where None.

        Returns
        -------
        Scored
            Logits (N, Z, C), live where `only` asks.

        Notes
        -----
        Cost: one row of the tail a cell; a matrix product with a linear head.
        """
        (n, k, h, w), xp = self.acts.shape, namespace(self.acts)
        wanted = np.ones((n, h * w), bool) if only is None else np.asarray(on_host(only), bool)
        if self.head is not None:
            kept = xp.asarray(_inside(h, w) if gaussian else np.ones((h, w)))
            means = (self.acts * (kept / (h * w))).reshape(n, k, h * w).transpose(0, 2, 1)  # (N, Z, K)
            logits = _product(means.astype(np.float32).reshape(-1, k), self.head.weight)
            logits += self.head.bias
            return Scored(_blanked(logits.reshape(n, h * w, -1), wanted), wanted)
        logits = np.zeros((n, h * w, self.logits.shape[1]), np.float32)
        rows, cells = np.nonzero(wanted)
        fill = partial(kernels.keep_cells, kernel=GAUSSIAN if gaussian else None)
        for place, (which, got) in zip(
            self._parts(len(rows)), self._runs(rows, self._filled(fill, rows, cells)), strict=True
        ):
            logits[which, cells[place]] = got
        return Scored(logits, wanted)

    # rows ----------------------------------------------------------------------------------------------------------

    def _parts(self, count: int) -> list[slice]:
        """Cut rows into runs."""
        return [slice(start, min(start + self.rows, count)) for start in range(0, count, self.rows)]

    def _runs(self, which: Array, edits: Iterator[Array]) -> Iterator[tuple[Array, Array]]:
        """Run edited activations with what goes around them; yield the image of each row, and its logits."""
        last, around = np.empty(0, np.int64), dict[str, Array]()
        for place, acts in zip(self._parts(len(which)), edits, strict=True):
            if not np.array_equal(which[place], last):
                last = which[place]
                around = {name: self._taken(array, last) for name, array in self.contexts.items()}
            logits = self.run("tail", {"activations.0": acts, **around})["logits"]
            yield last, np.asarray(on_host(logits), np.float32)

    def _taken(self, context: Array, which: Array) -> Array:
        """Return a context for the rows of a run; images lie along the first axis, or blocks of it, or the second."""
        n = len(self.acts)
        second = context.ndim > 2 and context.shape[1] == n
        if second and (self.tokens_first or context.shape[0] != n):
            return context[:, which]
        blocks = context.reshape(n, -1, *context.shape[1:])[which]
        return blocks.reshape(-1, *context.shape[1:])

    def _copied(self, which: Array) -> Iterator[Array]:
        """Yield images' activations as they are."""
        for place in self._parts(len(which)):
            yield self.acts[which[place]]

    def _filled(self, fill: Callable[..., None], which: Array, *rows: Array) -> Iterator[Array]:
        """Yield edited activations, made by a kernel in one buffer."""
        xp = namespace(self.acts)
        buffer = xp.empty((min(self.rows, len(which)), *self.acts.shape[1:]), self.acts.dtype)
        for place in self._parts(len(which)):
            out = buffer[: len(which[place])]
            fill(out, self.acts, xp.asarray(which[place]), *(xp.asarray(row[place]) for row in rows))
            yield out


def _product(left: Array, right: Array) -> Array:
    """Multiply where `left` lies, and return it on the host; there by this thread alone, in tiles that OpenBLAS does not share."""
    if is_cupy(left):
        return on_host(left @ namespace(left).asarray(right))
    (rows, shared), columns = left.shape, right.shape[1]
    product = np.zeros((rows, columns), left.dtype)
    for i, j in itertools.product(range(0, rows, TILE), range(0, columns, TILE)):
        tile = product[i : i + TILE, j : j + TILE]
        for k in range(0, shared, TILE):
            tile += left[i : i + TILE, k : k + TILE] @ right[k : k + TILE, j : j + TILE]
    return product


def _blanked(logits: Array, wanted: Array) -> Array:
    """Set the rows that nobody asked for to zero, in place."""
    if not wanted.all():
        logits[~wanted] = 0
    return logits


def _inside(h: int, w: int) -> Array:
    """Return how much of `GAUSSIAN` lies inside a grid when it is centred on each cell, (h, w)."""
    padded = np.pad(np.ones((h, w)), 1)
    inside: Array = np.einsum("yxab,ab->yx", np.lib.stride_tricks.sliding_window_view(padded, (3, 3)), GAUSSIAN)
    return inside


def rows_within(limit_bytes: int, acts: Array, contexts: Mapping[str, Array], layers: Sequence[Layer]) -> int:
    """
    Return how many rows of a tail a memory bound allows.

    A row is taken to need what it is fed and `ALIVE` tensors as large as the largest from its layer on.

    Parameters
    ----------
    limit_bytes : int
        What the rows of one run may take, the tail's own tensors included.
    acts : ndarray, shape (N, K, h, w)
        Activations.
    contexts : mapping of str to ndarray
        What goes around them.
    layers : sequence of Layer
        The layer and those behind it.

    Returns
    -------
    int
        At most `MOST_ROWS`; 0 where not even one row fits.
    """
    fed = (acts.nbytes + sum(array.nbytes for array in contexts.values())) // len(acts)
    largest = max(layer.channels * (layer.prefix + layer.grid[0] * layer.grid[1]) for layer in layers)
    return int(min(MOST_ROWS, limit_bytes // (fed + ALIVE * acts.itemsize * largest)))


# linear heads ----------------------------------------------------------------------------------------------------


def read_head(tail: Tail, precision: str = "float32") -> LinearHead | None:
    """
    Read the weights of a layer behind which the graph shows global average pooling and one linear layer.

    One channel at a time is set to one on activations of zero; what that adds to the logits are the channel's weights.
    The closed forms are then compared with the tail on a few channels and cells of the first image.

    Parameters
    ----------
    tail : Tail
        The layer of any batch, without a head.
    precision : str, default "float32"
        What the model is run in, as in `camrt.precision.arrange`.

    Returns
    -------
    LinearHead or None
        None, with a RuntimeWarning, where the closed forms differ from the tail by more than `AGREES` of the largest
        logit: then the tail is to be run.

    Notes
    -----
    Cost: K rows of the tail, as many as one image's ablation takes without a closed form.
    """
    blank = replace(tail, acts=np.zeros_like(tail.acts[:1]), logits=np.zeros_like(tail.logits[:1]))
    weight = blank.ablated_of(np.ones(tail.acts.shape[:2])[:1]).logits[0]  # (K, C)
    ((_, bias),) = blank._runs(np.zeros(1, np.int64), iter([blank.acts]))
    head = LinearHead(weight, bias[0])
    gap = _disagreement(replace(tail, acts=tail.acts[:1], logits=tail.logits[:1]), head)
    if gap <= AGREES[precision]:
        return head
    warnings.warn(
        f"the head behind this layer looks linear in the graph, but the closed form differs from its run by {gap:.1e} of "
        "the largest logit: every edit is run instead, which is slower and as exact",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


def _disagreement(tail: Tail, head: LinearHead) -> float:
    """Compare the closed forms with the tail on one image; relative to its largest logit."""
    channels, cells = _CHECKED
    size = np.abs(tail.acts)
    some_channels = _largest(size.sum(axis=(2, 3)), channels)  # what is dead proves nothing
    some_cells = _largest(size.sum(axis=1).reshape(1, -1), cells)
    closed, zeros = replace(tail, head=head), np.zeros(some_channels.shape)
    pairs = [
        (closed.ablated_of(zeros, some_channels), tail.ablated_of(zeros, some_channels)),
        (closed.cells_of(False, some_cells), tail.cells_of(False, some_cells)),
    ]
    scale = float(np.abs(tail.logits).max()) or 1.0
    return max(float(np.abs(one.logits - two.logits).max()) for one, two in pairs) / scale


def _largest(sizes: Array, count: int) -> Array:
    """Mark the largest numbers of one row, (1, M)."""
    return (np.argsort(np.argsort(-sizes, axis=1), axis=1) < count) & (sizes > 0)


@dataclass(frozen=True, eq=False)
class Heads:
    """
    The linear heads of one model, each read and checked the first time it is asked for.

    Attributes
    ----------
    precision : str
        What the model is run in, as in `camrt.precision.arrange`.
    """

    precision: str = "float32"
    _known: dict[str, LinearHead | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, layer: str, tail: Tail) -> LinearHead | None:
        """
        Return the head behind a layer of which the manifest says that it is linear.

        Parameters
        ----------
        layer : str
            Its name.
        tail : Tail
            The layer of any batch, without a head; run the first time.

        Returns
        -------
        LinearHead or None
            As `read_head` gives it.
        """
        with self._lock:
            if layer not in self._known:
                self._known[layer] = read_head(tail, self.precision)
            return self._known[layer]
