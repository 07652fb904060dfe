"""Programs of attention: what they take and give, and how many blocks they read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import camrt
from camrt.export.explained import explained_model
from camrt.export.live import open_model
from tests.export.judge import run_program
from tests.export.onnx_text import tokens
from tests.export.programs.models import SEED, picture


@pytest.mark.parametrize("kind", ["attention", "attention_all", "map_legrad"])
def test_programs_of_attention_have_the_inputs_and_outputs_that_the_table_says(kind: str) -> None:
    live = open_model(tokens(3))
    program = live.program(kind, ["n0"])
    is_map = kind == "map_legrad"
    found = ("logits", "explained", "map", "heat", "degenerate") if is_map else ("logits", "maps")
    assert (program.inputs, program.outputs) == (("x", "target" if is_map else "seed"), found)
    made = next(v for v in onnx.load_from_string(program.model).graph.output if v.name in ("map", "maps"))
    sizes = [d.dim_value for d in made.type.tensor_type.shape.dim][1:]
    assert sizes == {"attention": [2, 4, 4], "attention_all": [3, 4, 4], "map_legrad": [4, 4]}[kind]


def test_the_last_two_blocks_are_the_last_two_of_all() -> None:
    live = open_model(tokens(3))
    x = picture(live)
    two, every = (run_program(live.program(kind, ["n0"]), x=x, seed=SEED) for kind in ("attention", "attention_all"))
    assert every["maps"].shape == (3, 3, 4, 4)
    np.testing.assert_allclose(two["maps"], every["maps"][:, 1:], atol=1e-6 * np.abs(every["maps"]).max())
    np.testing.assert_array_equal(two["logits"], every["logits"])
    assert np.abs(every["maps"][:, 0] - every["maps"][:, 1]).max() > 1e-3


def test_a_model_of_one_block_has_one_map_either_way() -> None:
    live = open_model(tokens(1))
    x = picture(live)
    two, every = (run_program(live.program(kind, ["n0"]), x=x, seed=SEED) for kind in ("attention", "attention_all"))
    assert two["maps"].shape == (3, 1, 4, 4)
    np.testing.assert_array_equal(two["maps"], every["maps"])


def test_a_model_that_explains_itself_by_two_layers_gives_what_the_engine_does(tmp_path: Path) -> None:
    data, layers = tokens(3), ["n0", "n2"]
    explainer = camrt.load(data)
    x = picture(open_model(data))
    want = explainer.explain(x, method="legrad", layer=layers, target=1)
    file = explained_model(data, tmp_path / "model.onnx", method="legrad", layer=layers)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (heatmap,) = session.run(["heatmap"], {"x": x, "target": np.ones(len(x), np.int64)})
    np.testing.assert_allclose(heatmap.reshape(want.heatmaps[:, 0].shape), want.heatmaps[:, 0], atol=1e-5)
