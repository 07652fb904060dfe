"""
What every stack needs: a bundle that is opened once, calls that are read and checked, and the scheduler before them.

::

    pictures, target, parameters --read--> Ask --answer (many) or wait (one)--> Answer --tensors_of--> arrays by name

It is `camrt.server` without HTTP: calls mean the same and are held to the same limits, cheap ones share runs, dear ones
have threads of their own and share chunks of masked forwards. A stack's own batching may be left off.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CamrtError, ImageError, MissingExtraError
from ..opening import load

try:
    from ..server.asking import make_ask, read_timeout, read_wish
    from ..server.asks import Ask
    from ..server.scheduler import Scheduler
    from ..server.served import Lease, Served
    from ..server.settings import read_settings
    from ..server.tickets import Answer
    from ..server.waiting import wait_for
    from ..server.warming import warm
except ImportError as missing:
    raise MissingExtraError("embedding needs what the server does: pip install 'camrt[serve]'") from missing

__all__ = ["TENSORS", "Desk", "stack", "tensors_of"]

Array = npt.NDArray[Any]

TENSORS = {  # name: (the Open Inference Protocol's data type, what stands behind N)
    "cam": ("FP32", "THW"),
    "logits": ("FP32", "C"),
    "target": ("INT64", "T"),
    "value": ("FP32", "T"),
    "degenerate": ("BOOL", "T"),
}


class Desk:
    """
    A bundle that explains for a stack; safe for threads.

    Parameters
    ----------
    bundle : str or Path
        A bundle folder.
    settings : mapping, optional
        Fields of `camrt.server.settings.Settings`, which also reads the environment: ``providers``, ``precision``,
        ``threads``, ``memory`` say how the model runs; ``max_work``, ``ceilings``, ``max_images`` and others what a call
        may ask for; ``queue_work``, ``batch``, ``delay`` how calls wait.
    name : str, default "model"
        What the model is called.
    providers : optional
        As `camrt.load` takes them, in place of the setting, which holds names alone.

    Raises
    ------
    CamrtError
        If the bundle, or a setting, is no good.
    """

    def __init__(
        self,
        bundle: str | Path,
        settings: Mapping[str, Any] | None = None,
        *,
        name: str = "model",
        providers: Any = None,
    ) -> None:
        start = time.perf_counter()
        self.settings = read_settings(settings or {})
        told = self.settings
        self.explainer = load(
            bundle,
            providers=providers or told.providers,
            precision=told.precision,
            threads=told.run_threads,
            threads_beside=told.run_threads_beside,
            memory=told.memory,
        )
        rate = warm(self.explainer, told.warm, told.batch)
        self.served = Served(name, "1", self.explainer, time.perf_counter() - start, rate)
        self._scheduler = Scheduler(told)

    def read(
        self,
        images: bytes | Sequence[bytes] | Array,
        target: Any = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        explain: bool = True,
    ) -> Ask:
        """
        Read a call and check all that can be told before anything runs.

        Parameters
        ----------
        images : bytes, sequence of bytes or ndarray
            Encoded pictures; uint8 pictures (H, W, 3) or (N, H, W, 3); or inputs prepared in the model's layout, with or
            without the batch axis. Never a path.
        target : optional
            One target for all images: a class index, -1 or None for the predicted class, a label, a text such as
            ``"prob:3"``; N of them, one an image; or N rows of T.
        parameters : mapping, optional
            As requests to `camrt.server` have them: ``method``, ``variant``, ``layer`` (several with commas),
            ``pipeline``, ``fuse``, ``eigen_smooth``, ``tta``, ``mask_space``, ``max_forwards``, ``max_seconds``,
            ``stability``, ``timeout`` in seconds; any other name is an option of the method. Numbers may be texts.
        explain : bool, default True
            Whether heatmaps are wanted beside the scores.

        Returns
        -------
        Ask
            For `answer` or `wait`.

        Raises
        ------
        InputError
            If anything does not fit the model or the limits; the subclass says what.
        """
        told = dict(parameters or {})
        wish = read_wish(told, self.served, self.settings) if explain else None
        timeout = read_timeout(told.get("timeout"), self.settings)
        return make_ask(_images(images), target, wish, timeout, self.served, self.settings)

    def answer(self, asks: Sequence[Ask | CamrtError]) -> list[Answer | BaseException]:
        """
        Answer several calls.

        Parameters
        ----------
        asks : sequence of (Ask or CamrtError)
            Calls in any mixture; an error stands for one that could not be read.

        Returns
        -------
        list of (Answer or BaseException)
            One a call, in order: its answer, or what is wrong with it. No call spoils another.
        """
        futures = [self._begun(ask) for ask in asks]
        return [future.exception() or future.result() for future in futures]

    async def wait(self, ask: Ask) -> Answer:
        """
        Answer one call on an event loop.

        Parameters
        ----------
        ask : Ask
            The call.

        Returns
        -------
        Answer
            Its explanation and scores.

        Raises
        ------
        CamrtError
            What is wrong with it, or that there is no room for it.

        Notes
        -----
        Where the task that waits is cancelled, the work ends too, unless others share it.
        """
        return await wait_for(self._scheduler, Lease(self.served), ask, _never)

    def close(self) -> None:
        """End all threads, and what is under way."""
        self._scheduler.close()

    def _begun(self, ask: Ask | CamrtError) -> Future[Answer]:
        """Hand a call to the scheduler."""
        future: Future[Answer] = Future()

        def done(answer: Answer | None, error: BaseException | None) -> None:
            if answer is not None:
                future.set_result(answer)
            else:
                future.set_exception(error or AssertionError("a call ended without a word"))

        if isinstance(ask, CamrtError):
            future.set_exception(ask)
            return future
        try:
            self._scheduler.submit(Lease(self.served), ask, done)
        except CamrtError as error:
            future.set_exception(error)
        return future


def tensors_of(answer: Answer) -> dict[str, Array]:
    """
    Name an answer's arrays as the Open Inference Protocol's outputs are in `camrt.server`.

    Parameters
    ----------
    answer : Answer
        Of a call that wanted an explanation.

    Returns
    -------
    dict of str to ndarray
        Those of `TENSORS`, in order: ``cam`` (N, T, H, W) in [0, 1], ``logits`` (N, C), ``target``, ``value`` and
        ``degenerate`` (N, T). Where scores alone were wanted, ``logits`` alone.
    """
    logits = {"logits": np.asarray(answer.logits, np.float32)}
    made = answer.explanation
    if made is None:
        return logits
    return {
        "cam": np.asarray(made.heatmaps, np.float32),
        **logits,
        "target": np.asarray(made.targets, np.int64),
        "value": np.asarray(made.values, np.float32),
        "degenerate": np.asarray(made.degenerate, np.bool_),
    }


def stack(module: str, install: str) -> Any:
    """
    Import a serving stack.

    Parameters
    ----------
    module : str
        Its module.
    install : str
        What to tell somebody who does not have it.

    Returns
    -------
    module
        The stack.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{module} is not installed: {install}") from error


def _images(images: Any) -> tuple[bytes, ...] | Array:
    """Check what stands for the images, and give a single array its batch axis; a text is never opened."""
    if isinstance(images, bytes | bytearray | memoryview):
        return (bytes(images),)
    if isinstance(images, list | tuple) and all(isinstance(item, bytes) for item in images):
        return tuple(images)
    if isinstance(images, np.ndarray) and images.dtype.kind in "fu" and images.ndim in (3, 4):
        array: Array = images[None] if images.ndim == 3 else images
        return array
    what = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
    raise ImageError(f"images must be encoded pictures (bytes) or an array of three or four axes; got {what}")


async def _never() -> None:
    """Wait for a client to leave: stacks cancel the task instead."""
    await asyncio.Event().wait()
