"""wsolevaluation's text files."""

from __future__ import annotations

from pathlib import Path

import pytest

from camrt.datasets.wsol import wsol
from camrt.errors import InputError
from tests.engine.datasets.made import picture

TEXTS = {
    "image_ids.txt": "val/a.png\nval/b.png\n",
    "class_labels.txt": "val/a.png,65\nval/b.png,970\n",
    "image_sizes.txt": "val/a.png,8,6\nval/b.png,8,6\n",
    "localization.txt": "val/a.png,0,0,7,5\nval/b.png,1,2,3,4\nval/b.png,0,0,0,0\n",
}


def write(root: Path, **changed: str | None) -> Path:
    """Write a split's metadata."""
    folder = root / "ILSVRC" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**TEXTS, **{f"{key}.txt": text for key, text in changed.items()}}.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_inclusive_corners_from_0_become_half_open(tmp_path: Path) -> None:
    """The box 0,0,7,5 is the whole of a picture of 8 x 6."""
    picture(tmp_path / "val" / "a.png")
    data = wsol(write(tmp_path), root=tmp_path)
    assert {sample.id: (sample.label, sample.boxes.tolist(), sample.size) for sample in data} == {
        "val/a.png": (65, [[0, 0, 8, 6]], (6, 8)),
        "val/b.png": (970, [[1, 2, 4, 5], [0, 0, 1, 1]], (6, 8)),
    }
    assert data[0].read() == str((tmp_path / "val" / "a.png").resolve()) and data.name == "ILSVRC-test"
    assert wsol(write(tmp_path), root=tmp_path / "val")[0].read() == data[0].read()


def test_sizes_and_boxes_may_be_missing(tmp_path: Path) -> None:
    folder = write(tmp_path, image_sizes=None, localization=None)
    for name in ("image_sizes.txt", "localization.txt"):
        (folder / name).unlink(missing_ok=True)
    assert [(sample.boxes, sample.size) for sample in wsol(folder, root=tmp_path)] == [(None, None)] * 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"localization": "val/a.png,m.png,ignore.png\n"}, "line 1: want 5 fields.*masks are not read"),
        ({"localization": "val/a.png,0,0,x,5\n"}, "want whole numbers from 0; got 'x'"),
        ({"class_labels": "val/a.png,65\n"}, "no line for 'val/b.png'"),
        ({"class_labels": "val/a.png,-1\n"}, "whole numbers from 0"),
        ({"image_ids": ""}, "is empty"),
        ({"image_ids": "../a.png\n"}, "leads out"),
    ],
)
def test_other_lines_say_what_was_wanted(tmp_path: Path, changed: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        wsol(write(tmp_path, **changed), root=tmp_path)
