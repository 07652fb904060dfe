"""
Pictures decoded ahead of the device, in order.

A few threads read, decode and prepare pictures while the model runs; Pillow lets go of the interpreter while it decodes.
At most `ahead` finished pictures wait, so memory is bounded by the caller's pace. What cannot be used comes out as `Broken`
with its reason, in its place: in 50,000 pictures some are broken, and no run should end for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ImageError, InputError, ShapeError, TargetError
from ..image import MAX_PIXELS, decode
from ..preprocess import Frame, Preprocess
from .sample import Dataset, Mask, Sample

__all__ = ["Broken", "Read", "read_ahead", "read_sample"]


@dataclass(frozen=True, eq=False)
class Read:
    """
    One picture as the model takes it, with what is known about it in the network's window.

    Attributes
    ----------
    sample : Sample
        Where it comes from.
    x : ndarray, shape (1, C, H, W) or (1, H, W, C)
        The model's input.
    picture : ndarray of uint8, shape (H, W, 3)
        What the network sees.
    label : int or None
        The true class.
    boxes : ndarray of float64, shape (B, 4), or None
        ``x0 y0 x1 y1``, half-open, in pixels of the window and clipped to it; a box that the crop cut away has no area.
    mask : ndarray of bool, shape (H, W), or None
        The object's pixels.
    ignored : ndarray of bool, shape (H, W), or None
        Pixels that count neither way.
    """

    sample: Sample
    x: np.ndarray
    picture: npt.NDArray[np.uint8]
    label: int | None = None
    boxes: npt.NDArray[np.float64] | None = None
    mask: npt.NDArray[np.bool_] | None = None
    ignored: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Broken:
    """
    A sample that is left out.

    Attributes
    ----------
    sample : Sample
        Which.
    reason : str
        Why, in one line.
    """

    sample: Sample
    reason: str


def read_ahead(
    dataset: Dataset,
    indices: Iterable[int],
    preprocess: Preprocess,
    *,
    workers: int = 2,
    ahead: int | None = None,
    n_classes: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Generator[Read | Broken, None, None]:
    """
    Read samples in order, some of them before they are asked for.

    Parameters
    ----------
    dataset : Dataset
        What to read.
    indices : iterable of int
        Which samples, in which order; taken as they are needed, so it may be endless.
    preprocess : Preprocess
        The model's.
    workers : int, default 2
        Threads that decode.
    ahead : int, optional
        How many samples may be decoded or decoding beyond the one handed out; four a worker where absent.
    n_classes : int, optional
        The model's number of classes; a label outside it makes a sample `Broken`.
    max_pixels : int, default 64_000_000
        Larger pictures are broken ones.

    Yields
    ------
    Read or Broken
        One for each index, in its order.

    Raises
    ------
    InputError
        If `workers` or `ahead` is below 1, or the model takes no pictures.
    IndexError
        If an index is not in the data set.

    Notes
    -----
    Threads start with the first sample; they also ask the data set for its samples, so `Dataset.__getitem__` must bear
    several at once. They end when the last is out, when the generator is closed or dropped, or when
    the loop around it is left by an error: pictures not yet begun are dropped, those in work are waited for.
    """
    waiting = 4 * workers if ahead is None else ahead
    if workers < 1 or waiting < 1:
        raise InputError(f"workers and ahead must be at least 1; got {workers} and {waiting}")
    if preprocess.color == "bands":
        raise ImageError(f"the model takes {preprocess.channels} channels, so no data set of pictures fits it")

    def _read(index: int) -> Read | Broken:
        return read_sample(dataset[index], preprocess, n_classes=n_classes, max_pixels=max_pixels)

    def _run() -> Generator[Read | Broken, None, None]:
        with _pool(workers) as pool:
            pending: deque[Future[Read | Broken]] = deque()
            upcoming: Iterator[int] = iter(indices)
            while True:
                while len(pending) <= waiting and (index := next(upcoming, None)) is not None:
                    pending.append(pool.submit(_read, index))
                if not pending:
                    return
                yield pending.popleft().result()

    return _run()


def read_sample(
    sample: Sample, preprocess: Preprocess, *, n_classes: int | None = None, max_pixels: int = MAX_PIXELS
) -> Read | Broken:
    """
    Read one sample.

    Parameters
    ----------
    sample : Sample
        Which.
    preprocess : Preprocess
        The model's.
    n_classes : int, optional
        The model's number of classes.
    max_pixels : int, default 64_000_000
        Larger pictures are broken ones.

    Returns
    -------
    Read or Broken
        Broken where the picture, its label, boxes or masks cannot be used.
    """
    try:
        if sample.label is not None and n_classes is not None and not 0 <= sample.label < n_classes:
            raise TargetError(f"label {sample.label} is not one of the model's {n_classes} classes")
        picture = decode(sample.read(), max_pixels=max_pixels)
        height, width = picture.shape[:2]
        if sample.size is not None and sample.size != (height, width):
            raise ShapeError(
                f"boxes and masks are for a picture of {sample.size[1]} x {sample.size[0]} pixels; it has {width} x {height}"
            )
        frame = preprocess.frame(height, width)
        boxes = _boxes(sample, frame)
        mask = _mask(sample.mask, frame, "mask")
        ignored = _mask(sample.ignored, frame, "mask of ignored pixels")
        fitted = preprocess.fit(picture)
        return Read(sample, preprocess.apply(fitted[None]), fitted, sample.label, boxes, mask, ignored)
    except (InputError, OSError, MemoryError) as error:
        return Broken(sample, " ".join(str(error).split()) or type(error).__name__)


def _boxes(sample: Sample, frame: Frame) -> npt.NDArray[np.float64] | None:
    """Clip the boxes to the picture, drop those without area there, and carry the others to the window."""
    if sample.boxes is None or not len(sample.boxes):
        return None
    height, width = frame.source
    given = np.asarray(sample.boxes, np.float64)
    if given.ndim != 2 or given.shape[1] != 4 or not np.isfinite(given).all():
        raise ShapeError(f"boxes must be finite numbers of shape (B, 4); got shape {given.shape}")
    clipped = np.clip(given, 0, [width, height, width, height])
    inside = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    if not inside.any():
        shown = " ".join(f"{number:g}" for number in given[0])
        raise ShapeError(f"no box has area within the picture of {width} x {height} pixels; the first is {shown}")
    return frame.boxes(clipped[inside])


def _mask(read: Callable[[], Mask | None] | None, frame: Frame, what: str) -> Mask | None:
    """Read a mask and carry it to the window."""
    mask = None if read is None else read()
    if mask is None:
        return None
    if mask.shape != frame.source:
        raise ShapeError(f"the {what} has shape {mask.shape}, the picture {frame.source}; they must be the same")
    return frame.mask(mask)


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Hold threads, and wait for them at the end; what they had not begun is dropped."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="camrt-read")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
