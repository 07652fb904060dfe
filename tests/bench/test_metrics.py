"""Maps and values that are compared before anything is timed, and what camrt is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.gradient import Settings
from bench.metrics import CASES, NEAR, Case, Judge, _Board, apart, evenly
from bench.wire import WorkerError
from camrt.choices import choose
from camrt.metrics.table import resolve, validate


def test_maps_keep_their_order_and_are_spaced_evenly() -> None:
    maps = np.array([[[0.3, 0.1], [0.9, 0.2]], [[4.0, 3.0], [2.0, 1.0]]])
    third = np.float32(1 / 3)
    np.testing.assert_array_equal(
        evenly(maps), np.array([[[2 * third, 0], [1, third]], [[1, 2 * third], [third, 0]]], np.float32)
    )


def test_equal_pixels_fall_between_those_around_them_whatever_the_seed() -> None:
    maps = np.array([[[0.5, 0.5, 0.5, 0.0, 1.0, 0.5]]])
    orders = {tuple(evenly(maps, seed)[0, 0]) for seed in range(20)}
    assert len(orders) > 1
    for order in orders:
        assert order[3] == 0 and order[4] == 1
        np.testing.assert_allclose(sorted(order), np.arange(6) / 5, rtol=1e-6)


def test_values_are_apart_by_the_largest_difference_as_a_share_of_the_largest_of_their_name() -> None:
    ours = {"small": np.array([0.01, 0.02]), "large": np.array([[10.0, 0.0, 40.0]])}
    assert apart(ours, {"small": np.array([0.01, 0.025])}) == pytest.approx(0.2)
    assert apart(ours, {"large": np.array([[1.0, 50.0]])}, skipped=1) == pytest.approx(0.2)
    assert apart(ours, {"small": np.array([0.01, 0.02]), "large": np.array([[10.0, 0.0, 40.0]])}) == 0
    assert apart({"zero": np.array([0.5])}, {"zero": np.zeros(1)}) == 0.5


def test_nan_is_no_agreement() -> None:
    assert not apart({"a": np.array([np.nan])}, {"a": np.ones(1)}) <= NEAR
    assert not apart({"a": np.array([0.0]), "b": np.ones(1)}, {"a": np.array([np.nan]), "b": np.ones(1)}) <= NEAR


def test_values_that_cannot_be_compared_are_told() -> None:
    with pytest.raises(KeyError):
        apart({}, {"a": np.ones(1)})
    with pytest.raises(ValueError, match=r"a: \(1,\) values of camrt cannot be compared with \(2,\)"):
        apart({"a": np.ones(1)}, {"a": np.ones(2)})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_metric_of_a_case_exists_and_explains_again_only_where_maps_are_drawn(case: Case) -> None:
    chosen = choose([*case.words, *case.compared], resolve, validate)
    if any(choice.row.again is not None for choice in chosen):
        assert case.maps != "evenly"


class Answers:
    """Stands for a worker: it says what it was told to, and remembers what it was asked."""

    def __init__(self, values: dict[str, Any] | None = None, seconds: float = 1.0, **replies: Any) -> None:
        self.values, self.seconds, self.replies = values or {}, seconds, replies
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def ask(self, do: str, arguments: dict[str, Any]) -> Any:
        """Answer."""
        self.asked.append((do, arguments))
        if do == "values":
            np.savez(arguments["file"], **self.values)
        if do == "heatmaps":
            np.save(arguments["file"], np.ones((4, 2, 2)))
        return self.replies.get(do, [self.seconds])


CASE = Case("a metric", ("insertion",), (Judge("another", "key"),), compared=("insertion:torchcam",), skipped=1)


def board(tmp_path: Any, floor: Answers, ours: Answers, others: Answers) -> Any:
    """Return a board of such workers."""
    workers: list[Any] = [floor, ours, others]
    return _Board(Settings(tmp_path, [], [], [], 2, None, 1, False), "net", *workers)


def test_the_values_compared_are_those_of_the_words_to_be_compared(tmp_path: Any) -> None:
    ours, others = Answers({"curve": np.array([9.0, 1.0])}), Answers({"curve": np.array([1.0])})
    (found,) = board(tmp_path, Answers(), ours, others).agreements(CASE)
    assert (found.peer, found.difference, found.cosine) == ("another", 0.0, None)
    assert ours.asked[-1][1]["words"] == ["insertion:torchcam"]


def test_what_disagrees_is_never_timed(tmp_path: Any) -> None:
    ours, others = Answers({"curve": np.array([9.0, 1.01])}), Answers({"curve": np.array([1.0])})
    with pytest.raises(WorkerError, match=r"a metric on net is not what another says .* nothing is timed"):
        board(tmp_path, Answers(), ours, others).agreements(CASE)


def test_the_floor_is_the_forwards_and_explanations_that_are_needed(tmp_path: Any) -> None:
    ours = Answers(seconds=6.0, count={"forwards": [8, 4], "explanations": [3, 3]}, time_explanations=[1.0])
    rows = board(tmp_path, Answers(seconds=2.0), ours, Answers(seconds=18.0)).rows(CASE)
    medians = {row.figure: row.spread.median for row in rows}
    assert medians["forwards run / needed, a metric"] == 2.0
    assert medians["explanations run / needed, a metric"] == 1.0
    assert medians["a metric / 4 forwards + 3 explanations"] == 2.0
    assert medians["another / camrt, a metric"] == 3.0
    assert [row.verdict for row in rows[:4]] == ["MISSED", "met", "MISSED", "met"]


def test_a_metric_of_the_map_alone_has_no_floor(tmp_path: Any) -> None:
    ours = Answers(count={"forwards": [0, 0], "explanations": [0, 0]})
    rows = board(tmp_path, Answers(), ours, Answers()).rows(replace(CASE, images=4))
    assert [row.figure for row in rows] == ["another / camrt, a metric", "  camrt, a metric", "  another, a metric"]
