"""
One batch judged: pictures go in, one row an image and method comes out.

::

    x --draw, each method--> maps, classes --again--> maps of changed pictures
                              |                          |
                              +--ask: one job for all----+--> Case of each method --metrics--> columns

Everything that is run for one metric serves all, and every changed picture that no map has a part in serves all methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .choices import Choice
from .errors import MethodError
from .explainer import Explainer
from .limits import UNLIMITED, Limits
from .methods.table import Method
from .metrics.accounting import accounted
from .metrics.asking import ask, scores_of
from .metrics.case import Again, Case, Ground, Scores
from .metrics.changes import Change, Clean, Randomised
from .metrics.filling import Pictures
from .metrics.model import Model, model_of
from .metrics.plain import ids_of, named
from .metrics.plan import Plan
from .results import Drawn

__all__ = ["Judge", "Tally"]

Array = npt.NDArray[Any]
Columns = dict[str, Array]


@dataclass
class Tally:
    """
    What has been run.

    Attributes
    ----------
    forwards : int
        Forwards of changed pictures.
    explanations : int
        Maps.
    """

    forwards: int = 0
    explanations: int = 0


@dataclass(frozen=True, eq=False)
class Judge:
    """
    A model, methods and metrics, ready for batches.

    Attributes
    ----------
    explainer : Explainer
        The model.
    methods : sequence of Choice
        Whose maps are judged.
    plan : Plan
        The metrics, and what they need.
    layer : str, sequence of str or None
        As in `Explainer.explain`.
    pipeline : str
        As in `Explainer.explain`.
    mask_space : {"normalised", "raw"}
        What hidden pixels show, to methods and metrics alike.
    randomised : callable, optional
        ``randomised(change)`` gives the explainer of a model with redrawn weights.
    limits : Limits
        What may end it early.
    tally : Tally
        Counts what is run.
    """

    explainer: Explainer
    methods: Sequence[Choice[Method]]
    plan: Plan
    layer: str | Sequence[str] | None = None
    pipeline: str = "camrt"
    mask_space: str = "normalised"
    randomised: Callable[[Randomised], Explainer] | None = None
    limits: Limits = UNLIMITED
    tally: Tally = field(default_factory=Tally)

    @cached_property
    def _model(self) -> Model:
        """What metrics ask."""
        return model_of(self.explainer)

    def batch(
        self, x: Array, classes: npt.NDArray[np.int64] | None = None, ground: Ground | None = None
    ) -> dict[str, Columns]:
        """
        Judge every method on one batch.

        Parameters
        ----------
        x : ndarray, shape (N, ...)
            Prepared inputs, on the host.
        classes : ndarray of int64, shape (N,), optional
            The class explained and scored of each image; what the first method's run of the model predicts where None.
        ground : Ground, optional
            Boxes, masks and labels.

        Returns
        -------
        dict of str to dict of str to ndarray
            For each method's name, columns of length N: ``class``, ``p``, ``correct``, ``degenerate`` and every value of
            every metric.
        """
        ids = ids_of(x, self.plan)
        with self.explainer.place() as placed:
            x = placed(x)
            drawn: list[Drawn] = []
            for method in self.methods:
                drawn.append(self._draw(self.explainer, method, x, classes))
                classes = drawn[0].classes if classes is None else classes
            assert classes is not None
            pictures = Pictures(x, [one.heat for one in drawn], ids, self._model, self.mask_space)
            again = self._again(pictures, classes)
            found = ask(
                pictures, classes, [self.plan.scored] * len(drawn), limits=self.limits, tell=_counting(self.tally)
            )
            return {
                method.name: self._columns(
                    method, one, self._case(pictures, one, classes, ground, repeated, scores, method)
                )
                for method, one, repeated, scores in zip(self.methods, drawn, again, found, strict=True)
            }

    def _draw(
        self, explainer: Explainer, method: Choice[Method], x: Array, classes: npt.NDArray[np.int64] | None
    ) -> Drawn:
        """Make one method's maps."""
        self.tally.explanations += len(x)
        return explainer.draw(
            x,
            classes,
            method=method.row.id,
            variant=method.variant,
            options=method.options,
            layer=self.layer,
            pipeline=self.pipeline,
            mask_space=self.mask_space,
            limits=self.limits,
        )

    def _again(self, pictures: Pictures, classes: npt.NDArray[np.int64]) -> list[dict[Change, Drawn]]:
        """Explain changed pictures by every method; all of them use a randomised model while it is open."""
        found: list[dict[Change, Drawn]] = [{} for _ in self.methods]
        for change in self.plan.again:
            if isinstance(change, Randomised):
                explainer, is_changed = self._redrawn(change), False
            else:
                explainer, is_changed = self.explainer, True
            for place, method in enumerate(self.methods):
                x = pictures.of(change, place) if is_changed else pictures.x
                one = self._draw(explainer, method, x, classes)
                found[place][change] = one if is_changed else _copied(one)
        return found

    def _redrawn(self, change: Randomised) -> Explainer:
        """Return a model with redrawn weights."""
        if self.randomised is None:
            raise MethodError("a metric asks for models with redrawn weights, and nothing here opens any")
        return self.randomised(change)

    def _case(
        self,
        pictures: Pictures,
        drawn: Drawn,
        classes: npt.NDArray[np.int64],
        ground: Ground | None,
        again: Mapping[Change, Drawn],
        scores: Mapping[Change, Scores],
        method: Choice[Method],
    ) -> Case:
        """Lay out what metrics judge."""
        said: dict[Change, Array] = {Clean(): drawn.logits}
        said |= {change: one.logits for change, one in again.items() if not isinstance(change, Randomised)}
        known = dict(zip(said, scores_of(list(said.values()), classes), strict=True))
        accounts = {}
        if any("raw" in choice.row.needs for choice in self.plan.metrics):
            accounts = accounted(
                self.explainer, pictures.host, classes, method.row.id, variant=method.variant, layer=self.layer
            )
        return Case(
            heat=drawn.heat,
            degenerate=drawn.degenerate,
            classes=classes,
            ids=pictures.ids,
            x=pictures.x,
            channels_last=pictures.model.channels_last,
            scores=self.plan.by_name({**known, **scores}),
            again=self.plan.by_name(
                {change: Again(one.heat, one.degenerate, one.raw) for change, one in again.items()}
            ),
            ground=ground or Ground(),
            raw=drawn.raw,
            relu=method.row.relu_of(method.variant),
            accounted=accounts,
            shift_means=pictures.shift_means,
        )

    def _columns(self, method: Choice[Method], drawn: Drawn, case: Case) -> Columns:
        """Let every metric judge one method."""
        clean = case.scores[Clean()]
        columns: Columns = {
            "class": case.classes,
            "p": clean.p,
            "correct": clean.hit if case.ground.labels is None else clean.hit & (case.ground.labels == case.classes),
            "degenerate": drawn.degenerate,
        }
        for choice in self.plan.metrics:
            columns |= named(choice, choice.row.values(case, variant=choice.variant, **choice.options))
        return columns


def _copied(drawn: Drawn) -> Drawn:
    """Return maps that stand by themselves: each array that a session gave keeps all of the session's memory."""
    return Drawn(**{part.name: getattr(drawn, part.name).copy() for part in fields(drawn)})


def _counting(tally: Tally) -> Callable[[int], None]:
    """Return a callable that adds the rows of one job as they come."""
    before = tally.forwards

    def tell(rows: int) -> None:
        tally.forwards = before + rows

    return tell
