"""
Figures of speed: what HTTP adds to a call, what batching gains, what is left at a fixed latency, and the cold start.

In: a `Stage`. Out: rows. Clients and server share the machine's cores: how many of them the clients take is a row too.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from .contest import contest, ratios
from .report import Goal, Row
from .serve_outcomes import quantile
from .serve_process import Server
from .serve_stage import CLIENTS, METHOD, Stage, say
from .wire import Worker, WorkerError

__all__ = ["batching", "fixed_latency", "overhead", "start"]

BURST = 3.0  # seconds a turn
MEDIAN, TAIL = Goal(1.0, most=True), Goal(3.0, most=True)  # ms that HTTP adds with four clients, p50 and p99
SAME = Goal(10.0, most=True)  # millionths of a heatmap in [0, 1], alone or in a batch
LATENCY = 0.25  # seconds that p99 may take
STEPS = 5  # halvings of the range of rates


def overhead(stage: Stage) -> list[Row]:
    """
    Compare a request of one prepared input with the same call in-process, four at a time and one by one.

    The in-process call has ONNX Runtime's own number of threads; the server shares the cores out as it comes.

    Parameters
    ----------
    stage : Stage
        Model and requests.

    Returns
    -------
    list of Row
        Milliseconds that HTTP adds, and what makes them up.
    """
    rows = []
    inputs = stage.folder / "inputs.npy"
    np.save(inputs, stage.x)
    with Worker("camrt in-process", sys.executable, "serve_inside", quiet=not stage.verbose) as inside:
        inside.ask("load", {"bundle": str(stage.bundle(1)), "inputs": str(inputs)})
        with stage.server() as server:
            requests = stage.tensors(server)
            for clients in (4, 1):
                who = f"{clients} clients" if clients > 1 else "1 client"
                say(f"overhead, {who}, {stage.rounds} rounds")
                rows += _overhead(stage, server, inside, requests, clients, who)
    return rows


@dataclass
class _Side:
    """One side of the comparison: how long its requests took, by turn, and the processor's seconds for all of them."""

    turns: list[list[float]] = field(default_factory=list)
    cpu: float = 0.0
    clients: float = 0.0  # the processor's seconds of those who asked

    def add(self, times: list[float], cpu: float, clients: float = 0.0) -> float:
        """Take a turn, and return its median."""
        self.turns.append(times)
        self.cpu += cpu
        self.clients += clients
        return quantile(times, 0.5)

    @property
    def times(self) -> list[float]:
        """All requests of all turns."""
        return [time for turn in self.turns for time in turn]


def _overhead(stage: Stage, server: Server, inside: Worker, requests: list[str], clients: int, who: str) -> list[Row]:
    """Let HTTP and the in-process call take turns."""
    seconds = stage.lasting(BURST)
    outer, inner = _Side(), _Side()

    def http() -> float:
        before = server.cpu()
        load = stage.closed(server, requests, clients, seconds)
        if load.failed:
            raise WorkerError(f"{load.failed} of {len(load.outcomes)} requests of {clients} clients failed")
        return outer.add([outcome.service for outcome in load.outcomes], server.cpu() - before, load.cpu)

    def call() -> float:
        told = inside.ask("burst", {"method": METHOD, "threads": clients, "seconds": seconds})
        return inner.add(told["times"], told["cpu"])

    contest({"http": http, "call": call}, 1)  # warm
    outer, inner = _Side(), _Side()
    times = contest({"http": http, "call": call}, stage.rounds)
    added = [1e3 * (a - b) for a, b in zip(times["http"], times["call"], strict=True)]
    tails = [[1e3 * quantile(turn, 0.99) for turn in side.turns] for side in (outer, inner)]
    goals = (MEDIAN, TAIL) if clients > 1 else (None, None)
    rows = [
        stage.row(f"HTTP adds at p50, {who}", "ms", added, goals[0]),
        stage.row(f"HTTP adds at p99, {who}", "ms", [a - b for a, b in zip(*tails, strict=True)], goals[1]),
    ]
    for name, side, tail, turns in (("HTTP", outer, tails[0], "http"), ("in-process", inner, tails[1], "call")):
        rows += [
            stage.row(f"  {name} p50, {who}", "ms", [1e3 * t for t in times[turns]]),
            stage.row(f"  {name} p99, {who}", "ms", tail),
            stage.row(f"  {name}, processor time a request, {who}", "ms", 1e3 * side.cpu / len(side.times)),
        ]
    asking = 1e3 * outer.clients / len(outer.times)
    return [*rows, stage.row(f"  the clients' own processor time a request, {who}", "ms", asking)]


