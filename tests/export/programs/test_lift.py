"""The program of DeepLIFT: the activations that are fed are in it, and zero is its reference."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.export.live import open_model
from tests.export.judge import run_program
from tests.export.programs.models import MODELS, SEED, behind


@pytest.mark.parametrize(("name", "layer"), [("residual", "b"), ("channels_last", "c")])
def test_channels_that_are_zero_contribute_nothing_and_the_others_the_whole_change(name: str, layer: str) -> None:
    live = open_model(MODELS[name])
    feeds, lift, tail = behind(live, layer), live.program("lift", [layer]), live.program("tail", [layer])
    feeds["activations__0"][:, 1] = 0
    found = run_program(lift, **feeds, seed=SEED)
    assert not found["contributions.0"][:, 1].any()
    emptied = {**feeds, "activations__0": np.zeros_like(feeds["activations__0"])}
    change = (found["logits"] - run_program(tail, **emptied)["logits"]).astype(np.float64)
    got = found["contributions.0"].sum((1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(got, (change * SEED).sum(1), atol=1e-4 * np.abs(found["logits"]).max())
    nothing = run_program(lift, **emptied, seed=SEED)["contributions.0"]
    np.testing.assert_array_equal(nothing, 0)
