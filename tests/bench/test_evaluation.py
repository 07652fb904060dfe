"""The suite that watches an evaluation: what it counts, on a handful of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.evaluation import FORWARDS, GROWTH, METHODS, TENTHS, measure
from camrt.shards import Run


def test_every_tenth_is_marked_once_and_every_picture_judged(tmp_path: Path) -> None:
    told = measure(tmp_path / "run", 20)
    assert {len(column) for column in told.values()} == {TENTHS}
    assert all(forwards % FORWARDS == 0 and forwards > 0 for forwards in told["forwards"])
    assert all(0 < floor < second for floor, second in zip(told["floor"], told["seconds"], strict=True))
    assert all(second > 0 for second in told["seconds"]) and all(memory > 10 for memory in told["memory"])
    assert Run.load(tmp_path / "run" / "out").table().num_rows == 20 * len(METHODS)


@pytest.mark.parametrize(("growth", "met"), [(49.9, True), (50.1, False)])
def test_growth_is_at_most_fifty_megabytes(growth: float, met: bool) -> None:
    assert GROWTH.met(growth) is met
