"""The drawn pictures: repeatable, and what they say about their objects is exact."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from camrt.demo import CLASSES, SIZE, Scene, draw
from camrt.errors import InputError, TargetError

PAIRS = [(first, (first + away) % len(CLASSES)) for first in range(len(CLASSES)) for away in (1, 4, 7)]


@pytest.fixture(scope="module")
def singles() -> list[Scene]:
    """Draw six pictures of each class."""
    return [draw(seed, [seed % len(CLASSES)]) for seed in range(6 * len(CLASSES))]


@pytest.fixture(scope="module")
def doubles() -> list[Scene]:
    """Draw pictures of two objects."""
    return [draw(seed, pair) for seed, pair in enumerate(PAIRS)]


def test_each_class_is_a_texture_and_a_shape_that_other_classes_share():
    assert len(CLASSES) >= 8
    assert len(set(CLASSES)) == len(CLASSES)
    textures, shapes = (Counter(words) for words in zip(*(name.split() for name in CLASSES), strict=True))
    assert min(textures.values()) >= 2
    assert min(shapes.values()) >= 2


@pytest.mark.parametrize("labels", [(3,), (8, 0)])
def test_the_same_seed_draws_the_same_picture(labels):
    first, second = draw(11, labels), draw(11, labels)
    for name in ("image", "boxes", "masks"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.labels == second.labels == labels


def test_other_seeds_and_other_labels_draw_other_pictures():
    scenes = [draw(seed, labels) for seed in (0, 1, 2) for labels in ([0], [1], [0, 1], [1, 0])]
    for index, scene in enumerate(scenes):
        for other in scenes[:index]:
            assert np.abs(scene.image.astype(int) - other.image).mean() > 5
            assert not np.array_equal(scene.masks[0], other.masks[0])


def test_arrays_have_the_documented_shapes_and_types(singles, doubles):
    for scene in singles + doubles:
        n_objects = len(scene.labels)
        assert (scene.image.shape, scene.image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert (scene.boxes.shape, scene.boxes.dtype) == ((n_objects, 4), np.int64)
        assert (scene.masks.shape, scene.masks.dtype) == ((n_objects, SIZE, SIZE), np.bool_)


def test_boxes_are_tight_around_masks_and_inside_the_picture(singles, doubles):
    """Oracle: the smallest and the largest coordinate of the mask's pixels."""
    for scene in singles + doubles:
        for box, mask in zip(scene.boxes, scene.masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.min() > 0 and box.max() < SIZE


def test_objects_are_large_enough_to_see_and_leave_room_for_a_background(singles, doubles):
    shares = np.array([mask.mean() for scene in singles + doubles for mask in scene.masks])
    assert shares.min() > 0.015
    assert shares.max() < 0.3


def test_two_objects_are_disjoint_and_of_two_classes(doubles):
    for scene in doubles:
        assert scene.labels[0] != scene.labels[1]
        assert not (scene.masks[0] & scene.masks[1]).any()


def test_objects_carry_two_colours_with_more_contrast_than_the_background(singles):
    """The spread of grey values inside a textured mask exceeds the background's in nearly every picture."""
    spreads = []
    for scene in singles:
        grey, mask = scene.image.mean(axis=2), scene.masks[0]
        spreads.append((grey[mask].std(), grey[~mask].std()))
    inside, outside = np.array(spreads).T
    assert inside.min() > 15
    assert (inside > outside).mean() > 0.8


def test_places_and_sizes_vary(singles):
    middle = np.array([(scene.boxes[0, :2] + scene.boxes[0, 2:]) / 2 for scene in singles])
    assert (middle.std(axis=0) > 10).all()
    areas = [scene.masks[0].sum() for scene in singles]
    assert max(areas) > 3 * min(areas)


@pytest.mark.parametrize(
    ("seed", "labels", "error", "said"),
    [
        (-1, [0], InputError, "from 0 on, got -1"),
        (0, [], InputError, "one or two objects, got 0"),
        (0, [0, 1, 2], InputError, "one or two objects, got 3"),
        (0, [len(CLASSES)], TargetError, f"from 0 to {len(CLASSES) - 1}"),
        (0, [-1, 2], TargetError, "from 0 to"),
        (0, [4, 4], TargetError, "two classes, got 4 twice"),
    ],
)
def test_a_request_that_cannot_be_drawn_is_refused_in_one_line(seed, labels, error, said):
    with pytest.raises(error, match=said) as caught:
        draw(seed, labels)
    assert "\n" not in str(caught.value)
