"""One heatmap out of several layers."""

from __future__ import annotations

import numpy as np
import pytest

from camrt import kernels
from camrt.errors import MethodError, ShapeError
from camrt.fuse import HEAT_FUSIONS, RAW_FUSIONS, fuse, fuse_layers
from camrt.methods.layercam import fuse_layercam
from camrt.pipeline import PIPELINES, pipeline

SIZE = (12, 16)


@pytest.fixture
def heats(rng):
    return [kernels.min_max(rng.uniform(size=(2, 6, 7)))[0] for _ in range(3)]


@pytest.mark.parametrize(
    ("how", "formula"),
    [
        ("mean", lambda maps: np.mean(maps, axis=0)),
        ("max", lambda maps: np.max(maps, axis=0)),
        ("product", lambda maps: np.prod(maps, axis=0)),
        ("nth-root", lambda maps: np.prod(maps, axis=0) ** (1 / 3)),
    ],
)
def test_maps_are_joined_and_scaled_again(heats, how, formula):
    joined = formula(np.stack(heats))
    low, high = joined.min((1, 2), keepdims=True), joined.max((1, 2), keepdims=True)
    heat, degenerate = fuse(heats, how)
    np.testing.assert_allclose(heat, (joined - low) / (high - low), atol=1e-12)
    assert not degenerate.any()


@pytest.mark.parametrize("how", HEAT_FUSIONS)
def test_one_layer_is_left_as_it_is(heats, how):
    heat, degenerate = fuse(heats[:1], how)
    np.testing.assert_array_equal(heat, heats[0])
    assert not degenerate.any()


def test_a_layer_without_contrast_ends_a_product_and_weakens_a_mean(heats):
    heats[1][0] = 0
    assert fuse(heats, "product")[1].tolist() == [True, False]
    assert fuse(heats, "mean")[1].tolist() == [False, False]


@pytest.mark.parametrize("how", ["mean", "max", "product"])
def test_the_order_of_layers_does_not_matter(heats, how):
    np.testing.assert_allclose(fuse(heats, how)[0], fuse(heats[::-1], how)[0], atol=1e-12)


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("how", [*HEAT_FUSIONS, *RAW_FUSIONS])
def test_one_layer_goes_through_the_pipeline_alone(rng, name, how):
    raw = rng.normal(size=(2, 4, 5))
    heat, degenerate = fuse_layers([raw], SIZE, PIPELINES[name], how=how)
    expected, flags = PIPELINES[name](raw, SIZE, True)
    np.testing.assert_array_equal(heat, expected)
    np.testing.assert_array_equal(degenerate, flags)


def test_our_own_order_fuses_finished_heatmaps(rng):
    raws, camrt = [rng.normal(size=(2, side, side)) for side in (3, 5)], pipeline("camrt")
    expected = fuse([camrt(raw, SIZE, False)[0] for raw in raws], "max")[0]
    np.testing.assert_allclose(fuse_layers(raws, SIZE, camrt, how="max", relu=False)[0], expected, atol=1e-12)


def test_pytorch_grad_cam_takes_the_mean_before_its_last_scaling(rng):
    raws, order = [rng.normal(size=(2, side, side)) for side in (3, 5)], pipeline("pytorch-grad-cam")
    mean = np.mean([order.layer(raw, SIZE, True) for raw in raws], axis=0)
    np.testing.assert_allclose(fuse_layers(raws, SIZE, order)[0], order.finish(mean)[0], atol=1e-12)


def test_layercam_s_fusion_happens_before_the_pipeline(rng):
    raws, camrt = [rng.uniform(size=(2, side, side)) for side in (8, 4, 2)], pipeline("camrt")
    options = {"gamma": 3.0, "scale_layers": "all"}
    heat, _ = fuse_layers(raws, SIZE, camrt, how="layercam", options=options)
    np.testing.assert_allclose(heat, camrt(fuse_layercam(raws, **options), SIZE, True)[0], atol=1e-12)


def test_what_cannot_be_fused_is_refused(heats):
    with pytest.raises(MethodError, match="no fusion of heatmaps is called 'layercam'; choose from mean, max, product"):
        fuse(heats, "layercam")
    with pytest.raises(MethodError, match="no fusion is called 'median'; choose from mean"):
        fuse_layers(heats, SIZE, pipeline("camrt"), how="median")
    with pytest.raises(ShapeError, match="one shape, at least one"):
        fuse([], "mean")
    with pytest.raises(ShapeError, match=r"got \[\(2, 6, 7\), \(2, 3, 7\)\]"):
        fuse([heats[0], heats[0][:, :3]], "mean")
    with pytest.raises(ShapeError):
        fuse_layers([], SIZE, pipeline("camrt"))
