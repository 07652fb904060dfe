"""Batches and targets put together: what is cut apart comes back, and a single part is never copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from camrt.evidence import Evidence
from camrt.maps import Maps, beside, flags_by_name, highest_flags, joined, together
from camrt.methods import Result

N, T = 5, 3


def evidence(target: int) -> Evidence:
    """Return what the model says, told apart by its target."""

    def never(*_: Any) -> Any:
        raise AssertionError("nothing is run to put maps together")

    at = np.array([target])
    return Evidence(np.zeros((1, 4)), at, None, (), (), None, never, never, [])


def whole(at_image: bool, seed: int = 0) -> Maps:
    """Return maps of two layers for N images and T targets."""
    rng = np.random.default_rng(seed)
    return Maps(
        tuple(evidence(t) for t in range(T)),
        (rng.normal(size=(N, T, 4, 6)), rng.normal(size=(N, T, 2, 3))),
        rng.random((N, T, 8, 12)),
        rng.random((N, T)) < 0.5,
        {"skipped": rng.integers(0, 9, (N, T)), "unstable": rng.random((N, T)) < 0.5},
        rng.normal(size=(N, T, 3, 8, 12)) if at_image else None,
    )


def cut(maps: Maps, place: Any) -> Maps:
    """Take some images and targets."""
    return Maps(
        maps.evidence if not isinstance(place, tuple) else maps.evidence[place[1]],
        tuple(raw[place] for raw in maps.raws),
        maps.heat[place],
        maps.degenerate[place],
        {name: flag[place] for name, flag in maps.flags.items()},
        None if maps.raw_input is None else maps.raw_input[place],
    )


def assert_same(got: Maps, want: Maps) -> None:
    """Compare every array."""
    assert len(got.raws) == len(want.raws)
    for one, other in zip(got.raws, want.raws, strict=True):
        assert_array_equal(one, other)
    for name in ("heat", "degenerate"):
        assert_array_equal(getattr(got, name), getattr(want, name))
    assert list(got.flags) == sorted(want.flags)
    for name, flag in want.flags.items():
        assert_array_equal(got.flags[name], flag)
        assert got.flags[name].dtype == flag.dtype
    assert (got.raw_input is None) == (want.raw_input is None)
    if want.raw_input is not None:
        assert_array_equal(got.raw_input, want.raw_input)


@pytest.mark.parametrize("at_image", [False, True])
def test_batches_and_targets_that_were_cut_apart_come_back(at_image: bool) -> None:
    maps = whole(at_image)
    batches = [cut(maps, slice(0, 2)), cut(maps, slice(2, 4)), cut(maps, slice(4, 5))]
    assert_same(together(batches, 0), maps)
    targets = [cut(maps, (slice(None), slice(t, t + 1))) for t in range(T)]
    got = together(targets, 1)
    assert_same(got, maps)
    assert [found.target[0] for found in got.evidence] == [0, 1, 2]


def test_a_part_without_a_flag_has_zeros_there() -> None:
    maps = whole(False)
    first, last = cut(maps, slice(0, 2)), cut(maps, slice(2, N))
    bare = Maps(last.evidence, last.raws, last.heat, last.degenerate, {"unstable": last.flags["unstable"]})
    got = together([first, bare], 0).flags
    assert_array_equal(got["unstable"], maps.flags["unstable"])
    assert_array_equal(got["skipped"], np.concatenate([first.flags["skipped"], np.zeros((3, T), int)]))
    assert got["skipped"].dtype == maps.flags["skipped"].dtype


def test_a_single_part_is_not_copied() -> None:
    maps, column = whole(True), np.arange(6.0).reshape(2, 3)
    assert together([maps], 0) is maps
    assert joined([column]) is column
    assert np.shares_memory(beside([column]), column)
    assert_array_equal(beside([column]), column.reshape(2, 1, 3))


def test_columns_stand_beside_each_other_behind_the_images() -> None:
    columns = [np.random.default_rng(t).normal(size=(4, 2, 3)) for t in range(3)]
    assert_array_equal(beside(columns), np.stack(columns, axis=1))


def test_flags_are_sorted_by_name_one_array_a_part() -> None:
    parts = [{"b": np.array([1, 2], "i4")}, {"a": np.array([True]), "b": np.array([3], "i4")}, {}]
    got = flags_by_name(parts, [(2,), (1,), (3,)])
    assert list(got) == ["a", "b"]
    want = {"a": [[False, False], [True], [False] * 3], "b": [[1, 2], [3], [0, 0, 0]]}
    for name, arrays in got.items():
        assert [array.tolist() for array in arrays] == want[name]
        assert {array.dtype for array in arrays} == {np.dtype(bool if name == "a" else "i4")}


def test_of_several_layers_the_highest_flag_counts() -> None:
    raw = np.zeros((3, 2, 2))
    results = [
        Result(raw, {"skipped": np.array([1, 5, 0]), "unstable": np.array([False, True, False])}),
        Result(raw, {"skipped": np.array([2, 3, 0])}),
        Result(raw, {"signed": np.array([True, False, False])}),
    ]
    got = highest_flags(results)
    assert {name: flag.tolist() for name, flag in got.items()} == {
        "skipped": [2, 5, 0],
        "unstable": [False, True, False],
        "signed": [True, False, False],
    }
