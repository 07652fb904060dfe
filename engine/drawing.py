"""
From a checked request and a batch of inputs to maps.

::

    x --gather--> logits, activations, gradients --method--> raw map --pipeline--> heatmap
        (evidence.py, forwards.py)                (methods/)          (pipeline.py, fuse.py)

In: a `Plan`, a `Request`, inputs where the model runs, and targets. Out: `Maps`, in the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from . import targets as target_table
from .anytime import Budget, draw_in_rounds
from .errors import MethodError
from .evidence import Evidence, Question, gather, map_in_graph, plain_column
from .forwards import Forwards, score_of
from .fuse import fuse_layers
from .limits import UNLIMITED, Limits
from .maps import Maps, beside, flags_by_name, highest_flags, together
from .methods import Result
from .methods.arrays import namespace
from .methods.raw import check_finite, raw_map
from .noise import content_ids
from .pipeline import PIPELINES
from .plans import Plan
from .preprocess import Preprocess
from .propagation import ways
from .runs import Runs
from .session import Sessions
from .tails import Heads
from .targets import Logit, Target

__all__ = ["TTA_GAINS", "Mapper", "Request"]

Array = npt.NDArray[Any]

TTA_GAINS = (0.9, 1.0, 1.1)  # pytorch-grad-cam's intensities (METHODS.md 5.33)
_MAP_OUTPUTS = {"logits", "explained", "map", "heat", "degenerate", "signed"}  # any other is a flag of the method


@dataclass(frozen=True)
class Request:
    """
    What a call asks beside its plan.

    Attributes
    ----------
    limits : Limits
        What may end it early.
    budget : Budget, optional
        What masked forwards may cost.
    progress : callable, optional
        Told the share of the batch that is done.
    """

    limits: Limits = UNLIMITED
    budget: Budget | None = None
    progress: Callable[[float], None] | None = None


class Mapper:
    """
    What makes the maps of one model.

    Parameters
    ----------
    sessions : Sessions
        The model's programs.
    runs : Runs
        The streams of its masked forwards.
    preprocess : Preprocess
        How its inputs were made.
    labels : tuple of str
        Class names, or empty.
    """

    def __init__(self, sessions: Sessions, runs: Runs, preprocess: Preprocess, labels: tuple[str, ...] = ()) -> None:
        self._sessions, self._runs = sessions, runs
        self._preprocess, self._labels = preprocess, labels
        self._heads = Heads(sessions.precision)

    def maps(self, plan: Plan, request: Request, x: Array, columns: Sequence[Sequence[Target]]) -> Maps:
        """
        Make the maps of one batch.

        Parameters
        ----------
        plan : Plan
            What the maps are to be.
        request : Request
            Limits, budget, progress.
        x : ndarray, shape (N, ...)
            Inputs, where the model runs.
        columns : sequence of sequence of Target
            T columns of N targets.

        Returns
        -------
        Maps
            Of N images and T targets.

        Raises
        ------
        NumericError
            If a map or the score of a masked image holds NaN or infinity.
        MemoryBoundError
            If a single masked forward does not fit.
        DeadlineError, CancelledError
            If a limit was met.
        """
        question = Question(self._sessions, plan.names, x, self._labels, request.limits)
        plain = plain_column(columns)
        if plan.in_graph and plain is not None:
            return _made_in_graph(plan, question, plain)
        found = gather(question, columns, gradients=plan.needs_gradients)
        forwards = self._forwards(plan, request, question, len(columns)) if plan.by_forwards else None
        if plan.method.class_free:
            one = self._drawn(plan, question, found[:1], forwards)
            return replace(together([one] * len(found), 1), evidence=tuple(found))
        if request.budget is None or forwards is None:
            return self._drawn(plan, question, found, forwards)
        return together(
            [self._drawn_in_rounds(plan, request.budget, question, evidence, forwards) for evidence in found], 1
        )

    def augmented(self, plan: Plan, request: Request, x: Array, columns: Sequence[Sequence[Target]]) -> Maps:
        """
        Average the maps of mirrored and brightened inputs; the classes stay those of the clean input.

        Parameters
        ----------
        plan, request, x, columns : as in `maps`
            The inputs must be of floating point.

        Returns
        -------
        Maps
            What the model says of the clean input, with the average maps.

        Raises
        ------
        MethodError
            If the model takes integers.
        """
        if not np.issubdtype(x.dtype, np.floating):
            raise MethodError(f"tta scales the input and needs a floating-point model; this one takes {x.dtype}")
        logits = self._sessions.run("forward", (), {"x": x}, request.limits)["logits"]
        pinned = [target_table.pin(column, logits) for column in columns]
        width = 2 if self._preprocess.layout == "nhwc" else 3
        n = 2 * len(TTA_GAINS)
        clean = self.maps(plan, _part(request, 0, n), x, pinned)
        heat, raws = np.zeros_like(clean.heat), [np.zeros_like(raw) for raw in clean.raws]
        flat = np.ones_like(clean.degenerate)
        kinds = sorted(product((False, True), TTA_GAINS), key=lambda kind: kind != (False, 1.0))
        for turn, (mirrored, gain) in enumerate(kinds):
            moved = (np.flip(x, width) if mirrored else x) * np.asarray(gain, x.dtype)
            made = clean if turn == 0 else self.maps(plan, _part(request, turn, n), moved, pinned)
            heat += np.flip(made.heat, 3) if mirrored else made.heat
            for total, raw in zip(raws, made.raws, strict=True):
                total += np.flip(raw, 3) if mirrored else raw
            flat &= made.degenerate
        return replace(clean, heat=heat / n, raws=tuple(raw / n for raw in raws), degenerate=flat)

    def _drawn(self, plan: Plan, question: Question, found: Sequence[Evidence], forwards: Forwards | None) -> Maps:
        """Run the method for every target at every layer, finish the maps, those of all targets at once, and fuse them."""
        results = [
            [self._raw_map(plan, question, evidence, index, forwards) for index in range(len(plan.layers))]
            for evidence in found
        ]
        raws = tuple(beside([result.array for result in layer]) for layer in zip(*results, strict=True))
        n, t = raws[0].shape[:2]
        raised = [highest_flags(result) for result in results]
        flags = {name: beside(flag) for name, flag in flags_by_name(raised, [(n,)] * t).items()}
        last = [result[-1] for result in results]
        if last[0].gives == "heatmap":  # finished maps; they do not depend on the layer
            return Maps(tuple(found), raws, raws[0], np.zeros((n, t), bool), flags)
        heat, degenerate = fuse_layers(
            [raw.reshape(n * t, *raw.shape[2:]) for raw in raws],
            plan.size,
            PIPELINES[plan.pipeline],
            how=plan.fuse,
            relu=plan.method.relu_of(plan.variant),
            options={name: value for name, value in plan.options.items() if name in plan.method.fusion_options},
        )
        at_image = [result.raw_input for result in last if result.raw_input is not None]
        return Maps(
            tuple(found),
            raws,
            heat.reshape(n, t, *heat.shape[1:]),
            degenerate.reshape(n, t),
            flags,
            beside(at_image) if at_image else None,
        )

    def _drawn_in_rounds(
        self, plan: Plan, budget: Budget, question: Question, evidence: Evidence, forwards: Forwards
    ) -> Maps:
        """Make the maps of one target within a budget."""
        drawn = draw_in_rounds(
            lambda: self._drawn(plan, question, [evidence], forwards),
            lambda maps: maps.heat[:, 0],
            forwards,
            budget,
            plan.expected,
        )
        n = len(question.x)
        flags = {
            **drawn.drawing.flags,
            "complete": np.full((n, 1), drawn.complete),
            "forwards": drawn.forwards[:, None],
        }
        if drawn.stability is not None:
            flags["stability"] = drawn.stability[:, None]
        return replace(drawn.drawing, flags=flags)

    def _raw_map(
        self, plan: Plan, question: Question, evidence: Evidence, index: int, forwards: Forwards | None
    ) -> Result:
        """Run the method for one target at one layer."""
        return raw_map(
            plan.method,
            self._offer(plan, question, evidence, index, forwards),
            variant=plan.variant,
            options=plan.options,
            layer=plan.layers[index].name,
            eigen_smooth=plan.eigen_smooth,
        )

    def _offer(
        self, plan: Plan, question: Question, evidence: Evidence, index: int, forwards: Forwards | None
    ) -> dict[str, object]:
        """Lay out what the method may read, by the names of `camrt.methods.table.EVIDENCE`."""
        x, layer = question.x, plan.layers[index]
        grads = None if evidence.grads is None else evidence.grads[index]
        needs = set(plan.method.needs)
        offered: dict[str, object] = {
            "acts": evidence.acts[index],
            "grads": grads,
            "head": grads.sum(axis=(2, 3)) if grads is not None and "head" in needs else None,  # GAP: G = W_ck / Z
            "logits": evidence.logits,
            "target": evidence.target,
            "ids": content_ids(x) if "ids" in needs else None,
            "size": plan.size,
            "x": x,
            "gradients_at": partial(_swap, evidence.gradients_at, index),
            "gradients_of": partial(_swap, evidence.gradients_of, index),
            "piecewise": layer.piecewise,
            "hidden": self._hidden(plan, x),
            "tokens": layer.layout in ("tokens", "tokens_first"),
        }
        if forwards is not None:
            known = evidence.named if len(plan.layers) == 1 else {}
            offered |= forwards.offered(layer, known)
            offered["score_of"] = partial(score_of, evidence.pinned, forwards.shared)
        if not needs <= offered.keys():
            offered |= ways(question, evidence, index)
        return offered

    def _forwards(self, plan: Plan, request: Request, question: Question, columns: int) -> Forwards:
        """Open the memory of one batch's masked forwards."""
        rows, report = max(1, plan.expected * len(question.x)), request.progress
        return Forwards(
            question,
            self._runs.planner(question.x),
            ids=partial(content_ids, question.x),
            hidden=self._hidden(plan, question.x),
            channels_last=self._preprocess.layout == "nhwc",
            heads=self._heads,
            memory=self._runs.memory,
            remember=columns > 1 or request.budget is not None,
            progress=None if report is None else lambda done: report(min(0.99, done / rows)),
        )

    def _hidden(self, plan: Plan, x: Array) -> Array | None:
        """Return what a hidden pixel shows, broadcastable to a batch; None where that is zero."""
        if plan.mask_space == "normalised":
            return None
        shape = (1, 1, 1, -1) if self._preprocess.layout == "nhwc" else (1, -1, 1, 1)
        dtype = x.dtype if x.dtype.kind == "f" else np.float32  # of integers, too, a part may show through a mask
        values: Array = namespace(x).asarray(self._preprocess.black, dtype=dtype).reshape(shape)
        return values


