"""The gradient at the image, against float64 autograd."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from camrt.errors import MissingRuleError
from camrt.export.live import open_model
from tests.export.judge import errors, run_program
from tests.export.onnx_in_torch import gradients
from tests.export.onnx_text import CONV, HEAD, tiny
from tests.export.programs.models import MODELS, SCORES, SEED, TARGET, picture


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_at_the_image_is_that_of_float64_autograd(name: str) -> None:
    live, given = open_model(MODELS[name]), onnx.load_from_string(MODELS[name])
    x = picture(live)
    want = gradients(given, x, TARGET, [], SCORES[name], torch.float64).image
    found = run_program(live.program("input_gradient"), x=x, seed=SEED)
    assert errors(found["input_gradient"], want).max() <= 1e-5


def test_a_picture_of_half_precision_has_its_gradient_behind_the_cast() -> None:
    """The cast to float32 is the model's own way in, so a float32 gradient of the same weights is the oracle."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 5), "b2": (5,)}
    weights = {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    data = tiny(x="float16[N,3,8,8] x", y="float16[N,5] y", weights=weights)
    x = rng.normal(size=(3, 3, 8, 8)).astype(np.float16)
    found = run_program(open_model(data).program("input_gradient"), x=x, seed=SEED)["input_gradient"]
    assert found.dtype == np.float32
    want = gradients(onnx.load_from_string(data), x, TARGET, [], "y", torch.float64).image
    assert errors(found, want).max() <= 1e-5


def test_without_a_rectifier_guided_back_propagation_is_refused_and_with_one_it_is_another_gradient() -> None:
    smooth = open_model(tiny(f"{CONV.replace('Relu', 'Sigmoid')} {HEAD}"))
    with pytest.raises(MissingRuleError, match="changes Relu, LeakyRelu and Clip to \\[0, 6\\] alone"):
        smooth.program("guided_gradient")
    live = open_model(MODELS["plain"])
    x = picture(live)
    plain, guided = (
        run_program(live.program(kind), x=x, seed=SEED)["input_gradient"]
        for kind in ("input_gradient", "guided_gradient")
    )
    model = onnx.load_from_string(MODELS["plain"])
    at_relu = gradients(model, x, TARGET, ["a"], "y", torch.float64).layers["a"]
    w1, b1 = (
        torch.tensor(onnx.numpy_helper.to_array(t), dtype=torch.float64)
        for t in model.graph.initializer
        if t.name in ("w1", "b1")
    )
    c = torch.conv2d(torch.tensor(x, dtype=torch.float64), w1, b1, padding=1)
    for cut, got in ((False, plain), (True, guided)):
        g = torch.tensor(at_relu).clamp(min=0) if cut else torch.tensor(at_relu)
        want = torch.conv_transpose2d(g * (c > 0), w1, padding=1).numpy()
        assert errors(got, want).max() <= 1e-5
    assert np.abs(plain - guided).max() > 1e-3
