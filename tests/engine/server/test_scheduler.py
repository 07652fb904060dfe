"""The scheduler with a real engine on a tiny model: right answers, each to its own, and nothing run in vain or left behind."""

from __future__ import annotations

import gc
import io
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from camrt.errors import CancelledError, DeadlineError, ImageError, LayerError, NumericError, TargetError
from camrt.image import prepare
from camrt.server import decoding
from camrt.server.asks import Ask, Wish
from camrt.server.faults import BusyError, TooLargeError, UnreadyError
from camrt.server.pictures import decode_picture
from camrt.server.scheduler import Scheduler
from camrt.server.tickets import Answer
from tests import tiny
from tests.engine.server.watched import PATIENCE, Heard, Outcome, Watched, ask, rows, settings, submit, wish


@pytest.fixture
def heard() -> Heard:
    """Return an observer."""
    return Heard()


@pytest.fixture
def scheduler(heard: Heard, watched: Watched) -> Iterator[Scheduler]:
    """Return a scheduler of one light thread and two heavy ones; nothing is left of it."""
    made = Scheduler(settings(heavy_lanes=2), heard)
    yield made
    assert made.drain(PATIENCE)
    assert_nothing_is_held(made)
    made.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Return a served model; all its leases are released in the end."""
    made = Watched()
    yield made
    assert made.leased == 0


def assert_nothing_is_held(scheduler: Scheduler) -> None:
    """Look into every account."""
    assert scheduler.held == 0
    assert scheduler._admission._bytes == 0
    assert not scheduler._held
    assert not any(len(line) for line in scheduler._lines.values())
    assert len(scheduler._deadlines) == 0


def hold(watched: Watched, scheduler: Scheduler) -> Outcome:
    """Let the light thread be busy with a request of its own kind until ``watched.open`` is set."""
    watched.open.clear()
    outcome, _ = submit(scheduler, watched, ask(method="fem"))
    assert watched.entered.acquire(timeout=PATIENCE)
    return outcome


# answers ---------------------------------------------------------------------------------------------------------


def assert_same(answer: Answer, want: Any, request: Ask) -> None:
    """Compare an answer with what the engine gives for one image at a time."""
    assert answer.logits.shape[0] == request.count
    for image in range(request.count):
        assert_allclose(answer.logits[image], want[image].logits[0], rtol=1e-5, atol=1e-5)
        if answer.explanation is not None:
            got = answer.explanation
            assert_array_equal(got.targets[image], want[image].targets[0])
            assert_allclose(got.heatmaps[image], want[image].heatmaps[0], atol=1e-5)
            assert_allclose(got.values[image], want[image].values[0], rtol=1e-5, atol=1e-5)
            assert_array_equal(got.degenerate[image], want[image].degenerate[0])
            assert tuple(got.labels[image]) == tuple(want[image].labels[0])


def test_a_thousand_requests_in_any_order_get_the_answers_they_get_alone(watched: Watched) -> None:
    """Groups pile up behind one that is held, in random order and mixture; every answer is that of batches of one."""
    wishes = [
        *[(name, {}) for name in ("gradcam", "gradcampp", "eigencam", "hirescam", None)],
        *[("layercam", {"gamma": gamma}) for gamma in (2.0, 3.0)],
        ("scorecam", {}),
    ]
    pool, chance, scheduler = rows(8, seed=1), random.Random(0), Scheduler(settings())
    known: dict[Any, Any] = {}

    def alone(request: Ask, places: list[int]) -> list[Any]:
        found = []
        for row, place in enumerate(places):
            chosen = None if request.wish is None else request.wish.key
            targets = None if request.targets is None else [request.targets[row]]
            key = (chosen, place, repr(targets))
            if key not in known:
                arguments = (request.wish or wish()).arguments()
                known[key] = watched.explain(pool[place][None], target=targets, **arguments)
            found.append(known[key])
        return found

    batches, count = list[int](), 0
    while count < 1000:
        watched.open.clear()
        waiting = []
        for _ in range(chance.randint(2, 10)):
            method, options = chance.choice(wishes)
            places = [chance.randrange(8) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
            width = chance.choice((0, 0, 1, 2))
            targets = [[chance.randrange(tiny.CLASSES) for _ in range(width)] for _ in places] if width else None
            request = ask(pool[places], method, targets, **options)
            waiting.append((submit(scheduler, watched, request)[0], request, places))
            count += 1
        watched.open.set()
        for outcome, request, places in waiting:
            answer = outcome.wait()
            assert_same(answer, alone(request, places), request)
            assert outcome.times == 1
            batches.append(answer.batch)
    assert max(batches) == watched.explainer.batch
    assert scheduler.drain(PATIENCE)
    assert_nothing_is_held(scheduler)
    scheduler.close()


def test_what_came_meanwhile_shares_runs_of_the_size_that_the_engine_likes(
    scheduler: Scheduler, watched: Watched, heard: Heard
) -> None:
    hold(watched, scheduler)
    many = [submit(scheduler, watched, ask(rows(1, seed)))[0] for seed in range(6)]
    other = submit(scheduler, watched, ask(rows(1), None))[0]
    watched.open.set()
    answers = [outcome.wait() for outcome in many]
    other.wait()
    assert watched.explainer.batch == 4
    assert watched.calls == [("fem", 1), ("gradcam", 4), ("gradcam", 2), ("scores", 1)]
    assert [answer.batch for answer in answers] == [4, 4, 4, 4, 2, 2]
    assert heard.of("ran") == [(n, "tiny", method) for method, n in watched.calls]
    assert all(answer.queue_seconds >= 0 and answer.run_seconds > 0 for answer in answers)


@pytest.mark.parametrize(
    ("rate", "runs"),
    [
        (1000.0, [4, 4, 2, 1, 1]),
        (160.0, [2, 2, 2, 2, 2, 1, 1]),
        (10.0, [1] * 12),
    ],  # half of what waits; 1/80 of a second
)
def test_on_a_cpu_runs_grow_with_the_queue_as_far_as_the_model_is_quick(rate: float, runs: list[int]) -> None:
    quick = Watched(rate=rate)
    scheduler = Scheduler(settings(full_runs=False))
    hold(quick, scheduler)
    many = [submit(scheduler, quick, ask(rows(1, seed)))[0] for seed in range(12)]
    quick.open.set()
    assert [outcome.wait().batch for outcome in many] == [size for size in runs for _ in range(size)]
    assert [images for _, images in quick.calls[1:]] == runs
    scheduler.close()


def test_requests_of_several_images_are_not_cut(scheduler: Scheduler, watched: Watched) -> None:
    hold(watched, scheduler)
    sizes = [3, 2, 1, 9, 1]
    many = [submit(scheduler, watched, ask(rows(n, n)))[0] for n in sizes]
    watched.open.set()
    answers = [outcome.wait() for outcome in many]
    assert watched.calls[1:] == [("gradcam", 3), ("gradcam", 3), ("gradcam", 9), ("gradcam", 1)]
    for n, answer in zip(sizes, answers, strict=True):
        assert answer.explanation is not None
        assert_allclose(answer.explanation.heatmaps, watched.explain(rows(n, n)).heatmaps, atol=1e-5)
        assert len(answer.explanation.pictures) == len(answer.explanation.names) == n


def test_different_wishes_targets_and_versions_do_not_mix(scheduler: Scheduler, watched: Watched) -> None:
    other = Watched()
    hold(watched, scheduler)
    asked = [
        (watched, ask()), (watched, ask(method="gradcampp")), (watched, ask(targets=[[0, 1]])), (other, ask()),
        (watched, ask(targets=[[2]])),
    ]  # fmt: skip
    outcomes = [submit(scheduler, model, request)[0] for model, request in asked]
    watched.open.set()
    for outcome in outcomes:
        outcome.wait()
    assert watched.calls[1:] == [("gradcam", 2), ("gradcampp", 1), ("gradcam", 1)]
    assert other.calls == [("gradcam", 1)]
    assert other.leased == 0


def test_a_run_waits_for_company_where_it_is_told_to(watched: Watched) -> None:
    scheduler = Scheduler(settings().model_copy(update={"delay": float(PATIENCE)}))
    many = [submit(scheduler, watched, ask(rows(1, seed), timeout=600))[0] for seed in range(4)]
    for outcome in many:
        assert outcome.wait().batch == 4
    assert watched.calls == [("gradcam", 4)]
    scheduler.close()


def test_scores_alone_are_the_engines(scheduler: Scheduler, watched: Watched) -> None:
    answer = submit(scheduler, watched, ask(rows(3), None))[0].wait()
    assert answer.explanation is None
    assert_allclose(answer.logits, watched.logits(rows(3)), atol=1e-6)
    assert answer.served is watched.served


# pictures --------------------------------------------------------------------------------------------------------


def png(seed: int, size: tuple[int, int] = (30, 20)) -> bytes:
    """Return a picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_pictures_are_decoded_as_the_engine_does(scheduler: Scheduler, watched: Watched, heard: Heard) -> None:
    contents = tuple(png(seed) for seed in range(3))
    answer = submit(scheduler, watched, ask(contents))[0].wait()
    want = watched.explain(list(contents))
    assert answer.explanation is not None
    assert_array_equal(answer.explanation.heatmaps, want.heatmaps)
    assert list(answer.explanation.names) == list(want.names)
    for got, picture in zip(answer.explanation.pictures, want.pictures, strict=True):
        assert_array_equal(got, picture)
    assert heard.of("stage") == ["decode", "run"]
    assert answer.decode_seconds > 0


