"""Programs that only go forward, against the same network in torch, and cut ones against whole ones."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from camrt.export.live import open_model
from tests.export.judge import canonical, run_program
from tests.export.onnx_in_torch import run
from tests.export.programs.models import EVERY_LAYER, MODELS, SCORES, picture


@EVERY_LAYER
def test_features_gives_the_logits_and_the_layer_as_channels_first(name: str, layer: str) -> None:
    live, given = open_model(MODELS[name]), onnx.load_from_string(MODELS[name])
    x = picture(live)
    found = run_program(live.program("features", [layer]), x=x)
    tensors = run(given, torch.tensor(x, dtype=torch.float64))
    want = canonical(live.resolve(layer), tensors[layer].numpy())
    np.testing.assert_allclose(found["activations.0"], want, atol=1e-5 * np.abs(want).max())
    scores = tensors[SCORES[name]].numpy().reshape(3, 5)
    np.testing.assert_allclose(found["logits"], scores, atol=1e-5 * np.abs(scores).max())


@EVERY_LAYER
def test_the_tail_gives_the_logits_again(name: str, layer: str) -> None:
    live = open_model(MODELS[name])
    features = run_program(live.program("features", [layer]), x=picture(live))
    feeds = {k.replace(".", "__"): v for k, v in features.items() if k != "logits"}
    tail = run_program(live.program("tail", [layer]), **feeds)["logits"]
    np.testing.assert_allclose(tail, features["logits"], atol=1e-5 * np.abs(tail).max())


def test_the_tail_depends_on_the_layer_it_is_given() -> None:
    live = open_model(MODELS["heads"])
    features = run_program(live.program("features", ["n1"]), x=picture(live))
    feeds = {k.replace(".", "__"): v for k, v in features.items() if k != "logits"}
    feeds["activations__0"] = feeds["activations__0"][::-1].copy()
    tail = run_program(live.program("tail", ["n1"]), **feeds)["logits"]
    assert np.abs(tail - features["logits"]).max() > 1e-3
