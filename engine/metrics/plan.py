"""
What an evaluation will run, known before anything runs.

In: the chosen metrics, how many methods there are, and the size of the maps. Out: the changes each map needs scored and
explained again, deduplicated over metrics, and the forwards they cost. The clean picture's logits come with its
explanation; where a changed picture is explained again, its logits come with that, so it is not scored as well. Two runs
are compared only if one program made both: where masked pictures are scored, the clean one is scored beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..choices import Choice
from ..errors import InputError
from ..plans import MASK_SPACES
from .asking import is_common
from .changes import Change, Clean, Masked, Randomised, depends_on_map, is_seeded, settled
from .table import Metric

__all__ = ["Plan", "plan_of"]

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """
    The changes of one map, and what they cost.

    Attributes
    ----------
    metrics : tuple of Choice
        What is judged.
    scored : tuple of Change
        What the model must see.
    again : tuple of Change
        What must be explained once more; their logits are scored as well.
    asked : int
        Scores that the metrics ask for, counted one by one.
    names : mapping of Change to Change
        What each change that a metric asks for is called here: "hidden" is the mask space's own colour.
    """

    metrics: tuple[Choice[Metric], ...]
    scored: tuple[Change, ...]
    again: tuple[Change, ...]
    asked: int
    names: Mapping[Change, Change]

    @property
    def is_seeded(self) -> bool:
        """Tell whether anything depends on the pictures' content hashes."""
        return any(is_seeded(change) for change in (*self.scored, *self.again))

    def by_name(self, found: Mapping[Change, T]) -> dict[Change, T]:
        """
        Return answers under the names that the metrics asked by.

        Parameters
        ----------
        found : mapping of Change
            Answers under the plan's own names.

        Returns
        -------
        dict of Change
            The same under both.
        """
        return {**found, **{name: found[change] for name, change in self.names.items() if change in found}}

    @property
    def by_map(self) -> int:
        """Count the forwards for each image and method."""
        return sum(depends_on_map(change) for change in self.scored)

    @property
    def by_image(self) -> int:
        """Count the forwards for each image, whatever the number of methods."""
        return sum(not depends_on_map(change) and not is_common(change) for change in self.scored)

    @property
    def by_batch(self) -> int:
        """Count the forwards for each batch."""
        return sum(is_common(change) for change in self.scored)

    def forwards(self, images: int, methods: int, batches: int) -> int:
        """
        Count the forwards of changed pictures; explanations come on top.

        Parameters
        ----------
        images, methods, batches : int
            How many there are.

        Returns
        -------
        int
            Rows that the model is run on.
        """
        return images * (methods * self.by_map + self.by_image) + batches * self.by_batch

    def explanations(self, images: int, methods: int) -> int:
        """
        Count the explanations, the first ones included.

        Parameters
        ----------
        images, methods : int
            How many there are.

        Returns
        -------
        int
            Maps that are made.
        """
        return images * methods * (1 + len(self.again))

    def described(self, images: int, methods: int, batches: int) -> str:
        """
        Say in words what will be run.

        Parameters
        ----------
        images, methods, batches : int
            How many there are.

        Returns
        -------
        str
            Two lines.
        """
        forwards, saved = self.forwards(images, methods, batches), images * methods * self.asked
        per_map = (
            f"{self.by_map} for each image and method, {self.by_image} for each image, {self.by_batch} for each batch"
        )
        return (
            f"{images} images x {methods} methods x {len(self.metrics)} metrics: {self.explanations(images, methods)} "
            f"explanations and {forwards} forwards of changed pictures ({per_map})\n"
            f"sharing: the metrics ask for {saved} scores one by one"
        )


def plan_of(metrics: Sequence[Choice[Metric]], size: tuple[int, int], mask_space: str = "normalised") -> Plan:
    """
    Work out what metrics need.

    Parameters
    ----------
    metrics : sequence of Choice
        Chosen metrics.
    size : tuple of int
        ``(H, W)`` of the maps.
    mask_space : {"normalised", "raw"}
        What "hidden" means.

    Returns
    -------
    Plan
        Every change once.

    Raises
    ------
    InputError
        If there is no such mask space.
    """
    if mask_space not in MASK_SPACES:
        raise InputError(f"mask_space must be one of {', '.join(MASK_SPACES)}; got {mask_space!r}")
    names: dict[Change, Change] = {}
    scored: dict[Change, None] = {}
    again: dict[Change, None] = {}
    asked = 0
    for choice in metrics:
        row, told = choice.row, {"variant": choice.variant, **choice.options}
        changes = row.changes(size, **told) if row.changes is not None else ()
        repeated = row.again(size, **told) if row.again is not None else ()
        asked += len(set(changes) | {change for change in repeated if not isinstance(change, Randomised)})
        names |= {change: settled(change, mask_space) for change in (*changes, *repeated)}
        scored |= dict.fromkeys(names[change] for change in changes)
        again |= dict.fromkeys(names[change] for change in repeated)
    left = [change for change in scored if change not in again and change != Clean()]
    if any(
        isinstance(change, Masked) for change in left
    ):  # of a map of ones: equal to the clean picture to the last bit
        left.append(Clean())
    return Plan(tuple(metrics), tuple(left), tuple(again), asked, names)
