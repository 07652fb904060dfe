"""The command line: what it writes, what it prints, and that a mistake is one line and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

import camrt as camrt_package
from tests import tiny


def camrt(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh process."""
    command = [sys.executable, "-m", "camrt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write a tiny model."""
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny.gap())
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Write a picture."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    return path


def test_explain_writes_overlays_arrays_and_a_manifest(model: Path, picture: Path, tmp_path: Path) -> None:
    done = camrt("explain", picture, "--model", model, "-t", 1, "-t", 3, "-o", tmp_path / "out", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert [row["target"] for row in told["results"]] == [1, 3]
    written = {Path(p).name for p in told["files"]}
    assert "manifest.json" in written
    assert sum(name.endswith(".png") for name in written) == 2
    heat = np.load(next(p for p in told["files"] if p.endswith("_gradcam.npy")))
    assert heat.shape[-2:] == tiny.SIZE
    assert all(Path(p).is_file() for p in told["files"])


def test_a_folder_a_glob_and_a_file_name_each_picture_once(model: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for i in range(3):
        Image.open(picture).save(tmp_path / "more" / f"p{i}.jpg")
    (tmp_path / "more" / "notes.txt").write_text("not a picture")
    done = camrt(
        "explain",
        tmp_path / "more",
        tmp_path / "more" / "*.jpg",
        picture,
        "-m",
        model,
        "-o",
        tmp_path / "o",
        "--json",
        "-q",
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["results"]) == 4


def test_what_a_budget_left_out_is_said(model: Path, picture: Path, tmp_path: Path) -> None:
    asked = ["explain", picture, "-m", model, "--method", "scorecam", "--max-forwards", 2, "-o", tmp_path / "out"]
    done = camrt(*asked)
    assert done.returncode == 0, done.stderr
    assert "2 masked forwards, not all" in done.stderr
    (row,) = json.loads(camrt(*asked, "--json", "-q").stdout)["results"]
    assert (row["complete"], row["forwards"]) == (False, 2)
    both = camrt("compare", *asked[1:4], "--methods", "gradcam,scorecam", *asked[6:], "--json", "-q")
    assert [row["complete"] for row in json.loads(both.stdout)["results"]] == [True, False]


INTERRUPTED = """
import os, signal, sys
from camrt import cli, session
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests themselves run in the background
run = session.Sessions.run_unchecked
def interrupted(sessions, kind, *arguments):
    if kind == "forward":
        os.kill(os.getpid(), signal.SIGINT)
    return run(sessions, kind, *arguments)
session.Sessions.run_unchecked = interrupted
sys.argv[0] = "camrt"
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself an interrupt there")
@pytest.mark.parametrize("command", [("explain", "--method"), ("compare", "--methods")])
def test_an_interrupt_amid_masked_forwards_ends_at_once_and_leaves_nothing(
    command: tuple[str, str], model: Path, picture: Path, tmp_path: Path
) -> None:
    name, option = command
    arguments = [name, str(picture), "-m", str(model), option, "scorecam", "-o", str(tmp_path / "out"), "-q"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "camrt: interrupted\n")
    assert not (tmp_path / "out").exists()


def test_compare_writes_a_grid_and_a_report(model: Path, picture: Path, tmp_path: Path) -> None:
    done = camrt(
        "compare", picture, "-m", model, "--methods", "gradcam,Eigen-CAM", "-t", "0", "-o", tmp_path / "out", "-q"
    )
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.split("\n") if line]
    assert [p.name for p in paths] == ["photo_grid.png", "report.html"]
    page = paths[1].read_text("utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "eigencam" in page


def test_inspect_shows_layers_with_the_default_and_operators_with_their_rules(model: Path) -> None:
    told = json.loads(camrt("inspect", model, "--json").stdout)
    assert [layer["name"] for layer in told["layers"] if layer["default"]] == ["a2"]
    assert told["operators"]["Conv"] == {"count": 2, "rule": "gradient", "behind": 0}
    assert told["methods"]["gradcam"]["cost"] == "1F+1b"
    assert told["linear_layers"] == ["a2"]
    shown = camrt("inspect", model).stdout
    assert "stage2.relu" in shown
    assert "one image: 9.75 k multiply-adds, 30 of them behind the layer" in shown
    assert "without a gradient rule: none" in shown


def test_export_writes_a_bundle_that_explains_the_same(model: Path, picture: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    done = camrt("export", model, bundle, "--json", "-q", "--preprocess", "half")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verification"]["parity"]["max_rel"] < 1e-5
    heats = []
    for source in (bundle, model):
        out = tmp_path / f"out-{source.name}"
        assert (
            camrt(
                "explain",
                picture,
                "-m",
                source,
                "-o",
                out,
                "-q",
                *(() if source == bundle else ("--preprocess", "half")),
            ).returncode
            == 0
        )
        heats.append(np.load(out / "photo_gradcam.npy"))
    np.testing.assert_allclose(heats[0], heats[1], atol=1e-6)


def test_a_bundle_holds_what_a_method_needs_where_it_is_asked_to(model: Path, picture: Path, tmp_path: Path) -> None:
    plain, more = tmp_path / "plain", tmp_path / "more"
    assert camrt("export", model, plain, "-q", "--preprocess", "half").returncode == 0
    done = camrt("export", model, more, "-q", "--preprocess", "half", "--method", "LIFT-CAM", "--method", "fullgrad")
    assert done.returncode == 0, done.stderr
    heats = []
    for source, extra in ((more, ()), (model, ("--preprocess", "half"))):
        for method in ("liftcam", "fullgrad"):
            out = tmp_path / f"out-{source.name}"
            done = camrt("explain", picture, "-m", source, "-o", out, "-q", "--method", method, *extra)
            assert done.returncode == 0, done.stderr
            heats.append(np.load(out / f"photo_{method}.npy"))
    np.testing.assert_allclose(heats[:2], heats[2:], atol=1e-5)
    refused = camrt("explain", picture, "-m", plain, "-o", tmp_path / "none", "-q", "--method", "liftcam")
    assert refused.returncode == 2
    assert "--method" in refused.stderr


def test_export_writes_a_model_that_explains_itself(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "explained.onnx"
    done = camrt("export", model, out, "--explained", "Grad-CAM++", "--layer", "a1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"explained": str(out), "method": "gradcampp", "variant": "paper"}
    x = tiny.images(2)
    found = ort.InferenceSession(out).run(["heatmap"], {"x": x, "target": np.array([3, 3])})[0]
    explainer = camrt_package.load(model, preprocess="half")
    want = explainer.explain(x, method="gradcampp", target=[3, 0], layer="a1").heatmaps[:, 0]
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_progress_and_notes_stay_off_stdout(model: Path, picture: Path, tmp_path: Path) -> None:
    done = camrt("explain", picture, "-m", model, "-o", tmp_path / "out", "--json")
    json.loads(done.stdout)
    assert "preprocessing" in done.stderr


MISTAKES: list[tuple[str, list[str], str]] = [
    ("no such model", ["explain", "{picture}", "-m", "nothing.onnx"], "nothing.onnx"),
    ("a model that is none", ["explain", "{picture}", "-m", "{picture}"], "ONNX"),
    ("no such picture", ["explain", "nothing.jpg", "-m", "{model}"], "nothing.jpg"),
    ("a picture that is none", ["explain", "{model}", "-m", "{model}"], "picture"),
    ("an empty folder", ["explain", "{empty}", "-m", "{model}"], "holds none"),
    ("a class out of range", ["explain", "{picture}", "-m", "{model}", "-t", "99"], "99"),
    ("an unknown method", ["explain", "{picture}", "-m", "{model}", "--method", "gradcan"], "gradcam"),
    ("an unknown layer", ["explain", "{picture}", "-m", "{model}", "-l", "stage9"], "stage"),
    ("a malformed option", ["explain", "{picture}", "-m", "{model}", "--option", "seed"], "name=value"),
    ("an unknown provider", ["explain", "{picture}", "-m", "{model}", "--providers", "cuda"], "CUDAExecutionProvider"),
    ("an unknown colour map", ["explain", "{picture}", "-m", "{model}", "--colormap", "pink"], "jet"),
    ("an unknown preset", ["explain", "{picture}", "-m", "{model}", "--preprocess", "kodak"], "imagenet"),
    ("output onto a file", ["explain", "{picture}", "-m", "{model}", "-o", "{picture}"], "photo.png"),
    ("an export over a folder", ["export", "{model}", "{empty}"], "already there"),
    ("an explained model over a file", ["export", "{model}", "{picture}", "--explained", "gradcam"], "already there"),
    ("a method no graph holds", ["export", "{model}", "e.onnx", "--explained", "randomcam"], "hash of each picture"),
    (
        "a variant no graph holds",
        ["export", "{model}", "e.onnx", "--explained", "cam", "--variant", "relu"],
        "official",
    ),
    ("a variant of a bundle", ["export", "{model}", "bundle", "--variant", "relu"], "--explained"),
    (
        "labels in an explained model",
        ["export", "{model}", "e.onnx", "--explained", "cam", "--preprocess", "tf"],
        "bundle",
    ),
]


@pytest.mark.parametrize(("arguments", "part"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], part: str, model: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places: dict[str, Any] = {"model": model, "picture": picture, "empty": tmp_path / "empty"}
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    extra = [] if "-o" in arguments or arguments[0] == "export" else ["-o", "out"]
    done = camrt(*(a.format(**places) for a in arguments), *extra, "-q", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("camrt: ")
    assert part in done.stderr
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before, "something was written"
