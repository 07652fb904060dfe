"""
Masked forwards of one batch: what methods ask for, run once each, whatever class or target asks.

In: `Masks` at the layer's resolution. Out: `Scored`, logits of every masked image. Between them a mask becomes a row of a
planner's job: constant maps are left out, equal masks of an image are run once, what was run before is remembered while
the batch lasts, and no mask is as large as the image until it is written into a chunk.
"""

from __future__ import annotations

import hashlib
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from camrt import kernels
from camrt.export.manifest import Layer
from camrt.kernels.array import tolerance

from . import targets as target_table
from .device import on_host
from .errors import MemoryBoundError, NumericError
from .evidence import Question
from .masks import Lazy, Masks, Scored
from .methods.arrays import namespace
from .noise import standard_normal
from .planner import Job, Planner
from .scalars import settled
from .tails import Heads, Tail, rows_within
from .targets import Logit, Target

__all__ = ["Forwards", "Share", "SoftmaxParts", "score_of"]

Array = npt.NDArray[Any]
_SHORT = 256  # bytes of a map that are their own key; longer ones are hashed


@dataclass(frozen=True)
class Share:
    """
    How much of what a method asks may be run.

    Attributes
    ----------
    part : float
        The share of each call's masks, in (0, 1]; the masks of the largest spatial deviation come first.
    until : float
        The time (`time.monotonic`) after which no more rows are begun.
    most : int or float
        Masks and edits of one image that `Forwards.used` may hold.
    """

    part: float = 1.0
    until: float = float("inf")
    most: float = float("inf")


