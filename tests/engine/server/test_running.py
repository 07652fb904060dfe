"""One call of the engine for several: everybody's own rows come out, and it is told how it went."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from camrt.errors import CancelledError, NumericError
from camrt.server.admission import Admission
from camrt.server.asks import Ask
from camrt.server.running import SPAN, answers_of, images_of, overflows
from camrt.server.tickets import Run, Ticket, issue, nobody
from tests import tiny
from tests.engine.server.watched import Heard, Watched, ask, rows, settings


@pytest.fixture
def model() -> Watched:
    """Return a served model."""
    return Watched()


def ready(model: Watched, request: Ask) -> Ticket:
    """Return a ticket whose images are prepared."""
    ticket = issue(model.lease(), request, nobody, settings(), Admission(1e9, 2**30), Heard())
    while not ticket.prepare(settings(), Heard()):
        pass
    return ticket


def run_of(*tickets: Ticket) -> Run:
    """Return a run that all of its tickets wait for."""
    return Run(list(tickets), len(tickets))


@pytest.mark.parametrize("sizes", [[1], [3], [1, 1], [2, 1, 3]])
@pytest.mark.parametrize("method", ["gradcam", "scorecam"])
def test_everybody_gets_the_explanation_that_the_engine_gives_alone(
    method: str, sizes: list[int], model: Watched
) -> None:
    requests = [
        ask(rows(size, seed), method, [[(seed + image) % tiny.CLASSES, 1] for image in range(size)])
        for seed, size in enumerate(sizes)
    ]
    answers = answers_of(run_of(*(ready(model, request) for request in requests)), time.monotonic(), Heard())
    assert model.calls == [(method, sum(sizes))]
    assert len(answers) == len(sizes)
    for seed, (answer, request) in enumerate(zip(answers, requests, strict=True)):
        want = model.explain(rows(sizes[seed], seed), method=method, target=request.targets)
        got = answer.explanation
        assert got is not None and answer.served is model.served and answer.batch == sum(sizes)
        assert_array_equal(got.targets, want.targets)
        assert_allclose(got.heatmaps, want.heatmaps, atol=1e-5)
        assert_allclose(got.values, want.values, rtol=1e-5, atol=1e-5)
        assert_allclose(answer.logits, want.logits, rtol=1e-5, atol=1e-5)
        assert len(got.pictures) == len(got.names) == sizes[seed]


def test_scores_alone_are_cut_up_too(model: Watched) -> None:
    tickets = [ready(model, ask(rows(size, size), None)) for size in (2, 1, 3)]
    answers = answers_of(run_of(*tickets), time.monotonic(), Heard())
    assert model.calls == [("scores", 6)]
    for size, answer in zip((2, 1, 3), answers, strict=True):
        assert answer.explanation is None
        assert_allclose(answer.logits, model.logits(rows(size, size)), rtol=1e-5, atol=1e-5)


def test_it_is_told_what_ran_and_how_long_each_waited(model: Watched) -> None:
    heard, tickets = Heard(), [ready(model, ask()) for _ in range(3)]
    begun = 1000.0
    for ticket, (submitted, decoding) in zip(tickets, [(990.0, 0.0), (990.0, 4.0), (999.0, 4.0)], strict=True):
        ticket.submitted, ticket.decode_seconds = submitted, decoding
    answers = answers_of(run_of(*tickets), begun, heard)
    assert [answer.queue_seconds for answer in answers] == [
        10.0,
        6.0,
        0.0,
    ]  # decoding is no waiting, and none is negative
    assert [answer.decode_seconds for answer in answers] == [0.0, 4.0, 4.0]
    assert heard.of("ran") == [(3, "tiny", "gradcam")] and heard.of("waited") == [10.0, 6.0, 0.0]
    assert heard.of("stage") == ["run"] * 3
    assert len({answer.run_seconds for answer in answers}) == 1 and answers[0].run_seconds > 0
    answers_of(run_of(ready(model, ask(method=None))), begun, heard)
    assert heard.of("ran")[1:] == [(1, "tiny", "scores")]


def test_what_the_engine_raises_is_everybody_s_to_sort_out(model: Watched) -> None:
    heard = Heard()
    poison = ready(model, ask(np.full((1, 3, *tiny.SIZE), 3e38, np.float32)))
    with pytest.raises(NumericError):
        answers_of(run_of(ready(model, ask()), poison), 0.0, heard)
    switched = run_of(ready(model, ask(method="scorecam")))
    switched.switch.cancel()
    with pytest.raises(CancelledError):
        answers_of(switched, 0.0, heard)
    assert heard.told == []


@pytest.mark.parametrize(
    ("rate", "waiting", "limits", "want"),
    [
        (1000.0, 1, {}, 1),
        (1000.0, 2, {}, 1),  # half of what waits for one lane
        (1000.0, 3, {}, 2),
        (1000.0, 3, {"light_lanes": 2}, 1),  # a quarter for each of two
        (1000.0, 9, {"light_lanes": 2}, 3),
        (1000.0, 100, {}, 4),  # the engine's own batch
        (1000.0, 100, {"batch": 3}, 3),
        (2 / SPAN, 100, {}, 2),  # so many forwards in a span
        (0.1 / SPAN, 100, {}, 1),
        (0.1 / SPAN, 1, {"full_runs": True}, 4),
        (0.1 / SPAN, 1, {"full_runs": True, "batch": 2}, 2),
        (0.1 / SPAN, 1, {"delay": 0.5}, 4),
        (1000.0, 100, {"threads": 1}, 1),  # one thread is kept waiting by nobody
        (1000.0, 100, {"threads": 1, "full_runs": True}, 4),
    ],
)
def test_a_run_is_as_large_as_pays(rate: float, waiting: int, limits: dict[str, Any], want: int) -> None:
    quick = Watched(rate=rate)
    assert quick.explainer.batch == 4
    ticket = ready(quick, ask())
    assert images_of(ticket, waiting, settings(**{"full_runs": False, "threads": 2, **limits})) == want


@pytest.mark.parametrize(
    ("cores", "waiting", "want"), [(1, 100, 1), (2, 6, 1), (2, 7, 2), (2, 13, 3), (3, 13, 3), (16, 13, 3)]
)
def test_where_lanes_share_the_cores_a_spare_one_has_its_share_of_what_waits(
    cores: int, waiting: int, want: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = ready(Watched(rate=1000.0), ask())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    told = settings(full_runs=False, light_lanes=2)
    assert images_of(ticket, waiting, told) == want
    assert overflows(ticket, waiting, told) == (want > 1)


@pytest.mark.parametrize("limits", [{"full_runs": True}, {"delay": 0.5}])
def test_runs_that_are_filled_up_anyway_do_not_overflow(limits: dict[str, Any]) -> None:
    ticket = ready(Watched(rate=1000.0), ask())
    told = settings(**{"full_runs": False, "light_lanes": 2, **limits})
    assert images_of(ticket, 100, told) == 4 and not overflows(ticket, 100, told)


@pytest.mark.parametrize("is_beside", [False, True])
@pytest.mark.parametrize("method", ["gradcam", None])
def test_a_run_that_others_wait_behind_leaves_them_cores(method: str | None, is_beside: bool) -> None:
    model = Watched(threads=2, threads_beside=1)
    run = run_of(ready(model, ask(method=method)))
    run.is_beside = is_beside
    answers_of(run, time.monotonic(), Heard())
    assert model.beside == [is_beside]


def test_a_device_is_given_all_that_fits_and_what_is_over_counts_as_one(model: Watched) -> None:
    ticket = ready(model, ask())
    device: Any = type("OnDevice", (), {"batch": 4, "running": {"providers": ["CUDAExecutionProvider"]}})()
    served: Any = type("Served", (), {"explainer": device, "rate": 1.0})()
    ticket.served = served
    assert images_of(ticket, 1, settings(full_runs=False)) == 4
    ticket.let_go()
    assert images_of(ticket, 9, settings()) == 1
