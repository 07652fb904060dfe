"""What a ticket is issued for, what it counts for, who may share its run, and what it keeps alive when it is over."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from camrt.errors import DeadlineError, ImageError, LayerError, TargetError
from camrt.limits import Cancellation
from camrt.server.admission import Admission
from camrt.server.asks import Ask, Wish
from camrt.server.faults import BusyError, TooLargeError
from camrt.server.pricing import price
from camrt.server.served import Lease
from camrt.server.tickets import Run, Ticket, issue, late, lightened, nobody
from tests import tiny
from tests.engine.server.watched import Heard, Watched, ask, rows, settings, wish

INPUT = 3 * tiny.SIZE[0] * tiny.SIZE[1] * 4  # bytes of one


@pytest.fixture(scope="module")
def model() -> Watched:
    """Return a served model."""
    return Watched()


def issued(model: Watched, request: Ask, admission: Admission | None = None, **limits: Any) -> Ticket:
    """Return a ticket for a request, by itself unless an admission is given."""
    told = settings(**limits)
    return issue(model.lease(), request, nobody, told, admission or Admission(1e9, 2**30), Heard())


# what it is issued for --------------------------------------------------------------------------------------------


def test_a_ticket_says_what_was_asked_and_counts_for_its_price_and_bytes(model: Watched) -> None:
    admission = Admission(1e9, 2**30)
    request = Ask(rows(2), [[3, "prob:1"], [None, 4]], wish("scorecam"), 7.0, arrived=1e12)
    ticket = issued(model, request, admission)
    assert [[type(target).__name__ for target in row] for row in ticket.table] == [
        ["Logit", "Probability"],
        ["Logit"] * 2,
    ]
    assert [[target.index for target in row] for row in ticket.table] == [[3, 1], [None, 4]]  # type: ignore[union-attr]
    assert (ticket.until, ticket.timeout, ticket.count, ticket.wish) == (1e12 + 7.0, 7.0, 2, request.wish)
    assert ticket.price == price(model.explainer, request) and ticket.price.heavy
    assert admission.held == ticket.price.work == ticket.share.work
    assert ticket.share.size == admission._bytes == 2 * INPUT + 2 * INPUT
    assert ticket.share.seconds == ticket.price.work / model.served.rate and ticket.share.heavy
    assert ticket.prepared is None and not ticket.is_over and not ticket.is_free


@pytest.mark.parametrize(
    ("asked", "error", "reasons"),
    [
        ({"timeout": -1.0}, DeadlineError, ["deadline"]),
        ({"method": "rise", "n": 1_000_000}, TooLargeError, ["too_large"]),
        ({"images": np.zeros((64, 3, *tiny.SIZE), "f4")}, BusyError, ["full"]),
        ({"targets": [[tiny.CLASSES]]}, TargetError, []),
        ({"targets": [["nobody"]]}, TargetError, []),
        ({"layer": "nowhere"}, LayerError, []),
    ],
)
def test_what_is_refused_counts_for_nothing_and_is_told(
    asked: dict[str, Any], error: type[Exception], reasons: Sequence[str], model: Watched
) -> None:
    heard, admission = Heard(), Admission(1e9, 100 * INPUT)
    issued(model, ask(), admission)  # an empty server takes anything
    before = admission.held, admission._bytes
    layer = asked.pop("layer", None)
    request = ask(**asked) if layer is None else replace(ask(), wish=Wish("gradcam", layer=(layer,)))
    with pytest.raises(error):
        issue(model.lease(), request, nobody, settings(max_work=1000.0), admission, heard)
    assert (admission.held, admission._bytes) == before
    assert heard.told == [("rejected", reason) for reason in reasons]


def test_those_that_want_the_same_of_the_same_may_share_a_run(model: Watched) -> None:
    other = Watched()
    wishes = [ask(), ask(method="layercam"), ask(method="layercam", gamma=3.0), ask(method=None), ask(targets=[[1, 2]])]
    groups = [[issued(model, request) for _ in range(2)] for request in wishes] + [[issued(other, wishes[0])]]
    groups[0] += [
        issued(model, request) for request in (ask(rows(3)), ask(targets=[[4]]), ask((b"?",)), ask(timeout=9))
    ]
    keys = [{ticket.key for ticket in group} for group in groups]
    assert [len(group) for group in keys] == [1] * len(groups)
    assert len(set().union(*keys)) == len(groups)


# its images -------------------------------------------------------------------------------------------------------


def test_it_prepares_its_images_once_and_forgets_what_they_came_as(model: Watched) -> None:
    heard, ticket = Heard(), issued(model, ask(rows(2)))
    assert ticket.prepare(settings(), heard)
    assert ticket.prepared is not None and ticket.prepared.x.shape == (2, 3, *tiny.SIZE)
    assert ticket.ask is None and ticket.parts == [] and ticket.decode_seconds > 0
    assert heard.told == [("stage", "decode")]
    assert not ticket.prepare(settings(), heard)  # nothing is left to do
    assert heard.of("stage") == ["decode"]


def test_one_that_is_over_prepares_nothing_more(model: Watched) -> None:
    heard, ticket = Heard(), issued(model, ask((b"no picture",)))
    ticket.let_go()
    assert not ticket.prepare(settings(), heard) and heard.told == []
    with pytest.raises(ImageError):
        issued(model, ask((b"no picture",))).prepare(settings(), heard)


# what it keeps ----------------------------------------------------------------------------------------------------


def test_a_ticket_that_let_go_keeps_nothing_but_its_lease(model: Watched) -> None:
    served = replace(model.served)
    ticket = issue(Lease(served), ask(), nobody, settings(), Admission(1e9, 2**30), Heard())
    ticket.prepare(settings(), Heard())
    ticket.run = Run([ticket], 1)
    kept = [weakref.ref(it) for it in (served, ticket.run, ticket.run.switch)]
    inputs = weakref.ref(ticket.prepared.x)  # type: ignore[union-attr]
    ticket.lease.release()
    del served
    gc.collect()
    gc.disable()
    try:
        assert all(reference() is not None for reference in (*kept, inputs))
        ticket.let_go()
        assert [reference() for reference in (*kept, inputs)] == [None] * 4
    finally:
        gc.enable()


def test_an_error_that_was_lightened_names_its_lines_and_keeps_no_arrays() -> None:
    arrays: list[weakref.ref[Any]] = []

    def deepest() -> None:
        array = np.zeros(3)
        arrays.append(weakref.ref(array))
        raise KeyError("deepest")

    def middle() -> None:
        array = np.ones(3)
        arrays.append(weakref.ref(array))
        try:
            deepest()
        except KeyError:
            raise ValueError("middle")  # noqa: B904  the context is followed too

    def outer() -> None:
        array = np.ones(4)
        arrays.append(weakref.ref(array))
        try:
            middle()
        except ValueError as error:
            raise RuntimeError("outer") from error

    def caught() -> BaseException:
        try:
            outer()
        except RuntimeError as error:
            return lightened(error)
        raise AssertionError("nothing was raised")

    gc.collect()
    gc.disable()
    try:
        error = caught()
        assert len(arrays) == 3 and [array() for array in arrays] == [None] * 3
        lines = "".join(traceback.format_exception(error))
        assert all(f"in {name}\n" in lines for name in ("deepest", "middle", "outer"))
    finally:
        gc.enable()


def test_a_run_has_a_switch_of_its_own() -> None:
    one, other = Run([], 0), Run([], 0)
    one.switch.cancel()
    assert one.switch.cancelled and not other.switch.cancelled and isinstance(one.switch, Cancellation)


def test_who_is_late_hears_how_long_it_had() -> None:
    assert "timeout of 0.25 s; allow more" in str(late(0.25)) and isinstance(late(1), DeadlineError)
    told: Any = nobody
    assert told(None, late(1)) is None
