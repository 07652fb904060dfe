"""The command ``camrt evaluate``: one line in, a folder of rows, tables and a report out."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from camrt.commands import app
from camrt.errors import CamrtError, InputError, MethodError, OutputError
from camrt.shards import Run
from tests import tiny
from tests.engine import pictures

SETTINGS = ["--methods", "gradcam,layercam,fakecam", "--metrics", "average_drop,adcc,insertion,steps=4", "--shard", "4"]


@pytest.fixture
def line(tmp_path):
    """Return a function that runs the command on ten pictures."""
    data = pictures.write(tmp_path / "data", 10, broken=(4,))
    (tmp_path / "model.onnx").write_bytes(tiny.gap())
    (tmp_path / "half.json").write_text(json.dumps({**pictures.FIELDS, "size": list(pictures.FIELDS["size"])}))

    def run(*words: str, settings=SETTINGS, out="out"):
        asked = [
            "evaluate",
            str(data),
            "--model",
            str(tmp_path / "model.onnx"),
            "--preprocess",
            str(tmp_path / "half.json"),
        ]
        return CliRunner().invoke(
            app, [*asked, "--out", str(tmp_path / out), *settings, *words], catch_exceptions=False
        )

    return run


def test_one_command_writes_rows_tables_and_a_report(line, tmp_path) -> None:
    done = line("--json")
    told = json.loads(done.stdout)
    assert told["images"] == 9
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text().splitlines()))
    means = {(row["method"], row["metric"], row["field"]): float(row["value"]) for row in rows}
    table = Run.load(tmp_path / "out").table()
    for method in ("gradcam", "layercam", "fakecam"):
        drops = [row["average_drop"] for row in table.to_pylist() if row["method"] == method]
        assert means[method, "average_drop", "average_drop"] == pytest.approx(sum(drops) / 9)
    report = (tmp_path / "out" / "report.html").read_text()
    assert "p04.png" in report and "Grad-CAM" in report
    assert (tmp_path / "out" / "summary.tex").is_file() and (tmp_path / "out" / "summary.json").is_file()


def test_the_plan_is_said_before_and_can_be_all(line, tmp_path) -> None:
    done = line("--plan")
    assert "10 images x 3 methods x 3 metrics: 60 explanations" in done.stderr
    assert not (tmp_path / "out").exists()


def test_parts_are_done_apart_and_the_last_writes_the_results(line, tmp_path) -> None:
    first = line("--part", "0/2")
    assert "1 of 3 shards are left to others" in first.stderr
    assert not (tmp_path / "out" / "report.html").exists()
    line("--part", "1/2")
    assert (tmp_path / "out" / "report.html").is_file()
    line(out="whole")
    assert Run.load(tmp_path / "out").table().equals(Run.load(tmp_path / "whole").table())


def test_two_processes_make_the_same_rows(line, tmp_path) -> None:
    line("--processes", "2")
    line(out="whole")
    assert Run.load(tmp_path / "out").table().equals(Run.load(tmp_path / "whole").table())


def test_a_protocol_sets_what_is_not_said(line, tmp_path) -> None:
    done = line("--protocol", "opticam", settings=["--methods", "gradcam", "--metrics", "average_drop"])
    spec = json.loads((tmp_path / "out" / "spec.json").read_text())["spec"]
    assert spec["setting"]["protocol"] == "opticam" and spec["setting"]["mask_space"] == "raw"
    assert spec["setting"]["methods"] == ["gradcam"]
    assert "not known: " in done.stderr


def test_some_pictures_may_be_drawn(line, tmp_path) -> None:
    line("--limit", "3", "--seed", "1", "--json")
    assert Run.load(tmp_path / "out").total == 3


def test_some_rows_of_a_list_may_be_chosen(line, tmp_path) -> None:
    line("--data-option", "only=p0[0-2]*")
    assert Run.load(tmp_path / "out").total == 3


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["--part", "2/2"], InputError, "part is i/n"),
        (["--part", "x"], InputError, "part is i/n"),
        (["--methods", "gradcamm"], MethodError, "did you mean"),
        (["--metrics", "iou:nope"], MethodError, "no variant"),
        (["--protocol", "poppi"], MethodError, "choose from"),
        (["--classes", "truth"], InputError, "predicted"),
        (["--kind", "zip"], CamrtError, "zip"),
        (["--data-option", "onli=p0"], InputError, "did you mean only"),
    ],
)
def test_mistakes_are_said(line, words, error, said: str) -> None:
    with pytest.raises(error, match=said):
        line(*words)


def test_another_evaluation_is_refused(line) -> None:
    line()
    with pytest.raises(OutputError, match="another evaluation"):
        line("--mask-space", "raw")
