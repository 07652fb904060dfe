"""The orders of operations, each written out."""

from __future__ import annotations

import numpy as np
import pytest

from camrt import kernels
from camrt.errors import MethodError
from camrt.pipeline import PIPELINES, pipeline

SIZE = (20, 30)


def squeeze(maps, eps):
    """Subtract the minimum, divide by the maximum plus eps."""
    low = maps - maps.min((1, 2), keepdims=True)
    return low / (low.max((1, 2), keepdims=True) + eps)


@pytest.fixture
def raw(rng):
    return rng.normal(size=(3, 4, 5))


@pytest.mark.parametrize("relu", [True, False])
def test_camrt_cuts_resizes_and_scales(raw, relu):
    cut = np.maximum(raw, 0) if relu else raw
    resized = kernels.resize(cut, SIZE)
    heat, degenerate = pipeline("camrt")(raw, SIZE, relu)
    np.testing.assert_allclose(heat, squeeze(resized, 0), atol=1e-12)
    assert not degenerate.any()
    assert (heat.max((1, 2)) == 1).all() and (heat.min((1, 2)) == 0).all()


def test_pytorch_grad_cam_scales_before_and_after_and_always_cuts(raw):
    expected = squeeze(kernels.resize(squeeze(np.maximum(raw, 0), 1e-7), SIZE), 1e-7)
    for relu in (True, False):
        np.testing.assert_allclose(pipeline("pytorch-grad-cam")(raw, SIZE, relu)[0], expected, atol=1e-12)


@pytest.mark.parametrize("relu", [True, False])
def test_torchcam_scales_before_the_resize(raw, relu):
    cut = np.maximum(raw, 0) if relu else raw
    heat, degenerate = pipeline("torchcam")(raw, SIZE, relu)
    np.testing.assert_allclose(heat, kernels.resize(squeeze(cut, 1e-8), SIZE), atol=1e-12)
    assert not degenerate.any()


def test_the_orders_differ(raw):
    heats = [order(raw, SIZE, True)[0] for order in PIPELINES.values()]
    assert abs(heats[0] - heats[2]).max() > 1e-3


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maps_without_contrast_become_zero_and_are_flagged(rng, name, dtype):
    raw = rng.uniform(0.1, 1, size=(5, 4, 4)).astype(dtype)
    raw[0], raw[1], raw[2] = 0, 7.3, -rng.uniform(size=(4, 4))  # zero, constant, nothing left after the ReLU
    heat, degenerate = PIPELINES[name](raw, SIZE, True)
    assert degenerate.tolist() == [True, True, True, False, False]
    assert (heat[:3] == 0).all()
    assert heat.dtype == dtype
    assert (heat >= 0).all() and (heat <= 1).all()


def test_a_positive_factor_changes_nothing_in_our_own_order(raw):
    for factor in (1e-6, 1e6):
        np.testing.assert_allclose(pipeline("camrt")(raw * factor, SIZE)[0], pipeline("camrt")(raw, SIZE)[0], atol=1e-9)


def test_an_unknown_pipeline_is_refused():
    with pytest.raises(
        MethodError, match="no pipeline is called 'captum'; choose from camrt, pytorch-grad-cam, torchcam"
    ):
        pipeline("captum")
