"""What an evaluation found; oracles are closed forms, worked examples and plain loops over the same draws."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camrt import resampling, summary
from camrt.errors import InputError, ShapeError
from camrt.metrics.table import Field, Metric
from camrt.resampling import draws
from camrt.shards import Run
from camrt.summary import Figure, Summary, summarise


@dataclass(frozen=True)
class Choice:
    """A chosen metric."""

    name: str
    row: Metric
    variant: str = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)


def metric(id: str, *fields: Field, **keywords: Any) -> Metric:
    """Return a row of the table."""
    return Metric(
        id=id, title=id, paper="", settings="", fields=fields, variants=("paper",), values=lambda _case: {}, **keywords
    )


def harmonic(means: Mapping[str, Any], *, variant: str, floor: float) -> dict[str, Any]:
    """Return the harmonic mean of two means, and the mean of each image's."""
    first, second = np.maximum(means["both.first"], floor), np.maximum(means["both.second"], floor)
    return {"both": 2 / (1 / first + 1 / second), "both.per_image_mean": means["both"]}


UP = Choice("up", metric("up", Field("up", "higher", 0, 1, "", percent=True), Field("up.ties", "neither", 0, 1, "")))
DOWN = Choice("down", metric("down", Field("down", "lower", 0, 1, "")))
BOTH = Choice(
    "both-x",
    metric(
        "both",
        Field("both", "higher", 0, 1, ""),
        Field("both.per_image_mean", "higher", 0, 1, ""),
        overall=harmonic,
    ),
    options={"floor": 0.0},
)


def run_of(folder: Path, rows: Mapping[str, Mapping[str, Any]], shard_size: int = 4) -> Run:
    """Write columns, an image a place, as a run."""
    total = len(next(iter(next(iter(rows.values())).values())))
    run = Run.open(folder, {}, total, shard_size)
    for shard, pictures in enumerate(run.ranges):
        cut = slice(pictures.start, pictures.stop)
        run.write(
            shard,
            {m: {"index": np.array(pictures)} | {n: v[cut] for n, v in columns.items()} for m, columns in rows.items()},
        )
    return run


def figure(found: Summary, method: str, metric: str, field: str | None = None) -> Figure:
    """Return one figure."""
    (one,) = [f for f in found.figures if (f.method, f.metric, f.field) == (method, metric, field or metric)]
    return one


def test_means_deviations_and_counts(tmp_path: Path, rng: np.random.Generator) -> None:
    up, down = rng.random(30), rng.random(30)
    flat = rng.random(30) < 0.3
    found = summarise(run_of(tmp_path / "out", {"a": {"up": up, "down": down, "degenerate": flat}}), [UP, DOWN])
    one = figure(found, "a", "up")
    assert (one.n, one.better, one.percent) == (30, "higher", True)
    assert (one.value, one.std) == pytest.approx((up.mean(), up.std(ddof=1)), rel=1e-12)
    assert one.low < one.value < one.high
    assert figure(found, "a", "down").value == pytest.approx(down.mean(), rel=1e-12)
    assert figure(found, "a", "degenerate_rate").value == pytest.approx(flat.mean(), rel=1e-12)
    assert [f.metric for f in found.figures] == ["up", "down", "degenerate_rate"]  # ties were not measured
    assert (found.images, found.resamples, found.level) == (30, 2000, 0.95)


