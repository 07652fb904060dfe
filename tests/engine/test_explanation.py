"""The result object: arithmetic of its probabilities, what its overlays show, and what it refuses to be."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest

from camrt.errors import MethodError, ShapeError
from camrt.explanation import Explanation
from camrt.render import blend, overlay

LABELS = [("tabby, tabby cat", "p(dog)"), ("vector", "dog")]


def make(**changes: Any) -> Explanation:
    """Return an explanation of two images for two targets each."""
    rng = np.random.default_rng(0)
    heatmaps = rng.random((2, 2, 16, 20), np.float32)
    heatmaps[0, 1] = 0
    given: dict[str, Any] = {
        "logits": np.log(np.array([[1, 2, 1], [3, 1, 4]], np.float32)),
        "targets": np.array([[0, 1], [-1, 1]]),
        "values": np.array([[0.0, 0.5], [np.nan, 0.125]], np.float32),
        "labels": LABELS,
        "raw": rng.normal(size=(2, 2, 4, 5)),
        "heatmaps": heatmaps,
        "degenerate": np.array([[False, True], [False, False]]),
        "method": "gradcam",
        "variant": "default",
        "pipeline": "camrt",
        "layers": ("features.18",),
        "pictures": list(rng.integers(0, 256, (2, 16, 20, 3), np.uint8)),
        "names": ["cat", "dog"],
        "flags": {"unstable": np.array([[True, False], [False, False]])},
        "options": {"n": 10},
        "provenance": {"model": {"sha256": "ab"}},
    }
    return Explanation(**{**given, **changes})


def test_probabilities_are_the_softmax_of_the_targets_classes() -> None:
    got = make().probabilities
    np.testing.assert_allclose(got, [[0.25, 0.5], [np.nan, 0.125]], rtol=1e-6)
    assert got.dtype == np.float32


def test_an_overlay_blends_its_own_picture_and_heatmap() -> None:
    result = make()
    for image in (0, 1, -1):
        for target in (0, 1):
            if not result.degenerate[image, target]:
                got = np.asarray(result.overlay(image, target, colorbar=False, title="", colormap="viridis", alpha=0.3))
                want = blend(result.pictures[image], result.heatmaps[image, target], colormap="viridis", alpha=0.3)
                np.testing.assert_array_equal(got, want)


def test_an_overlay_is_titled_with_label_class_probability_and_method() -> None:
    result = make()
    assert result.title() == "tabby, tabby cat\nclass 0  ·  p = 0.250  ·  T = 0  ·  gradcam"
    assert result.title(1, 0) == "vector\nT = nan  ·  gradcam"
    want = overlay(result.pictures[0], result.heatmaps[0, 0], title=result.title())
    np.testing.assert_array_equal(np.asarray(result.overlay()), np.asarray(want))
    other = overlay(result.pictures[0], result.heatmaps[0, 0], title="mine", side=100)
    np.testing.assert_array_equal(np.asarray(result.overlay(title="mine", side=100)), np.asarray(other))


@pytest.mark.parametrize(("image", "target"), [(2, 0), (0, 2), (-3, 0), (0, -3)])
def test_an_image_or_target_that_is_not_there_is_refused(image: int, target: int) -> None:
    with pytest.raises(ShapeError, match="there are 2 images with 2 targets"):
        make().overlay(image, target)


def test_an_unknown_colormap_is_refused() -> None:
    with pytest.raises(MethodError, match="no colormap"):
        make().overlay(colormap="hot")


def test_a_part_is_everything_of_some_images_and_the_parts_are_the_whole() -> None:
    whole = make(
        layer_raws={"a": np.ones((2, 2, 3, 3))}, raw_input=np.arange(2 * 2 * 3 * 4 * 5.0).reshape(2, 2, 3, 4, 5)
    )
    first, second = whole.part(slice(0, 1)), whole.part(slice(1, 2))
    for field in fields(Explanation):
        value = getattr(whole, field.name)
        parts = [getattr(part, field.name) for part in (first, second)]
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(np.concatenate(parts), value)
        elif field.name in ("flags", "layer_raws"):
            for name in value:
                np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value[name])
        elif field.name in ("labels", "names", "pictures"):
            np.testing.assert_array_equal([*parts[0], *parts[1]], [*value])
        else:
            assert parts == [value, value]
    assert second.title(0, 1) == whole.title(1, 1)
    assert np.shares_memory(first.heatmaps, whole.heatmaps)


def test_its_fields_cannot_be_set() -> None:
    with pytest.raises(FrozenInstanceError):
        make().method = "cam"  # type: ignore[misc]


def test_its_repr_is_one_short_line() -> None:
    assert repr(make()) == "<Explanation gradcam at features.18: 2 x 2 heatmaps of 16 x 20, 1 degenerate>"
    assert repr(replace(make(), degenerate=np.zeros((2, 2), bool))).endswith("16 x 20>")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": np.zeros(2)}, r"values must start with the axes \(N, T\) \(2, 2\)"),
        ({"raw": np.zeros((2, 3, 4, 5))}, "raw must start"),
        ({"heatmaps": np.zeros((1, 2, 4, 5))}, "heatmaps must start"),
        ({"degenerate": np.zeros((2, 1), bool)}, "degenerate must start"),
        ({"flags": {"odd": np.zeros(2)}}, "flag 'odd' must start"),
        ({"targets": np.zeros(2, int)}, "must start with the axes"),
        ({"logits": np.zeros((3, 3))}, "has 3 logits"),
        ({"names": ["a"]}, "has 1 names"),
        ({"pictures": []}, "has 0 pictures"),
        ({"labels": [("a", "b")]}, "has 1 labels"),
        ({"labels": [("a",), ("b",)]}, "as many labels"),
    ],
)
def test_arrays_that_do_not_agree_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make(**changes)
