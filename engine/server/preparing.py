"""
A raw model becomes a bundle, in a process of its own that may use so much memory and time and no more.

In: a version's folder that holds ``model.onnx``, and perhaps ``model.onnx.data``, ``labels.txt`` and ``preprocess.json``.
Out: a bundle's folder, named after what it was made of, so that it is made once. Parsing a stranger's model takes onnx's
C++, which has crashed on crafted files before; here a crash is one line in the index, and the server goes on. The process
inherits neither keys nor anything else from the environment but what Python needs to start.

Run as a module it is that process: ``python -m camrt.server.preparing FOLDER OUT MEMORY SECONDS``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError, CamrtError, ModelError
from ..opening import load, read_memory
from ..session import runtime
from .faults import UnsupportedError
from .prepared import LABELS, PREPROCESS, hold, place_of, scratch
from .repository import RAW, Entry
from .settings import Settings
from .trust import MAX_FILE, without_paths

__all__ = ["main", "prepare"]

REASON = "reason"  # a file in which the process says what was wrong
LOOK = 0.05  # seconds between looks at the process
NICE = 10  # requests go first
INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
)


@contextlib.contextmanager
def prepare(entry: Entry, settings: Settings, stop: threading.Event | None = None) -> Iterator[Path]:
    """
    Make a bundle of a raw model, unless it was made before, and hold it as long as the context lasts.

    Parameters
    ----------
    entry : Entry
        A version that holds a raw model.
    settings : Settings
        How much memory and time it may take, and where bundles go.
    stop : threading.Event, optional
        Set when nobody waits for it any more.

    Yields
    ------
    Path
        The bundle's folder, in ``settings.cache`` or else beside the version's, under a name that begins with a dot. No
        server removes it meanwhile.

    Raises
    ------
    BundleError, ModelError
        If the folder holds something else, the model is not one that can be explained, or the process crashed or took more
        memory or time than it may.

    Notes
    -----
    Cost: some seconds for a ResNet-50, and about twice the model's size on disk. `camrt.server.prepared.sweep` removes old
    bundles.
    """
    target = place_of(entry, settings)
    while (descriptor := hold(target)) is None:  # also where another server swept it away just now
        _make(entry.folder, target, read_memory(settings.prepare_memory), settings.prepare_seconds, stop)
    try:
        yield target
    finally:
        os.close(descriptor)


def _make(folder: Path, target: Path, memory: int, seconds: float, stop: threading.Event | None) -> None:
    """Write the bundle to a folder beside its place, and rename it when it is whole."""
    try:
        with scratch(target.parent) as (place, held):
            _run(folder.resolve(), place.resolve(), memory, seconds, stop, held)
            try:
                (place / "bundle").rename(target)
            except OSError:
                if not target.is_dir():  # else somebody was first, with the same bundle
                    raise
    except OSError as error:
        raise BundleError(f"the bundle cannot be written: {error.strerror}") from None


def _run(folder: Path, out: Path, memory: int, seconds: float, stop: threading.Event | None, held: int) -> None:
    """Run the process, and say what became of it."""
    command: list[str | Path] = [sys.executable, "-P", "-m", __name__, folder, out, str(memory), str(seconds)]
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    until = time.monotonic() + seconds
    nothing = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=out, env=environment, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True,
        pass_fds=[held],
    ) as process:  # fmt: skip
        try:
            while process.poll() is None:
                if stop is not None and stop.is_set():
                    raise ModelError("the server stopped before the model was prepared")
                if time.monotonic() > until:
                    raise ModelError(f"preparing it took longer than {seconds:g} s (prepare_seconds)")
                time.sleep(LOOK)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it, and whatever it started
    if process.returncode == 0:
        return
    if process.returncode == -signal.SIGXCPU:
        raise ModelError(f"preparing it took longer than {seconds:g} s (prepare_seconds)")
    said = ""
    with contextlib.suppress(OSError):
        said = (out / REASON).read_text("utf-8", "replace")[:1000].strip()
    how = "failed" if process.returncode > 0 else f"crashed ({signal.Signals(-process.returncode).name})"
    raise ModelError(
        without_paths(said or f"preparing it {how}; it may take more than {memory} bytes of memory (prepare_memory)")
    )


def main(arguments: Sequence[str]) -> int:
    """
    Make a bundle under limits; what `prepare` starts.

    Parameters
    ----------
    arguments : sequence of str
        The raw model's folder, the folder to write into, bytes of memory, seconds.

    Returns
    -------
    int
        0 where the bundle was written; else a file in the folder to write into says why not.
    """
    folder, out, memory, seconds = Path(arguments[0]), Path(arguments[1]), int(arguments[2]), float(arguments[3])
    try:
        from camrt.export.write import (
            export,  # before the limit: a library that finds no room says that it is not there
        )

        runtime()
        _limit(memory, seconds)
        _export(export, folder, out / "bundle")
    except Exception as error:  # noqa: BLE001  whatever onnx and its kin raise
        (out / REASON).write_text(_reason(error, memory), "utf-8")
        return 1
    return 0


def _reason(error: Exception, memory: int) -> str:
    """Say what was wrong; libraries that find no memory say many things."""
    short = f"preparing it takes more than {memory} bytes of memory (prepare_memory)"
    if isinstance(error, MemoryError) or "alloc" in str(error).lower():
        return short
    known = str(error) if isinstance(error, CamrtError) else f"it cannot be prepared ({type(error).__name__})"
    return " ".join(known.split()) + (f"; or {short}" if _peak() > memory // 2 else "")


def _peak() -> int:
    """Return the most bytes that this process had; 0 where the system does not tell."""
    try:
        found = re.search(r"VmPeak:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _limit(memory: int, seconds: float) -> None:
    """Hold this process to so much memory and time, and to files of a bearable size."""
    try:
        import resource
    except ModuleNotFoundError as error:
        raise UnsupportedError("this system cannot hold a process to its memory: export the model elsewhere") from error
    processor = int(seconds * (os.cpu_count() or 1)) + 1
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_FSIZE, MAX_FILE + 1),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))
    os.nice(NICE)


def _export(export: Callable[..., Any], folder: Path, out: Path) -> None:
    """Do as ``camrt export`` does."""
    labels, preprocess = folder / LABELS, folder / PREPROCESS
    given = None
    if preprocess.is_file():
        try:
            given = json.loads(preprocess.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{PREPROCESS} is not JSON: {error}") from error
    opened = load(folder / RAW, labels=labels if labels.is_file() else None, preprocess=given)
    export(
        folder / RAW, out, labels=opened.labels, preprocess=opened.preprocess.to_dict(), open_size=opened.preprocess.size
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
