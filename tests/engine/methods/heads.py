"""
Tiny networks with exact gradients, in NumPy, as oracles for the methods.

`Stem` turns an input into activations; `GapLinear`, `FlattenLinear` and `TwoLayer` turn activations into logits and a
cotangent at the logits back into gradients. `evidence` lays out everything a method may ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from camrt.methods import Result, raw_map, resolve, validate
from tests.engine.methods.edited import edited_evidence
from tests.engine.methods.masked import masked_evidence

Array = NDArray[Any]
SIZE = (16, 20)


class Head(Protocol):
    """A tail with an exact gradient, and other ways back that are worked out by hand."""

    def logits(self, acts: Array) -> Array: ...

    def grads(self, acts: Array, seed: Array) -> Array: ...

    def guided(self, acts: Array, seed: Array) -> Array: ...

    def lift(self, acts: Array, seed: Array) -> Array: ...

    def biases(self, acts: Array, seed: Array) -> list[tuple[Array, Array]]: ...


class Linear:
    """What a tail without a kink has in common: all ways back are its gradient."""

    def guided(self: Any, acts: Array, seed: Array) -> Array:
        grads: Array = self.grads(acts, seed)
        return grads

    def lift(self: Any, acts: Array, seed: Array) -> Array:
        contributions: Array = acts * self.grads(acts, seed)
        return contributions

    def biases(self: Any, acts: Array, seed: Array) -> list[tuple[Array, Array]]:
        return [(seed, self.bias)]


@dataclass
class GapLinear(Linear):
    """Global average pooling, then one linear layer."""

    weight: Array  # (C, K)
    bias: Array  # (C,)

    def logits(self, acts: Array) -> Array:
        return acts.mean((2, 3)) @ self.weight.T + self.bias

    def grads(self, acts: Array, seed: Array) -> Array:
        cells = acts.shape[2] * acts.shape[3]
        return np.broadcast_to(((seed @ self.weight) / cells)[:, :, None, None], acts.shape).copy()


@dataclass
class FlattenLinear(Linear):
    """One linear layer on the flattened activations."""

    weight: Array  # (C, K h w)
    bias: Array

    def logits(self, acts: Array) -> Array:
        return acts.reshape(len(acts), -1) @ self.weight.T + self.bias

    def grads(self, acts: Array, seed: Array) -> Array:
        return (seed @ self.weight).reshape(acts.shape)


@dataclass
class TwoLayer:
    """Linear, ReLU, linear on the flattened activations."""

    first: Array  # (M, K h w)
    first_bias: Array
    second: Array  # (C, M)
    second_bias: Array

    def hidden(self, acts: Array) -> Array:
        return acts.reshape(len(acts), -1) @ self.first.T + self.first_bias

    def logits(self, acts: Array) -> Array:
        return np.maximum(self.hidden(acts), 0) @ self.second.T + self.second_bias

    def hidden_grads(self, acts: Array, seed: Array) -> Array:
        return (seed @ self.second) * (self.hidden(acts) > 0)

    def grads(self, acts: Array, seed: Array) -> Array:
        return (self.hidden_grads(acts, seed) @ self.first).reshape(acts.shape)

    def guided(self, acts: Array, seed: Array) -> Array:
        positive = np.maximum(seed @ self.second, 0) * (self.hidden(acts) > 0)
        return (positive @ self.first).reshape(acts.shape)

    def lift(self, acts: Array, seed: Array) -> Array:
        ends = [self.hidden(a) for a in (acts, np.zeros_like(acts))]
        rise, change = np.maximum(ends[0], 0) - np.maximum(ends[1], 0), ends[0] - ends[1]
        slope = np.divide(rise, change, out=(ends[0] > 0) * 1.0, where=change != 0)
        multipliers = ((seed @ self.second) * slope) @ self.first
        return acts * multipliers.reshape(acts.shape)

    def biases(self, acts: Array, seed: Array) -> list[tuple[Array, Array]]:
        return [(self.hidden_grads(acts, seed), self.first_bias), (seed, self.second_bias)]

    def relevance(self, acts: Array, shares: Array) -> Array:
        """Share out relevance cell by cell, contributions of positive sign alone."""

        def back(x: Array, w: Array, r: Array) -> Array:
            parts = np.maximum(x[:, None, :] * w, 0)  # (N, outputs, inputs)
            whole = parts.sum(2)
            ratio = np.divide(r, whole, out=np.zeros_like(r), where=whole > 0)
            shared: Array = (parts * ratio[:, :, None]).sum(1)
            return shared

        flat = acts.reshape(len(acts), -1)
        hidden = np.maximum(self.hidden(acts), 0)
        return back(flat, self.first, back(hidden, self.second, shares)).reshape(acts.shape)


@dataclass
class Stem:
    """A 1x1 convolution with bias, cut at zero unless `signed`."""

    weight: Array  # (K, 3)
    bias: Array
    signed: bool = False

    def acts(self, x: Array) -> Array:
        made = np.einsum("kc,nchw->nkhw", self.weight, x) + self.bias[:, None, None]
        return made if self.signed else np.maximum(made, 0)


@dataclass
class PooledStem(Stem):
    """The same on the means of two by two pixels, so that the layer's grid is coarser than the image."""

    def acts(self, x: Array) -> Array:
        n, c, h, w = x.shape
        return super().acts(x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5)))


K, HW, CLASSES = 6, (4, 5), 7


