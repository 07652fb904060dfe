"""
The same shards on Ray; the oracle is the folder that one process fills, the same files to the byte.

Ray itself is needed for most of this file; without it one test says what the user is told.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camrt.errors import CamrtError, InputError, MissingExtraError, TargetError
from camrt.on_ray import work_on_ray
from camrt.shards import Run
from camrt.workers import Compute, work

HERE = Path(__file__).parent
SPEC, TOTAL, SIZE = {"model": "a1"}, 90, 3
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def square(pictures: range) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compute rows that depend on the index alone."""
    index = np.array(pictures)
    return {"a": {"index": index, "value": index**2.0}}, []


def noting(log: Path, pause: float) -> Compute:
    """Return the same function, slow; it notes who begins what."""
    with log.open("a") as file:
        file.write(f"-1 {os.getpid()}\n")

    def compute(pictures: range) -> Any:
        with log.open("a") as file:
            file.write(f"{pictures.start // SIZE} {os.getpid()}\n")
        time.sleep(pause)
        return square(pictures)

    return compute


def ending(log: Path) -> Compute:
    """Return a function that kills whoever computes the second shard."""

    def compute(pictures: range) -> Any:
        if pictures.start == SIZE:
            with log.open("a") as file:
                file.write(f"1 {os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return square(pictures)

    return compute


def failing(early: bool) -> Compute:
    """Return a function that raises, or raise at once."""

    def compute(_pictures: range) -> Any:
        raise TargetError("class 9 is none of 3")

    return compute([]) if early else compute  # type: ignore[return-value, arg-type]


def begun(log: Path) -> list[tuple[int, int]]:
    """Return which shards were begun by which process; -1 for a model that was loaded."""
    return [tuple(map(int, line.split())) for line in log.read_text().splitlines()] if log.exists() else []  # type: ignore[misc]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start Ray on this machine, with this file where its workers find it."""
    import ray

    paths = os.pathsep.join([str(HERE), *(path for path in sys.path if path)])
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return an empty evaluation."""
    return Run.open(tmp_path / "out", SPEC, TOTAL, SIZE)


def files(folder: Path) -> dict[str, bytes]:
    """Return the rows' files by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "rows").rglob("*")) if p.is_file()}


def here(function: Any) -> Any:
    """Return the function as Ray's workers import it."""
    if str(HERE) not in sys.path:
        sys.path.append(str(HERE))
    return getattr(importlib.import_module("test_on_ray"), function.__name__)


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_killed_workers_lose_one_shard_each(run: Run, tmp_path: Path, rng: np.random.Generator) -> None:
    whole = Run.open(tmp_path / "whole", SPEC, TOTAL, SIZE)
    work(whole, square)
    log, kills, killed = tmp_path / "log", 5, []

    def kill() -> None:
        for _ in range(kills):
            before = len(begun(log))
            while len(begun(log)) < before + 3 and run.missing():
                time.sleep(0.01)
            time.sleep(float(rng.uniform(0, 0.1)))
            pids = [pid for _, pid in begun(log) if pid not in killed]
            if run.missing():
                killed.append(pids[-1])
                os.kill(pids[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    seen: list[int] = []
    work_on_ray(run, functools.partial(here(noting), log, 0.1), workers=2, progress=seen.append)
    killer.join()
    assert files(run.folder) == files(whole.folder)
    assert len(killed) == kills
    shards = [shard for shard, _ in begun(log) if shard >= 0]
    assert set(shards) == set(range(30)) and len(shards) <= 30 + kills
    loaded = [pid for shard, pid in begun(log) if shard < 0]
    assert len(loaded) == len(set(loaded)) <= 2 + kills  # once in each process
    assert seen[0] == 0 and seen[-1] == TOTAL and seen == sorted(seen)


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_a_shard_that_kills_every_worker_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camrt.on_ray.MOST_DEATHS", 3)
    with pytest.raises(CamrtError, match="shard 1 died 3 times on Ray") as caught:
        work_on_ray(run, functools.partial(here(ending), tmp_path / "log"), workers=2)
    assert "\n" not in str(caught.value)
    assert len(begun(tmp_path / "log")) == 3
    assert run.missing() == [1]


@needs_ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("early", [True, False])
def test_an_error_comes_back_as_itself(run: Run, early: bool) -> None:
    with pytest.raises(TargetError, match="class 9 is none of 3"):
        work_on_ray(run, functools.partial(here(failing), early), workers=2)
    assert run.done() == []


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_workers_without_room_hold_nobody_up(run: Run, tmp_path: Path) -> None:
    work_on_ray(run, functools.partial(here(noting), tmp_path / "log", 0.0), workers=8, cpus=2)  # room for one
    assert run.missing() == []
    assert len({pid for _, pid in begun(tmp_path / "log")}) == 1


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_extra_is_named(run: Run) -> None:
    with pytest.raises(MissingExtraError, match=r"camrt\[ray\]"):
        work_on_ray(run, lambda: square, workers=1)


def test_no_worker_at_all_is_refused_and_a_complete_run_needs_no_ray(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="one worker at least"):
        work_on_ray(run, lambda: square, workers=0)
    work(run, square)
    monkeypatch.setitem(sys.modules, "ray", None)
    work_on_ray(run, lambda: square, workers=1)
