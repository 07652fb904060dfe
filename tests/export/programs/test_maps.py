"""Programs that end in a map, against the gradient program and the formula in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from camrt.export.live import Live, open_model
from camrt.export.manifest import Program
from camrt.export.maps import MAPS
from camrt.export.programs import build
from tests.export.judge import run_program
from tests.export.onnx_text import CONV, HEAD, tiny
from tests.export.programs.models import EVERY_LAYER, MODELS, TARGET, picture


def explained(live: Live, method: str, layers: list[str]) -> Program:
    """Return the program that an explained model is."""
    model, program = build(live.classifier, f"explained_{method}", [live.resolve(layer) for layer in layers])
    return replace(program, model=ir.to_proto(model).SerializeToString())


@EVERY_LAYER
def test_the_raw_map_of_gradcam_is_its_formula_on_what_the_gradient_program_gives(name: str, layer: str) -> None:
    live = open_model(MODELS[name])
    x = picture(live)
    given = run_program(live.program("gradient", [layer]), x=x, target=TARGET)
    weights = given["gradients.0"].astype(np.float64).mean((2, 3), keepdims=True)
    want = (weights * given["activations.0"]).sum(1)
    scale = (np.abs(given["gradients.0"]).mean((2, 3), keepdims=True) * np.abs(given["activations.0"])).sum(1).max()
    found = run_program(live.program("map_gradcam", [layer]), x=x, target=TARGET)
    np.testing.assert_allclose(found["map"], want, rtol=0, atol=1e-5 * scale)
    np.testing.assert_array_equal(found["explained"], TARGET)
    assert found["degenerate"].tolist() == [not heat.any() for heat in found["heat"]]


@pytest.mark.parametrize("method", sorted(method for method, row in MAPS.items() if row.direct))
def test_the_explained_heatmap_of_one_layer_is_that_of_the_map_program(method: str) -> None:
    live = open_model(MODELS["residual"])
    x, program = picture(live), explained(live, method, ["k"])
    assert (program.inputs, program.outputs) == (("x", "target"), ("logits", "heatmap"))
    want = run_program(live.program(f"map_{method}", ["k"]), x=x, target=TARGET)
    found = run_program(program, x=x, target=TARGET)
    np.testing.assert_allclose(found["heatmap"], want["heat"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["logits"], want["logits"])


def test_a_layer_that_is_asked_for_three_times_gives_its_own_heatmap() -> None:
    live = open_model(MODELS["residual"])
    x = picture(live)
    one, many = (run_program(explained(live, "gradcam", ["k"] * n), x=x, target=TARGET)["heatmap"] for n in (1, 3))
    np.testing.assert_allclose(many, one, rtol=0, atol=1e-6)


def test_signed_tells_which_pictures_have_negative_activations_and_stands_only_where_some_may() -> None:
    live = open_model(
        tiny(
            f"r = Relu(x) {CONV.replace('(x,', '(r,')} {HEAD}",
            weights={"w1": -np.ones((4, 3, 3, 3), np.float32), "b1": np.float32([1, 2, 3, 4])},
        )
    )
    x = picture(live)
    x[1] = -abs(x[1])  # behind the ReLU nothing is left of it, and the biases are positive
    found = run_program(live.program("map_layercam", ["c"]), x=x, target=TARGET)
    assert found["signed"].tolist() == [True, False, True]
    assert "signed" not in live.program("map_layercam", ["a"]).outputs  # a ReLU's
    assert "signed" not in live.program("map_gradcam", ["c"]).outputs  # which does not mind
