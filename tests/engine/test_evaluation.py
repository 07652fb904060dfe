"""A model, methods and metrics over a data set: rows that nothing but the data decides."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import camrt
import camrt.datasets
import camrt.image
import camrt.workers
from camrt.errors import InputError, MethodError, OutputError
from camrt.evaluation import Opener, Setting, finished
from camrt.metrics import average_drop
from camrt.shards import Run
from tests import tiny
from tests.engine import pictures

METHODS = ("gradcam", "layercam", "fakecam")
METRICS = ("average_drop", "average_gain", "adcc", "insertion,steps=4", "deletion,steps=4")


@pytest.fixture(scope="module")
def explainer():
    return camrt.load(tiny.gap(), preprocess=pictures.FIELDS)


def evaluated(explainer, data, out=None, **settings):
    told = {"methods": METHODS, "metrics": METRICS, "batch": 2, "shard": 4, **settings}
    return camrt.evaluate(explainer, data, out=out, **told)


def test_rows_are_what_the_metrics_say_of_each_picture(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 10)
    found = evaluated(explainer, data)
    table = found.table
    assert table.num_rows == 30
    assert table["index"].to_pylist() == [i for i in range(10) for _ in METHODS]
    x = np.concatenate([explainer.preprocess.apply(explainer.preprocess.fit(camrt.image.decode(path))[None])
                        for path in sorted(data.parent.glob("*.png"))])  # fmt: skip
    drawn = explainer.draw(x, method="layercam")
    rows = table.filter(np.array(table["method"].to_pylist()) == "layercam")
    expected = average_drop(explainer, x, drawn.heat, drawn.classes)
    np.testing.assert_allclose(rows["average_drop"].to_numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(rows["label"].to_numpy(), np.arange(10) % 5)
    (figure,) = [f for f in found.summary.figures if (f.method, f.metric) == ("layercam", "average_drop")]
    assert figure.value == pytest.approx(expected.mean(), abs=1e-5) and figure.n == 10


def test_the_same_rows_whatever_is_in_the_folder_already(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 11, broken=(3,))
    whole = evaluated(explainer, data, tmp_path / "whole")
    for part in ((1, 3), (0, 3)):
        setting = Setting(METHODS, METRICS, batch=2, shard=4)
        run = Run.open(tmp_path / "parts", whole.spec, total=11, shard_size=4)
        camrt.workers.work(
            run, Opener("", {}, {}, camrt.datasets.open_dataset(data), setting).around(explainer), part=part
        )
    assert run.missing() == [2]
    resumed = evaluated(explainer, data, tmp_path / "parts")
    assert resumed.tally.explanations == 3 * len(METHODS) * 2  # the last shard alone: clean, and masked for coherency
    assert resumed.table.equals(whole.table)
    assert resumed.problems == whole.problems
    assert evaluated(explainer, data, tmp_path / "parts").tally.forwards == 0


def test_broken_pictures_are_listed_and_the_rest_counted(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 6, broken=(0, 5))
    found = evaluated(explainer, data)
    assert [problem["index"] for problem in found.problems] == [0, 5]
    assert "p00.png" in found.problems[0]["id"] and "not a picture" in found.problems[0]["reason"]
    assert sorted(set(found.table["index"].to_pylist())) == [1, 2, 3, 4]


def test_another_evaluation_in_the_folder_is_refused(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 3)
    evaluated(explainer, data, tmp_path / "out")
    with pytest.raises(OutputError, match="mask_space"):
        evaluated(explainer, data, tmp_path / "out", mask_space="raw")
    with pytest.raises(OutputError, match="metrics"):
        evaluated(explainer, data, tmp_path / "out", metrics=("average_drop",))
    other = camrt.load(tiny.gap(seed=1), preprocess=pictures.FIELDS)
    with pytest.raises(OutputError, match="model"):
        evaluated(other, data, tmp_path / "out")
    (data.parent / "p01.png").write_bytes(b"another")
    with pytest.raises(OutputError, match="dataset"):
        evaluated(explainer, data, tmp_path / "out")


def test_what_does_not_fit_is_said_before_anything_runs(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 3)
    with pytest.raises(MethodError, match="did you mean insertion"):
        evaluated(explainer, data, metrics=("insertoin",))
    with pytest.raises(MethodError, match="completeness is for"):
        evaluated(explainer, data, methods=("fullgrad", "gradcam"), metrics=("completeness",))
    with pytest.raises(InputError, match="classes must be"):
        evaluated(explainer, data, classes="true")
    with pytest.raises(InputError, match="at least 1"):
        evaluated(explainer, data, batch=0)
    with pytest.raises(InputError, match=r"iou needs boxes or masks; .* has none"):
        evaluated(explainer, data.parent, metrics=("iou",))
    with pytest.raises(InputError, match="labels are to be explained"):
        evaluated(explainer, data.parent, classes="label")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        evaluated(explainer, tmp_path / "empty")


def test_labels_outside_the_model_are_skipped_with_a_reason(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 3)
    data.write_text(data.read_text().replace("p01.png,1,", "p01.png,7,"))
    found = evaluated(explainer, data, classes="label")
    (problem,) = found.problems
    assert problem["index"] == 1 and "7" in problem["reason"]


def test_a_folder_that_cannot_be_written_is_said(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 3)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        evaluated(explainer, data, tmp_path / "file")


def test_a_cancelled_evaluation_keeps_its_shards(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 8)
    switch = camrt.Cancellation()

    def progress(done: int, total: int) -> None:
        if done >= 4:
            switch.cancel()

    with pytest.raises(camrt.errors.CancelledError):
        evaluated(explainer, data, tmp_path / "out", cancel=switch, progress=progress)
    assert len(os.listdir(tmp_path / "out" / "rows")) == 1
    assert evaluated(explainer, data, tmp_path / "out").table.equals(evaluated(explainer, data).table)


def test_progress_counts_every_picture(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 7, broken=(2,))
    seen: list[tuple[int, int]] = []
    evaluated(explainer, data, tmp_path / "out", progress=lambda *count: seen.append(count))
    assert seen[0] == (0, 7) and seen[-1] == (7, 7)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_folder_says_what_made_it(explainer, tmp_path) -> None:
    data = pictures.write(tmp_path / "data", 2)
    evaluated(explainer, data, tmp_path / "out")
    spec = json.loads((tmp_path / "out" / "spec.json").read_text())["spec"]
    assert spec["model"]["sha256"] == explainer.manifest.model["sha256"]
    assert [method["id"] for method in spec["methods"]] == list(METHODS)
    assert spec["methods"][0]["layers"] == [next(item.name for item in explainer.layers if item.default)]
    assert {"camrt", "numpy", "onnxruntime"} <= set(spec["versions"])
    run = Run.load(tmp_path / "out")
    assert finished(run, Setting(METHODS, METRICS)).summary.images == 2
