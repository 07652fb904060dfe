"""What requests come down to: what may share a batch, and what the engine is told."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.anytime import Budget
from camrt.server.asks import Ask, Wish

OTHERS: dict[str, Any] = {  # another value of every field
    "method": "layercam",
    "variant": "paper",
    "options": (("n", 3),),
    "layer": ("a1",),
    "pipeline": "torchcam",
    "fuse": "max",
    "eigen_smooth": True,
    "tta": True,
    "mask_space": "raw",
    "budget": Budget(7, None, None),
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Wish)])
def test_wishes_that_differ_anywhere_share_no_batch(name: str) -> None:
    assert dataclasses.replace(Wish(), **{name: OTHERS[name]}).key != Wish().key


def test_equal_wishes_share_one() -> None:
    assert Wish(**OTHERS).key == Wish(**{**OTHERS, "budget": Budget(7, None, None)}).key
    assert hash(Wish(**OTHERS).key) == hash(Wish(**OTHERS).key)


def test_the_engine_is_told_everything_in_its_own_words() -> None:
    told = Wish(**OTHERS).arguments()
    assert set(told) == {field.name for field in dataclasses.fields(Wish)}
    assert set(told) <= set(inspect.signature(camrt.Explainer.explain).parameters)
    assert told["layer"] == ["a1"] and told["options"] == {"n": 3} and told["budget"] == Budget(7, None, None)
    assert Wish().arguments()["variant"] is Wish().arguments()["layer"] is Wish().arguments()["options"] is None


def test_an_ask_counts_images_and_targets() -> None:
    pictures = Ask((b"a", b"b"), [[1, 2, 3], [4, 5, 6]], Wish(), 1.0)
    assert (pictures.count, pictures.width) == (2, 3)
    arrays = Ask(np.zeros((4, 3, 2, 2), np.float32), None, None, 1.0)
    assert (arrays.count, arrays.width) == (4, 1)
