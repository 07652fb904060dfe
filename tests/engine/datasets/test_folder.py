"""Image folders: the sub-folder is the class."""

from __future__ import annotations

from pathlib import Path

import pytest

from camrt.datasets.folder import folder
from camrt.errors import InputError, TargetError
from tests.engine.datasets.made import picture


def test_sub_folders_are_classes_by_index_name_or_id(tmp_path: Path) -> None:
    cases = {
        "index": (("1", "0"), None),
        "name": (("dog", "cat"), ["cat, pussy", "dog"]),
        "wnid": (("n00000002", "n00000001"), {"n00000001": 0, "n00000002": 1}),
        "order": (("zebra", "ant"), "sorted"),
    }
    for case, ((one, zero), labels) in cases.items():
        root = tmp_path / case
        picture(root / one / "x.png"), picture(root / zero / "deep" / "y.png"), picture(root / zero / "z.png")
        data = folder(root, labels=labels)  # type: ignore[arg-type]
        found = {sample.id: sample.label for sample in data}
        assert found == {f"{one}/x.png": 1, f"{zero}/deep/y.png": 0, f"{zero}/z.png": 0}
        assert data.classes == {1: one, 0: zero} and data.name == case and list(data.ids) == sorted(data.ids)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "b.png"), picture(tmp_path / "a.png")
    assert [(sample.id, sample.label) for sample in folder(tmp_path)] == [("a.png", None), ("b.png", None)]


def test_classes_left_out_take_their_pictures_with_them(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png"), picture(tmp_path / "none" / "2.png")
    assert [sample.id for sample in folder(tmp_path, labels={"cat": 4, "none": None})] == ["cat/1.png"]
    with pytest.raises(InputError, match="empty"):
        folder(tmp_path, labels={"cat": None, "none": None})


def test_pictures_beside_sub_folders_are_refused_or_all_taken_without_labels(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "1.png"), picture(tmp_path / "2.png")
    with pytest.raises(InputError, match=r"1 pictures beside its sub-folders \(the first is '2\.png'"):
        folder(tmp_path, labels="sorted")
    assert [sample.label for sample in folder(tmp_path, labels="none")] == [None, None]


def test_an_empty_folder_and_an_unknown_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture lies in"):
        folder(tmp_path)
    picture(tmp_path / "unicorn" / "1.png")
    with pytest.raises(TargetError, match="'unicorn'"):
        folder(tmp_path, labels=["cat", "dog"])
