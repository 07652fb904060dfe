"""FullGrad: its terms add up to the logit, and each variant scales and resizes them as it says."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from camrt.kernels import min_max, resize
from tests.engine.methods.heads import HW, SIZE, input_evidence, make_head, make_stem, one_hot, raw


def given(rng, kind="two-layer"):
    """Lay out a stem and a head, both with biases."""
    return input_evidence(make_stem(rng), make_head(kind, rng), rng.normal(size=(3, 3, *HW)))


@pytest.mark.parametrize("kind", ["gap", "flatten", "two-layer"])
def test_the_full_gradient_is_the_logit(rng, kind):
    """The oracle of the other tests is complete: equation 2 of the paper."""
    made = given(rng, kind)
    gradient, terms = made["full_of"](made["seed"](), True)
    whole = (made["x"] * gradient).sum((1, 2, 3)) + sum(term.reshape(3, -1).sum(1) for term in terms)
    np.testing.assert_allclose(whole, (made["logits"] * one_hot(made["target"])).sum(1), atol=1e-10)


def whole_scaled(term):
    """Return |term| to [0, 1] over all axes but the first."""
    sizes = abs(term)
    low, high = (f(axis=(1, 2, 3), keepdims=True) for f in (sizes.min, sizes.max))
    return (sizes - low) / (high - low)


@pytest.mark.parametrize("variant", ["official", "simple"])
def test_the_official_forms_scale_each_tensor_as_a_whole(rng, variant):
    made = given(rng)
    gradient, terms = made["full_of"](made["seed"](), variant == "official")
    want = whole_scaled(made["x"] * gradient).sum(1) + whole_scaled(terms[0]).sum(1)
    np.testing.assert_allclose(raw("fullgrad", made, variant), want, atol=1e-12)


def test_pytorch_grad_cam_scales_each_channel(rng):
    made = given(rng)
    gradient, terms = made["full_of"](made["seed"](), True)
    parts = [min_max(abs(t).reshape(-1, *HW))[0].reshape(t.shape).sum(1) for t in (made["x"] * gradient, terms[0])]
    np.testing.assert_allclose(raw("fullgrad", made, "pytorch-grad-cam"), sum(parts), atol=1e-4)


@pytest.mark.parametrize(("variant", "align"), [("official", "corners"), ("pytorch-grad-cam", "half_pixel")])
def test_smaller_tensors_are_resized_after_they_are_scaled(rng, variant, align):
    term = rng.normal(size=(2, 1, 3, 2))
    x = np.zeros((2, 3, *SIZE))
    made = {"x": x, "size": SIZE, "seed": lambda: None, "full_of": lambda seed, times: (x, [term])}
    want = resize(min_max(abs(term[:, 0]))[0], SIZE, align=align)
    np.testing.assert_allclose(raw("fullgrad", made, variant), want, atol=1e-6)


def test_a_tensor_that_is_constant_adds_nothing(rng):
    made = given(rng)
    gradient, terms = made["full_of"](made["seed"](), True)
    more = {
        **made,
        "full_of": lambda seed, times: (gradient, [terms[0], np.full((3, 2, 4, 4), 7.0), np.zeros((3, 1, 1, 1))]),
    }
    np.testing.assert_allclose(raw("fullgrad", more), raw("fullgrad", made), atol=1e-12)


def test_an_image_with_its_channels_last_gives_the_same_map(rng):
    made = given(rng)
    gradient, terms = made["full_of"](made["seed"](), True)
    turned = {**made, "x": made["x"].transpose(0, 2, 3, 1)}
    turned["full_of"] = lambda seed, times: (gradient.transpose(0, 2, 3, 1), terms)
    np.testing.assert_allclose(raw("fullgrad", turned), raw("fullgrad", made), atol=1e-12)


def test_a_model_that_takes_bytes_is_refused(rng):
    made = {**given(rng), "x": np.zeros((1, 3, *HW), np.uint8)}
    with pytest.raises(MethodError, match="fullgrad multiplies the input"):
        raw("fullgrad", made)
