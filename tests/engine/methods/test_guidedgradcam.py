"""Guided Grad-CAM: the product written out, in both layouts of the image."""

from __future__ import annotations

import numpy as np

from camrt.kernels import resize
from tests.engine.methods.heads import input_evidence, make_head, make_stem, one_hot, raw, run

LARGE = (12, 9)  # of the image; the layer has the stem's grid, cut to a part of it


def given(rng):
    """Lay out evidence whose layer is smaller than the image."""
    made = input_evidence(make_stem(rng), make_head("two-layer", rng), rng.normal(size=(3, 3, 4, 5)))
    guided = rng.normal(size=(3, 3, *LARGE))
    return {**made, "size": LARGE, "guided_of": lambda seed: guided * seed.sum()}, guided * 3


def test_it_is_the_guided_gradient_times_the_gradcam_map(rng):
    evidence, guided = given(rng)
    result = run("guidedgradcam", evidence)
    coarse = np.maximum(raw("gradcam", evidence), 0)
    want = resize(coarse, LARGE)[:, None] * guided
    np.testing.assert_allclose(result.raw_input, want, atol=1e-12)
    np.testing.assert_allclose(result.array, abs(want).sum(1), atol=1e-12)
    assert result.gives == "map"
    assert (result.raw_input < 0).any()


def test_an_image_with_its_channels_last_gives_the_same_map(rng):
    evidence, guided = given(rng)
    turned = {**evidence, "guided_of": lambda seed: guided.transpose(0, 2, 3, 1)}
    np.testing.assert_allclose(raw("guidedgradcam", turned), raw("guidedgradcam", evidence), atol=1e-12)


def test_the_guided_gradient_is_asked_for_the_target(rng):
    seeds = []
    evidence, guided = given(rng)

    def guided_of(seed):
        seeds.append(seed)
        return guided

    raw("guidedgradcam", {**evidence, "guided_of": guided_of})
    np.testing.assert_array_equal(seeds, [one_hot(evidence["target"])])
