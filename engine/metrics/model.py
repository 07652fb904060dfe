"""
What a metric may ask: the logits of many inputs, run in chunks, and what a black pixel is.

A `camrt.Explainer`, or any function from inputs to logits, becomes a `Model`. Metrics never see more of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..device import on_host
from ..errors import InputError, ShapeError
from ..explainer import Explainer
from ..methods.arrays import namespace
from ..planner import Planner

__all__ = ["Judged", "Model"]

Array = npt.NDArray[Any]
CHUNK = 16  # inputs that a function is given at a time


@dataclass(frozen=True, eq=False)
class Model:
    """
    A classifier as metrics see it.

    Attributes
    ----------
    logits : callable
        ``logits(x)`` gives scores before any softmax, (M, C), of inputs (M, ...); both NumPy arrays.
    channels_last : bool
        Whether inputs are (M, H, W, C).
    black : sequence of float
        What raw black is for each channel of the input: ``-mean / std`` where pictures are normalised so. It is needed for
        ``mask_space="raw"`` and for metrics that hide with black.
    unit : sequence of float
        How much of the input one raw unit, black to white, is for each channel: ``1 / std``. Noise given in raw units needs it.
    chunk : int
        Inputs a call.
    classes : int or None
        C, where it is known before anything runs.
    threads : int or None
        Threads that prepare inputs beside the model's own; as many as there are cores where None.
    """

    logits: Callable[[Array], Any]
    channels_last: bool = False
    black: Sequence[float] = (0.0,)
    unit: Sequence[float] = (1.0,)
    chunk: int = CHUNK
    classes: int | None = None
    threads: int | None = None

    def planner(self, x: Array) -> Planner:
        """
        Open a stream of forwards.

        Parameters
        ----------
        x : ndarray
            Inputs like those to come.

        Returns
        -------
        Planner
            It runs jobs in chunks.
        """
        shape, dtype = x.shape[1:], x.dtype

        def _run(buffer: Array, _: object) -> Array:
            logits = np.asarray(self.logits(buffer.copy()))
            if logits.ndim != 2 or len(logits) != len(buffer):
                raise ShapeError(f"the model must give logits ({len(buffer)}, C); it gave {logits.shape}")
            return logits

        return Planner(_run, lambda rows: np.empty((rows, *shape), dtype), self.chunk)

    def place(self) -> AbstractContextManager[Callable[[Array], Array]]:
        """
        Hold what the model runs on.

        Returns
        -------
        context manager
            It gives a callable that brings arrays to where `planner` takes them: to the host.
        """
        return nullcontext(on_host)

    def constant(self, values: Sequence[float], x: Array) -> Array:
        """
        Shape one number a channel so that it is broadcast over inputs.

        Parameters
        ----------
        values : sequence of float
            One a channel, or one for all.
        x : ndarray, shape (N, ...)
            The inputs.

        Returns
        -------
        ndarray, shape (1, C, 1, 1) or (1, 1, 1, C)
            In the inputs' type and place; in float32 for integer inputs.
        """
        dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
        shape = (1, 1, 1, -1) if self.channels_last else (1, -1, 1, 1)
        made: Array = namespace(x).asarray(values, dtype=dtype).reshape(shape)
        return made


@dataclass(frozen=True, eq=False)
class _Explained(Model):
    """A model that an explainer holds: its own planner, shared with masked forwards of other callers."""

    explainer: Explainer | None = None

    def planner(self, x: Array) -> Planner:
        """Return the explainer's own stream."""
        assert self.explainer is not None
        return self.explainer.planner(x)

    def place(self) -> AbstractContextManager[Callable[[Array], Array]]:
        """Hold the explainer's own device, where it has one."""
        assert self.explainer is not None
        return self.explainer.place()


Judged: TypeAlias = Model | Explainer | Callable[[Array], Any]


def model_of(given: Judged) -> Model:
    """
    Make a `Model` of whatever stands for one.

    Parameters
    ----------
    given : Model, Explainer or callable
        An explainer of `camrt.load`, or a function from inputs (M, ...) to logits (M, C).

    Returns
    -------
    Model
        What metrics ask.

    Raises
    ------
    InputError
        If it is neither.
    """
    if isinstance(given, Model):
        return given
    if isinstance(given, Explainer):
        preprocess = given.preprocess
        unit = [255 * preprocess.scale / s for s in np.broadcast_to(preprocess.std, len(preprocess.black))]
        return _Explained(
            lambda x: given.logits(x),
            preprocess.layout == "nhwc",
            preprocess.black,
            tuple(unit),
            classes=given.manifest.classes,
            threads=given.sessions.threads,
            explainer=given,
        )
    if callable(given):
        return Model(given)
    raise InputError(
        f"a model must be a camrt.Explainer or a function from inputs to logits; got {type(given).__name__}"
    )


def hidden_of(model: Model, mask_space: str, x: Array) -> Array:
    """
    Return what a hidden pixel shows.

    Parameters
    ----------
    model : Model
        The model.
    mask_space : {"normalised", "raw"}
        Zero after preprocessing, or black.
    x : ndarray
        The inputs.

    Returns
    -------
    ndarray
        Broadcastable to the inputs.
    """
    return model.constant((0.0,) if mask_space == "normalised" else model.black, x)
