"""
Figures under strain: more load than fits, a long one, models swapped under it, and clients that go away.

In: a `Stage`. Out: rows.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from .report import Goal, Row
from .serve_outcomes import counted, drift, goodput, kind_of, quantile, slope
from .serve_process import Server, total
from .serve_requests import encoded
from .serve_stage import CLIENTS, METHOD, Stage, say
from .wire import Worker

__all__ = ["disconnects", "overload", "reload", "soak"]

NONE = Goal(0.0, most=True)
OVER = 5  # times the peak
DEADLINE = 2.0  # seconds a request may take under overload
WAITING = 1.0  # seconds of work that may wait there
GOOD, REFUSED, GROWTH = Goal(0.9, most=False), Goal(20.0, most=True), Goal(100.0, most=True)
SHARE = 0.7  # of the peak, for a long load
RISE, DRIFT = Goal(1.0, most=True), Goal(0.1, most=True)
SWAPS = 5
FASTEST, QUIET = 200.0, 0.7  # requests a second while models are swapped, and of the peak: loading takes cores too
LEAVING = 1000
LEAK = Goal(5.0, most=True)
REST = 8.0  # seconds without requests, in which a server gives back what it does not need
CALM = 20.0  # seconds in which a server must have put everything away


def overload(stage: Stage) -> list[Row]:
    """
    Send five times as many pictures as the server can explain.

    Parameters
    ----------
    stage : Stage
        Model and requests.

    Returns
    -------
    list of Row
        What was answered against the peak, how long that took, how refusals were told, and what the server grew by.
    """
    seconds = stage.lasting(30.0)
    with stage.server() as server:
        peak = stage.peak(server, stage.pictures(server), seconds / 3)
    work = WAITING * peak * stage.forwards
    with stage.server(queue_work=work, timeout=DEADLINE) as server:
        requests = stage.pictures(server)
        stage.closed(server, requests, CLIENTS, seconds / 10)
        before = server.resident()
        say(f"overload: peak {peak:.1f}/s, now {OVER * peak:.1f}/s for {seconds:.0f} s")
        load = stage.open(server, requests, OVER * peak, seconds)
        alive, growth = server.alive, server.resident() - before
        left = _settled(lambda: total(server.gauges(), "camrt_queue_work"))
    kinds = counted(load.outcomes)
    answered = [outcome for outcome in load.outcomes if kind_of(outcome) == "answered"]
    refused = [outcome for outcome in load.outcomes if kind_of(outcome) == "refused"]
    others = sum(kinds[kind] for kind in ("wrong", "unready", "faulty", "broken"))
    return [
        stage.row(f"goodput at {OVER}x the peak / peak", "x", goodput(load.outcomes, seconds) / peak, GOOD),
        stage.row("  peak, pictures", "/s", peak),
        stage.row("  offered", "/s", len(load.outcomes) / seconds),
        stage.row("p99 of what was answered", "ms", 1e3 * quantile([o.latency for o in answered], 0.99), Goal(2e3 * DEADLINE, most=True)),
        stage.row("p99 of refusals, from sending", "ms", 1e3 * quantile([o.service for o in refused], 0.99), REFUSED),
        stage.row("  p50 of refusals, from sending", "ms", 1e3 * quantile([o.service for o in refused], 0.5)),
        stage.row("  answered", "", float(kinds["answered"])),
        stage.row("  refused, 429 and Retry-After", "", float(kinds["refused"])),
        stage.row("  past the deadline, 504", "", float(kinds["late"])),
        stage.row("neither answered, refused nor late", "", float(others), NONE),
        stage.row("resident memory grows by", "MB", growth, GROWTH),
        stage.row("crashes", "", float(not alive), NONE),
        stage.row("  work left in the queue afterwards", "", left),
        stage.row("  p99 of the generator's own delay", "ms", 1e3 * quantile([o.sent - o.due for o in load.outcomes], 0.99)),
        stage.row("  cores the generator took", "", load.cpu / load.seconds),
    ]  # fmt: skip


def soak(stage: Stage) -> list[Row]:
    """
    Load the server with 70 % of what it can do, for a long time.

    Parameters
    ----------
    stage : Stage
        Model and requests.

    Returns
    -------
    list of Row
        What memory and latency do over the time.
    """
    seconds = stage.lasting(600.0)
    with stage.server() as server:
        requests = stage.pictures(server)
        peak = stage.peak(server, requests, min(seconds / 6, 20.0))
        say(f"soak: {SHARE * peak:.1f}/s for {seconds:.0f} s")
        with _watching(server.resident, seconds / 100) as seen:
            load = stage.open(server, requests, SHARE * peak, seconds)
    later = [(at, megabytes) for at, megabytes in seen if at >= seen[-1][0] / 3]  # pools fill first
    hours, megabytes = [at / 3600 for at, _ in later], [value for _, value in later]
    latencies = [outcome.latency for outcome in load.outcomes]
    return [
        stage.row(f"resident memory at {SHARE:.0%} load, last two thirds of {seconds:.0f} s", "MB/h", slope(hours, megabytes), RISE),
        stage.row("  resident memory", "MB", megabytes),
        stage.row("  last against first sight", "MB", seen[-1][1] - seen[0][1]),
        stage.row("p99, last third against first", "share", drift(load.outcomes, 0.99, seconds), DRIFT),
        stage.row("  p50, last third against first", "share", drift(load.outcomes, 0.5, seconds)),
        stage.row("  p50", "ms", 1e3 * quantile(latencies, 0.5)),
        stage.row("  p99", "ms", 1e3 * quantile(latencies, 0.99)),
        stage.row("  requests", "", float(len(latencies))),
        stage.row("failed", "", float(load.failed), NONE),
    ]  # fmt: skip


def reload(stage: Stage) -> list[Row]:
    """
    Swap two versions of the model back and forth while pictures come, and look at every answer.

    Parameters
    ----------
    stage : Stage
        Model and requests.

    Returns
    -------
    list of Row
        Failures, wrong answers, and what the server holds afterwards.
    """
    seconds = stage.lasting(60.0)
    expected = _expected(stage)
    versions = [stage.repository / stage.model / str(number) for number in range(2, SWAPS + 2)]
    try:
        with stage.server(control="explicit", load=f'["{stage.model}"]') as server:
            requests = stage.pictures(server, 1)
            peak = stage.peak(server, requests, min(seconds / 6, 10.0))
            rate = min(FASTEST, QUIET * peak)
            held = server.resident()
            say(f"reload: {rate:.1f}/s for {seconds:.0f} s, {SWAPS} swaps")
            took: list[float] = []
            swapping = threading.Thread(target=_swap, args=[stage, server, versions, seconds, took])
            swapping.start()
            load = stage.open(server, requests, rate, seconds, expected=expected)
            swapping.join()
            ready = "camrt_model_ready{"
            live = _settled(lambda: sum(v for key, v in server.gauges().items() if key.startswith(ready)), 1.0)
            after = server.resident()
    finally:
        for folder in versions:
            shutil.rmtree(folder, ignore_errors=True)
    kinds = counted(load.outcomes)
    by = {name: sum(outcome.version == name for outcome in load.outcomes) for name in map(str, range(1, SWAPS + 2))}
    latencies = [outcome.latency for outcome in load.outcomes]
    return [
        stage.row(f"failed, {SWAPS} swaps under {rate:.0f} requests/s", "", float(load.failed - kinds["wrong"]), NONE),
        stage.row("answers that are neither version's", "", float(kinds["wrong"]), NONE),
        stage.row("swaps that failed", "", float(SWAPS - len(took)), NONE),
        stage.row("  versions that answered", "", float(sum(count > 0 for count in by.values()))),
        stage.row("  fewest answers of a version", "", float(min(by.values()))),
        stage.row("  requests", "", float(len(load.outcomes))),
        stage.row("  a swap, from asking to done", "ms", [1e3 * one for one in took] or [float("nan")]),
        stage.row("versions ready afterwards", "", live, Goal(1.0, most=True)),
        stage.row("resident memory after the swaps against before", "MB", after - held),
        stage.row("  p99", "ms", 1e3 * quantile(latencies, 0.99)),
    ]  # fmt: skip


def _swap(stage: Stage, server: Server, versions: Sequence[object], seconds: float, took: list[float]) -> None:
    """Put one version after the other into the repository, at even distances, and have the server load it."""
    began = time.perf_counter()
    for number in range(2, len(versions) + 2):
        time.sleep(max(0.0, began + (number - 1.5) * seconds / len(versions) - time.perf_counter()))
        folder = stage.repository / stage.model
        shutil.copytree(stage.bundle(2 - number % 2), folder / f".{number}")
        (folder / f".{number}").rename(folder / str(number))
        start = time.perf_counter()
        server.load(stage.model)
        took.append(time.perf_counter() - start)


def _expected(stage: Stage) -> str:
    """Write the heatmap that each version of the reload should answer; return the file."""
    picture, heat = stage.folder / "picture.jpg", stage.folder / "heat.npy"
    picture.write_bytes(encoded(stage.x[0]))
    maps = []
    for version in (1, 2):
        with Worker("camrt in-process", sys.executable, "serve_inside", quiet=not stage.verbose) as inside:
            np.save(stage.folder / "inputs.npy", stage.x[:1])
            inside.ask("load", {"bundle": str(stage.bundle(version)), "inputs": str(stage.folder / "inputs.npy")})
            inside.ask("picture", {"method": METHOD, "encoded": str(picture), "file": str(heat)})
            maps.append(np.load(heat))
    file = stage.folder / "expected.npz"
    np.savez(file, **{str(number): maps[(number - 1) % 2] for number in range(1, SWAPS + 2)})
    return str(file)


def disconnects(stage: Stage) -> list[Row]:
    """
    Let a thousand clients go away at any moment, while others go on asking.

    Parameters
    ----------
    stage : Stage
        Model and requests.

    Returns
    -------
    list of Row
        What the server still holds afterwards.
    """
    with (
        stage.server() as server,
        Worker("the leaving clients", sys.executable, "serve_load", quiet=not stage.verbose) as leaving,
    ):
        requests = stage.tensors(server) + stage.pictures(server)
        peak = stage.peak(server, requests, stage.lasting(10.0))
        asked = {"address": server.address, "requests": requests, "at_a_time": CLIENTS, "longest": 2 * CLIENTS / peak}
        leaving.ask("leave", {**asked, "count": LEAVING})  # pools fill first; a leak shows in the second thousand
        _settled(partial(_held, server))
        time.sleep(REST)
        resident, files = server.resident(), server.files()
        say(f"disconnects: {LEAVING} clients")
        told = leaving.ask("leave", {**asked, "count": LEAVING, "seed": 1})
        work = _settled(partial(_held, server))
        open_files = _settled(lambda: float(server.files() - files))
        time.sleep(REST)
        growth = server.resident() - resident
        load = stage.closed(server, requests, CLIENTS, 1.0)
    return [
        stage.row(f"work held after {LEAVING} disconnects", "", work, NONE),
        stage.row("descriptors open beyond those before", "", open_files, NONE),
        stage.row("resident memory grows by", "MB", growth, LEAK),
        stage.row("requests that fail afterwards", "", float(load.failed), NONE),
        *(stage.row(f"  left {when}", "", float(told[when])) for when in ("early", "waiting", "late", "failed")),
    ]


def _held(server: Server) -> float:
    """Return the work that waits or runs."""
    return total(server.gauges(), "camrt_queue_work")


def _settled(read: Callable[[], float], wanted: float = 0.0) -> float:
    """Read until it is what is wanted or below, at most for `CALM` seconds; return the last reading."""
    end = time.perf_counter() + CALM
    while (value := read()) > wanted and time.perf_counter() < end:
        time.sleep(0.1)
    return value


@contextmanager
def _watching(read: Callable[[], float], every: float) -> Iterator[list[tuple[float, float]]]:
    """Read again and again, from a thread; give the list of (seconds, reading)."""
    seen = [(0.0, read())]
    start, over = time.perf_counter(), threading.Event()

    def watch() -> None:
        while not over.wait(every):
            seen.append((time.perf_counter() - start, read()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()
