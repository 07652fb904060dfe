"""LayerCAM: one layer, and the fusion over several."""

from __future__ import annotations

import numpy as np
import pytest

from camrt import kernels
from camrt.errors import MethodError
from camrt.methods.layercam import fuse_layercam
from tests.engine.methods.heads import evidence, make_acts, make_head, raw


@pytest.fixture
def given(rng):
    return evidence(make_head("two-layer", rng), make_acts(rng))


def test_the_map_is_positive_gradient_times_activation(given):
    expected = (np.maximum(given["grads"], 0) * given["acts"]).sum(1)
    np.testing.assert_allclose(raw("layercam", given), expected, atol=1e-12)
    np.testing.assert_allclose(raw("layercam", given, "torchcam"), expected, atol=1e-12)


def test_it_is_elementwise_gradcam_where_no_activation_is_negative(given):
    np.testing.assert_allclose(raw("layercam", given), raw("elementwisecam", given), atol=1e-12)


def test_it_bounds_hirescam_from_above(given):
    assert (raw("layercam", given) >= np.maximum(raw("hirescam", given), 0) - 1e-12).all()


def test_one_layer_alone_is_returned_without_tanh(rng):
    only = rng.normal(size=(2, 3, 3))
    assert fuse_layercam([only]) is only
    assert fuse_layercam([only], scale_layers="all") is only


def test_the_paper_lifts_all_but_the_last_two_layers(rng):
    raws = [rng.normal(size=(2, side, side)) for side in (8, 8, 4, 2)]
    expected = []
    for depth, array in enumerate(raws):
        scaled = np.maximum(array, 0) / array.max((1, 2), keepdims=True)
        expected.append(kernels.resize(np.tanh(1.5 * scaled) if depth < 2 else scaled, (8, 8)))
    np.testing.assert_allclose(fuse_layercam(raws, gamma=1.5), np.max(expected, axis=0), atol=1e-12)


def test_torchcam_lifts_every_layer_after_min_max(rng):
    raws = [rng.uniform(0.5, 2, size=(2, side, side)) for side in (6, 3)]
    unit = [(a - a.min((1, 2), keepdims=True)) / np.ptp(a, axis=(1, 2), keepdims=True) for a in raws]
    expected = np.maximum(np.tanh(2 * unit[0]), kernels.resize(np.tanh(2 * unit[1]), (6, 6)))
    np.testing.assert_allclose(fuse_layercam(raws, scale_layers="all"), expected, atol=1e-12)


def test_layers_that_differ_in_scale_alone_fuse_alike(rng):
    raws = [rng.uniform(size=(1, 4, 4)) for _ in range(3)]
    scaled = [array * factor for array, factor in zip(raws, (1e3, 1e-3, 7.0), strict=True)]
    np.testing.assert_allclose(fuse_layercam(raws), fuse_layercam(scaled), atol=1e-12)


def test_a_layer_without_positive_values_takes_no_part(rng):
    one, two = rng.uniform(size=(2, 1, 4, 4))
    np.testing.assert_allclose(fuse_layercam([-one, two]), two / two.max(), atol=1e-12)


def test_an_unknown_scaling_is_refused(rng):
    with pytest.raises(MethodError, match="must be one of shallow, all; got 'deep'"):
        fuse_layercam([rng.normal(size=(1, 2, 2))] * 2, scale_layers="deep")
