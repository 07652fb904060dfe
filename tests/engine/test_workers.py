"""
Who computes which shard.

The oracle of every test with several processes is the folder that one process fills without a break: the same files to the
byte, whoever was killed and whenever.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camrt import workers
from camrt.errors import CamrtError, InputError, MissingExtraError, OutputError, TargetError
from camrt.shards import Run
from camrt.workers import Compute, run_processes, work

SPEC = {"model": "a1"}
TOTAL, SIZE = 60, 3


def square(pictures: range) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compute rows that depend on the index alone; every tenth picture is broken."""
    index = np.array([i for i in pictures if i % 10 != 7], np.int64)
    rows = {method: {"index": index, "value": index**power} for power, method in enumerate(("a", "b"), 1)}
    return rows, [{"index": i, "why": "broken"} for i in pictures if i % 10 == 7]


def slow_square(log: Path, pictures: range) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compute the same, slowly, and note who did it."""
    with log.open("a") as file:
        file.write(f"{pictures.start // SIZE} {os.getpid()}\n")
    time.sleep(0.02)
    return square(pictures)


def making(log: Path) -> Compute:
    """Return the slow function; picklable."""
    return functools.partial(slow_square, log)


def ending(die: Path, log: Path) -> Compute:
    """Return a function that kills the first process that computes the fourth shard."""

    def compute(pictures: range) -> Any:
        if pictures.start // SIZE == 3 and not die.exists():
            die.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return slow_square(log, pictures)

    return compute


def always_ending() -> Compute:
    """Return a function that kills whoever calls it."""
    return lambda _pictures: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[arg-type, return-value]


class Stubborn(Exception):
    """An error that cannot be pickled back."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def failing(kind: str) -> Compute:
    """Return a function that raises, or raise at once."""
    if kind == "making":
        raise TargetError("no such class")
    errors = {
        "target": TargetError("class 9 is none of 3"),
        "stubborn": Stubborn("two", "words"),
        "end": EOFError("early"),
    }

    def compute(_pictures: range) -> Any:
        raise errors[kind]

    return compute


DRIVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_workers as t
run = t.Run.open(sys.argv[2], t.SPEC, t.TOTAL, t.SIZE)
t.work(run, t.making(Path(sys.argv[3])))
"""


def driver(out: Path, log: Path, code: str = DRIVER) -> subprocess.Popen[bytes]:
    """Start another process that works on a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(Path(__file__).parent), str(out), str(log)]
    )


def files(folder: Path) -> dict[str, bytes]:
    """Return the rows' files by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "rows").rglob("*")) if p.is_file()}


def computed(log: Path) -> list[tuple[int, int]]:
    """Return which shards were begun, and by which process."""
    return [tuple(map(int, line.split())) for line in log.read_text().splitlines()] if log.exists() else []  # type: ignore[misc]


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """Return the files of an evaluation that nothing interrupted."""
    run = Run.open(tmp_path / "whole", SPEC, TOTAL, SIZE)
    assert work(run, square) == 20
    return files(run.folder)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return an empty evaluation."""
    return Run.open(tmp_path / "out", SPEC, TOTAL, SIZE)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again soon."""
    monkeypatch.setattr(workers, "PAUSE", 0.02)


def test_one_process_computes_every_shard_once_and_reports(run: Run) -> None:
    seen: list[int] = []
    assert work(run, square, progress=seen.append) == 20
    assert seen == list(range(0, 61, 3))
    assert work(run, lambda _pictures: pytest.fail("there is nothing left")) == 0
    table = run.table().to_pydict()
    assert table["value"] == [i**p for i in range(60) if i % 10 != 7 for p in (1, 2)]
    assert [p["index"] for p in run.problems()] == [7, 17, 27, 37, 47, 57]


def test_parts_need_no_lock_and_make_the_whole(
    run: Run, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    assert [work(run, square, part=(i, 3)) for i in range(3)] == [7, 7, 6]
    assert files(run.folder) == whole
    assert not (run.folder / ".claims").exists()
    with pytest.raises(InputError, match="part"):
        work(run, square, part=(3, 3))


def test_a_shard_that_another_holds_is_left_to_it_or_waited_for(run: Run) -> None:
    with workers._claimed(run, 4) as ours:
        assert ours
        with workers._claimed(run, 4) as twice:
            assert not twice
        assert work(run, square, wait=False) == 19
        assert run.missing() == [4]
    assert work(run, square, wait=False) == 1


def test_a_shard_that_another_finished_is_not_computed_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = type(run).missing

    def stale(this: Run, part: Any = None) -> list[int]:
        found = missing(this, part)
        if 5 in found:
            run.write(5, *square(run.ranges[5]))  # between the look and the claim
        return found

    monkeypatch.setattr(type(run), "missing", stale)
    assert work(run, square) == 19


@pytest.mark.parametrize("part", [None, (0, 1)])
def test_an_error_leaves_what_is_complete_and_frees_the_shard(run: Run, part: Any) -> None:
    def compute(pictures: range) -> Any:
        if pictures.start == 9:
            raise TargetError("class 9 is none of 3")
        return square(pictures)

    with pytest.raises(TargetError, match="none of 3"):
        work(run, compute, part=part)
    assert run.done() == [0, 1, 2]
    assert work(run, square, part=part) == 17


def test_a_driver_killed_at_random_moments_loses_one_shard_each_time(
    tmp_path: Path, whole: dict[str, bytes], rng: np.random.Generator
) -> None:
    out, log, kills = tmp_path / "out", tmp_path / "log", 6
    Run.open(out, SPEC, TOTAL, SIZE)
    ends = []
    for _ in range(kills):
        before = len(computed(log))
        process = driver(out, log)
        while len(computed(log)) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.1)))
        process.kill()
        ends.append(process.wait())
    assert set(ends) <= {-signal.SIGKILL, 0} and ends.count(-signal.SIGKILL) >= 3  # the last ones may find all done
    run = Run.open(out, SPEC, TOTAL, SIZE)
    work(run, making(log))
    assert files(out) == whole
    assert len(computed(log)) <= 20 + kills
    assert os.listdir(out / ".parts") == []


def test_two_processes_share_a_folder_without_computing_a_shard_twice(tmp_path: Path, whole: dict[str, bytes]) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    both = [driver(out, log), driver(out, log)]  # neither finds the folder made
    assert [process.wait() for process in both] == [0, 0]
    assert files(out) == whole
    assert sorted(shard for shard, _ in computed(log)) == list(range(20))


def test_the_shard_of_a_killed_process_is_taken_over(run: Run, tmp_path: Path, whole: dict[str, bytes]) -> None:
    log = tmp_path / "log"
    code = DRIVER.replace(
        "t.work(run, t.making(Path(sys.argv[3])))",
        """
