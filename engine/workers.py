"""
Who computes which shard: one process, several of this machine, or any number on one shared folder.

A `Run` and a function that computes a range of pictures go in; the missing shards are in the folder when `work` returns.
While a process computes a shard it holds a lock on the shard's claim file. The operating system lets go of it when the
process ends in whatever way, so the shard of a killed worker is free at once and another takes it over. Where a file
system has no locks, a static part of the shards, ``part=(i, n)``, needs none: two writers of one shard do no harm, they
only do the work twice.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess as Process
from typing import TypeAlias

from .errors import CamrtError, InputError, MissingExtraError, OutputError
from .shards import Part, Problem, Rows, Run

__all__ = ["Compute", "MakeCompute", "Progress", "run_processes", "work"]

Compute: TypeAlias = Callable[[range], tuple[Rows, Sequence[Problem]]]  # pictures -> what `Run.write` takes
MakeCompute: TypeAlias = Callable[[], Compute]  # loads the model, once in each process
Progress: TypeAlias = Callable[[int], None]  # is told how many pictures of the folder are done, by whomever

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what a file system without them answers
PAUSE = 0.5  # seconds between two looks at shards that others hold, and between two reports of their progress


def work(
    run: Run, compute: Compute, *, part: Part | None = None, progress: Progress | None = None, wait: bool = True
) -> int:
    """
    Compute the missing shards, beside whoever else works on the same folder.

    Parameters
    ----------
    run : Run
        The evaluation.
    compute : callable
        ``compute(pictures)`` returns rows and problems of a range of pictures, the same ones each time it is called.
    part : (int, int), optional
        Of ``(i, n)``, only every n-th shard from the i-th on, without locks. Without it every shard is claimed.
    progress : callable, optional
        Called with the number of pictures that are done, at the start and after each shard.
    wait : bool, default True
        Whether to stay until the shards that others have claimed are there too, and take them over from who dies.

    Returns
    -------
    int
        How many shards this call computed.

    Raises
    ------
    OutputError
        If a shard cannot be written, or the file system has no locks.
    InputError
        If there is no such part.
    MissingExtraError
        If filelock is not installed and there is no part.
    """
    report = progress or _silent
    report(run.pictures_done())
    computed = 0
    while missing := run.missing(part):
        before = computed
        for shard in missing:
            with contextlib.nullcontext(True) if part else _claimed(run, shard) as ours:
                if not ours or run.is_done(shard):
                    continue
                computed += run.write(shard, *compute(run.ranges[shard]))
            report(run.pictures_done())
        if computed == before:  # all that is missing is in other hands
            if not wait:
                break
            time.sleep(PAUSE)
            report(run.pictures_done())
    return computed


def run_processes(run: Run, make_compute: MakeCompute, processes: int, *, progress: Progress | None = None) -> None:
    """
    Compute the missing shards in several processes of this machine.

    Parameters
    ----------
    run : Run
        The evaluation.
    make_compute : callable
        Returns what `work` takes; called once in each process, and pickled on the way there.
    processes : int
        How many.
    progress : callable, optional
        As of `work`.

    Raises
    ------
    InputError
        If no process is asked for.
    CamrtError
        If every process died before the shards were complete; those that are complete stay.
    Exception
        What `make_compute` or its function raised, with the trace of the process in a note; the others are stopped.

    Warns
    -----
    RuntimeWarning
        If a process died, for example by the system's want of memory; the others take over what it had.

    Notes
    -----
    The processes end with this one, also where it is killed.
    """
    if processes < 1:
        raise InputError(f"one process at least; got {processes}")
    report = progress or _silent
    context = multiprocessing.get_context("spawn")
    started: dict[Connection, Process] = {}
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe(duplex=False)
            process: Process = context.Process(target=_process, args=(run, make_compute, theirs), daemon=True)
            process.start()
            theirs.close()
            started[ours] = process
        alive = dict(started)
        while alive:
            report(run.pictures_done())
            ready = connection.wait(list(alive), timeout=PAUSE)
            for line in [line for line in alive if line in ready]:
                process = alive.pop(line)
                if (error := _last_word(line)) is not None:
                    raise error
                process.join()
                if process.exitcode:
                    warnings.warn(f"{_death(process)}; the others take over what it had", RuntimeWarning, stacklevel=2)
        report(run.pictures_done())
        if missing := run.missing():
            raise CamrtError(
                f"every worker process has ended and {len(missing)} shards are missing, the first is {missing[0]}: give "
                "fewer processes more memory each, and run the same again; what is complete stays"
            )
    finally:
        for line, process in started.items():
            process.terminate()
            process.join()
            line.close()


def _silent(_done: int) -> None:
    """Say nothing."""


@contextlib.contextmanager
def _claimed(run: Run, shard: int) -> Iterator[bool]:
    """Hold a shard's claim, and say whether this is it; False where another process has it."""
    try:
        import filelock
    except ImportError as error:
        raise MissingExtraError("filelock is needed to share a folder: pip install 'camrt[eval]'") from error
    path = run.claim_file(shard)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=0, fallback_to_soft=False)  # a soft one would outlive a killed owner
        lock.acquire()
    except filelock.Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise OutputError(
                f"cannot write {str(path)!r}: {error.strerror}; make room or let the folder be written, and run the same again"
            ) from error
        raise OutputError(
            f"the file system of {str(run.folder)!r} has no file locks ({error}); give each process its own part of the "
            "shards: part 0/4, 1/4, 2/4 and 3/4 for four"
        ) from error
    try:
        yield True
    finally:
        lock.release()


def _process(run: Run, make_compute: MakeCompute, line: Connection) -> None:
    """Work in a process of its own; an error goes down the line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(run, make_compute())
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:  # noqa: BLE001  the process that started this one raises it
        error.add_note("".join(traceback.format_exception(error)).rstrip())
        line.send_bytes(_pickled(error))
    finally:
        line.close()


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, so that a killed driver leaves none behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _pickled(error: Exception) -> bytes:
    """Return an exception as bytes that can be read back; one that cannot travel becomes a RuntimeError that says the same."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    except Exception:  # noqa: BLE001  an exception's own pickling may raise anything
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            plain.add_note(note)
        return pickle.dumps(plain)


def _last_word(line: Connection) -> Exception | None:
    """Return the error that a process sent before it ended; None where it ended without a word."""
    try:
        error = pickle.loads(line.recv_bytes())
    except (EOFError, OSError):
        return None
    return error if isinstance(error, Exception) else None


def _death(process: Process) -> str:
    """Say how a process ended."""
    code = process.exitcode or 0
    if code >= 0:
        return f"worker process {process.pid} ended with code {code}"
    hint = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
    return f"worker process {process.pid} was killed by {signal.Signals(-code).name}{hint}"
