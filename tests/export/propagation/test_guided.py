"""Guided back-propagation against autograd with a hook on every rectifier, and which nodes count as one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from camrt.errors import MissingRuleError
from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.propagation.guided import GUIDED, is_rectifier
from camrt.export.vjp import RULES
from tests.export.judge import errors, run_program
from tests.export.onnx_in_torch import run
from tests.export.onnx_text import CONV, HEAD, tiny
from tests.export.propagation.runs import MODELS, SEED, picture


def hooked(data: bytes, x: np.ndarray, seed: np.ndarray, rectifiers: set[str]) -> np.ndarray:
    """Return the gradient at the image where hooks cut negative gradients off behind each rectifier."""
    model = onnx.load_from_string(data)
    image = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    tensors = run(model, image)
    for node in model.graph.node:
        if node.op_type in rectifiers:
            tensors[node.output[0]].register_hook(lambda g: g.clamp(min=0))
    (gradient,) = torch.autograd.grad((tensors["y"] * torch.tensor(seed)).sum(), image)
    return gradient.numpy()


@pytest.mark.parametrize("name", MODELS)
def test_it_is_autograd_with_a_hook_on_every_rectifier(name: str) -> None:
    live = open_model(MODELS[name])
    x = picture(live)
    found = run_program(live.program("guided_gradient"), x=x, seed=SEED)
    want = hooked(MODELS[name], x, SEED, {"Relu", "LeakyRelu", "Clip"})
    assert errors(found["input_gradient"], want).max() <= 1e-5
    plain = run_program(live.program("input_gradient"), x=x, seed=SEED)
    assert errors(plain["input_gradient"], want).max() > 1e-2
    np.testing.assert_allclose(found["logits"], plain["logits"], atol=1e-6)


def test_a_rectifier_with_other_bounds_keeps_its_gradient() -> None:
    body = f"{CONV} k = Clip(a, low, high) {HEAD.replace('(a)', '(k)')}"
    data = tiny(body, weights={"low": np.float32(0), "high": np.float32(2)})
    live = open_model(data)
    x = picture(live)
    found = run_program(live.program("guided_gradient"), x=x, seed=SEED)
    assert errors(found["input_gradient"], hooked(data, x, SEED, {"Relu"})).max() <= 1e-5


def test_a_model_without_a_rectifier_is_refused() -> None:
    live = open_model(tiny(CONV.replace("Relu", "Sigmoid") + HEAD))
    with pytest.raises(MissingRuleError, match="this model has none of them"):
        live.program("guided_gradient")


@pytest.mark.parametrize(
    ("node", "counts"),
    [
        ("Relu(c)", True),
        ("LeakyRelu(c)", True),
        ("Clip(c, zero, six)", True),
        ("Clip(c, zero)", False),
        ("Tanh(c)", False),
    ],
)
def test_which_nodes_are_rectifiers(node: str, counts: bool) -> None:
    body = CONV.replace("Relu(c)", node) + HEAD
    model = load(tiny(body, weights={"zero": np.float32(0), "six": np.float32(6)})).model
    assert [is_rectifier(n) for n in model.graph if n.name in ("stem", "act")] == [False, counts]


def test_the_table_differs_from_the_gradients_in_rectifiers_alone() -> None:
    assert set(GUIDED) == set(RULES)
    assert {op for op, rule in GUIDED.items() if rule != RULES[op]} == {"Relu", "LeakyRelu", "Clip"}
