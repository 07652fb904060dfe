"""A tiny model that is served, whose engine can be watched and held up, and requests for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

import camrt
from camrt.limits import Cancellation
from camrt.methods import resolve, validate
from camrt.server.asks import Ask, Wish
from camrt.server.observing import Observer
from camrt.server.scheduler import Scheduler
from camrt.server.served import Lease, Served
from camrt.server.settings import Settings
from camrt.server.tickets import Answer, Ticket
from tests import tiny

PATIENCE = 60  # seconds; whatever takes longer has failed
ROOMY: dict[str, Any] = {"full_runs": True, "max_work": 1e9, "queue_work": 1e10, "queue_bytes": 2**30, "light_lanes": 1}


class Watched:
    """
    A served model.

    Attributes
    ----------
    served : Served
        What leases are made of.
    calls : list of (str, int)
        Method and images of every call of the engine, in order.
    lanes : list of str
        The threads they came from.
    beside : list of bool
        Whether runs were under way that leave each other their cores, when they came.
    entered : threading.Semaphore
        Released at every call.
    open : threading.Event
        A call goes on only when this is set, or when it is cancelled; it is, unless `hold` clears it.
    """

    def __init__(self, model: bytes | None = None, rate: float = 1000.0, **loading: Any) -> None:
        self.explainer = camrt.load(model or tiny.mlp(), preprocess="half", **loading)
        self.served = Served("tiny", "1", self.explainer, 0.0, rate)
        self.calls: list[tuple[str, int]] = []
        self.lanes: list[str] = []
        self.beside: list[bool] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        self.held = {"light", "heavy"}
        self.free: set[str] = set()  # names of threads that are never held
        self.leases: list[Lease] = []
        self.explain, self.logits = self.explainer.explain, self.explainer.logits  # the engine itself
        replaced: Any = self.explainer
        replaced.explain, replaced.logits = self._explain, self._logits

    def _pass(self, method: str, images: int, cancel: Cancellation | None) -> None:
        self.calls.append((method, images))
        self.lanes.append(threading.current_thread().name)
        with self.explainer.sessions.under_way() as others:
            self.beside.append(others)
        self.entered.release()
        line = "heavy" if method != "scores" and resolve(method).runs is not None else "light"
        held = line in self.held and threading.current_thread().name not in self.free
        while held and not self.open.wait(0.01) and not (cancel is not None and cancel.cancelled):
            pass

    def _explain(self, images: Any, *, cancel: Cancellation | None = None, **asked: Any) -> Any:
        self._pass(asked["method"], len(images.x), cancel)
        return self.explain(images, cancel=cancel, **asked)

    def _logits(self, images: Any, *, cancel: Cancellation | None = None) -> Any:
        self._pass("scores", len(images.x), cancel)
        return self.logits(images, cancel=cancel)

    def lease(self) -> Lease:
        """Return a lease that is remembered."""
        lease = Lease(self.served)
        self.leases.append(lease)
        return lease

    @property
    def leased(self) -> int:
        """How many leases have not been released."""
        return sum(lease._served is not None for lease in self.leases)


class Outcome:
    """What becomes of one request: its callback, and somewhere to wait for it."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.times = 0
        self._told = threading.Event()

    def __call__(self, answer: Answer | None, error: BaseException | None) -> None:
        self.times += 1
        self.answer, self.error = answer, error
        self._told.set()

    def wait(self) -> Answer:
        """Return the answer, or raise what went wrong."""
        assert self._told.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        assert self.answer is not None
        return self.answer


class Heard(Observer):
    """What an observer was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def work(self, held: float) -> None:
        self.told.append(("work", held))

    def waited(self, seconds: float) -> None:
        self.told.append(("waited", seconds))

    def ran(self, images: int, model: str, method: str, seconds: float) -> None:
        self.told.append(("ran", images, model, method))

    def stage(self, stage: str, seconds: float) -> None:
        self.told.append(("stage", stage))

    def rejected(self, reason: str) -> None:
        self.told.append(("rejected", reason))

    def cancelled(self, where: str) -> None:
        self.told.append(("cancelled", where))

    def of(self, kind: str) -> list[Any]:
        """Return what was told of one kind."""
        return [told[1:] if len(told) > 2 else told[1] for told in self.told if told[0] == kind]


def wish(method: str = "gradcam", **options: object) -> Wish:
    """Return a complete wish."""
    row = resolve(method)
    variant, full = validate(row, None, options)
    return Wish(row.id, variant, tuple(sorted(full.items())))


def ask(
    images: Any = None,
    method: str | None = "gradcam",
    targets: Sequence[Sequence[Any]] | None = None,
    timeout: float = PATIENCE,
    **options: object,
) -> Ask:
    """Return a request; for scores alone where there is no method."""
    given = tiny.images(1) if images is None else images
    listed = None if targets is None else [list(row) for row in targets]
    return Ask(given, listed, None if method is None else wish(method, **options), timeout)


def submit(scheduler: Scheduler, watched: Watched, request: Ask) -> tuple[Outcome, Ticket]:
    """Submit a request."""
    outcome = Outcome()
    return outcome, scheduler.submit(watched.lease(), request, outcome)


def settings(**fields: Any) -> Settings:
    """Return settings with room for everything, and one light thread, so that a test knows what runs."""
    return Settings(**{**ROOMY, **fields})


def rows(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return n prepared inputs."""
    return tiny.images(n, seed)
