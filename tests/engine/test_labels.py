"""Files of names in every usual form, and the class a name means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from camrt.errors import TargetError
from camrt.labels import MAX_BYTES, find_label, is_known, load_labels

WANT = ("cat", "dog, hound", "crème brûlée")

FILES: list[tuple[str, str]] = [
    ("a.txt", "cat\ndog, hound\ncrème brûlée\n\n"),
    ("a.txt", "\ufeffcat\r\ndog, hound\r\ncrème brûlée"),
    ("synset.TXT", "n00000001 cat\nn00000002 dog, hound\nn00000003 crème brûlée\n"),
    ("a.json", json.dumps(WANT)),
    ("a.json", json.dumps({"2": WANT[2], "0": WANT[0], "1": WANT[1]})),
    ("config.json", json.dumps({"model": "x", "id2label": dict(enumerate(WANT))})),
    ("keras.json", json.dumps({str(i): [f"n{i:08}", name] for i, name in enumerate(WANT)})),
    ("a.csv", 'index,wnid,names\n1,n2,"dog, hound"\n0,n1,cat\n2,n3,crème brûlée\n'),
    ("a.csv", 'Label\ncat\n"dog, hound"\ncrème brûlée\n'),
    ("a.csv", '\ufeffclass,name\n0,cat\n1,"dog, hound"\n2,crème brûlée\n'),
]


@pytest.mark.parametrize(("name", "content"), FILES)
def test_names_come_out_in_class_order(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert load_labels(path) == load_labels(str(path)) == WANT


def test_content_and_lists_are_read_too() -> None:
    assert load_labels("\n".join(WANT).encode()) == WANT
    assert load_labels(json.dumps(WANT).encode()) == WANT
    assert load_labels(json.dumps(dict(enumerate(WANT))).encode()) == WANT
    assert load_labels(list(WANT)) == load_labels(WANT) == WANT


BAD: list[tuple[str, bytes, str]] = [
    ("a.txt", b"", "there are no labels"),
    ("a.txt", b"cat\n\ndog", "class 1 has no name"),
    ("a.txt", b"c\xe9t", "not UTF-8"),
    ("a.yaml", b"cat", "from .txt, .json or .csv"),
    ("a", b"cat", "from .txt, .json or .csv"),
    ("a.json", b"{", "not JSON"),
    ("a.json", b"[" * 100_000, "not JSON"),
    ("a.json", b"3", "got int"),
    ("a.json", b"{}", "there are no labels"),
    ("a.json", b'{"id2label": 3}', "there are no labels"),
    ("a.json", b"[1, 2]", "class 0 has no name"),
    ("a.json", b'["cat", ""]', "class 1 has no name"),
    ("a.json", b'{"cat": 0}', "want class numbers"),
    ("a.json", b'{"0": "cat", "2": "dog"}', "class 1 has no name"),
    ("a.json", b'{"0": "cat", "00": "dog"}', "class 0 has two names"),
    ("a.csv", b"", "want a header"),
    ("a.csv", b"a,b\n1,2\n", "want a header"),
    ("a.csv", b"index,name\n0,cat\n0,dog\n", "class 0 has two names"),
    ("a.csv", b"index,name\n1,cat\n", "class 0 has no name"),
    ("a.csv", b"index,name\n0\n", "class 0 has no name"),
    ("a.csv", b'name\n"cat', "not a CSV"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_files_that_name_no_classes_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TargetError, match=message) as caught:
        load_labels(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_folders_and_large_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    for name, message in [("no.txt", "No such file"), ("folder.txt", "directory"), ("large.txt", "larger than")]:
        with pytest.raises(TargetError, match=message):
            load_labels(tmp_path / name)
    with pytest.raises(TargetError, match="null byte"):
        load_labels("a\x00.txt")


@pytest.mark.parametrize("source", [None, 3, {"0": "cat"}])
def test_what_is_no_source_of_labels_is_refused(source: Any) -> None:
    with pytest.raises(TargetError, match="or a list of names"):
        load_labels(source)


LABELS = [
    "tench, Tinca tinca",
    "crane",
    "Crane",
    "maillot",
    "maillot, tank suit",
    "black_bear",
    "7",
    "a, drake",
    "b, drake",
]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("tench, Tinca tinca", 0),
        ("TENCH, tinca  tinca", 0),
        ("tench", 0),
        ("tinca tinca", 0),
        ("crane", 1),
        ("Crane", 2),
        ("maillot", 3),  # the whole label wins over a synonym
        ("Maillot", 3),
        ("tank suit", 4),
        ("Black Bear", 5),
        ("7", 6),  # a label
        ("2", 2),  # an index
        (" 12 ", 12),  # out of range, which parse checks
    ],
)
def test_a_label_means_a_class(text: str, index: int) -> None:
    assert find_label(text, LABELS, len(LABELS)) == index


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CRANE", "fits 2 classes: 1 'crane', 2 'Crane'; give the index"),
        ("drake", "fits 2 classes: 7 'a, drake', 8 'b, drake'"),
        ("tanch", "near are 0 'tench, Tinca tinca'"),
        ("bear", "near are 5 'black_bear'"),
        ("", "there are 9 classes"),
        ("²", "there are 9 classes"),
    ],
)
def test_ambiguous_and_unknown_labels_name_candidates(text: str, message: str) -> None:
    with pytest.raises(TargetError) as caught:
        find_label(text, LABELS, len(LABELS))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [LABELS, list(LABELS), None])
@pytest.mark.parametrize("text", [*LABELS, "CRANE", "drake", "tanch", "", "²", "7", " 7 ", "99"])
def test_a_text_is_known_where_find_label_finds_something(text: str, labels: Sequence[str] | None) -> None:
    try:
        find_label(text, labels, len(LABELS))
        found = True
    except TargetError as error:
        found = "fits" in str(error)
    assert is_known(text, labels) == found


@pytest.mark.realdata
def test_imagenets_names_load_and_are_found(realdata: Path) -> None:
    labels = load_labels(realdata / "imagenet_classes.csv")
    assert len(labels) == 1000 and labels[0] == "tench, Tinca tinca"
    for text, index in [
        ("tiger cat", 282),
        ("tabby", 281),
        ("Tabby cat", 281),
        ("bull mastiff", 243),
        ("maillot", 638),
    ]:
        assert find_label(text, labels, 1000) == index, text
    with pytest.raises(TargetError, match="134 'crane', 517 'crane'"):
        find_label("crane", labels, 1000)
    with pytest.raises(TargetError, match="281 'tabby, tabby cat'"):
        find_label("taby", labels, 1000)
