"""
One stream of masked forwards for everybody: rows of all images, methods and callers, packed into chunks of one size.

In: a `Job`, so many rows that can be written into a buffer. Out: the logits of each row, handed back as they come. There
is no thread of its own: of the callers that wait, as many as there are lanes fill and run the next chunk, with rows of
every waiting job in turn, and leave when their own job is done. So many callers share full chunks, a small job never
waits for the whole of a large one, and nothing has to be started or shut down.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from .errors import CancelledError, MemoryBoundError
from .limits import UNLIMITED, Limits

__all__ = ["Job", "Planner", "chunk_of"]

Array = npt.NDArray[Any]
_OUT_OF_MEMORY = ("failed to allocate", "bad_alloc", "out of memory", "available memory of", "cuda_error_out_of_memory")


@dataclass(eq=False)
class Job:
    """
    Rows that somebody wants run.

    Attributes
    ----------
    rows : int
        How many.
    fill : callable
        ``fill(buffer, start, stop)`` writes rows start to stop into a buffer of as many rows.
    take : callable
        ``take(start, stop, logits)`` receives their logits; never called twice for a row.
    limits : Limits
        What may end the job early.
    until : float
        The time (`time.monotonic`) after which no more rows are begun; the job then ends with what it has.
    tell : callable, optional
        Told between chunks how many rows have been taken, by the thread that waits for the job and while it holds no lane:
        so it may take its time, ask the planner for more, or raise.
    """

    rows: int
    fill: Callable[[Array, int, int], None]
    take: Callable[[int, int, Array], None]
    limits: Limits = UNLIMITED
    until: float = float("inf")
    tell: Callable[[int], None] | None = None
    _taken: int = field(default=0, init=False)
    _next: int = field(default=0, init=False)  # rows begun
    _back: list[tuple[int, int]] = field(default_factory=list, init=False)  # rows to be begun once more
    _running: int = field(default=0, init=False)
    _error: BaseException | None = field(default=None, init=False)

    @property
    def waiting(self) -> bool:
        """Whether rows are left to begin."""
        if self._error is not None or self.limits.stopped or time.monotonic() >= self.until:
            return False
        return self._next < self.rows or bool(self._back)

    @property
    def over(self) -> bool:
        """Whether nothing is left to wait for."""
        return self._error is not None or self.limits.stopped or (not self._running and not self.waiting)


@dataclass(frozen=True)
class _Piece:
    """Neighbouring rows of one job within a chunk."""

    job: Job
    start: int
    stop: int


class Planner:
    """
    Packs jobs into chunks and runs them.

    Parameters
    ----------
    run : callable
        ``run(buffer, limits)`` returns the logits of the buffer's rows, one row each.
    empty : callable
        ``empty(rows)`` makes a buffer of so many rows.
    chunk : int
        Rows a run; halved, and the run repeated, where memory runs out.
    lanes : int
        Chunks that may run at the same time.
    """

    def __init__(
        self,
        run: Callable[[Array, Limits], Array],
        empty: Callable[[int], Array],
        chunk: int,
        lanes: int = 1,
    ) -> None:
        self._run, self._empty = run, empty
        self.chunk = chunk
        self._lanes = lanes
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._buffers: list[Array] = []
        self._driving = 0

    def run(self, job: Job) -> None:
        """
        Have every row of a job run, or as many as its limits allow.

        Parameters
        ----------
        job : Job
            The work; its `take` has received the logits when this returns.

        Raises
        ------
        ProviderError
            If the model does not run; one row at a time included, where memory is short.
        DeadlineError, CancelledError
            If the job's limits end it.

        Notes
        -----
        Cost: ``ceil(rows / chunk)`` runs when the job is alone. The numbers of a row do not depend on the rows beside it.
        """
        with job.limits.watch(self._wake):
            with self._changed:
                self._jobs.append(job)
            try:
                self._serve_until_over(job)
            finally:
                with self._changed:
                    self._jobs.remove(job)
                    if not self._jobs and not self._driving and job._error is not None:
                        self._buffers.clear()  # a device that failed gets its memory back
                    self._changed.notify_all()
        error = job._error
        try:
            job.limits.check()
            if error is not None:
                raise error
        finally:  # the error's traceback holds the job and this frame: together they would keep arrays and model for long
            job._error = error and CancelledError("the job is over")
            del error

    def _wake(self) -> None:
        """Let waiting callers look again."""
        with self._changed:
            self._changed.notify_all()

    def _serve_until_over(self, job: Job) -> None:
        """Wait for the job, running chunks whenever a lane is free."""
        told = 0
        while True:
            pieces: list[_Piece] = []
            with self._changed:
                while not job.over and job._taken == told and self._is_busy():
                    self._changed.wait()
                over, fresh, told = job.over, job._taken > told, job._taken
                if not over and not fresh and (pieces := self._choose()):
                    self._driving += 1
                    buffer = self._buffers.pop() if self._buffers else None
            if fresh and job.tell is not None:
                job.tell(told)
            if over:
                return
            if not pieces:
                continue
            try:
                buffer = self._run_pieces(pieces, buffer)
            except BaseException:
                buffer = None
                raise
            finally:
                with self._changed:
                    self._driving -= 1
                    if buffer is not None and len(buffer) == self.chunk:
                        self._buffers.append(buffer)
                    self._changed.notify_all()

    def _is_busy(self) -> bool:
        """Tell whether no lane is free, or nothing is left to begin; called under the lock."""
        return self._driving >= self._lanes or not any(job.waiting for job in self._jobs)

    def _choose(self) -> list[_Piece]:
        """Take the next chunk's rows, the same share of every job in turn; called under the lock."""
        pieces: list[_Piece] = []
        room = self.chunk
        while room > 0 and (ready := [job for job in self._jobs if job.waiting]):
            share = max(1, room // len(ready))
            for job in ready:
                piece = _next_piece(job, min(share, room))
                pieces.append(piece)
                room -= piece.stop - piece.start
                if room == 0:
                    break
        for job in {id(piece.job): piece.job for piece in pieces}.values():
            job._running += 1
            self._jobs.remove(job)  # to the end of the queue: whoever had no room comes first next time
            self._jobs.append(job)
        return _joined(pieces)

    def _run_pieces(self, pieces: Sequence[_Piece], buffer: Array | None) -> Array | None:
        """Fill, run and hand back one chunk; an error goes to the jobs it belongs to."""
        jobs = list({id(piece.job): piece.job for piece in pieces}.values())
        size = sum(piece.stop - piece.start for piece in pieces)
        limits = Limits() if len(jobs) > 1 else jobs[0].limits  # nobody ends a run that others wait for
        try:
            if buffer is None or len(buffer) < size:
                buffer = self._empty(max(self.chunk, size))
            logits = self._run(self._filled(pieces, buffer, size), limits)
            place = 0
            for piece in pieces:
                stop = place + piece.stop - piece.start
                _blaming(piece.job, piece.job.take, piece.start, piece.stop, logits[place:stop])
                place = stop
            with self._changed:
                for piece in pieces:
                    piece.job._taken += piece.stop - piece.start
        except Exception as error:  # noqa: BLE001  whoever waits for these rows raises it
            self._failed(pieces, error)
            buffer = None
        except BaseException:  # the thread is told to end; the rows of others are run by others
            with self._changed:
                for piece in pieces:
                    piece.job._back.append((piece.start, piece.stop))
            raise
        finally:
            with self._changed:
                for job in jobs:
                    job._running -= 1
        return buffer

    def _filled(self, pieces: Sequence[_Piece], buffer: Array, size: int) -> Array:
        """Let every job write its rows."""
        place = 0
        for piece in pieces:
            stop = place + piece.stop - piece.start
            _blaming(piece.job, piece.job.fill, buffer[place:stop], piece.start, piece.stop)
            place = stop
        return buffer[:size]

    def _failed(self, pieces: Sequence[_Piece], error: Exception) -> None:
        """Repeat in smaller chunks where memory ran out, otherwise tell the jobs."""
        size = sum(piece.stop - piece.start for piece in pieces)
        short = isinstance(error, MemoryError) or any(word in str(error).lower() for word in _OUT_OF_MEMORY)
        with self._changed:
            self._buffers.clear()
            if short and size > 1:
                self.chunk = max(1, min(self.chunk, size) // 2)
                for piece in pieces:
                    piece.job._back.append((piece.start, piece.stop))
                return
            if short:
                error = MemoryBoundError(f"there is no memory left for a single masked forward: {error}")
            for piece in pieces:
                piece.job._error = piece.job._error or error


def chunk_of(wanted: int, row_bytes: int, bound: int) -> int:
    """
    Return how many rows a chunk may have.

    Parameters
    ----------
    wanted : int
        What is fastest.
    row_bytes : int
        What one row needs.
    bound : int
        What all of them may need.

    Returns
    -------
    int
        At most `wanted`, at least 1.

    Raises
    ------
    MemoryBoundError
        If one row does not fit; the message says what it needs.

    Examples
    --------
    >>> chunk_of(4, 100, 250)
    2
    """
    if row_bytes > bound:
        raise MemoryBoundError(
            f"one masked forward of this model needs about {row_bytes / 2**20:.0f} MB, and {bound / 2**20:.0f} MB are allowed: "
            f"allow at least {-(-row_bytes // 2**20)} MB"
        )
    return max(1, min(wanted, bound // max(1, row_bytes)))


def _next_piece(job: Job, most: int) -> _Piece:
    """Begin up to `most` neighbouring rows of a job."""
    if job._back:
        start, stop = job._back.pop()
        if stop - start > most:
            job._back.append((start + most, stop))
        return _Piece(job, start, min(stop, start + most))
    start = job._next
    job._next = min(job.rows, start + most)
    return _Piece(job, start, job._next)


def _joined(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Put neighbouring rows of one job together."""
    joined: list[_Piece] = []
    for piece in sorted(pieces, key=lambda p: (id(p.job), p.start)):
        last = joined[-1] if joined else None
        if last is not None and last.job is piece.job and last.stop == piece.start:
            joined[-1] = _Piece(piece.job, last.start, piece.stop)
        else:
            joined.append(piece)
    return joined


def _blaming(job: Job, call: Callable[..., None], *arguments: Any) -> None:
    """Call a job's own function; what it raises is that job's affair alone."""
    if job.limits.stopped or job._error is not None:
        return
    try:
        call(*arguments)
    except Exception as error:  # noqa: BLE001  whoever waits for the job raises it
        job._error = job._error or error
