"""Pascal VOC: corners that count from 1, masks by class and by object, image sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camrt.datasets.voc import NAMES, voc
from camrt.errors import InputError, TargetError
from tests.engine.datasets.made import palette, picture


def note(things: list[tuple[str, tuple[int, int, int, int]]], size: tuple[int, int] = (6, 8)) -> str:
    """Return an annotation file."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{corner}>{value}</{corner}>" for corner, value in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for name, box in things
    )
    return f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{objects}</annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set of two pictures: a cat, a dog and a cat; and a dog."""
    things = {"a": [("cat", (1, 1, 2, 6)), ("dog", (3, 1, 8, 3)), ("cat", (3, 4, 8, 6))], "b": [("dog", (2, 2, 4, 4))]}
    for stem, marked in things.items():
        picture(tmp_path / "JPEGImages" / f"{stem}.jpg")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(note(marked))
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    (tmp_path / "ImageSets" / "Main" / "dog_val.txt").write_text("a -1\nb  1\n")
    return tmp_path


def test_inclusive_corners_from_1_become_half_open_from_0(root: Path) -> None:
    found = {sample.id: (sample.label, sample.boxes.tolist(), sample.size) for sample in voc(root)}
    assert found == {
        "JPEGImages/a.jpg#cat": (7, [[0, 0, 2, 6], [2, 3, 8, 6]], (6, 8)),
        "JPEGImages/a.jpg#dog": (11, [[2, 0, 8, 3]], (6, 8)),
        "JPEGImages/b.jpg#dog": (11, [[1, 1, 4, 4]], (6, 8)),
    }
    assert len(NAMES) == 20 and list(NAMES) == sorted(NAMES) and voc(root).classes == {7: "cat", 11: "dog"}


def test_one_sample_a_picture_takes_the_class_of_the_largest_object(root: Path) -> None:
    """6 x 3 pixels each for the dog and the second cat: the first of equal ones."""
    assert [(sample.id, sample.label) for sample in voc(root, per="image")] == [
        ("JPEGImages/a.jpg", 11),
        ("JPEGImages/b.jpg", 11),
    ]


def test_masks_by_class_ignore_255(root: Path) -> None:
    numbers = np.zeros((6, 8), int)
    numbers[:, :2], numbers[:3, 3:], numbers[:, 2] = 8, 12, 255
    palette(root / "SegmentationClass" / "a.png", numbers)
    by_id = {sample.id: sample for sample in voc(root)}
    for name, number in (("cat", 8), ("dog", 12)):
        sample = by_id[f"JPEGImages/a.jpg#{name}"]
        assert sample.mask is not None and sample.ignored is not None
        np.testing.assert_array_equal(sample.mask(), numbers == number)
        np.testing.assert_array_equal(sample.ignored(), numbers == 255)
    assert by_id["JPEGImages/b.jpg#dog"].mask is None and by_id["JPEGImages/b.jpg#dog"].ignored is None


def test_masks_by_object_are_numbered_as_the_annotation(root: Path) -> None:
    numbers = np.arange(48).reshape(6, 8) % 4
    palette(root / "SegmentationObject" / "a.png", numbers)
    by_id = {sample.id: sample for sample in voc(root)}
    cat = by_id["JPEGImages/a.jpg#cat"].mask
    assert cat is not None
    np.testing.assert_array_equal(cat(), (numbers == 1) | (numbers == 3))


def test_image_sets_choose_and_leave_out_negatives(root: Path) -> None:
    for split in ("val", "Main/val", "dog_val"):
        assert [sample.id for sample in voc(root, split=split)] == ["JPEGImages/b.jpg#dog"]
    with pytest.raises(InputError, match=r"no image set 'test'; looked for .*Main/test\.txt"):
        voc(root, split="test")
    with pytest.raises(InputError, match="leads out"):
        voc(root, split="../../secret")


def test_other_classes_need_a_map_and_may_be_left_out(root: Path) -> None:
    assert [sample.label for sample in voc(root, labels={"cat": 281, "dog": None})] == [281]
    (root / "Annotations" / "b.xml").write_text(note([("unicorn", (1, 1, 2, 2))]))
    with pytest.raises(TargetError, match="'unicorn'"):
        voc(root)


def test_an_image_set_that_names_a_picture_without_annotation_is_refused(root: Path) -> None:
    (root / "ImageSets" / "Main" / "val.txt").write_text("c\n")
    with pytest.raises(InputError, match=r"c\.xml"):
        voc(root, split="val")