def test_an_interval_of_a_normal_mean_is_the_closed_form(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.normal(0.5, 0.1, 500)
    one = figure(summarise(run_of(tmp_path / "out", {"a": {"up": values}}, 100), [UP], level=0.9), "a", "up")
    half = 1.644854 * values.std() / np.sqrt(500)
    assert (one.low, one.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_overall_is_applied_to_each_resample(tmp_path: Path, rng: np.random.Generator) -> None:
    first, second = rng.random(20), rng.random(20)
    own = 2 / (1 / first + 1 / second)
    rows = {"a": {"both-x": own, "both-x.first": first, "both-x.second": second}}
    found = summarise(run_of(tmp_path / "out", rows), [BOTH], resamples=300)
    (counts,) = draws(20, 300, 0)
    samples = []
    for count in counts:
        drawn = np.repeat(np.arange(20), count)
        samples.append(2 / (1 / first[drawn].mean() + 1 / second[drawn].mean()))
    one = figure(found, "a", "both-x", "both")
    assert one.value == pytest.approx(2 / (1 / first.mean() + 1 / second.mean()), rel=1e-12)
    assert (one.low, one.high) == pytest.approx(tuple(np.quantile(samples, [0.025, 0.975])), rel=1e-9)
    assert figure(found, "a", "both-x", "both.per_image_mean").value == pytest.approx(own.mean(), rel=1e-12)
    assert own.mean() <= one.value  # an image's harmonic mean averages below that of the means


def test_all_methods_see_the_same_resamples(tmp_path: Path, rng: np.random.Generator) -> None:
    up = rng.random(25)
    found = summarise(run_of(tmp_path / "out", {"a": {"up": up}, "b": {"up": up + 1}}), [UP])
    a, b = figure(found, "a", "up"), figure(found, "b", "up")
    assert (b.low - a.low, b.high - a.high, b.value - a.value) == pytest.approx((1, 1, 1), abs=1e-12)


def test_a_constant_has_no_width(tmp_path: Path) -> None:
    one = figure(summarise(run_of(tmp_path / "out", {"a": {"up": np.full(11, 0.1)}}), [UP]), "a", "up")
    assert (one.value, one.low, one.high, one.std) == (0.1, 0.1, 0.1, 0.0)


def test_one_image(tmp_path: Path) -> None:
    found = summarise(run_of(tmp_path / "out", {"a": {"up": [0.3]}, "b": {"up": [0.2]}}), [UP])
    one = figure(found, "a", "up")
    assert (one.value, one.low, one.high, one.std, one.n) == (0.3, 0.3, 0.3, None, 1)
    assert {(w.first, w.second): w.share for w in found.wins} == {("a", "b"): 1.0, ("b", "a"): 0.0}


def test_wins_are_paired_strict_and_follow_the_better_way(tmp_path: Path) -> None:
    rows = {
        "a": {"up": [0.9, 0.5, 0.5, 0.1], "down": [0.9, 0.5, 0.5, 0.1], "up.ties": [0.0, 1.0, 0.0, 1.0]},
        "b": {"up": [0.8, 0.6, 0.5, 0.0], "down": [0.8, 0.6, 0.5, 0.0], "up.ties": [1.0, 0.0, 1.0, 0.0]},
    }
    wins = summarise(run_of(tmp_path / "out", rows, 3), [UP, DOWN]).wins
    assert {(w.field, w.first): (w.share, w.n) for w in wins} == {
        ("up", "a"): (0.5, 4),
        ("up", "b"): (0.25, 4),
        ("down", "a"): (0.25, 4),
        ("down", "b"): (0.5, 4),
    }


def test_a_pairwise_metric_is_won_by_the_lower_value_and_has_no_mean(tmp_path: Path) -> None:
    win = Choice("win", metric("win", Field("win", "higher", 0, 1, ""), pairwise=True))
    rows = {"a": {"win": [0.0, 0.4, 0.5]}, "b": {"win": [0.1, 0.2, 0.6]}}
    found = summarise(run_of(tmp_path / "out", rows), [win])
    assert {(w.first, w.second): w.share for w in found.wins} == pytest.approx({("a", "b"): 2 / 3, ("b", "a"): 1 / 3})
    assert found.figures == ()


def test_images_that_do_not_count_are_left_out_everywhere(tmp_path: Path) -> None:
    rows = {
        "a": {"up": [0.2, 0.0, 0.4, 0.0], "up.counts": [1.0, 0.0, 1.0, 0.0]},
        "b": {"up": [0.1, 0.0, 0.8, 0.0], "up.counts": [1.0, 0.0, 1.0, 0.0]},
        "none": {"up": [0.0] * 4, "up.counts": [0.0] * 4},
    }
    found = summarise(run_of(tmp_path / "out", rows), [UP])
    assert (figure(found, "a", "up").value, figure(found, "a", "up").n) == (pytest.approx(0.3), 2)
    assert {(w.first, w.second): (w.share, w.n) for w in found.wins} == {("a", "b"): (0.5, 2), ("b", "a"): (0.5, 2)}
    assert {f.method for f in found.figures} == {"a", "b"}


def test_missing_values_and_metrics_that_a_method_lacks(tmp_path: Path) -> None:
    rows = {"a": {"up": [0.2, None, 0.4, None]}, "b": {"down": [0.5, 0.5, 0.5, 0.5]}}
    found = summarise(run_of(tmp_path / "out", rows, 2), [UP, DOWN])
    assert [(f.method, f.metric, f.n) for f in found.figures] == [("a", "up", 2), ("b", "down", 4)]
    assert figure(found, "a", "up").value == pytest.approx(0.3)
    assert found.wins == ()


def test_averages_over_classes(tmp_path: Path) -> None:
    point = Choice("point", metric("point", Field("point", "higher", 0, 1, ""), by_class=True))
    rows = {"a": {"point": [1.0, 0.0, 0.0, 0.0], "up": [1.0, 0.0, 0.0, 0.0], "class": np.array([7, 3, 3, 3])}}
    found = summarise(run_of(tmp_path / "out", rows, 3), [point, UP])
    assert (figure(found, "a", "point").value, figure(found, "a", "up").value) == (0.5, 0.25)


def test_a_column_belongs_to_the_longest_name(tmp_path: Path) -> None:
    row = metric("up", Field("up", "higher", 0, 1, ""), Field("up.ties", "neither", 0, 1, ""))
    half, more = Choice("up-d0", row), Choice("up-d0.5", row)
    rows = {"a": {"up-d0": [0.1], "up-d0.ties": [0.2], "up-d0.5": [0.3], "up-d0.5.ties": [0.4]}}
    found = summarise(run_of(tmp_path / "out", rows), [half, more])
    assert [(f.metric, f.field, f.value) for f in found.figures] == [
        ("up-d0", "up", 0.1),
        ("up-d0", "up.ties", 0.2),
        ("up-d0.5", "up", 0.3),
        ("up-d0.5", "up.ties", 0.4),
    ]


def test_fields_of_a_variant(tmp_path: Path) -> None:
    row = metric("up", Field("up", "higher", 0, 1, ""), by_variant={"turned": (Field("up", "lower", 0, 1, ""),)})
    found = summarise(run_of(tmp_path / "out", {"a": {"up": [0.1]}, "b": {"up": [0.2]}}), [Choice("up", row, "turned")])
    assert figure(found, "a", "up").better == "lower"
    assert {(w.first, w.share) for w in found.wins} == {("a", 1.0), ("b", 0.0)}


def test_curves_have_means_and_bands(tmp_path: Path, rng: np.random.Generator) -> None:
    curves = rng.random((9, 3)).astype(np.float32)
    rows = {"a": {"up": curves.mean(axis=1), "up.curve": curves, "up.ties": np.zeros(9)}}
    found = summarise(run_of(tmp_path / "out", rows, 2), [UP], resamples=200)
    (one,) = found.curves
    assert (one.method, one.metric, one.name, one.n) == ("a", "up", "up.curve", 9)
    assert one.mean == pytest.approx(curves.astype(np.float64).mean(axis=0), rel=1e-12)
    (counts,) = draws(9, 200, 0)
    samples = [curves.astype(np.float64)[np.repeat(np.arange(9), count)].mean(axis=0) for count in counts]
    assert np.array([one.low, one.high]) == pytest.approx(np.quantile(samples, [0.025, 0.975], axis=0), rel=1e-9)


def test_curves_that_do_not_match_are_refused(tmp_path: Path) -> None:
    for number, shard_size in enumerate((1, 2)):
        run = run_of(tmp_path / str(number), {"a": {"up": [0.0, 1.0], "up.curve": [[1.0], [1.0, 2.0]]}}, shard_size)
        with pytest.raises(ShapeError, match="differ in length"):
            summarise(run, [UP])


def test_a_table_a_run_and_any_grouping_give_the_same(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {
        m: {"up": rng.random(50), "up.curve": rng.random((50, 2)), "degenerate": rng.random(50) < 0.5} for m in "ab"
    }
    run = run_of(tmp_path / "out", rows, 6)
    whole = summarise(run, [UP], resamples=100)
    assert summarise(run.table(), [UP], resamples=100) == whole
    monkeypatch.setattr(summary, "GROUP", 13)
    monkeypatch.setattr(resampling, "COUNTS", 50 * 7)
    monkeypatch.setattr(summary, "COUNTS", 50 * 7)
    for parts in (run, run.table()):
        again = summarise(parts, [UP], resamples=100)
        for one, other in zip(again.figures, whole.figures, strict=True):
            assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-12)
        assert again.wins == whole.wins


def test_methods_come_in_the_order_asked_for(tmp_path: Path) -> None:
    run = run_of(tmp_path / "out", {"a": {"up": [0.1]}, "b": {"up": [0.2]}, "c": {"up": [0.3]}})
    found = summarise(run, [UP], ["c", "a"])
    assert [f.method for f in found.figures] == ["c", "a"]
    assert {(w.first, w.second) for w in found.wins} == {("c", "a"), ("a", "c")}


def test_a_run_that_is_not_finished_is_summarised_as_far_as_it_is(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "out", {}, 6, 2)
    run.write(2, {"a": {"index": [4, 5], "up": [0.25, 0.75]}})
    found = summarise(run, [UP])
    assert (found.images, figure(found, "a", "up").value) == (2, 0.5)


def test_a_summary_is_plain_data(tmp_path: Path) -> None:
    found = summarise(run_of(tmp_path / "out", {"a": {"up": [0.1]}, "b": {"up": [0.2]}}), [UP])
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["figures"][0] == {
        "method": "a", "metric": "up", "field": "up", "value": 0.1, "low": 0.1, "high": 0.1, "n": 1, "std": None,
        "better": "higher", "percent": True,
    }  # fmt: skip
    assert data["wins"][0] == {"metric": "up", "field": "up", "first": "a", "second": "b", "share": 0.0, "n": 1}


def test_what_cannot_be_summarised_is_refused(tmp_path: Path) -> None:
    empty = Run.open(tmp_path / "empty", {}, 3, 1)
    with pytest.raises(InputError, match="no rows"):
        summarise(empty, [UP])
    run = run_of(tmp_path / "out", {"a": {"up": [0.1]}})
    for keywords in ({"resamples": 0}, {"level": 1.0}, {"level": 0.0}):
        with pytest.raises(InputError, match="bootstrap needs"):
            summarise(run, [UP], **keywords)