def make_head(kind: str, rng: np.random.Generator, *, channels: int = K, hw: tuple[int, int] = HW) -> Any:
    """Return a random head: "gap", "flatten" or "two-layer"."""
    cells = channels * hw[0] * hw[1]
    if kind == "gap":
        return GapLinear(rng.normal(size=(CLASSES, channels)), rng.normal(size=CLASSES))
    if kind == "flatten":
        return FlattenLinear(rng.normal(size=(CLASSES, cells)), rng.normal(size=CLASSES))
    return TwoLayer(
        rng.normal(size=(12, cells)) / 4, rng.normal(size=12), rng.normal(size=(CLASSES, 12)), rng.normal(size=CLASSES)
    )


def make_acts(rng: np.random.Generator, images: int = 3, *, signed: bool = False) -> Array:
    """Return random activations, cut at zero unless `signed`."""
    acts = rng.normal(size=(images, K, *HW))
    return acts if signed else np.maximum(acts, 0)


def one_hot(target: Array) -> Array:
    """Return the cotangent of plain logits."""
    return np.eye(CLASSES)[target]


def evidence(head: Head, acts: Array, target: Array | None = None) -> dict[str, object]:
    """Lay out what methods may ask of a head on given activations; the input stays out of it."""
    target = np.arange(len(acts)) % CLASSES if target is None else target
    return {
        "acts": acts,
        "grads": head.grads(acts, one_hot(target)),
        "head": head.weight[target] if isinstance(head, GapLinear) else None,
        "logits": head.logits(acts),
        "target": target,
        "ids": np.arange(len(acts), dtype=np.uint64) * np.uint64(2**60) + np.uint64(5),
        "size": SIZE,
        "gradients_of": lambda seed: head.grads(acts, seed),
        "piecewise": True,
        "seed": lambda: one_hot(target),
        "logits_from": head.logits,
        "gradients_from": head.grads,
        "lift_of": lambda seed: head.lift(acts, seed),
        "relevance_of": lambda shares, biased: head.relevance(acts, shares),  # type: ignore[attr-defined]
        **edited_evidence(head.logits, acts, target),
    }


def input_evidence(stem: Stem, head: Head, x: Array, target: Array | None = None) -> dict[str, object]:
    """Lay out what methods may ask of a stem and a head at an input."""
    target = np.arange(len(x)) % CLASSES if target is None else target

    def gradients_at(other: Array) -> tuple[Array, Array]:
        acts = stem.acts(other)
        return acts, head.grads(acts, one_hot(target))

    acts = stem.acts(x)

    def at_image(grads: Array) -> Array:
        made: Array = np.einsum("nkhw,kc->nchw", grads, stem.weight)
        return made

    def guided_of(seed: Array) -> Array:
        return at_image(np.maximum(head.guided(acts, seed), 0) * (acts > 0))

    def full_of(seed: Array, times_bias: bool) -> tuple[Array, list[Array]]:
        grads = head.grads(acts, seed) * (acts > 0)
        biased = [(grads, stem.bias[:, None, None]), *head.biases(acts, seed)]
        return at_image(grads), [g * b if times_bias else g for g, b in biased]

    def image_gradient_of(other: Array, seed: Array, images: Array) -> tuple[Array, Array]:
        there = stem.acts(other)
        grads = head.grads(there, seed) * (there > 0)
        return head.logits(there), at_image(grads)

    def target_at(logits: Array, images: Array) -> tuple[Array, Array]:
        classes = target[images]
        return logits[np.arange(len(logits)), classes], one_hot(classes)

    return {
        **evidence(head, acts, target),
        "image_gradient_of": image_gradient_of,
        "target_at": target_at,
        **masked_evidence(x, lambda other: head.logits(stem.acts(other)), target),
        "x": x,
        "size": x.shape[2:],
        "gradients_at": gradients_at,
        "attention_of": lambda seed, blocks: abs(head.grads(acts, seed))[
            :, list(blocks or range(K))
        ],  # channels as blocks
        "guided_of": guided_of,
        "full_of": full_of,
    }


def make_stem(rng: np.random.Generator, *, signed: bool = False, pooled: bool = False) -> Stem:
    """Return a random stem."""
    return (PooledStem if pooled else Stem)(rng.normal(size=(K, 3)), rng.normal(size=K) / 4, signed)


def run(name: str, given: Mapping[str, object], variant: str | None = None, **options: object) -> Result:
    """Run a method by name with defaults filled in."""
    method = resolve(name)
    chosen, full = validate(method, variant, options)
    return raw_map(method, given, variant=chosen, options=full, layer="layer4")


def raw(name: str, given: Mapping[str, object], variant: str | None = None, **options: object) -> Array:
    """Return a method's raw map alone."""
    return run(name, given, variant, **options).array


GRADIENT = ("gradcam", "gradcampp", "xgradcam", "layercam", "hirescam", "elementwisecam", "eigengradcam")
CLASS_FREE = ("eigencam", "kpcacam", "fem", "lafam", "randomcam", "fakecam")
TAIL = ("shapleycam", "relevancecam", "liftcam")  # those that ask the layer's tail
EDITED = ("ablationcam", "reciprocam")  # those that ask it about edited activations
PURE = (
    *GRADIENT,
    *CLASS_FREE,
    *TAIL,
    *EDITED,
    "finercam",
    "refinecam",
)  # those that need neither an input nor a GAP head
