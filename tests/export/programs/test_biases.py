"""Gradients at biases, against autograd of the bias itself; the full gradient, against the logit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from camrt.export.live import open_model
from camrt.export.programs.biases import full_gradient
from camrt.export.programs.draft import Draft
from camrt.export.programs.seeds import target_seed
from tests.export.judge import run_program
from tests.export.programs.models import MODELS, SEED, TARGET, behind, finished, picture


def by_autograd(x: np.ndarray) -> list[np.ndarray]:
    """Return the gradients of the seeded logits of the plain model with respect to both its biases, image by image."""
    graph = onnx.load_from_string(MODELS["plain"]).graph
    w = {t.name: torch.tensor(onnx.numpy_helper.to_array(t), dtype=torch.float64) for t in graph.initializer}
    found: list[list[np.ndarray]] = [[], []]
    for image, seed in zip(torch.tensor(x, dtype=torch.float64), torch.tensor(SEED, dtype=torch.float64), strict=True):
        b1, b2 = w["b1"].clone().requires_grad_(), w["b2"].clone().requires_grad_()
        y = torch.conv2d(image[None], w["w1"], b1, padding=1).relu().mean((2, 3)) @ w["w2"] + b2
        for kept, g in zip(found, torch.autograd.grad((y[0] * seed).sum(), [b1, b2]), strict=True):
            kept.append(g.numpy())
    return [np.stack(kept) for kept in found]


@pytest.mark.parametrize("kind", ["bias_gradients", "bias_terms"])
def test_summed_over_the_grid_it_is_autograds_gradient_of_the_bias(kind: str) -> None:
    live = open_model(MODELS["plain"])
    x = picture(live)
    found = run_program(live.program(kind), x=x, seed=SEED)
    given = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(MODELS["plain"]).graph.initializer}
    for index, (name, want) in enumerate(zip(("b1", "b2"), by_autograd(x), strict=True)):
        got = found[f"biases.{index}"].reshape(*want.shape, -1).sum(-1, dtype=np.float64)
        np.testing.assert_allclose(got, want * (given[name] if kind == "bias_terms" else 1), atol=1e-5)


def test_behind_a_layer_are_the_biases_behind_it_alone() -> None:
    live = open_model(MODELS["plain"])
    x = picture(live)
    whole = run_program(live.program("bias_terms"), x=x, seed=SEED)
    behind_c = run_program(live.program("tail_bias_terms", ["c"]), **behind(live, "c", x), seed=SEED)
    assert list(behind_c) == ["logits", "biases.0"]
    np.testing.assert_allclose(behind_c["biases.0"], whole["biases.1"], atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "channels_last"])
def test_the_full_gradient_has_every_tensor_with_a_grid_channels_first(name: str) -> None:
    """With the head's bias, which has no grid, it sums to the logit of a network of ReLUs."""
    live = open_model(MODELS[name])
    draft = Draft(live.classifier, ())
    draft.begin_at_image()
    for index, term in enumerate(full_gradient(draft, target_seed(draft))):
        draft.outputs[f"term.{index}"] = term
    x = picture(live)
    found = run_program(finished(draft), x=x, target=TARGET)
    logits, terms = found["logits"], [array for key, array in found.items() if key.startswith("term")]
    assert [term.shape for term in terms] == [(3, 3, 8, 8), (3, 4, 8, 8)]
    if name == "plain":  # the other's sigmoid is no line
        bias = next(t for t in onnx.load_from_string(MODELS[name]).graph.initializer if t.name == "b2")
        whole = sum(term.sum((1, 2, 3), dtype=np.float64) for term in terms) + onnx.numpy_helper.to_array(bias)[TARGET]
        np.testing.assert_allclose(whole, logits[range(3), TARGET], atol=1e-4)
