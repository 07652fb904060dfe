"""Running a method: weights become maps, flags are gathered, NaN is refused."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError, NumericError
from camrt.methods import METHODS, check_finite, raw_map, resolve, validate
from tests.engine.methods.heads import HW, SIZE, evidence, input_evidence, make_acts, make_head, make_stem, run


@pytest.fixture
def given(rng):
    return evidence(make_head("two-layer", rng), make_acts(rng))


def test_channel_weights_become_their_weighted_sum(given):
    weights = given["grads"].mean((2, 3))
    expected = np.einsum("nk,nkhw->nhw", weights, given["acts"])
    result = run("gradcam", given)
    np.testing.assert_allclose(result.array, expected, atol=1e-12)
    assert result.gives == "map"


def test_elementwise_weights_become_their_weighted_sum(given):
    expected = (given["grads"] * given["acts"]).sum(1)
    np.testing.assert_allclose(run("hirescam", given).array, expected, atol=1e-12)


def test_a_heatmap_keeps_its_resolution(given):
    result = run("fakecam", given)
    assert (result.gives, result.array.shape) == ("heatmap", (3, *SIZE))
    result = run("fakecam", given, "cell")
    assert (result.gives, result.array.shape) == ("map", (3, *HW))


@pytest.mark.parametrize("name", ["gradcampp", "xgradcam", "layercam"])
def test_signed_activations_are_flagged_where_a_method_assumes_otherwise(rng, name):
    acts = make_acts(rng)
    acts[1, 2, 0, 0] = -0.5
    flags = run(name, evidence(make_head("gap", rng), acts)).flags
    assert flags["signed_activations"].tolist() == [False, True, False]
    assert "signed_activations" not in run("gradcam", evidence(make_head("gap", rng), acts)).flags


@pytest.mark.parametrize("name", ["gradcam", "hirescam", "eigencam", "kpcacam", "fem", "finercam", "refinecam"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error_naming_method_layer_and_image(given, name, bad):
    broken = given["acts"].copy()
    broken[1, 0, 2, 2] = bad
    given["acts"] = broken
    with pytest.raises(NumericError, match=rf"{name} at layer 'layer4': the map of image 1 holds NaN or infinity"):
        run(name, given)


@pytest.mark.parametrize("name", ["eigencam", "eigengradcam"])
def test_the_lapack_route_names_the_image_too(given, name):
    broken = given["acts"].copy()
    broken[2, 0] = np.nan
    given["acts"] = broken
    with pytest.raises(NumericError, match=rf"{name} at layer 'layer4': .*image 2"):
        run(name, given, "pytorch-grad-cam")


def test_several_broken_images_are_all_named():
    maps = np.zeros((4, 2, 2))
    maps[[0, 3]] = np.inf, np.nan
    maps[0, 0, 0] = -np.inf
    with pytest.raises(NumericError, match=r"gradcam at layer 'features.29': the map of images 0, 3 holds"):
        check_finite(maps, "gradcam", "features.29")


def test_large_but_finite_maps_pass_the_check():
    check_finite(np.full((2, 8, 8), 3e38, np.float32), "gradcam", "x")
    check_finite(np.empty((0, 8, 8), np.float32), "gradcam", "x")


def test_eigen_smoothing_replaces_the_sum_and_needs_weights(given):
    method = resolve("gradcam")
    variant, options = validate(method)
    smoothed = raw_map(method, given, variant=variant, options=options, eigen_smooth=True)
    assert smoothed.array.shape == (3, *HW)
    assert smoothed.flags["unstable"].shape == (3,)
    np.testing.assert_allclose(smoothed.array.mean((1, 2)), 0, atol=1e-12)  # centred
    with pytest.raises(MethodError, match="eigen_smooth needs a method that weighs channels; eigencam gives a map"):
        raw_map(resolve("eigencam"), given, variant="paper", options={}, eigen_smooth=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"cam"}))
def test_the_floating_type_is_kept(rng, name, dtype):
    made = input_evidence(make_stem(rng), make_head("two-layer", rng), rng.normal(size=(3, 3, *HW)))

    def narrowed(value):
        """Return arrays in the type that is asked for, and callables that return it."""
        if callable(value):
            return lambda *given: narrowed(value(*given))
        if isinstance(value, (tuple, list)) and not isinstance(value[0], int):
            return type(value)(map(narrowed, value))
        return value.astype(dtype) if getattr(value, "dtype", None) == np.float64 else value

    given = {key: narrowed(value) for key, value in made.items()}
    for variant in resolve(name).variants:
        assert run(name, given, variant).array.dtype == dtype


def test_half_precision_is_computed_in_single(rng):
    made = evidence(make_head("two-layer", rng), make_acts(rng))
    half = {key: made[key].astype(np.float16) for key in ("acts", "grads")}
    single = {key: value.astype(np.float32) for key, value in half.items()}
    result = run("gradcampp", half)
    assert result.array.dtype == np.float32
    np.testing.assert_array_equal(result.array, run("gradcampp", single).array)


def test_fusion_options_are_kept_from_the_function(given):
    np.testing.assert_array_equal(run("layercam", given, gamma=3.0).array, run("layercam", given).array)
