"""
The same shards on Ray: actors hold sessions, tasks are shards. The only file that imports ray.

A `Run` whose folder every machine sees, and a function that loads a model, go in. Each actor loads it once and publishes
its shards itself; nothing but their numbers travels. An actor that is killed is started again by Ray, wherever there is
room, and gets no shard until it answers; the shard it had goes to the next free actor. No claims are needed, since this
driver alone hands shards out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .errors import CamrtError, InputError, MissingExtraError
from .shards import Run
from .workers import PAUSE, Compute, MakeCompute, Progress

__all__ = ["work_on_ray"]

MOST_DEATHS = 10  # of one shard, or of one actor in a row: more than bad luck, so the shard or the machine is at fault


def work_on_ray(
    run: Run,
    make_compute: MakeCompute,
    *,
    workers: int,
    cpus: float = 1.0,
    gpus: float = 0.0,
    resources: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> None:
    """
    Compute the missing shards by actors of a Ray cluster.

    Parameters
    ----------
    run : Run
        The evaluation. Its folder, and the data set, lie under the same path on every machine.
    make_compute : callable
        Returns a function from a range of pictures to rows and problems; called once in each actor.
    workers : int
        How many actors; those for which the cluster has no room wait, without holding the others up.
    cpus, gpus : float
        What each actor occupies; a share of a GPU is allowed.
    resources : mapping of str to float, optional
        Further resources of the cluster that each actor occupies.
    progress : callable, optional
        Called with the number of pictures that are done, at the start and after each shard.

    Raises
    ------
    MissingExtraError
        If ray is not installed.
    InputError
        If no worker is asked for.
    CamrtError
        If a shard killed its actor ten times, or an actor cannot be started.
    Exception
        What `make_compute` or its function raised.

    Notes
    -----
    Where Ray is not initialised it is, and shut down afterwards: the cluster that ``RAY_ADDRESS`` names, else one on this
    machine. Every machine needs camrt installed.
    """
    if workers < 1:
        raise InputError(f"one worker at least; got {workers}")
    if not run.missing():
        return
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for a report to Ray's makers
        ray.init(log_to_driver=False, **({} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}))
    try:
        actor = ray.remote(
            num_cpus=cpus, num_gpus=gpus, resources=dict(resources or {}), max_restarts=-1, max_task_retries=0
        )(_Worker)
        count = min(workers, len(run.missing()))
        _hand_out(ray, run, [actor.remote(run, make_compute) for _ in range(count)], progress)
    finally:
        if ours:
            ray.shutdown()


def _hand_out(ray: Any, run: Run, actors: list[Any], progress: Progress | None) -> None:
    """Give each actor that answers a shard until all are there."""
    deaths: Counter[str] = Counter()
    waiting = run.missing()[::-1]  # the next one last
    idle: list[int] = []
    asked: dict[Any, tuple[int, int | None]] = {
        actor.answer.remote(): (number, None) for number, actor in enumerate(actors)
    }
    done = -1
    try:
        while waiting or any(shard is not None for _number, shard in asked.values()):
            if progress is not None and (now := run.pictures_done()) != done:
                progress(done := now)
            for reference in ray.wait(list(asked), timeout=PAUSE)[0]:
                number, shard = asked.pop(reference)
                what = f"worker {number}" if shard is None else f"shard {shard}"
                try:
                    ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise (error.cause if isinstance(error.cause, Exception) else CamrtError(_line(error))) from error
                except ray.exceptions.RayError as error:  # the actor, its machine, or the way there is lost
                    deaths[what] += 1
                    if deaths[what] >= MOST_DEATHS:
                        raise CamrtError(
                            f"{what} died {MOST_DEATHS} times on Ray: {_line(error)}; give workers more memory, or look "
                            "at what kills them, and run the same again: what is complete stays"
                        ) from error
                    if shard is not None:
                        waiting.append(shard)
                    asked[actors[number].answer.remote()] = (number, None)
                else:
                    deaths.pop(what, None)
                    idle.append(number)
            while waiting and idle:
                number, shard = idle.pop(), waiting.pop()
                asked[actors[number].judge.remote(shard)] = (number, shard)
        if progress is not None:
            progress(run.pictures_done())
    finally:
        for actor in actors:
            ray.kill(actor)


def _line(error: Exception) -> str:
    """Return what an error says, on one line."""
    return " ".join(str(error).split())


class _Worker:
    """What an actor does: it loads a model when it gets its first shard, so that an error then is an ordinary one."""

    def __init__(self, run: Run, make_compute: MakeCompute) -> None:
        self._run, self._make = run, make_compute
        self._compute: Compute | None = None

    def answer(self) -> None:
        """Show that the actor lives."""

    def judge(self, shard: int) -> None:
        """Compute and publish a shard."""
        if self._run.is_done(shard):
            return
        if self._compute is None:
            self._compute = self._make()
        self._run.write(shard, *self._compute(self._run.ranges[shard]))


def _ray() -> Any:
    """Import ray."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray is not installed: pip install 'camrt[ray]'") from error
    return ray
