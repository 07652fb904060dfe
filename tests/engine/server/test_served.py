"""A lease is the only thing that keeps a version."""

from __future__ import annotations

import gc
import weakref
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from camrt.server.served import Lease, Served


class Model:
    """Stands in for an explainer."""


def served() -> Served:
    """Return a version of a model that does nothing."""
    model: Any = Model()
    return Served("m", "1", model, 0.0, 1.0)


def test_a_lease_is_a_context() -> None:
    one = served()
    with Lease(one) as lease:
        assert lease.served is one
    with pytest.raises(RuntimeError, match="released"):
        _ = lease.served


def test_a_lease_ends_once_and_each_by_itself() -> None:
    one = served()
    first, second = Lease(one), Lease(one)
    first.release()
    first.release()
    assert second.served is one
    with pytest.raises(RuntimeError):
        _ = first.served


def test_the_last_lease_frees_the_model_at_once() -> None:
    gc.collect()
    gc.disable()
    try:
        one = served()
        model = weakref.ref(one.explainer)
        first, second = Lease(one), Lease(one)
        del one
        first.release()
        assert model() is not None
        second.release()
        assert model() is None
    finally:
        gc.enable()


def test_a_version_is_told_apart_by_what_it_is_and_does_not_change() -> None:
    one, other = served(), served()
    assert one != other and len({one, other}) == 2  # runs of two versions are never shared
    with pytest.raises(FrozenInstanceError):
        one.version = "2"  # type: ignore[misc]
