"""The report of an evaluation as a parser sees it: every number arrives, every text is escaped, nothing is fetched."""

from __future__ import annotations

import ast
import base64
import csv
import dataclasses
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camrt import plots
from camrt.evaluation import evaluate
from camrt.evaluation_report import sections, write_report, write_results
from camrt.metrics.curves import positions
from camrt.protocols import PROTOCOLS
from camrt.report import Figure, Section, page
from camrt.summary import Curve, Summary
from camrt.tables import columns, rows_of, written
from tests.engine.figures import example, spec, summary
from tests.engine.test_report import HOSTILE, Reader

pytest.importorskip("matplotlib", reason="drawings need the extra eval")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the work of drawing, where only words are looked at."""
    for name in ("bars", "breakdown", "curves", "scatter", "wins"):
        monkeypatch.setattr(plots, name, lambda *args, **rest: plots.Plot(b"", (1, 1), ""))


def short(*metrics: str) -> Summary:
    """Return the example with figures of some metrics alone."""
    made = example()
    return dataclasses.replace(made, figures=tuple(f for f in made.figures if f.metric in metrics), curves=())


def read(made: Summary, told: dict[str, Any] | None = None, **rest: Any) -> Reader:
    """Return a report as parsed."""
    return Reader(page("t", sections(made, spec=spec() if told is None else told, **rest)))


def part(title: str, made: Summary, **rest: Any) -> Section:
    """Return the section of that title."""
    (found,) = [s for s in sections(made, spec=rest.pop("told", spec()), **rest) if s.title == title]
    return found


@pytest.mark.usefixtures("undrawn")
def test_every_number_and_every_interval_is_in_it() -> None:
    made = example()
    text = read(made).text
    for _, cells in rows_of(made, columns(made, main=False)):
        for cell in cells:
            assert cell.text in text
    for win in made.wins:
        assert f"{100 * win.share:.1f}" in text
    assert "57 images" in text and "95 % intervals" in text and "2000 bootstrap" in text


def test_it_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    path = write_report(tmp_path / "new" / "report.html", short("average_drop", "average_gain"), spec=spec())
    html = path.read_text("utf-8")
    found = Reader(html)
    assert all(str(image["src"]).startswith("data:image/") for image in found.all("img"))
    assert not [tag for tag, _ in found.tags if tag in ("link", "script", "iframe", "object", "embed", "base", "form")]
    for image in found.all("img"):
        kind, _, data = str(image["src"]).partition(",")
        if "svg" in kind:
            svg = base64.b64decode(data).decode()
            assert "<script" not in svg and "@import" not in svg and "url(h" not in svg
    assert "resnet50.onnx on photographs: 57 images" in found.text


def test_hostile_texts_are_shown_not_obeyed() -> None:
    made = example((HOSTILE, "gradcam"))
    made = dataclasses.replace(made, figures=made.figures[:1] + made.figures[8:9], curves=())
    told = spec() | {"model": {"name": HOSTILE}, "dataset": {"name": HOSTILE}, HOSTILE: HOSTILE}
    problems = [{"index": 1, "id": HOSTILE, "reason": HOSTILE}]
    pictures = {HOSTILE: [Figure(Image.new("RGB", (4, 3)), HOSTILE, HOSTILE)]}
    found = read(made, told, problems=problems, galleries=pictures, command=HOSTILE)
    assert not found.all("script") and found.text.count(HOSTILE) >= 12
    assert HOSTILE in [image["alt"] for image in found.all("img")]


def test_drawings_are_those_of_the_figures() -> None:
    made = short("average_drop", "adcc")
    shown = [figure.svg for figure in part("Bars", made).figures]  # type: ignore[union-attr]
    assert shown == [plots.bars(made, column).data for column in columns(made)]
    (matrix,) = part("Who beats whom", made).figures
    assert matrix.svg == plots.wins(made, "average_drop", "average_drop").data  # type: ignore[union-attr]


def test_curves_stand_where_the_metric_changed_the_picture() -> None:
    told = spec()
    told["preprocess"]["size"] = [10, 10]
    told["metrics"][0] = {
        "name": "insertion-steps7",
        "id": "insertion",
        "variant": "official",
        "options": {"steps": 7, "seed": None},
    }
    line = tuple(np.linspace(0.1, 0.9, 8).tolist())
    made = summary(
        list(short("average_drop").figures),
        curves=(Curve("gradcam", "insertion-steps7", "insertion.curve", *[line] * 3, 5),),
    )
    x = positions((10, 10), variant="official", steps=7)
    assert not np.allclose(x, np.linspace(0, 1, 8))  # 15 pixels a step, the last 10
    (drawn,) = part("Curves", made, told=told).figures
    want = plots.curves(made.curves, x, ["gradcam", "scorecam-torchcam-0.2", "fakecam"], "Insertion (steps7)")
    assert drawn.svg == want.data  # type: ignore[union-attr]


@pytest.mark.usefixtures("undrawn")
def test_columns_that_are_no_curves_are_not_drawn() -> None:
    hits = tuple(Curve(c.method, c.metric, "deletion.hits", c.mean, c.low, c.high, c.n) for c in example().curves)
    made = dataclasses.replace(example(), curves=hits)
    assert "Curves" not in [s.title for s in sections(made, spec=spec())]


@pytest.mark.usefixtures("undrawn")
def test_published_rows_stand_with_their_source_and_what_must_be_known() -> None:
    told = part("Published numbers", example(), protocol=PROTOCOLS["adcc"])
    (table,) = told.tables
    assert [row[0] for row in table.rows] == [
        f"ResNet-50 {name}" for name in ("Grad-CAM", "Grad-CAM++", "Smooth Grad-CAM++", "Score-CAM", "Recipro-CAM")
    ]
    at = [head.split(" %")[0] for head in table.columns].index("ADCC")
    assert [row[at].text for row in table.rows] == ["75.27", "75.86", "76.19", "78.14", "80.84"]  # type: ignore[union-attr]
    for words in ("arXiv:2104.10252", "is not known", "compare the order", "Recipro-CAM: ReciproCAM's own evaluator"):
        assert words in told.text


def test_published_numbers_of_one_network_are_marks_and_of_several_are_not() -> None:
    made, protocol = short("average_drop"), PROTOCOLS["adcc"]
    column = columns(made)[0]
    of = {"gradcam": 0.3299, "scorecam-torchcam-0.2": 0.0861}
    first = part("Bars", made, protocol=protocol).figures[0]
    assert first.svg == plots.bars(made, column, published=of).data  # type: ignore[union-attr]
    told = spec() | {"model": {"name": "mobilenet.onnx"}}
    first = part("Bars", made, protocol=protocol, told=told).figures[0]
    assert first.svg == plots.bars(made, column).data  # type: ignore[union-attr]


@pytest.mark.usefixtures("undrawn")
def test_departures_from_the_protocol_and_what_nobody_knows_are_listed() -> None:
    rows = part("Protocol", example(), protocol=PROTOCOLS["adcc"]).tables[0].rows
    differs = [text for kind, text in rows if kind == "differs"]
    assert differs == [
        "layer is the default; the protocol has torchcam-auto",
        "pipeline is camrt; the protocol has torchcam",
        "preprocess.crop_ratio is 0.875; the protocol has 1.0",
        "methods not run: gradcampp:torchcam, smoothgradcampp:torchcam, scorecam:torchcam-0.2, reciprocam, fakecam",
        "metrics not run: average_drop, average_increase, deletion, insertion, coherency, complexity",
    ]
    assert [text for kind, text in rows if kind == "not known"] == list(PROTOCOLS["adcc"].unknowns)


@pytest.mark.usefixtures("undrawn")
def test_each_field_says_what_it_is_which_way_and_where_from() -> None:
    rows = {row[0]: row[1:] for row in part("What the metrics mean", example()).tables[0].rows}
    help, way, span, here, source = rows["Deletion (polycam-steps28)"]
    assert (help, way, span) == ("area under the deletion curve", "lower is better", "0 to 1")
    assert here == "polycam, steps=28, seed=None" and "arXiv:1806.07421" in str(source) and "Poly-CAM" in str(source)
    assert rows["ADCC (per image mean)"][1:3] == ("higher is better", "0 to 1")
    assert set(rows) == {column.title for column in columns(example(), main=False)}


@pytest.mark.usefixtures("undrawn")
def test_skipped_pictures_are_listed_and_a_great_many_counted() -> None:
    problems = [{"index": i, "id": f"p{i}.jpg", "reason": "not a picture"} for i in range(250)]
    told = part("Skipped pictures", example(), problems=problems)
    assert len(told.tables[0].rows) == 200 and "250 pictures" in told.text and "50 more" in told.text
    assert "Skipped pictures" not in [s.title for s in sections(example(), spec=spec())]


@pytest.mark.usefixtures("undrawn")
def test_the_code_that_runs_it_again_is_python_and_fits_the_function() -> None:
    text = part("How to run it again", example(), command="camrt evaluate photographs --model resnet50.onnx").code
    command, _, code = text.partition("\n\n")
    assert command.startswith("camrt evaluate")
    *_, load, call = ast.parse(code).body
    loaded, called = load.value, call.value  # type: ignore[attr-defined]
    assert ast.literal_eval(loaded.args[0]) == "resnet50.onnx"
    assert {k.arg: ast.literal_eval(k.value) for k in loaded.keywords} == {"preprocess": spec()["preprocess"]}
    given = {k.arg: ast.literal_eval(k.value) for k in called.keywords}
    assert given == {k: v for k, v in spec()["setting"].items() if v is not None}
    inspect.signature(evaluate).bind("explainer", ast.literal_eval(called.args[1]), **given)


@pytest.mark.usefixtures("undrawn")
def test_the_exact_settings_are_all_there() -> None:
    text = read(example()).text
    for words in ("model.sha256", "ab" * 32, "dataset.fingerprint", "preprocess.crop_ratio", "versions.camrt"):
        assert words in text


@pytest.mark.usefixtures("undrawn")
def test_a_lone_method_and_a_lone_metric_make_a_report() -> None:
    made = summary([f for f in example(("gradcam",)).figures if f.metric == "average_drop"])
    titles = [s.title for s in sections(made, spec=spec())]
    assert titles == ["Results", "Bars", "What the metrics mean", "How to run it again"]


@pytest.mark.usefixtures("undrawn")
def test_all_results_are_written_together(tmp_path: Path) -> None:
    made = example()
    evaluation: Any = SimpleNamespace(summary=made, run=None, problems=[], spec=spec())
    nothing: Any = None
    paths = write_results(tmp_path / "out", evaluation, nothing, nothing, PROTOCOLS["adcc"], command="camrt evaluate")
    assert set(paths) == {"report", "csv", "json", "latex"} and all(
        path.parent == tmp_path / "out" for path in paths.values()
    )
    assert "camrt evaluate" in paths["report"].read_text("utf-8")
    with paths["csv"].open(newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [f.value for f in made.figures]
    assert len(json.loads(paths["json"].read_text("utf-8"))["wins"]) == len(made.wins)
    tex = paths["latex"].read_text("utf-8")
    assert written(made.figures[0].value, percent=True) in tex and "ResNet-50 Score-CAM" in tex
