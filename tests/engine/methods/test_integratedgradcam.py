"""Integrated Grad-CAM: the points of its path, and what a linear network makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from tests.engine.methods.heads import HW, Stem, input_evidence, make_head, make_stem, raw


def linear(rng):
    """Return a stem without bias or kink."""
    return Stem(make_stem(rng).weight, np.zeros(6), signed=True)


@pytest.mark.parametrize("variant", ["official", "path-gradient", "tetutaro"])
def test_every_variant_is_its_sum_written_out(rng, variant):
    stem, head, x = make_stem(rng), make_head("two-layer", rng), rng.normal(size=(3, 3, *HW))
    given = input_evidence(stem, head, x)
    steps, baseline = 7, 0.25
    points = range(1, steps + 1) if variant == "tetutaro" else range(steps)
    asked = [given["gradients_at"](baseline + (x - baseline) * i / steps) for i in points]
    means = [grads.mean((2, 3)) for _, grads in asked]
    if variant == "official":
        maps = [np.einsum("nk,nkhw->nhw", w, acts) for w, (acts, _) in zip(means, asked, strict=True)]
        want = sum(np.maximum(m, 0) for m in maps)
    else:
        acts = given["acts"] - (stem.acts(np.full_like(x, baseline)) if variant == "path-gradient" else 0)
        want = np.einsum("nk,nkhw->nhw", sum(means) / steps, acts)
    np.testing.assert_allclose(
        raw("integratedgradcam", given, variant, steps=steps, baseline=baseline), want, atol=1e-12
    )


def test_through_a_linear_network_the_path_changes_nothing(rng):
    """The gradient is the same everywhere and activations grow with x, so the path only scales Grad-CAM."""
    given = input_evidence(linear(rng), make_head("flatten", rng), rng.normal(size=(3, 3, *HW)))
    want = raw("gradcam", given)
    for variant in ("path-gradient", "tetutaro"):
        np.testing.assert_allclose(raw("integratedgradcam", given, variant), want, atol=1e-12)
    np.testing.assert_allclose(raw("integratedgradcam", given), np.maximum(want, 0) * 49 / 2, atol=1e-10)


def test_one_step_asks_the_baseline_alone(rng):
    stem, head, x = make_stem(rng), make_head("two-layer", rng), rng.normal(size=(2, 3, *HW))
    given = input_evidence(stem, head, x)
    acts, grads = given["gradients_at"](np.zeros_like(x))
    want = np.maximum(raw("gradcam", {"acts": acts, "grads": grads}), 0)
    np.testing.assert_allclose(raw("integratedgradcam", given, steps=1), want, atol=1e-12)


def test_a_model_that_takes_bytes_is_refused(rng):
    given = input_evidence(make_stem(rng), make_head("gap", rng), rng.normal(size=(1, 3, *HW)))
    with pytest.raises(MethodError, match="integratedgradcam scales the input"):
        raw("integratedgradcam", {**given, "x": np.zeros((1, 3, *HW), np.uint8)})
