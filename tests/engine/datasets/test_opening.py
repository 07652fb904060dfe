"""Opening: what lies there says what it is; what does not fit is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from camrt.datasets import KINDS, open_dataset
from camrt.datasets.opening import recognise
from camrt.errors import InputError
from tests.engine.datasets import test_coco, test_voc, test_webdataset, test_wsol
from tests.engine.datasets.made import content, picture


def made(root: Path, kind: str) -> Path:
    """Write a small data set of a kind and return its place."""
    if kind == "folder":
        return picture(root / "set" / "3" / "a.png").parents[1]
    if kind == "manifest":
        (root / "list.csv").write_text("file,label\na.png,3\n")
        return root / "list.csv"
    if kind == "imagenet":
        return picture(root / "3" / "n00000001" / "ILSVRC2012_val_00000001.JPEG").parents[1]
    if kind == "wsol":
        return test_wsol.write(root)
    if kind == "coco":
        return test_coco.write(root).parents[1]
    if kind == "voc":
        picture(root / "JPEGImages" / "a.jpg")
        (root / "Annotations").mkdir()
        (root / "Annotations" / "a.xml").write_text(test_voc.note([("cat", (1, 1, 2, 2))]))
        return root
    test_webdataset.write(root / "shards" / "0.tar", [("a.png", content()), ("a.cls", b"3")])
    return root / "shards"


OPTIONS: dict[str, dict[str, Any]] = {"imagenet": {"labels": {"n00000001": 3}}, "wsol": {"root": "."}}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_recognised_and_opened(tmp_path: Path, kind: str) -> None:
    place = made(tmp_path, kind)
    options = OPTIONS.get(kind, {})
    assert recognise(str(place)) == kind
    data = open_dataset(place, **options)
    same = open_dataset(str(place), kind=kind.upper(), **options)
    assert data.fingerprint == same.fingerprint and data[0].label is not None


def test_a_data_set_is_returned_as_it_is(tmp_path: Path) -> None:
    data = open_dataset(made(tmp_path, "folder"))
    assert open_dataset(data) is data


class Empty:
    """A data set of nothing."""

    name, classes, fingerprint = "nothing", dict[int, str](), ""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Any:
        raise IndexError


def test_an_empty_data_set_and_no_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'nothing' is empty"):
        open_dataset(Empty())
    with pytest.raises(InputError, match="a path or a Dataset; got int"):
        open_dataset(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="there is no data set"):
        open_dataset(tmp_path / "none")
    with pytest.raises(InputError, match=r"looked for pictures .*JPEGImages.*COCO.*\.tar.*image_ids\.txt"):
        open_dataset(tmp_path)
    (tmp_path / "a.zip").touch()
    with pytest.raises(InputError, match=r"want a \.csv, \.parquet, \.json or \.tar file"):
        open_dataset(tmp_path / "a.zip")


def test_options_of_another_kind_are_refused(tmp_path: Path) -> None:
    place = made(tmp_path, "folder")
    with pytest.raises(InputError, match="kind 'folder' takes no per; it takes labels"):
        open_dataset(place, per="image")
    with pytest.raises(InputError, match="no kind of data set is called 'vok'; did you mean voc"):
        open_dataset(place, kind="vok")
    with pytest.raises(InputError, match="needs root="):
        open_dataset(made(tmp_path, "wsol"))


def test_a_folder_of_several_splits_wants_one(tmp_path: Path) -> None:
    path = test_coco.write(tmp_path)
    shutil.copy(path, path.with_name("instances_train2017.json"))
    with pytest.raises(InputError, match="splits under annotations: train2017, val2017; give one"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, split="val2017").name == "instances_val2017"
    with pytest.raises(InputError, match="give one"):
        open_dataset(tmp_path, split="test")
