"""Counts and times by model and version."""

from __future__ import annotations

import numpy as np

from camrt.server.statistics import Statistics
from camrt.server.tickets import Answer
from tests.engine.server.small import served


def answer(batch: int) -> Answer:
    return Answer(None, np.zeros((1, 5), np.float32), served(), 0.001, 0.002, 0.004, batch)


def test_the_shares_of_a_batch_add_up_to_one_run() -> None:
    counts = Statistics(lambda: 1234.5678)
    for images in (1, 3, 4):
        counts.record(answer(8), images, 0.0005, 0.010)
    counts.record(answer(1), 1, 0.0005, 0.010)
    counts.fail("tiny", "3", 0.02)
    (row,) = counts.to_dict([("tiny", "3")])["model_stats"]
    assert (row["name"], row["version"], row["last_inference"]) == ("tiny", "3", 1234568)
    assert (row["inference_count"], row["execution_count"]) == (9, 2)
    assert row["inference_stats"] == {
        "success": {"count": 4, "ns": 40_000_000},
        "fail": {"count": 1, "ns": 20_000_000},
        "queue": {"count": 4, "ns": 4_000_000},
        "compute_input": {"count": 4, "ns": 8_000_000},
        "compute_infer": {"count": 4, "ns": 16_000_000},
        "compute_output": {"count": 4, "ns": 2_000_000},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }


def test_a_model_that_nobody_asked_has_zeros() -> None:
    (row,) = Statistics().to_dict([("other", "1")])["model_stats"]
    assert row["inference_count"] == row["execution_count"] == row["last_inference"] == 0
    assert all(spent == {"count": 0, "ns": 0} for spent in row["inference_stats"].values())
