"""Class maps: every way to say which class a name is, and every way to fail to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camrt.datasets.classmap import class_indices, label_columns
from camrt.errors import TargetError

MODEL = ["tench, Tinca tinca", "crane", "tabby, tabby cat", "crane"]  # as in ImageNet, two classes share a name


def test_names_mean_the_models_by_whole_name_synonym_or_number() -> None:
    assert class_indices(["Tabby_cat", "tench, tinca tinca", "3"], MODEL) == {
        "Tabby_cat": 2,
        "tench, tinca tinca": 0,
        "3": 3,
    }


def test_a_name_of_two_classes_is_none_of_them() -> None:
    with pytest.raises(TargetError, match=r"2 of 3 classes .* or several: 'crane', 'dog'"):
        class_indices(["crane", "dog", "tench"], MODEL)


def test_a_name_is_matched_loosely_only_where_that_is_one_class() -> None:
    assert class_indices(["Tiger-Cat"], {"tiger_cat": 4}) == {"Tiger-Cat": 4}
    with pytest.raises(TargetError, match="or several: 'tigercat'"):
        class_indices(["tigercat"], {"tiger cat": 4, "tiger-cat": 5})


def test_without_a_map_numbers_are_indices_and_names_are_asked_about() -> None:
    assert class_indices(["7", "12"]) == {"7": 7, "12": 12}
    with pytest.raises(TargetError, match=r"which classes of the model are 'cat', 'dog'\?"):
        class_indices(["dog", "cat"])


def test_all_of_imagenets_ids_are_in_sorted_order_and_fewer_are_not_guessed() -> None:
    ids = [f"n{number:08d}" for number in np.random.default_rng(0).permutation(2000)[:1000]]
    assert class_indices(ids) == {name: place for place, name in enumerate(sorted(ids))}
    assert class_indices(ids, [f"name {number}" for number in range(1000)]) == class_indices(ids)
    assert class_indices(ids, dict.fromkeys(ids, 7)) == dict.fromkeys(sorted(ids), 7)
    with pytest.raises(TargetError, match="which classes"):
        class_indices(ids[:999])


def test_a_map_says_what_numbers_mean_and_other_numbers_mean_nothing() -> None:
    assert class_indices(["0"], {"0": 281}) == {"0": 281}
    with pytest.raises(TargetError, match=r"1 of 2 classes .*'1'"):
        class_indices(["0", "1"], {"0": 281})


def test_sorted_is_alphabetical_and_an_order_is_kept() -> None:
    assert class_indices(["dog", "ant", "cat"], "sorted") == {"ant": 0, "cat": 1, "dog": 2}
    assert class_indices(["dog"], order=["dog", "ant"]) == {"dog": 0}
    with pytest.raises(TargetError, match="'bee'"):
        class_indices(["bee"], order=["dog", "ant"])


FILES: list[tuple[str, str]] = [
    ("a.csv", 'index,wnid,names\n0,n01440764,"tench, Tinca tinca"\n5,n02123045,"tabby, tabby cat"\n'),
    ("h.csv", "index,wnid,names,count,n02123045\n0,n01440764,tench,5,9\n5,n02123045,tabby,0,n01440764\n"),
    ("b.csv", "class,index\nn01440764,0\nn02123045,5\n"),
    ("c.json", '{"n01440764": 0, "n02123045": 5}'),
    ("d.json", '{"0": ["n01440764", "tench"], "5": ["n02123045", "tabby"]}'),
    ("e.txt", "n01440764 tench\nn1 a\nn2 b\nn3 c\nn4 d\nn02123045 tabby\n"),
    ("f.txt", "n01440764\nn00000001\nn00000002\nn00000003\nn00000004\nn02123045\n"),
    ("g.json", '["n01440764", "a", "b", "c", "d", "n02123045"]'),
]


@pytest.mark.parametrize(("name", "content"), FILES)
def test_every_form_of_a_file_gives_the_same_map(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert class_indices(["n02123045", "n01440764"], tmp_path / name) == {"n01440764": 0, "n02123045": 5}


def test_a_class_may_be_left_out_on_purpose(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("class,index\ncat,3\nperson,\n")
    for labels in ({"cat": 3, "person": None}, tmp_path / "m.csv"):
        indices = class_indices(["person", "cat"], labels)
        assert indices == {"cat": 3, "person": None}
    classes, names, stay = label_columns(["person", None, "cat"], indices)
    assert classes.tolist() == [-1, -1, 3] and names == {3: "cat"} and stay.tolist() == [False, True, True]


BAD: list[tuple[Any, str]] = [
    ({"cat": -1}, "index from 0"),
    ({"cat": "x"}, "index from 0"),
    ({"cat": True}, "index from 0"),
    ({"cat": 2**31}, "index from 0"),
    ({"dog": 1}, "'cat'"),
    (3, "int"),
    ("classes.yaml", ".csv, .json or .txt"),
]


@pytest.mark.parametrize(("labels", "message"), BAD)
def test_a_map_that_is_none_says_what_was_wanted(labels: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        class_indices(["cat"], labels)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[1]", "want a list of names"),
        ("a.json", "{", "not JSON"),
        ("a.json", json.dumps({"x": "cat"}), "class indices from 0"),
        ("a.csv", "class,number\ncat,1\n", "want a column of indices"),
        ("a.csv", "index,count\n1,5\n", r"and one of names .*; got index, count"),
        ("a.csv", "class,index\ncat,one\n", "class indices from 0"),
        ("a.txt", "cat\n\ndog\n", "none empty"),
    ],
)
def test_a_file_that_is_no_map_says_what_was_wanted(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TargetError, match=message):
        class_indices(["cat"], tmp_path / name)
