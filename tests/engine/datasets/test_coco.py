"""COCO: boxes, masks, crowds, category order and damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camrt.datasets.coco import coco
from camrt.errors import ImageError, InputError, TargetError
from tests.engine.datasets.made import picture

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 17, "name": "cat"}]
IMAGES = [
    {"id": 7, "file_name": "000007.jpg", "height": 6, "width": 8},
    {"id": 8, "file_name": "000008.jpg", "height": 6, "width": 8},
    {"id": 9, "file_name": "000009.jpg", "height": 6, "width": 8},
]


def thing(image: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    """Return an annotation whose polygon is its box."""
    x, y, width, height = box
    outline = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    return {"image_id": image, "category_id": category, "bbox": box, "segmentation": outline, "iscrowd": 0, **more}


THINGS = [
    thing(7, 17, [0, 0, 2, 6], area=12),
    thing(7, 18, [3, 1, 4, 2], area=8),
    thing(7, 17, [5.0, 3.0, 3, 3], area=9),
    thing(7, 17, [2, 0, 1, 1], iscrowd=1, segmentation={"size": [6, 8], "counts": [12, 1, 35]}, area=99),
    thing(9, 1, [1, 1, 2, 2]),
    thing(8, 1, [0, 0, 8, 6], iscrowd=1, segmentation={"size": [6, 8], "counts": [0, 48]}),
]


def write(root: Path, things: list[dict[str, Any]] = THINGS, **parts: Any) -> Path:
    """Write a data set as COCO lies on disk."""
    for image in IMAGES:
        picture(root / "val2017" / str(image["file_name"]))
    path = root / "annotations" / "instances_val2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": IMAGES, "annotations": things, "categories": CATEGORIES, **parts}))
    return path


def test_each_category_of_a_picture_is_a_sample_with_its_boxes_and_masks(tmp_path: Path) -> None:
    """Ids 1, 17, 18 are classes 0, 1, 2; a crowd is no object; width and height become far corners."""
    data = coco(write(tmp_path))
    found = {sample.id: (sample.label, sample.boxes.tolist()) for sample in data}
    assert found == {
        "000007.jpg#cat": (1, [[0, 0, 2, 6], [5, 3, 8, 6]]),
        "000007.jpg#dog": (2, [[3, 1, 7, 3]]),
        "000009.jpg#person": (0, [[1, 1, 3, 3]]),
    }
    cat = data[0]
    want = np.zeros((6, 8), bool)
    want[:, :2] = want[3:, 5:] = True
    crowd = np.zeros((6, 8), bool)
    crowd[0, 2] = True  # the run at 12 is the first row of the third column of six
    assert cat.mask is not None and cat.ignored is not None and data[1].ignored is None
    np.testing.assert_array_equal(cat.mask(), want)
    np.testing.assert_array_equal(cat.ignored(), crowd)
    assert cat.read() == str((tmp_path / "val2017" / "000007.jpg").resolve()) and cat.size == (6, 8)
    assert data.classes == {0: "person", 1: "cat", 2: "dog"} and data.name == "instances_val2017"


def test_one_sample_a_picture_is_of_its_largest_object(tmp_path: Path) -> None:
    samples = list(coco(write(tmp_path), per="image"))
    assert [(sample.id, sample.label) for sample in samples] == [("000007.jpg", 1), ("000009.jpg", 0)]


def test_categories_are_mapped_by_name_and_left_out_on_purpose(tmp_path: Path) -> None:
    labels = {"cat": 281, "dog": 207, "person": None}
    assert [sample.label for sample in coco(write(tmp_path), labels=labels)] == [207, 281]
    with pytest.raises(TargetError, match=r"2 of 3 .*'dog', 'person'"):
        coco(write(tmp_path), labels=["cat"])


def test_a_change_of_a_segmentation_changes_the_fingerprint(tmp_path: Path) -> None:
    before = coco(write(tmp_path)).fingerprint
    moved = [thing(7, 17, [0, 0, 2, 6], area=12, segmentation=[[0, 0, 2, 0, 0, 6]]), *THINGS[1:]]
    assert coco(write(tmp_path, moved)).fingerprint != before == coco(write(tmp_path)).fingerprint


def test_a_damaged_segmentation_is_found_when_its_mask_is_read(tmp_path: Path) -> None:
    data = coco(write(tmp_path, [thing(7, 17, [0, 0, 1, 1], segmentation={"size": [6, 8], "counts": [1]})]))
    read = data[0].mask
    assert read is not None
    with pytest.raises(ImageError, match="sum to 48"):
        read()


def test_objects_without_segmentation_have_no_mask(tmp_path: Path) -> None:
    assert coco(write(tmp_path, [thing(7, 17, [0, 0, 1, 1], segmentation=None)]))[0].mask is None


def test_pictures_are_looked_for_and_may_be_told(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"found no picture '000007\.jpg'.*give root="):
        coco(path)
    assert len(coco(path, root=tmp_path / "elsewhere")) == 3


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"annotations": None}, "want an object with lists"),
        ({"annotations": []}, "is empty"),
        ({"annotations": [thing(1, 17, [0, 0, 1, 1])]}, "picture 1 or category 17"),
        ({"annotations": [thing(7, 99, [0, 0, 1, 1])]}, "picture 7 or category 99"),
        ({"annotations": [thing(7, 17, [0, 0, 1, 1]) | {"bbox": [0, 0]}]}, "not as COCO writes"),
        ({"annotations": [{"image_id": 7}]}, "not as COCO writes"),
        ({"images": [{"id": 7, "file_name": "../../secret.png"}]}, "leads out"),
        ({"images": [IMAGES[0] | {"height": 10**30}]}, "beyond any format's"),
        ({"categories": [{"id": 17}]}, "not as COCO writes"),
    ],
)
def test_other_json_says_what_was_wanted(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    path = write(tmp_path, [thing(7, 17, [0, 0, 1, 1])], **parts)
    with pytest.raises(InputError, match=message):
        coco(path, root=tmp_path)


def test_a_file_that_is_no_json_or_not_there_is_an_input_error(tmp_path: Path) -> None:
    for content in ("{", "[" * 100_000):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(InputError, match="not JSON"):
            coco(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot read annotations"):
        coco(tmp_path / "none.json")
