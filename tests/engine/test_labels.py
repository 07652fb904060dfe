"""Files of names in every usual form, and the class a name means."""

from __future__ import annotations

import difflib
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from camrt.errors import TargetError
from camrt.labels import COMPARED, MAX_BYTES, find_label, is_known, load_labels

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


def many(count: int) -> list[str]:
    """Return as many names as a large data set has, of one to three made-up words."""
    rng = random.Random(0)
    words = ["".join(rng.choices("aeioubcdfglmnprst", k=rng.randint(3, 8))) for _ in range(1500)]
    return list(dict.fromkeys(" ".join(rng.choices(words, k=rng.randint(1, 3))) for _ in range(2 * count)))[:count]


def misspelt(name: str, rng: random.Random) -> str:
    """Return a name with one letter more, one less or another one."""
    place, letter = rng.randrange(len(name)), rng.choice("aeiouxyz")
    return rng.choice(
        [name[:place] + letter + name[place + rest :] for rest in (0, 1)] + [name[:place] + name[place + 1 :]]
    )


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what will hold the names that are compared letter by letter."""
    seen: list[str] = []
    first = difflib.SequenceMatcher.real_quick_ratio

    def noted(matcher: difflib.SequenceMatcher[str]) -> float:
        seen.append(str(matcher.a))
        return first(matcher)

    monkeypatch.setattr(difflib.SequenceMatcher, "real_quick_ratio", noted)
    return seen


def offered(text: str, labels: Sequence[str]) -> list[str]:
    """Return the names that are offered for one that is unknown."""
    with pytest.raises(TargetError) as caught:
        find_label(text, labels, len(labels))
    return re.findall(r"\d+ '([^']*)'", str(caught.value).partition("near are")[2])


def test_near_names_are_those_of_a_search_through_all_of_them() -> None:
    labels, rng = many(COMPARED), random.Random(1)
    for name in rng.sample(labels, 20):
        text = misspelt(misspelt(name, rng), rng)
        if text not in labels:
            assert offered(text, labels) == difflib.get_close_matches(text, labels, n=3), text


@pytest.mark.parametrize("wanted", ["abcdef", "abcdefg", "abcdefghij"])
def test_names_of_the_outermost_lengths_are_offered(wanted: str) -> None:
    """All letters of the shorter one match, so nothing but the lengths decides: of 7 letters 3 are near, and of 3 seven."""
    shorter = [wanted[:length] for length in range(1, len(wanted))]
    longer = [wanted[0] + "#" * count + wanted[1:] for count in range(1, 2 * len(wanted))]
    near = [label for label in (*shorter, *longer) if offered(wanted, [label, "%"])]
    lengths = [len(label) for label in near]
    assert (min(lengths), max(lengths)) == (math.ceil(3 * len(wanted) / 7), math.floor(7 * len(wanted) / 3))
    assert near == [label for label in (*shorter, *longer) if difflib.get_close_matches(wanted, [label])]


def test_an_unknown_name_among_very_many_is_compared_with_few_and_its_near_one_is_found(compared: list[str]) -> None:
    labels, rng = many(21_000), random.Random(2)
    assert len(labels) == 21_000
    for name in rng.sample([name for name in labels if len(name) > 4], 20):
        text = misspelt(name, rng)
        if text in labels:
            continue
        compared.clear()
        assert name in offered(text, labels), text
        assert 0 < len(compared) <= COMPARED
    compared.clear()
    assert offered("x" * 200_000, labels) == [] and compared == []  # nothing is nearly as long


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