def _made_in_graph(plan: Plan, question: Question, column: Sequence[Logit]) -> Maps:
    """Let the graph make the raw map, and finish it."""
    evidence, named = map_in_graph(question, column, plan.method.id)
    raw, heat, flat = named["map"], named["heat"], named["degenerate"]
    check_finite(raw, plan.method.id, plan.names[0])
    if plan.pipeline != "camrt":
        heat, flat = PIPELINES[plan.pipeline](raw, plan.size, plan.method.relu_of(plan.variant))
    flags = {name: array[:, None] for name, array in named.items() if name not in _MAP_OUTPUTS}
    if plan.method.nonnegative:  # not asked where the layer's operator rules it out
        flags["signed_activations"] = named.get("signed", np.zeros(len(raw), bool))[:, None]
    return Maps((evidence,), (raw[:, None],), heat[:, None], flat[:, None], flags)


def _part(request: Request, turn: int, turns: int) -> Request:
    """Return the request of one of several turns, whose progress is a part of the whole."""
    report = request.progress
    if report is None:
        return request
    return replace(request, progress=lambda share: report((turn + share) / turns))


def _swap(function: Callable[[Array, int], Any], index: int, array: Array) -> Any:
    """Call `function` with the layer's index as its second argument."""
    return function(array, index)
