"""
Other ways through the model than its plain gradient, as callables that methods may ask.

In: a question, what is known of the answer, and a layer. Out: by the names of `camrt.methods.table.EVIDENCE`, callables
that run the layer's tail on other activations, or carry a target back by another rule table: guided, relevance,
DeepLIFT, the gradients of every bias and of attention. Each runs one program of the model when it is called, and none before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import targets as target_table
from .errors import MethodError
from .evidence import Evidence, Question
from .methods.table import Method
from .scalars import cotangent, value

__all__ = ["programs_of", "ways"]

Array = npt.NDArray[Any]
_PROGRAMS = {
    "guided_of": ("guided_gradient",),
    "full_of": ("bias_terms", "bias_gradients"),
    "relevance_of": ("relevance", "relevance_bias"),
    "lift_of": ("lift",),
    "attention_of": ("map_legrad", "attention", "attention_all"),
}
_LATE = 2  # blocks that the program "attention" gives, from the last backwards


def programs_of(method: Method) -> tuple[str, ...]:
    """
    Return the programs a method runs that no bundle holds unless it is asked to.

    Parameters
    ----------
    method : Method
        A row of the table.

    Returns
    -------
    tuple of str
        Keys of `camrt.export.programs.ON_REQUEST`, for every variant of the method.
    """
    return tuple(kind for need in method.needs for kind in _PROGRAMS.get(need, ()))


def ways(question: Question, evidence: Evidence, index: int) -> dict[str, Callable[..., Any]]:
    """
    Return the callables for one layer and one target an image.

    Parameters
    ----------
    question : Question
        The model, the layers and the batch.
    evidence : Evidence
        What is known of the target.
    index : int
        Which of the layers.

    Returns
    -------
    dict of str to callable
        By the names of `camrt.methods.table.EVIDENCE`.
    """
    return _Ways(question, evidence, index).offered()


class _Ways:
    """One layer, one batch, one target an image; the layer's tail is fed at most once from the image."""

    def __init__(self, question: Question, evidence: Evidence, index: int) -> None:
        self._question, self._evidence = question, evidence
        self._layer = question.layers[index : index + 1]
        self._known: dict[str, Array] = evidence.named if len(question.layers) == 1 else {}

    def offered(self) -> dict[str, Callable[..., Any]]:
        """Return every callable by name."""
        return {
            "seed": self.seed,
            "target_at": self.target_at,
            "logits_from": self.logits_from,
            "gradients_from": self.gradients_from,
            "guided_of": self.guided_of,
            "full_of": self.full_of,
            "relevance_of": self.relevance_of,
            "lift_of": self.lift_of,
            "attention_of": self.attention_of,
        }

    def seed(self) -> Array:
        """Return the cotangent of the target at the logits."""
        return target_table.seeds(self._evidence.column, self._evidence.logits)

    def target_at(self, logits: Array, images: Array) -> tuple[Array, Array]:
        """Return the value and the cotangent of some images' targets at other logits; the classes stay the same."""
        pinned = target_table.pin(self._evidence.column, self._evidence.logits)
        pairs = [(pinned[image], row) for image, row in zip(images, logits.astype(np.float64), strict=True)]
        return np.array([value(*pair) for pair in pairs]), np.array([cotangent(*pair) for pair in pairs])

    def logits_from(self, acts: Array) -> Array:
        """Return the logits that other activations lead to."""
        return self._behind("tail", acts=acts)["logits"]

    def gradients_from(self, acts: Array, seed: Array) -> Array:
        """Carry a cotangent back to other activations."""
        return self._behind("tail_gradient", acts=acts, seed=seed)["gradients.0"]

    def guided_of(self, seed: Array) -> Array:
        """Carry a cotangent back to the image by guided back-propagation."""
        return self._from_image("guided_gradient", seed)["input_gradient"]

    def full_of(self, seed: Array, times_bias: bool) -> tuple[Array, list[Array]]:
        """Carry a cotangent back to the image and to every tensor that receives a bias."""
        named = self._from_image("bias_terms" if times_bias else "bias_gradients", seed)
        return named["input_gradient"], [array for name, array in named.items() if name.startswith("biases.")]

    def relevance_of(self, relevance: Array, biased: bool) -> Array:
        """Carry relevance of the logits back to the layer."""
        return self._behind("relevance_bias" if biased else "relevance", seed=relevance)["relevance.0"]

    def lift_of(self, seed: Array) -> Array:
        """Share the change from activations of zero among them."""
        return self._behind("lift", seed=seed)["contributions.0"]

    def attention_of(self, seed: Array, blocks: tuple[int, ...] | None) -> Array:
        """Carry a cotangent at the scores of each block back to the block's attention."""
        are_late = blocks is not None and all(-_LATE <= block < 0 for block in blocks)
        maps = self._from_image("attention" if are_late else "attention_all", seed, self._layer)["maps"]
        if blocks is None:
            return maps
        count = maps.shape[1]
        outside = [block for block in blocks if not -count <= block < count]
        if outside:
            raise MethodError(
                f"the model has {count} block{'s' if count > 1 else ''} with attention between all tokens; option blocks "
                f"asks for {', '.join(map(str, outside))}"
            )
        return maps[:, list(blocks)]

    def _from_image(self, kind: str, seed: Array, layers: tuple[str, ...] = ()) -> dict[str, Array]:
        """Run a program that starts at the image."""
        feeds = {"x": self._question.x, "seed": seed.astype(self._evidence.logits.dtype, copy=False)}
        return self._question.run(kind, feeds, layers)

    def _behind(self, kind: str, acts: Array | None = None, seed: Array | None = None) -> dict[str, Array]:
        """Run a program that starts at the layer."""
        if not self._known:
            self._known = self._question.run("features", {"x": self._question.x}, self._layer)
        feeds = {n: array for n, array in self._known.items() if n.startswith(("activations.", "context."))}
        dtype = feeds["activations.0"].dtype
        given = {"activations.0": acts, "seed": seed}
        feeds |= {n: np.asarray(array, dtype) for n, array in given.items() if array is not None}
        return self._question.run(kind, feeds, self._layer)
