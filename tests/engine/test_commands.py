"""What the commands do with their arguments, apart from the engine's work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from camrt.commands import app
from camrt.errors import InputError, ModelError
from tests.export import integers
from tests.export.onnx_text import CONV, HEAD, tokens
from tests.export.onnx_text import tiny as tiny_text


def test_a_grid_said_on_the_command_line_is_that_of_the_layers(tmp_path: Path) -> None:
    (tmp_path / "tokens.onnx").write_bytes(tokens())
    asked = ["inspect", str(tmp_path / "tokens.onnx"), "--grid", "2,8", "--prefix", "1", "--json"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    (layer,) = [layer for layer in json.loads(done.stdout)["layers"] if layer["default"]]
    assert (layer["name"], layer["grid"], layer["prefix"]) == ("n1", [2, 8], 1)


def test_inspect_says_what_a_model_was_and_what_is_held(tmp_path: Path) -> None:
    body = f"h = Cast<to=10>(x) {CONV.replace('(x,', '(s,')} {HEAD}".replace("[stem]", "s = Mul(h, gain) [stem]")
    model = onnx.load_from_string(tiny_text(body, x="float[N,3,8,8] x, float16[1] gain", y="float16[N,5] y"))
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    (tmp_path / "half.onnx").write_bytes(model.SerializeToString())
    done = CliRunner().invoke(
        app, ["inspect", str(tmp_path / "half.onnx"), "--fixed", "gain=2"], catch_exceptions=False
    )
    assert "the model holds float16; programs run its float32 twin" in done.stdout
    assert "input gain is held at [2.0]" in done.stdout


def test_inspect_says_that_a_model_is_quantised_and_how_its_twin_agrees(tmp_path: Path) -> None:
    (tmp_path / "integers.onnx").write_bytes(integers.quantised(f"{integers.STEM} r = Identity(q) {integers.HEAD}", {}))
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "integers.onnx")], catch_exceptions=False)
    said = " ".join(result.output.split())
    assert "quantised (QuantizeLinear 1, DequantizeLinear 1): logits are its own, gradients its float twin's" in said
    assert re.search(r"the twin's logits behind \w+ differ by 0.00% of their spread, at most 0.00%", said)
    assert said.count("top-1 agrees on 100% of 8 noise inputs") == 2


def test_two_precisions_are_compared(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(tiny_text())
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "p.png")
    asked = ["compare", str(tmp_path / "p.png"), "-m", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "out")]
    asked += ["--methods", "gradcam", "--precision", "float32", "float16", "--steps", "4"]
    said = json.loads(CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False).stdout)
    assert said["ways"] == ["float32", "float16"]
    (row,) = said["results"]
    assert 0.999 < row["cosine"] <= 1 + 1e-12
    assert 0 < row["largest"] < 0.02
    assert row["insertion"] == row["insertion_areas"][1] - row["insertion_areas"][0]
    shown = CliRunner().invoke(app, asked, catch_exceptions=False).stdout
    assert re.search(r"gradcam +1 +1 +1\.0000|gradcam +1 +1 +0\.999", shown)
    assert "float32 against float16; insertion and deletion: float16 less float32, judged by float32" in shown
    assert all(Path(path).is_file() and path in shown for path in said["files"])


def test_a_quantised_model_is_compared_with_its_twin(tmp_path: Path) -> None:
    (tmp_path / "q.onnx").write_bytes(integers.quantised(f"{integers.STEM} r = Identity(q) {integers.HEAD}", {}))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "p.png")
    asked = ["compare", str(tmp_path / "p.png"), "-m", str(tmp_path / "q.onnx"), "-o", str(tmp_path / "out")]
    said = json.loads(
        CliRunner().invoke(app, [*asked, "--methods", "gradcam", "--twin", "--json"], catch_exceptions=False).stdout
    )
    assert said["ways"] == ["quantised", "twin"]
    assert 0.9 < said["results"][0]["cosine"] < 1
    assert said["results"][0]["largest"] > 1e-4


def test_steps_without_two_ways_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--steps belongs to two ways"):
        CliRunner().invoke(app, ["compare", "p.png", "-m", "m.onnx", "--steps", "4"], catch_exceptions=False)


@pytest.mark.parametrize("command", ["inspect", "explain", "compare", "export"])
def test_a_model_with_several_ends_is_opened_by_every_command(command: str, tmp_path: Path) -> None:
    data = tiny_text(
        f"{CONV} g = Mul(a, gain) {HEAD.replace('(a)', '(g)')}",
        x="float[N,3,H,W] x, float[1] gain", y="float[N,5] y, float[N,4,8,8] a",
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "p.png")
    picture = [str(tmp_path / "p.png"), "--model", str(path), "-o", str(tmp_path / "out")]
    before = {"inspect": [str(path)], "export": [str(path), str(tmp_path / "b")]}.get(command, picture)
    ends = ["--output", "y", "--input", "x", "--fixed", "gain=2", "--size", "8,8"]
    done = CliRunner().invoke(app, [command, *before, *ends, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    json.loads(done.stdout)
    with pytest.raises(ModelError, match=r"choose the one with class scores by output= \(--output\)"):
        CliRunner().invoke(app, [command, *before], catch_exceptions=False)


@pytest.mark.parametrize("command", ["demo", "inspect", "explain", "compare", "export"])
def test_every_command_has_help_that_says_what_it_does(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.split("Options")[0].split()) > 10
