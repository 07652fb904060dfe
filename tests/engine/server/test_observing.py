"""Everything the scheduler tells is kept by the metrics: a hook that nobody listens to would be lost in silence."""

from __future__ import annotations

import inspect

import pytest

from camrt.server.gauges import Gauges
from camrt.server.observing import Observer, safely

HOOKS = [name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("name", HOOKS)
def test_the_metrics_hear_every_hook_with_the_same_words(name: str) -> None:
    heard = getattr(Gauges, name)
    assert heard is not getattr(Observer, name)
    assert inspect.signature(heard) == inspect.signature(getattr(Observer, name))


@pytest.mark.parametrize("name", HOOKS)
def test_an_observer_keeps_nothing(name: str) -> None:
    observer = Observer()
    words = list(inspect.signature(getattr(observer, name)).parameters)
    assert getattr(observer, name)(*range(len(words))) is None
    assert vars(observer) == {}


def test_whatever_a_callback_raises_is_logged_and_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    told: list[object] = []

    def careless(*words: object) -> None:
        told.append(words)
        raise RuntimeError("of the callback")

    safely(told.append, 3)
    assert not caplog.records
    safely(careless, 1, "two")
    assert told == [3, (1, "two")]
    assert caplog.text.count("RuntimeError: of the callback") == 1

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):  # which is no mistake of the callback
        safely(leave)
