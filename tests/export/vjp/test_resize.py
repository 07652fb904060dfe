"""Gradients of Resize against central finite differences, and its matrices against what they must do by definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from camrt.errors import MissingRuleError
from camrt.export.live import open_model
from camrt.export.vjp.resize import resize_matrix
from tests.export.judge import run_program
from tests.export.onnx_text import tiny
from tests.export.vjp.check import check_rule
from tests.export.vjp.run import gradients
from tests.export.vjp.spec import Spec, between, rows

X = between(-2, 2, 2, 3, 4, 5)


def _sized(
    name: str,
    sizes: tuple[int, ...],
    mode: str,
    coordinates: str = "half_pixel",
    axes: tuple[int, ...] = (2, 3),
    **more: Any,
) -> Spec:
    """Return a row with sizes of some axes of `X`, for an operator list `ops` and further attributes in `more`."""
    ops = more.pop("ops", None)
    given = {"mode": mode, "coordinate_transformation_mode": coordinates, "axes": list(axes), **more}
    return Spec("Resize", (X, None, None, np.array(sizes, np.int64)), f"{mode}_{name}", given, ops=ops)


def _cropped(name: str, sizes: tuple[int, int], roi: tuple[float, ...], mode: str) -> Spec:
    """Return a row that reads a region of height and width (starts, then ends) of `X`."""
    given = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "axes": [2, 3]}
    return Spec("Resize", (X, np.array(roi), None, np.array(sizes, np.int64)), f"{mode}_{name}", given)


SPECS = [
    _sized("twice", (8, 10), "nearest", ops=("AveragePool", "Mul")),
    _sized("thrice_and_twice", (12, 10), "nearest", "asymmetric", nearest_mode="floor", ops=("AveragePool", "Mul")),
    _sized("width", (10,), "nearest", axes=(3,), ops=("AveragePool", "Mul")),
    _sized("channels", (6, 10), "nearest", axes=(1, 3)),
    _sized("uneven", (6, 7), "nearest", "asymmetric", nearest_mode="floor", ops=("MatMul", "MatMul")),
    _sized("ceil", (7, 9), "nearest", "asymmetric", nearest_mode="ceil"),
    _sized("prefer_ceil", (7, 9), "nearest", nearest_mode="round_prefer_ceil"),
    _sized("smaller", (2, 3), "nearest"),
    _sized("twice", (8, 10), "linear", ops=("MatMul", "MatMul")),
    _sized("uneven", (7, 3), "linear"),
    _sized("corners", (7, 9), "linear", "align_corners"),
    _sized("corners_to_one", (1, 9), "linear", "align_corners"),
    _sized("asymmetric", (6, 8), "linear", "asymmetric"),
    _sized("symmetric", (6, 8), "linear", "half_pixel_symmetric"),
    _sized("torch", (1, 8), "linear", "pytorch_half_pixel"),
    _sized("one_axis", (4, 10), "linear", ops=("MatMul",)),
    _sized("unchanged", (4, 5), "linear", ops=()),
    _sized("twice", (8, 10), "cubic"),
    _sized("corners", (7, 9), "cubic", "align_corners", cubic_coeff_a=-0.5),
    _sized("exclude_outside", (7, 9), "cubic", exclude_outside=1),
    _sized("not_larger", (7, 8), "linear", keep_aspect_ratio_policy="not_larger"),
    _sized("not_smaller", (7, 8), "nearest", keep_aspect_ratio_policy="not_smaller"),
    _cropped("cropped", (3, 6), (0.2, -0.1, 0.7, 0.8), "linear"),
    _cropped("cropped_to_one", (1, 7), (0.2, 0.1, 0.9, 0.8), "linear"),
    _sized("antialias", (2, 3), "linear", antialias=1),
    _sized("antialias", (2,), "cubic", axes=(2,), antialias=1),  # a half: the evaluator's scales are float32
    _sized("antialias_exclude", (3,), "cubic", axes=(2,), antialias=1, exclude_outside=1),
]


@pytest.mark.parametrize(("spec", "opset"), rows(SPECS))
def test_the_gradient_equals_finite_differences(spec: Spec, opset: int) -> None:
    spec.check(opset)


@pytest.mark.parametrize("axes", [None, [2, 3]])
@pytest.mark.parametrize(("mode", "scales"), [("nearest", (2, 2)), ("linear", (1.6, 1.3)), ("linear", (0.5, 2))])
def test_scales_give_what_the_sizes_they_come_to_give(
    mode: str, scales: tuple[float, ...], axes: list[int] | None
) -> None:
    """Scales are float32 whatever the data is; the result is that of sizes, but each position divides by the scale."""
    x = X.astype(np.float32)
    given = np.array(scales if axes else (1, 1, *scales), np.float32)
    attributes: dict[str, Any] = {"mode": mode} | ({"axes": axes} if axes else {})
    none = np.zeros(0, np.float32)
    (got,) = gradients("Resize", [x, none, given], attributes)
    want = np.ones(x.shape[:2])[..., None, None]
    for size, scale in zip(x.shape[2:], scales, strict=True):
        n_out = int(size * scale)
        at = (np.arange(n_out) + 0.5) / np.float32(scale) - 0.5
        row = resize_matrix(size, n_out, scale, mode=mode, coordinates=at).sum(0)
        want = (want[..., None] * row).reshape(*want.shape[:2], -1)[..., None]
    np.testing.assert_allclose(got, want[..., 0].reshape(x.shape), rtol=1e-6)


def test_negative_axes_count_from_the_end() -> None:
    x, sizes, none = X.astype(np.float32), np.array([7, 3], np.int64), np.zeros(0, np.float32)
    got, want = (
        gradients("Resize", [x, none, none, sizes], {"mode": "linear", "axes": axes})[0] for axes in ([-2, -1], [2, 3])
    )
    np.testing.assert_array_equal(got, want)


def test_linear_interpolation_reproduces_a_straight_line_inside() -> None:
    at = np.linspace(0.3, 6.7, 12)
    matrix = resize_matrix(8, 12, 1.5, mode="linear", coordinates=at)
    np.testing.assert_allclose(matrix @ np.arange(8.0), at, rtol=1e-12)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_constant_stays_constant(mode: str, antialias: bool) -> None:
    at = (np.arange(5) + 0.5) * 13 / 5 - 0.5
    matrix = resize_matrix(13, 5, 5 / 13, mode=mode, coordinates=at, antialias=antialias)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)


def test_sizes_known_only_at_run_time_are_refused() -> None:
    attributes = {"mode": "linear", "axes": [2, 3], "coordinate_transformation_mode": "align_corners"}
    with pytest.raises(MissingRuleError, match="Resize at node 'the_node'"):
        check_rule(
            "Resize", [X, None, None, np.array([8, 10])], runtime=(3,), attributes=attributes, symbolic_batch=[0]
        )


def test_a_crop_that_scales_nothing_is_refused() -> None:
    roi, sizes = np.array([0.1, 0.1, 0.9, 0.9], np.float32), np.array([4, 9], np.int64)
    attributes = {"mode": "linear", "axes": [2, 3], "coordinate_transformation_mode": "tf_crop_and_resize"}
    with pytest.raises(MissingRuleError, match="it crops without scaling"):
        gradients("Resize", [X.astype(np.float32), roi, np.zeros(0, np.float32), sizes], attributes)


def test_a_region_known_only_at_run_time_is_refused() -> None:
    roi, sizes = np.array([0.1, 0.1, 0.9, 0.9], np.float32), np.array([8, 9], np.int64)
    attributes = {"mode": "linear", "axes": [2, 3], "coordinate_transformation_mode": "tf_crop_and_resize"}
    with pytest.raises(MissingRuleError, match="region it crops to is computed at run time"):
        check_rule("Resize", [X, roi, None, sizes], runtime=(1,), attributes=attributes, symbolic_batch=[0])


def test_sizes_that_take_the_batch_from_the_images_shape_are_constants_for_the_rest() -> None:
    weights = {"w": (216, 5), "tail": np.array([3, 12, 6]), "sides": np.array([12, 6])}
    bodies = (
        's = Shape<end=1>(x) z = Concat<axis=0>(s, tail) r = Resize<mode="cubic">(x, , , z)',
        'r = Resize<mode="cubic", axes=[2, 3]>(x, , , sides)',
    )
    x = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    found = []
    for body in bodies:
        program = open_model(tiny(f"{body} f = Flatten(r) y = Gemm(f, w)", weights=weights)).program("input_gradient")
        found.append(run_program(program, x=x, seed=np.eye(4, 5, dtype=np.float32))["input_gradient"])
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0].any()