def hold(pictures):
    Path(sys.argv[3]).touch()
    t.time.sleep(600)
t.work(run, hold)
""",
    )
    process = driver(run.folder, log, code)
    while not log.exists():
        time.sleep(0.01)
    assert work(run, square, wait=False) == 19
    assert run.missing() == [0]
    process.kill()
    process.wait()
    assert work(run, square) == 1
    assert files(run.folder) == whole


def test_several_processes_fill_a_folder(run: Run, tmp_path: Path, whole: dict[str, bytes]) -> None:
    seen: list[int] = []
    run_processes(run, functools.partial(making, tmp_path / "log"), 2, progress=seen.append)
    assert files(run.folder) == whole
    assert sorted(shard for shard, _ in computed(tmp_path / "log")) == list(range(20))
    assert seen[0] == 0 and seen[-1] == 60 and seen == sorted(seen)


def test_a_process_that_dies_is_reported_and_its_shard_taken_over(
    run: Run, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    with pytest.warns(RuntimeWarning, match="killed by SIGKILL, perhaps for want of memory; the others take over"):
        run_processes(run, functools.partial(ending, tmp_path / "died", tmp_path / "log"), 2)
    assert files(run.folder) == whole


def test_processes_that_all_die_are_an_error(run: Run) -> None:
    with (
        pytest.warns(RuntimeWarning, match="killed by SIGKILL"),
        pytest.raises(CamrtError, match="every worker process has ended and 20 shards are missing"),
    ):
        run_processes(run, always_ending, 2)


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [
        ("making", TargetError, "no such class"),
        ("target", TargetError, "class 9 is none of 3"),
        ("stubborn", RuntimeError, "Stubborn: two words"),
        ("end", EOFError, "early"),
    ],
)
def test_an_error_in_a_process_comes_back_with_its_trace(
    run: Run, kind: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told) as caught:
        run_processes(run, functools.partial(failing, kind), 1)
    assert "in failing" in caught.value.__notes__[0] or "in compute" in caught.value.__notes__[0]


def test_processes_end_with_the_one_that_started_them(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = DRIVER.replace(
        "t.work(run, t.making(Path(sys.argv[3])))",
        "t.run_processes(run, t.functools.partial(t.holding, Path(sys.argv[3])), 2)",
    )
    process = driver(run.folder, log, code)
    while len(computed(log)) < 2:
        time.sleep(0.01)
    process.kill()
    process.wait()
    pids = [pid for _, pid in computed(log)]
    while any(alive(pid) for pid in pids):  # a worker that stays hangs the test
        time.sleep(0.01)
    assert work(run, square) == 20


def holding(log: Path) -> Compute:
    """Return a function that never ends."""

    def compute(pictures: range) -> Any:
        with log.open("a") as file:
            file.write(f"{pictures.start // SIZE} {os.getpid()}\n")
        time.sleep(600)

    return compute


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_process_at_all_is_refused(run: Run) -> None:
    with pytest.raises(InputError, match="one process at least"):
        run_processes(run, functools.partial(failing, "target"), 0)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSYS, "has no file locks.*part 0/4"),
        (errno.EOPNOTSUPP, "has no file locks"),
        (errno.ENOSPC, "No space left"),
    ],
)
def test_a_file_system_that_cannot_lock_is_told_from_a_full_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    def refuse(_fd: int, _flags: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OutputError, match=told):
        work(run, square)
    assert run.done() == []


def test_without_filelock_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingExtraError, match=r"camrt\[eval\]"):
        work(run, square)