def test_many_pictures_of_one_do_not_keep_the_decoder_from_others(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, begun, go = list[bytes](), threading.Event(), threading.Event()

    def noted(content: bytes, limits: Any) -> Any:
        order.append(content)
        begun.set()
        assert go.wait(PATIENCE)
        return decode_picture(content, limits)

    monkeypatch.setattr(decoding, "decode_picture", noted)
    scheduler = Scheduler(settings(decoders=1))
    many, one = tuple(png(seed) for seed in range(5)), (png(9),)
    outcomes = [submit(scheduler, watched, ask(many))[0]]
    assert begun.wait(PATIENCE)
    outcomes.append(submit(scheduler, watched, ask(one))[0])
    go.set()
    for outcome in outcomes:
        outcome.wait()
    assert order == [many[0], *one, *many[1:]]
    scheduler.close()


# errors ----------------------------------------------------------------------------------------------------------


def test_poison_kills_whoever_brought_it_and_nobody_else(scheduler: Scheduler, watched: Watched) -> None:
    """Finite inputs whose logits overflow fail their batch; each of its members is then run alone."""
    hold(watched, scheduler)
    poison = np.full((1, 3, *tiny.SIZE), 3e38, np.float32)
    good = [submit(scheduler, watched, ask(rows(1, 0)))[0]]
    bad = submit(scheduler, watched, ask(poison))[0]
    good += [submit(scheduler, watched, ask(rows(1, seed)))[0] for seed in (1, 2)]
    watched.open.set()
    for seed, outcome in enumerate(good):
        got = outcome.wait().explanation
        assert got is not None
        assert_allclose(got.heatmaps, watched.explain(rows(1, seed)).heatmaps, atol=1e-5)
    with pytest.raises(NumericError):
        bad.wait()
    assert watched.calls[1:] == [("gradcam", 4), *[("gradcam", 1)] * 4]
    assert [outcome.times for outcome in (*good, bad)] == [1] * 4


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"images": np.full((1, 3, *tiny.SIZE), np.nan, np.float32)}, ImageError),
        ({"images": np.zeros((1, 3, 5, 5), np.float32)}, ImageError),
        ({"targets": [[99]]}, TargetError),
        ({"targets": [["nobody"]]}, TargetError),
        ({"method": "rise", "n": 1_000_000}, TooLargeError),
        ({"timeout": -1.0}, DeadlineError),
        ({"layer": "nowhere"}, LayerError),
    ],
)
def test_what_is_wrong_with_a_request_is_said_at_once(
    asked: dict[str, Any], error: type[Exception], watched: Watched, heard: Heard
) -> None:
    scheduler, outcome = Scheduler(settings(max_work=1000.0), heard), Outcome()
    layer = asked.pop("layer", None)
    request = ask(**asked)
    if layer is not None:
        request = replace(request, wish=Wish("gradcam", layer=(layer,)))
    with pytest.raises(error):
        scheduler.submit(watched.lease(), request, outcome)
    assert outcome.times == 0
    assert watched.leased == 0
    assert_nothing_is_held(scheduler)
    reasons: dict[type[Exception], list[str]] = {TooLargeError: ["too_large"], DeadlineError: ["deadline"]}
    assert heard.of("rejected") == reasons.get(error, [])
    scheduler.close()


