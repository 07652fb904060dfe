"""Which layer is explained by default: never one whose cells have no influence, in any layout."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from camrt.errors import LayerError
from camrt.export.layers import find
from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.manifest import Layer
from tests.export.judge import canonical, errors, run_program
from tests.export.onnx_in_torch import gradients
from tests.export.onnx_text import CONV, tiny, tokens
from tests.export.token_models import MODELS, SIZE


def found(data: bytes) -> dict[str, Layer]:
    """Return the layers of a model by name."""
    return {layer.name: layer for layer in find(load(data))}


def default(data: bytes) -> Layer:
    """Return the default layer of a model."""
    (chosen,) = [layer for layer in found(data).values() if layer.default]
    return chosen


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_the_default_moves_up_past_pooling(op: str) -> None:
    body = f"{CONV} p = {op}<kernel_shape=[2, 2], strides=[2, 2]>(a) f = Flatten(p) y = Gemm(f, w9, b2)"
    layers = found(tiny(body, weights={"w9": (64, 5)}))
    assert list(layers) == ["c", "a", "p"]
    assert layers["a"].default
    assert "moved up past pooling" in layers["a"].reason


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_default_of_a_transformer_is_what_its_last_attention_reads(blocks: int, heads: int) -> None:
    layer = default(tokens(blocks, heads=heads))
    assert layer.name == f"n{blocks - 1}"
    assert layer.node == f"norm{blocks - 1}"
    assert "behind it only prefix tokens do" in layer.reason


@pytest.mark.parametrize("name", MODELS)
def test_the_default_of_a_token_model_is_the_last_layer_all_of_whose_cells_speak(name: str) -> None:
    expected = MODELS[name]
    layer = default(expected.build())
    assert layer.name == "wanted"
    assert (layer.layout, layer.grid, layer.prefix, layer.channels) == (
        expected.layout,
        expected.grid,
        expected.prefix,
        6,
    )


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_token_model_are_autograds_at_every_cell_and_zero_behind(name: str) -> None:
    expected = MODELS[name]
    data = expected.build()
    live = open_model(data)
    layer = live.manifest.default_layer
    x = np.random.default_rng(1).normal(size=(3, 3, *SIZE)).astype(np.float32)
    found = run_program(live.program("gradient", [layer.name]), x=x, target=np.array([0, 3, 4]))
    scores = live.classifier.logits.name if name == "class embeddings" else "y"
    late = ["late"] if expected.has_late else []
    oracle = gradients(onnx.load_from_string(data), x, [0, 3, 4], [layer.name, *late], str(scores), torch.float64)
    assert errors(found["gradients.0"], canonical(layer, oracle.layers[layer.name])).max() < 1e-5
    assert (np.abs(found["gradients.0"]).max(axis=1) > 0).all()  # no cell is without influence
    activations = run_program(live.program("features", [layer.name]), x=x)["activations.0"]
    assert activations.shape == found["gradients.0"].shape == (3, 6, *expected.grid)
    if expected.has_late:
        behind = oracle.layers["late"]
        cells = behind[1:] if expected.layout == "tokens_first" else behind[:, expected.prefix or 1 :]
        assert not cells.any()
        assert behind.any()


def test_scores_that_read_no_position_are_refused() -> None:
    with pytest.raises(LayerError, match="no position of any grid reaches the logits"):
        find(load(tokens(0)))  # the class token never reads a patch