def batching(stage: Stage) -> list[Row]:
    """
    Compare a server that joins requests with one that runs them one by one, and its answers with a batch of one.

    Once as it comes, where runs beside each other share the cores, and once with all cores in every run.

    Parameters
    ----------
    stage : Stage
        Model and requests.

    Returns
    -------
    list of Row
        Throughputs, their ratio, and the largest difference of a pixel.
    """
    rows = []
    alone = stage.folder / "alone.npz"
    with Worker("camrt in-process", sys.executable, "serve_inside", quiet=not stage.verbose) as inside:
        np.save(stage.folder / "inputs.npy", stage.x)
        inside.ask("load", {"bundle": str(stage.bundle(1)), "inputs": str(stage.folder / "inputs.npy")})
        inside.ask("maps", {"method": METHOD, "file": str(alone)})
    for told, settings in (("", {}), (", all cores in every run", {"threads": os.cpu_count() or 1})):
        with stage.server(batch=1, **settings) as single, stage.server(**settings) as joined:
            say(f"batching, {CLIENTS} clients{told}, {stage.rounds} rounds")
            rows += _batching(stage, single, joined, alone, told)
    return rows


def _batching(stage: Stage, single: Server, joined: Server, alone: Path, told: str) -> list[Row]:
    """Let two servers take turns, and compare the joining one's heatmaps with those of a batch of one."""
    kept = stage.folder / "kept.npz"
    before = joined.gauges()
    turns = {
        name: partial(_pace, stage, server, stage.lasting(BURST), keep=str(kept))
        for name, server in (("one by one", single), ("joined", joined))
    }
    contest(turns, 1)
    times = contest(turns, stage.rounds)
    turns["joined"]()  # its answers are the last that were kept
    after = joined.gauges()
    given, wanted = np.load(kept), np.load(alone)
    apart = max(float(np.abs(given[name] - wanted[name]).max()) for name in wanted.files)
    sizes = [after[f"camrt_batch_size_{part}"] - before[f"camrt_batch_size_{part}"] for part in ("sum", "count")]
    return [
        stage.row(f"joined / one by one, {CLIENTS} clients{told}", "x", ratios(times["one by one"], times["joined"])),
        stage.row("  one by one", "/s", [1 / t for t in times["one by one"]]),
        stage.row("  joined", "/s", [1 / t for t in times["joined"]]),
        stage.row("  images a run, joined", "", sizes[0] / sizes[1]),
        stage.row("largest difference of a heatmap from a batch of one", "millionths", 1e6 * apart, SAME),
    ]


def _pace(stage: Stage, server: Server, seconds: float, keep: str) -> float:
    """Return seconds for each answer."""
    load = stage.closed(server, stage.tensors(server), CLIENTS, seconds, keep=keep)
    if load.failed:
        raise WorkerError(f"{load.failed} of {len(load.outcomes)} requests failed")
    return 1 / load.throughput


def fixed_latency(stage: Stage) -> list[Row]:
    """
    Find the highest rate of requests that come independently and of which 99 in 100 are answered in time.

    Parameters
    ----------
    stage : Stage
        Model and requests.

    Returns
    -------
    list of Row
        Requests a second, with and without joining.
    """
    rows = []
    seconds = stage.lasting(10.0)
    for name, settings in (("one by one", {"batch": 1}), ("joined", {})):
        with stage.server(**settings) as server:
            requests = stage.pictures(server)
            peak = stage.peak(server, requests, seconds / 2)
            low, high = 0.0, 1.2 * peak
            for step in range(STEPS):
                rate = (low + high) / 2
                load = stage.open(server, requests, rate, seconds, seed=step)
                late = quantile([outcome.latency for outcome in load.outcomes], 0.99)
                say(f"{name}: {rate:.1f}/s, p99 {1e3 * late:.0f} ms, {load.failed} failed")
                low, high = (rate, high) if late <= LATENCY and not load.failed else (low, rate)
            rows += [
                stage.row(f"rate with p99 <= {1e3 * LATENCY:.0f} ms, pictures, {name}", "/s", low),
                stage.row(f"  peak, pictures, {name}", "/s", peak),
            ]
    return rows


def start(stage: Stage) -> list[Row]:
    """
    Start the server again and again.

    Parameters
    ----------
    stage : Stage
        Model.

    Returns
    -------
    list of Row
        Milliseconds from nothing to ready.
    """
    say(f"cold start, {stage.rounds} rounds")
    times = []
    for _ in range(stage.rounds + 1):
        with stage.server() as server:
            times.append(1e3 * server.seconds)
    return [stage.row("nothing to ready", "ms", times[1:])]  # the first fills the system's file cache