def test_threads_outlive_whatever_is_raised(
    scheduler: Scheduler, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    real = watched.explain

    def fatal(*_: Any, **__: Any) -> Any:
        raise SystemExit(3)

    def careless(answer: Any, error: Any) -> None:
        raise RuntimeError("of the callback")

    watched.explain = fatal
    for method in ("gradcam", "scorecam"):
        with pytest.raises(SystemExit):
            submit(scheduler, watched, ask(method=method))[0].wait()
    watched.explain = real
    for method in ("gradcam", "scorecam"):
        scheduler.submit(watched.lease(), ask(method=method), careless)
        submit(scheduler, watched, ask(method=method))[0].wait()
    assert all(thread.is_alive() for thread in scheduler._threads)
    assert scheduler.drain(PATIENCE)
    assert caplog.text.count("RuntimeError: of the callback") == 2


# leaving and deadlines -------------------------------------------------------------------------------------------


def test_who_leaves_the_queue_is_never_run(scheduler: Scheduler, watched: Watched, heard: Heard) -> None:
    hold(watched, scheduler)
    stays, _ = submit(scheduler, watched, ask())
    leaves, ticket = submit(scheduler, watched, ask(method="gradcampp"))
    before = scheduler.held
    scheduler.cancel(ticket)
    scheduler.cancel(ticket)
    assert scheduler.held < before
    with pytest.raises(CancelledError):
        leaves.wait()
    watched.open.set()
    stays.wait()
    assert watched.calls == [("fem", 1), ("gradcam", 1)]
    assert leaves.times == 1
    assert heard.of("cancelled") == ["queue"]


def test_who_leaves_a_shared_run_loses_only_its_own_result(
    scheduler: Scheduler, watched: Watched, heard: Heard
) -> None:
    hold(watched, scheduler)
    stays, _ = submit(scheduler, watched, ask(rows(1, 5)))
    leaves, ticket = submit(scheduler, watched, ask(rows(1, 6)))
    first = watched.open
    watched.open = threading.Event()
    first.set()
    assert watched.entered.acquire(timeout=PATIENCE)
    scheduler.cancel(ticket)
    with pytest.raises(CancelledError):
        leaves.wait()
    assert stays.times == 0
    watched.open.set()
    got = stays.wait().explanation
    assert got is not None
    assert_allclose(got.heatmaps, watched.explain(rows(1, 5)).heatmaps, atol=1e-5)
    assert watched.calls[1:] == [("gradcam", 2)]
    assert heard.of("cancelled") == ["run"]


@pytest.mark.parametrize("method", ["gradcam", "scorecam"])
def test_a_run_that_nobody_waits_for_ends(method: str, scheduler: Scheduler, watched: Watched) -> None:
    """The engine is held up for good, unless it is told to end."""
    watched.open.clear()
    outcome, ticket = submit(scheduler, watched, ask(method=method))
    assert watched.entered.acquire(timeout=PATIENCE)
    scheduler.cancel(ticket)
    with pytest.raises(CancelledError):
        outcome.wait()
    watched.open = threading.Event()
    watched.open.set()
    submit(scheduler, watched, ask(method=method))[0].wait()


@pytest.mark.parametrize(("method", "options"), [("opticam", {"iters": 200}), ("rise", {"n": 20_000})])
def test_a_run_ends_at_its_deadline(
    method: str, options: dict[str, Any], scheduler: Scheduler, watched: Watched
) -> None:
    with pytest.raises(DeadlineError, match=r"timeout of 0\.1 s"):
        submit(scheduler, watched, ask(rows(200), method, timeout=0.1, **options))[0].wait()
    assert scheduler.drain(PATIENCE)
    assert [call for call, _ in watched.calls] in ([], [method])


def test_what_expires_in_the_queue_is_never_run(scheduler: Scheduler, watched: Watched, heard: Heard) -> None:
    hold(watched, scheduler)
    late, _ = submit(scheduler, watched, ask(timeout=0.05))
    with pytest.raises(DeadlineError):
        late.wait()
    stays, _ = submit(scheduler, watched, ask(method="hirescam"))
    watched.open.set()
    stays.wait()
    assert watched.calls == [("fem", 1), ("hirescam", 1)]
    assert heard.of("rejected") == ["deadline"]


def test_what_expired_is_not_run_even_if_nobody_had_time_to_say_so(
    scheduler: Scheduler, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler._deadlines, "add", lambda until, call: -1)
    hold(watched, scheduler)
    late, ticket = submit(scheduler, watched, ask())
    ticket.until = 0.0
    watched.open.set()
    with pytest.raises(DeadlineError):
        late.wait()
    assert scheduler.drain(PATIENCE)
    assert watched.calls == [("fem", 1)]


def test_time_counts_from_the_arrival(scheduler: Scheduler, watched: Watched) -> None:
    request = Ask(rows(1), None, wish(), 5.0, arrived=0.0)  # the clock's start, long ago
    with pytest.raises(DeadlineError, match="timeout of 5 s"):
        scheduler.submit(watched.lease(), request, Outcome())


# cheap and dear --------------------------------------------------------------------------------------------------


def test_cheap_requests_do_not_wait_for_dear_ones(scheduler: Scheduler, watched: Watched) -> None:
    watched.held = {"heavy"}
    watched.open.clear()
    dear = [submit(scheduler, watched, ask(method="scorecam"))[0] for _ in range(5)]
    for _ in range(2):  # both heavy threads are busy, and three wait
        assert watched.entered.acquire(timeout=PATIENCE)
    for _ in range(3):
        submit(scheduler, watched, ask())[0].wait()
    assert [outcome.times for outcome in dear] == [0] * 5
    watched.open.set()
    for outcome in dear:
        outcome.wait()


def test_dear_requests_run_at_the_same_time_so_that_the_engine_can_share_their_chunks(watched: Watched) -> None:
    both, explain = threading.Barrier(2), watched.explain

    def together(*args: Any, **kwargs: Any) -> Any:
        both.wait(PATIENCE)
        return explain(*args, **kwargs)

    watched.explain = together
    scheduler = Scheduler(settings(heavy_lanes=2))
    outcomes = [submit(scheduler, watched, ask(rows(1, seed), "rise", n=42))[0] for seed in (1, 2)]
    for seed, outcome in zip((1, 2), outcomes, strict=True):
        got = outcome.wait().explanation
        assert got is not None
        want = explain(rows(1, seed), method="rise", options={"n": 42})
        assert_allclose(got.heatmaps, want.heatmaps, atol=1e-5)
    assert scheduler.drain(PATIENCE)
    scheduler.close()


# cores -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Scheduler, Watched]]:
    """Return a scheduler whose two light lanes share two cores and are busy, and what it runs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    watched = Watched(threads=2, threads_beside=1)
    scheduler = Scheduler(settings(full_runs=False, light_lanes=2))
    for _ in range(2):
        hold(watched, scheduler)
    yield scheduler, watched
    watched.open.set()
    assert scheduler.drain(PATIENCE)
    scheduler.close()


@pytest.mark.parametrize("waiting", [6, 7])
def test_a_spare_lane_runs_where_so_many_wait_that_runs_are_joined(
    waiting: int, shared: tuple[Scheduler, Watched]
) -> None:
    scheduler, watched = shared
    many = [submit(scheduler, watched, ask(rows(1, seed)))[0] for seed in range(waiting)]
    if waiting == 7:
        assert watched.entered.acquire(timeout=PATIENCE)  # while both others are held
        assert (watched.calls[2], watched.lanes[2]) == (("gradcam", 2), "camrt-spare")
        assert watched.beside == [False, False, True]  # more waits
    watched.open.set()
    for outcome in many:
        outcome.wait()
    assert ("camrt-spare" in watched.lanes) == (waiting == 7)


def test_a_spare_lane_leaves_the_rest_to_the_others(shared: tuple[Scheduler, Watched]) -> None:
    scheduler, watched = shared
    watched.free = {"camrt-spare"}
    many = []
    for more in (7, 2):  # each time seven wait, and two of them run
        many += [submit(scheduler, watched, ask(rows(1, seed)))[0] for seed in range(more)]
        for _ in range(2):
            many.pop(0).wait()
    assert watched.calls[2:] == [("gradcam", 2), ("gradcam", 2)]


def test_a_dear_request_is_not_beside_the_cheap_ones_that_wait(shared: tuple[Scheduler, Watched]) -> None:
    scheduler, watched = shared
    for seed in range(3):
        submit(scheduler, watched, ask(rows(1, seed)))
    submit(scheduler, watched, ask(rows(1), "scorecam"))
    assert watched.entered.acquire(timeout=PATIENCE)
    assert (watched.calls[2], watched.beside[2]) == (("scorecam", 1), False)


# room ------------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(watched: Watched, heard: Heard) -> None:
    scheduler = Scheduler(settings(queue_work=4.1, batch=1), heard)
    scheduler.check_room()
    hold(watched, scheduler)
    taken = [submit(scheduler, watched, ask())[0] for _ in range(2)]
    with pytest.raises(BusyError, match="queue is full") as caught:
        submit(scheduler, watched, ask())
    assert caught.value.retry_after > 0
    assert not isinstance(caught.value, UnreadyError)
    submit(scheduler, watched, ask(method=None, images=rows(1)))  # hardly fits
    watched.open.set()
    for outcome in taken:
        outcome.wait()
    assert scheduler.drain(PATIENCE)
    assert heard.of("rejected") == ["full"]
    assert heard.of("work")[-1] == 0
    scheduler.close()


def test_what_cannot_be_done_in_time_is_refused(watched: Watched) -> None:
    slow = Watched(rate=0.5)  # forwards a second
    scheduler = Scheduler(settings())
    hold(slow, scheduler)
    with pytest.raises(BusyError, match="longer than the request's timeout"):
        submit(scheduler, slow, ask(timeout=3.0))
    kept, _ = submit(scheduler, slow, ask(timeout=PATIENCE))
    slow.open.set()
    kept.wait()
    assert scheduler.drain(PATIENCE)
    assert slow.leased == 0
    scheduler.close()


def test_everything_is_given_back_whatever_happens(watched: Watched) -> None:
    """Answers, errors, deadlines and leaving in random order from six threads; then every account is empty."""
    scheduler = Scheduler(settings(heavy_lanes=2, queue_work=200.0))
    poison = np.full((1, 3, *tiny.SIZE), 3e38, np.float32)

    def go(seed: int) -> tuple[int, int]:
        chance, outcomes, refused = random.Random(seed), list[Outcome](), 0
        for _ in range(80):
            kind = chance.randrange(6)
            request = [
                ask(rows(chance.randint(1, 3))), ask(method="scorecam"), ask(poison), ask((b"no picture",)),
                ask(method="rise", timeout=0.01, n=400), ask((png(seed),), None),
            ][kind]  # fmt: skip
            try:
                outcome, ticket = submit(scheduler, watched, request)
            except (BusyError, DeadlineError):
                refused += 1
                continue
            outcomes.append(outcome)
            if chance.random() < 0.3:
                scheduler.cancel(ticket)
            elif chance.random() < 0.3:
                outcome._told.wait(PATIENCE)
        for outcome in outcomes:
            assert outcome._told.wait(PATIENCE)
        assert [outcome.times for outcome in outcomes] == [1] * len(outcomes)
        return len(outcomes), refused

    with ThreadPoolExecutor(6) as pool:
        counts = list(pool.map(go, range(6)))
    assert sum(taken for taken, _ in counts) > 100
    assert scheduler.drain(PATIENCE)
    assert_nothing_is_held(scheduler)
    scheduler.close()


# the end ---------------------------------------------------------------------------------------------------------


def test_draining_finishes_what_was_taken_and_takes_nothing_more(watched: Watched) -> None:
    scheduler = Scheduler(settings())
    first = hold(watched, scheduler)
    second, _ = submit(scheduler, watched, ask())
    assert not scheduler.drain(0.01)
    for refused in (scheduler.check_room, lambda: submit(scheduler, watched, ask())):
        with pytest.raises(UnreadyError, match="stopping"):
            refused()
    watched.open.set()
    assert scheduler.drain(PATIENCE)
    assert first.times == second.times == 1
    scheduler.close()


def test_closing_ends_what_waits_and_what_runs_and_every_thread(watched: Watched) -> None:
    before = threading.active_count()
    scheduler = Scheduler(settings())
    outcomes = [hold(watched, scheduler)]
    outcomes += [submit(scheduler, watched, ask(method=method))[0] for method in ("gradcam", "scorecam")]
    outcomes.append(submit(scheduler, watched, ask((png(0),)))[0])
    scheduler.close()
    scheduler.close()
    for outcome in outcomes:
        with pytest.raises(UnreadyError):
            outcome.wait()
        assert outcome.times == 1
    assert_nothing_is_held(scheduler)
    assert threading.active_count() == before


def test_nothing_keeps_a_model_that_is_no_longer_served() -> None:
    """By counting references alone: neither an answer, nor an error, nor a ticket, nor a thread that waits holds it."""
    scheduler = Scheduler(settings(batch=2))
    model = Watched()
    poison = np.full((1, 3, *tiny.SIZE), 3e38, np.float32)
    gc.collect()
    gc.disable()
    try:
        outcomes = [submit(scheduler, model, ask(method=method)) for method in ("gradcam", "scorecam", None)]
        for outcome, _ in outcomes:
            outcome.wait()
        failed, _ = submit(scheduler, model, ask(poison))
        with pytest.raises(NumericError):
            failed.wait()
        assert scheduler.drain(PATIENCE)
        tickets = [ticket for _, ticket in outcomes]
        kept = weakref.ref(model.served)
        explainer = weakref.ref(model.explainer)
        replaced: Any = model.explainer
        del replaced.explain, replaced.logits, replaced
        del outcomes, outcome, model
        assert len(tickets) == 3
        until = time.monotonic() + PATIENCE
        while explainer() is not None and time.monotonic() < until:  # a thread may still be on its way out of a run
            time.sleep(0.001)
        assert kept() is None
        assert explainer() is None
    finally:
        gc.enable()
    scheduler.close()


def test_prepared_inputs_are_checked_once(
    watched: Watched, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = 0

    def counting(images: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal times
        times += 1
        return prepare(images, *args, **kwargs)

    monkeypatch.setattr(decoding, "prepare", counting)
    submit(scheduler, watched, ask())[0].wait()
    assert times == 1


def test_every_thread_that_runs_or_decodes_gives_way(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    names: set[str] = set()
    monkeypatch.setattr("camrt.server.scheduler.give_way", lambda: names.add(threading.current_thread().name[:9]))
    scheduler = Scheduler(settings())
    submit(scheduler, watched, Ask((png(0),), None, wish(), 60.0))[0].wait()
    scheduler.close()
    assert names == {"camrt-lig", "camrt-hea", "camrt-dec"}