class Forwards:
    """
    The masked forwards of one batch, and what they gave.

    Parameters
    ----------
    question : Question
        The model and the batch.
    planner : Planner
        Where rows are run.
    ids : callable
        ``() -> (N,) uint64``, a content hash of each image; noise depends on it.
    hidden : ndarray or None
        What a hidden pixel shows, broadcastable to the batch; None is zero.
    channels_last : bool
        Whether the batch is (N, H, W, C).
    heads : Heads
        What is known of the model's linear heads.
    memory : int
        Bytes that a run of a tail may take.
    remember : bool
        Whether more than one call will ask for the same masks.
    progress : callable, optional
        Called with the number of rows run so far.
    """

    def __init__(
        self,
        question: Question,
        planner: Planner,
        *,
        ids: Callable[[], Array],
        hidden: Array | None,
        channels_last: bool,
        heads: Heads,
        memory: int,
        remember: bool,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._question, self._planner = question, planner
        self._ids, self._hidden, self._channels_last = ids, hidden, channels_last
        self._remember, self._progress = remember, progress
        self._heads, self._memory = heads, memory
        self._tails: dict[str, Tail] = {}  # by layer
        self._edited: dict[Hashable, Scored] = {}  # by layer and edit
        self._known: dict[Hashable, Array] = {}  # logits (C,) by what was run
        self.shared = SoftmaxParts()
        self.share = Share()
        self.used: list[set[Hashable]] | None = None  # by image, what one target's map is made of, under a share
        self.started, self.images = time.monotonic(), len(question.x)
        self._rows = 0  # that have been run
        self.complete = True  # whether every row that was asked for is there

    def offered(self, layer: Layer, known: dict[str, Array]) -> dict[str, Callable[..., Any]]:
        """
        Return the callables by the names of `camrt.methods.table.EVIDENCE`.

        Parameters
        ----------
        layer : Layer
            The layer that edits are made at.
        known : dict of str to ndarray
            Outputs of the ``features`` program of that layer alone, or nothing.

        Returns
        -------
        dict of str to callable
            Each asks the model when it is called.
        """
        return {
            "masked_of": self.masked,
            "logits_at": self.logits_at,
            "image_gradient_of": self.image_gradient,
            "ablated_of": partial(self._ablated, layer, known),
            "cells_of": partial(self._cells, layer, known),
        }

    def masked(self, masks: Masks) -> Scored:
        """
        Run masked images.

        Parameters
        ----------
        masks : Masks
            M masks an image.

        Returns
        -------
        Scored
            Logits (N,M,C), and which rows were run.

        Raises
        ------
        NumericError
            If a masked image's logits hold NaN or infinity; the message counts them and names the first mask.

        Notes
        -----
        Cost: one forward for each mask of an image that is not constant, not equal to another, and not remembered.
        """
        n, m = len(self._question.x), masks.count
        keys, deviation = self._keys(masks)
        wanted = np.array([[key is not None for key in row] for row in keys], bool).reshape(n, m)
        if masks.only is not None:
            wanted &= on_host(masks.only)
        chosen = self._chosen(wanted, deviation)
        answer = np.zeros((n, m, self._question.sessions.source.manifest.classes), np.float32)
        live = np.zeros((n, m), bool)
        first: dict[tuple[int, Hashable], tuple[int, int]] = {}
        twins: list[tuple[int, int, tuple[int, Hashable]]] = []
        for i, j in chosen:
            key = (i, keys[i][j])
            if not self._admits(i, key):
                continue
            if key in self._known:
                answer[i, j], live[i, j] = self._known[key], True
            elif key in first:
                twins.append((i, j, key))
            else:
                first[key] = (i, j)
        rows = np.array(list(first.values()), np.int64).reshape(-1, 2)
        for i, j in rows[~self._run(masks, rows, answer, live)].tolist():
            self._forget(i, (i, keys[i][j]))
        for i, j, key in twins:
            answer[i, j], live[i, j] = answer[first[key]], live[first[key]]
        self._check(answer, live, rows)
        if self._remember:
            self._known |= {key: answer[place].copy() for key, place in first.items() if live[place]}
        return Scored(answer, live)

    def logits_at(self, x: Array) -> Array:
        """
        Return the logits of other inputs.

        Parameters
        ----------
        x : ndarray, shape (M, ...)
            Inputs like the batch's.

        Returns
        -------
        ndarray of float32, shape (M, C)
            Their logits.
        """
        x = x.astype(self._question.x.dtype, copy=False)
        answer = np.zeros((len(x), self._question.sessions.source.manifest.classes), np.float32)

        def _fill(buffer: Array, start: int, stop: int) -> None:
            buffer[:] = x[start:stop]

        def _take(start: int, stop: int, logits: Array) -> None:
            answer[start:stop] = on_host(logits)

        self._planner.run(Job(len(x), _fill, _take, self._question.limits))
        return answer

    def image_gradient(self, x: Array, seed: Array, images: Array) -> tuple[Array, Array]:
        """
        Carry cotangents at the logits back to other inputs.

        Parameters
        ----------
        x : ndarray, shape (M, ...)
            Inputs like the batch's.
        seed : ndarray, shape (M, C)
            A cotangent each.
        images : ndarray of int64, shape (M,)
            Which image each is made of.

        Returns
        -------
        logits : ndarray, shape (M, C)
            Their logits.
        gradient : ndarray, shape of `x`
            d (seed . logits) / d x.

        Raises
        ------
        NumericError
            If logits hold NaN or infinity.
        """
        question, chunk = self._question, self._planner.chunk
        is_fixed = question.sessions.source.manifest.batch is not None
        size = chunk if is_fixed else max(1, chunk // 2)  # a gradient holds twice the tensors
        pieces = []
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            feeds = {
                "x": x[rows].astype(question.x.dtype, copy=False),
                "seed": seed[rows].astype(np.float32, copy=False),
            }
            pieces.append(question.sessions.run_unchecked("input_gradient", (), feeds, question.limits))
            self._report(len(feeds["x"]))
        logits = _joined([piece["logits"] for piece in pieces])
        if not np.isfinite(logits).all():
            bad = images[~np.isfinite(logits).all(1)]
            raise NumericError(
                f"{len(bad)} of {len(x)} masked forwards gave NaN or infinite logits, the first for image {int(bad[0])}: "
                "check the model's weights"
            )
        return logits, _joined([piece["input_gradient"] for piece in pieces])

    # tails -------------------------------------------------------------------------------------------------------

    def _ablated(self, layer: Layer, known: dict[str, Array], values: Array, only: Array | None = None) -> Scored:
        """Set one channel at a time to a value; the most varied channels alone where a share is set."""
        tail, values = self._tail(layer, known), on_host(values)
        wanted = np.ones(tail.acts.shape[:2], bool) if only is None else on_host(only)
        if self.used is not None and tail.head is None:
            wanted = self._allowed(layer.name, wanted, tail.acts.std((2, 3)))
        key = (layer.name, _digest(np.ascontiguousarray(values)))
        return self._once(key, wanted, partial(tail.ablated_of, values))

    def _cells(self, layer: Layer, known: dict[str, Array], gaussian: bool) -> Scored:
        """Keep one cell at a time; the cells of the largest activations alone where a share is set."""
        tail = self._tail(layer, known)
        n, _, h, w = tail.acts.shape
        wanted = np.ones((n, h * w), bool)
        if self.used is not None and tail.head is None:
            wanted = self._allowed(layer.name, wanted, abs(tail.acts).sum(1).reshape(n, -1))
        return self._once((layer.name, gaussian), wanted, partial(tail.cells_of, gaussian))

    def _allowed(self, layer: str, wanted: Array, promise: Array) -> Array:
        """Return which of the edits a share allows, the most promising of each image."""
        allowed = np.zeros_like(wanted)
        for i, j in self._chosen(wanted, on_host(promise)):
            allowed[i, j] = self._admits(i, (layer, j))
        return allowed

    def _once(self, key: Hashable, wanted: Array, ask: Callable[[Array], Scored]) -> Scored:
        """Return edits of a layer; those that are known are not run again."""
        known = self._edited.get(key)
        if known is None:
            known = self._edited[key] = _finite(ask(wanted))
        if (known.live == wanted).all():
            return known
        fresh = wanted & ~known.live
        if fresh.any():
            found = _finite(ask(fresh))
            known = Scored(np.where(fresh[:, :, None], found.logits, known.logits), fresh | known.live)
            self._edited[key] = known
        return Scored(np.where(wanted[:, :, None], known.logits, np.float32(0)), wanted)

    def _tail(self, layer: Layer, known: dict[str, Array]) -> Tail:
        """Return the way from a layer to the logits; the model is run up to the layer where that is not known."""
        if layer.name not in self._tails:
            question = self._question
            named = known or question.run("features", {"x": question.x}, (layer.name,))
            contexts = {name: array for name, array in named.items() if name.startswith("context.")}
            acts = named["activations.0"]
            layers = question.sessions.source.manifest.layers
            behind = layers[[item.name for item in layers].index(layer.name) :]
            rows = rows_within(self._memory, acts, contexts, behind)
            if not rows:
                raise MemoryBoundError(
                    f"one run of the tail behind {layer.name!r} does not fit {self._memory / 2**20:.0f} MB: allow more memory"
                )

            known_by = weakref.proxy(self)  # which keeps the tail: activations and sessions are to go with the request

            def run(kind: str, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
                made = question.sessions.run_unchecked(kind, (layer.name,), feeds, question.limits)
                known_by._report(len(feeds["activations.0"]))
                return made

            tail = Tail(
                run,
                acts,
                contexts,
                on_host(named["logits"]).astype(np.float32, copy=False),
                rows,
                layer.layout == "tokens_first",
            )
            if layer.name in question.sessions.source.manifest.linear_layers:
                tail = replace(tail, head=self._heads.of(layer.name, tail))
            self._tails[layer.name] = tail
        return self._tails[layer.name]

    # rows --------------------------------------------------------------------------------------------------------

    def _keys(self, masks: Masks) -> tuple[list[list[Hashable]], Array | None]:
        """Return a key for every mask, None where it is constant and skipped, and the maps' spatial deviations."""
        n, maps = len(self._question.x), masks.maps
        hidden = None if masks.hidden is None else _digest(np.ascontiguousarray(on_host(masks.hidden)))
        noise = masks.noise if masks.noise is not None and masks.noise.sigma else None
        how = (masks.scaling, masks.eps, masks.align, masks.gain, masks.inverted, noise, hidden)
        if isinstance(maps, Lazy):
            name = maps.key if maps.key is not None else object()  # without a name they equal no others
            return [[(how, name, j) for j in range(maps.count)] for _ in range(n)], None
        host = np.ascontiguousarray(on_host(maps))
        flat = host.reshape(n, host.shape[1], -1)
        low, high = flat.min(2), flat.max(2)
        limit = tolerance(np.promote_types(flat.dtype, np.float32))
        constant = (high - low <= limit * np.maximum(abs(low), abs(high))) & (masks.scaling != "none")
        spare: Hashable = None if masks.constant == "skip" else (how, host.shape[2:], b"constant")
        keys: list[list[Hashable]] = [
            [spare if flag else (how, host.shape[2:], _digest(row)) for row, flag in zip(rows, flags, strict=True)]
            for rows, flags in zip(flat, constant.tolist(), strict=True)
        ]
        return keys, flat.std(2)

    def _chosen(self, wanted: Array, deviation: Array | None) -> list[tuple[int, int]]:
        """Return the masks that may be run, (image, mask), the most promising first, the images in turn."""
        order = (
            np.broadcast_to(np.arange(wanted.shape[1]), wanted.shape)
            if deviation is None or self.share == Share()
            else np.argsort(-deviation, axis=1, kind="stable")
        )
        ranked: list[tuple[int, int, int]] = []
        for i, row in enumerate(order.tolist()):
            mine = [j for j in row if wanted[i, j]]
            allowed = max(1, round(self.share.part * len(mine)))
            self.complete &= allowed >= len(mine)
            ranked += [(rank, i, j) for rank, j in enumerate(mine[:allowed])]
        if self.share != Share():
            ranked.sort()
        return [(i, j) for _, i, j in ranked]

    def _admits(self, image: int, key: Hashable) -> bool:
        """Tell whether one target's map may be made of one more mask or edit."""
        used = None if self.used is None else self.used[image]
        if used is None or key in used:
            return True
        if len(used) >= self.share.most:
            self.complete = False
            return False
        used.add(key)
        return True

    def _forget(self, image: int, key: Hashable) -> None:
        """Take back what was admitted and has not been run."""
        if self.used is not None:
            self.used[image].discard(key)

    def _report(self, rows: int) -> None:
        """Say that more rows have been run."""
        self._rows += rows
        if self._progress is not None:
            self._progress(self._rows)

    def _run(self, masks: Masks, rows: Array, answer: Array, live: Array) -> Array:
        """Have rows (image, mask) run, and put their logits into place; tell which were."""
        done = np.zeros(len(rows), bool)
        if not len(rows):
            return done
        x, maps = self._question.x, masks.maps
        hidden = self._hidden if masks.hidden is None else masks.hidden
        noise, noise_on = self._noise(masks)
        asarray = namespace(x).asarray  # what a kernel reads lies where it writes
        hidden = None if hidden is None else asarray(hidden)

        def fill(buffer: Array, start: int, stop: int) -> None:
            which, places = rows[start:stop, 0], rows[start:stop, 1]
            images = asarray(which)
            picked = _made(maps, which, places) if isinstance(maps, Lazy) else maps[which, places]
            constant = kernels.fill_masks(
                buffer,
                x,
                images,
                asarray(picked),
                scaling=masks.scaling,
                eps=masks.eps,
                align=masks.align,
                gain=masks.gain,
                inverted=masks.inverted,
                noise=noise,
                noise_on=noise_on,
                noise_of=None if noise is None else images,
                hidden=hidden,
                channels_last=self._channels_last,
            )
            if masks.constant == "skip" and masks.scaling != "none":
                live[which, places] = ~on_host(constant)
            else:
                live[which, places] = True

        def take(start: int, stop: int, logits: Array) -> None:
            answer[rows[start:stop, 0], rows[start:stop, 1]] = on_host(logits)
            done[start:stop] = True

        before = self._rows
        self._planner.run(
            Job(
                len(rows),
                fill,
                take,
                self._question.limits,
                self.share.until,
                lambda taken: self._report(before + taken - self._rows),
            )
        )
        live[rows[~done, 0], rows[~done, 1]] = False
        self.complete &= bool(done.all())
        answer[~live] = 0
        return done

    def _noise(self, masks: Masks) -> tuple[Array | None, Any]:
        """Return the noise of every image, (N, ...), already times its deviation."""
        noise, x = masks.noise, self._question.x
        if noise is None or not noise.sigma:
            return None, "mask"
        plane = x.shape[1:3] if self._channels_last else x.shape[2:]
        shape = plane if noise.on == "mask" else x.shape[1:]
        made = [standard_normal(shape, noise.seed, int(image), noise.sample) for image in self._ids()]
        return namespace(x).asarray(noise.sigma * np.stack(made), dtype=np.float32), noise.on

    def _check(self, answer: Array, live: Array, rows: Array) -> None:
        """Refuse NaN scores, and say which."""
        finite = np.isfinite(answer).all(2) | ~live
        if finite.all():
            return
        image, mask = (int(place) for place in np.argwhere(~finite)[0])
        raise NumericError(
            f"{int((~finite).sum())} of {live.sum()} masked forwards gave NaN or infinite logits, the first for mask (channel) "
            f"{mask} of image {image}: check the model's weights, or run it in float32"
        )


class SoftmaxParts:
    """What the softmaxes of the logits asked about last share, so that further targets do not work it out again."""

    def __init__(self) -> None:
        self._parts: list[tuple[Array, Array]] = []
        self._logits: Callable[[], Array | None] = lambda: None  # not kept alive

    def of(self, logits: Array) -> list[tuple[Array, Array]]:
        """
        Return the parts of each image's logits.

        Parameters
        ----------
        logits : ndarray, shape (N, M, C)
            Logits of masked images.

        Returns
        -------
        list of tuple of ndarray of float64
            As `camrt.kernels.softmax_parts` gives them, one entry an image.
        """
        if self._logits() is not logits:
            self._parts = [kernels.softmax_parts(rows.astype(np.float64)) for rows in logits]
            self._logits = weakref.ref(logits)
        return self._parts


def score_of(
    pinned: Sequence[Target],
    shared: SoftmaxParts,
    logits: Array,
    kind: Literal["probability", "logit"],
) -> Array:
    """
    Score masked images by what a target asks.

    Parameters
    ----------
    pinned : sequence of Target
        One target for each of N images, its class settled (`Evidence.pinned`).
    shared : SoftmaxParts
        What other targets of the batch have worked out.
    logits : ndarray, shape (N, M, C)
        Logits of masked images.
    kind : {"probability", "logit"}
        What a class target counts as: its softmax probability or its logit. Other targets are their own scalar.

    Returns
    -------
    ndarray of float64, shape (N, M)
        The scores.
    """
    scores = np.zeros(logits.shape[:2])
    for i, target in enumerate(pinned):
        if isinstance(target, Logit) and kind == "logit":
            scores[i] = logits[i, :, settled(target.index)]
        elif isinstance(target, Logit):
            classes = np.full(logits.shape[1], settled(target.index), np.int64)
            scores[i] = kernels.class_scores(logits[i], classes, parts=shared.of(logits)[i])
        else:
            scores[i] = target_table.values([target] * logits.shape[1], logits[i])
    return scores


def _finite(found: Scored) -> Scored:
    """Refuse NaN where activations were edited, and say which."""
    finite = np.isfinite(found.logits).all(2) | ~found.live
    if not finite.all():
        image, row = (int(place) for place in np.argwhere(~finite)[0])
        raise NumericError(
            f"{int((~finite).sum())} of {int(found.live.sum())} edits of the activations gave NaN or infinite logits, the first "
            f"for channel or cell {row} of image {image}: check the model's weights"
        )
    return found


def _digest(row: Array) -> bytes:
    """Return bytes that stand for an array's content."""
    data = row.tobytes()
    return data if len(data) <= _SHORT else hashlib.blake2b(data, digest_size=16).digest()


def _made(lazy: Lazy, which: Array, places: Array) -> Array:
    """Make masks that are not kept, in the order asked for."""
    if (which == which[0]).all():
        return lazy.make(int(which[0]), places)
    parts = {int(i): lazy.make(int(i), places[which == i]) for i in np.unique(which)}
    first = next(iter(parts.values()))
    made: Array = namespace(first).empty((len(places), *first.shape[1:]), first.dtype)
    for i, part in parts.items():
        made[which == i] = part
    return made


def _joined(parts: list[Array]) -> Array:
    """Put pieces together; a single one is not copied."""
    return parts[0] if len(parts) == 1 else namespace(parts[0]).concatenate(parts)
