"""RefineCAM: the base on each layer, and torch-cam's product."""

from __future__ import annotations

import numpy as np
import pytest

from camrt import kernels
from camrt.fuse import fuse_layers
from camrt.methods import resolve
from camrt.methods.derived import BASES
from camrt.methods.refinecam import fuse_largest
from camrt.pipeline import pipeline
from tests.engine.methods.heads import SIZE, evidence, make_acts, make_head, raw


@pytest.mark.parametrize("base", BASES)
def test_on_one_layer_it_is_the_base(rng, base):
    given = evidence(make_head("two-layer", rng), make_acts(rng))
    np.testing.assert_array_equal(raw("refinecam", given, base=base), raw(base, given))


def test_its_default_base_is_gradcampp(rng):
    given = evidence(make_head("two-layer", rng), make_acts(rng))
    np.testing.assert_array_equal(raw("refinecam", given), raw("gradcampp", given))
    np.testing.assert_array_equal(raw("refinecam", given, "torchcam"), raw("gradcampp", given, "torchcam"))


def test_heatmaps_of_the_layers_are_multiplied(rng):
    raws, camrt = [rng.uniform(size=(2, side, side)) for side in (4, 7)], pipeline("camrt")
    heat, _ = fuse_layers(raws, SIZE, camrt, how=resolve("refinecam").fuse_of("official"))
    one, two = (camrt(array, SIZE)[0] for array in raws)
    np.testing.assert_allclose(heat, kernels.min_max(one * two)[0], atol=1e-12)
    heat, _ = fuse_layers(raws, SIZE, camrt, how=resolve("refinecam").fuse_of("nth-root"))
    np.testing.assert_allclose(heat, kernels.min_max(np.sqrt(one * two))[0], atol=1e-12)


def test_torchcam_multiplies_at_the_size_of_the_largest_layer(rng):
    raws = [rng.normal(size=(2, side, side)) for side in (8, 4)]
    one, two = (kernels.min_max(np.maximum(array, 0))[0] for array in raws)
    np.testing.assert_allclose(fuse_largest(raws), one * kernels.resize(two, (8, 8)), atol=1e-12)
    assert fuse_largest(raws[:1]) is raws[0]


@pytest.mark.parametrize("variant", ["official", "torchcam", "nth-root"])
def test_a_layer_without_contrast_makes_the_result_degenerate(rng, variant):
    raws = [rng.uniform(size=(2, 4, 4)), rng.uniform(size=(2, 7, 7))]
    raws[1][1] = -1.0
    heat, degenerate = fuse_layers(raws, SIZE, pipeline("camrt"), how=resolve("refinecam").fuse_of(variant))
    assert degenerate.tolist() == [False, True]
    assert (heat[1] == 0).all()
