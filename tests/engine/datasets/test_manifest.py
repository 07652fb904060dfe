"""Manifests: loosely named columns, exact values, and errors that name the row."""

from __future__ import annotations

import builtins
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camrt.datasets.manifest import manifest
from camrt.errors import InputError, MissingExtraError, TargetError
from tests.engine.datasets.made import palette, picture


def write(root: Path, text: str, name: str = "list.csv") -> Path:
    """Write a table."""
    (root / name).write_text(text)
    return root / name


def test_every_column_is_read(tmp_path: Path) -> None:
    numbers = np.eye(6, 8)
    palette(tmp_path / "masks" / "a.png", numbers)
    picture(tmp_path / "p" / "a.png")
    path = write(
        tmp_path,
        "id,file,class_index,boxes,mask,width,height,note\n"
        "one,p/a.png,3,0 1 2 3;4.5 0 8 6,masks/a.png,8,6,hello\n"
        "two,./p//b.png,,,,,,\n",
    )
    one, two = manifest(path)
    assert (one.id, one.label, one.size) == ("one", 3, (6, 8))
    assert one.boxes is not None and one.boxes.tolist() == [[0, 1, 2, 3], [4.5, 0, 8, 6]]
    assert one.mask is not None and one.read() == str((tmp_path / "p" / "a.png").resolve())
    np.testing.assert_array_equal(one.mask(), numbers != 0)
    assert (two.id, two.label, two.boxes, two.mask, two.size) == ("two", None, None, None, None)
    assert manifest(path).name == "list" and manifest(path).classes == {3: "3"}


@pytest.mark.parametrize(
    ("header", "value", "label"),
    [("Image Path,WNID", "n00000002", 2), ("FILE_NAME,Class-Name", "Tabby cat", 1), ("path,target", "2", 2)],
)
def test_columns_are_known_by_many_names(tmp_path: Path, header: str, value: str, label: int) -> None:
    (tmp_path / "labels.csv").write_text("index,wnid,names\n0,n00000000,x\n1,n00000001,tabby cat\n2,n00000002,z\n")
    path = write(tmp_path, f"{header}\na.png,{value}\n")
    assert manifest(path, labels=tmp_path / "labels.csv")[0].label == label


def test_a_column_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "file,label,truth\na.png,1,5\n")
    assert manifest(path)[0].label == 1 and manifest(path, columns={"label": "truth"})[0].label == 5
    with pytest.raises(InputError, match="has no column 'other'; it has file, label, truth"):
        manifest(path, columns={"label": "other"})
    with pytest.raises(InputError, match="'lable' is not one of file, id, label"):
        manifest(path, columns={"lable": "truth"})


def test_rows_are_chosen_by_pattern_or_beginning(tmp_path: Path) -> None:
    path = write(tmp_path, "file\na/1.png\na/b/2.jpg\nc/3.png\n")
    found = {only: [sample.id for sample in manifest(path, only=only)] for only in ("a/", "*.png", "a/*.jpg")}
    assert found == {"a/": ["a/1.png", "a/b/2.jpg"], "*.png": ["a/1.png", "c/3.png"], "a/*.jpg": ["a/b/2.jpg"]}
    with pytest.raises(InputError, match=r"no row of .*matches 'z'"):
        manifest(path, only="z")


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "file": ["a.png", "b.png", "c.png"],
        "label": [4, None, 7],
        "boxes": [[[0.0, 1.0, 2.0, 3.0]], None, [[1.0, 1.0, 2.0, 2.0], [0.5, 0.0, 3.0, 3.0]]],
        "blob": [b"x", b"y", b"z"],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet")
    write(tmp_path, "file,label,boxes\na.png,4,0 1 2 3\nb.png,,\nc.png,7,1 1 2 2;.5 0 3 3\n")
    table, text = manifest(tmp_path / "list.parquet"), manifest(tmp_path / "list.csv")
    assert table.fingerprint == text.fingerprint and [sample.label for sample in table] == [4, None, 7]
    parquet.write_table(pyarrow.table({"file": ["a.png"], "boxes": ["0 1 2 3"]}), tmp_path / "text.pq")
    renamed = manifest(tmp_path / "list.parquet", columns={"id": "blob"})
    assert [sample.id for sample in renamed] == ["b'x'", "b'y'", "b'z'"]
    boxes = manifest(tmp_path / "text.pq")[0].boxes
    assert boxes is not None and boxes.tolist() == [[0, 1, 2, 3]]
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "list.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cannot read the manifest .*cut\.parquet"):
        manifest(tmp_path / "cut.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (tmp_path / "list.parquet").touch()
    with pytest.raises(MissingExtraError, match=r"camrt\[eval\]"):
        manifest(tmp_path / "list.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column of files; want one called file, path"),
        ("name,label\na.png,1\n", "no column of files.*it has name, label"),
        ("file\n", "no row of"),
        ("file,label\na.png,1,9\n", "line 2 has another number of fields"),
        ("file,label\na.png\n", "line 2 has another number of fields"),
        ("file\na.png\nb.png\na.png\n", "samples 0 and 2 have the same id 'a.png'"),
        ("file,boxes\na.png,\nb.png,1 2 3\n", "row 2: boxes must be"),
        ("file,boxes\na.png,1 2 3 x\n", "row 1: boxes must be"),
        ("file,boxes\na.png,1 2 3 nan\n", "row 1: boxes must be"),
        ("file,width\na.png,wide\n", "row 1: width must be a whole number"),
        ("file\n../a.png\n", "row 1: '../a.png' leads out"),
        ("file,mask\na.png,../m.png\n", "row 1: mask: '../m.png' leads out"),
        ("file,label\n,1\n", "row 1: the file's name is empty"),
        ('file,label\n"a.png,1\n', "not a CSV table"),
    ],
)
def test_a_bad_table_is_one_input_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        manifest(write(tmp_path, text))


def test_other_files_and_unknown_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.csv or \.parquet file; got .*list\.xls"):
        manifest(write(tmp_path, "file\n", "list.xls"))
    with pytest.raises(TargetError, match="'unicorn'"):
        manifest(write(tmp_path, "file,label\na.png,unicorn\n"), labels=["cat"])


def test_an_absolute_path_is_the_users_own_choice(tmp_path: Path) -> None:
    path = picture(tmp_path / "far" / "a.png")
    (tmp_path / "list").mkdir()
    assert manifest(write(tmp_path / "list", f"file\n{path}\n"))[0].read() == str(path)


def test_a_long_manifest_is_held_in_little_memory(tmp_path: Path) -> None:
    """Held: what a listing holds. At most besides: the text three times, and a row's cells until the columns are made."""
    count = 20_000
    lines = "".join(f"images/{number:06d}.png,{number % 1000},1 2 3 4\n" for number in range(count))
    path = write(tmp_path, "file,label,boxes\n" + lines)
    tracemalloc.start()
    try:
        data = manifest(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data) == count and data[19_999].label == 999
    assert held < 300 * count and peak < 1200 * count


@pytest.mark.realdata
def test_the_real_photographs_are_read_as_their_list_stands(realdata: Path) -> None:
    data = manifest(realdata / "images.csv", only="images/photos/")
    assert len(data) == 57 and sum(sample.boxes is not None for sample in data) == 43
    first = data[0]
    assert first.label == 143 and first.boxes is not None and first.boxes.tolist() == [[34.1, 23.2, 202.7, 193.9]]
    named = manifest(
        realdata / "images.csv",
        only="images/photos/",
        columns={"label": "wnid"},
        labels=realdata / "imagenet_classes.csv",
    )
    assert [sample.label for sample in named] == [sample.label for sample in data]
