"""Words of the command line become what the engine takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from camrt.arguments import find_pictures, read_ends, read_options, read_ways
from camrt.errors import ImageError, InputError, MethodError


def test_options_are_name_value_pairs() -> None:
    assert read_options(["n=10", " spread = 0.1 "]) == {"n": "10", "spread": "0.1"}
    assert read_options(None) == {}
    for bad in ("n", "=3", ""):
        with pytest.raises(MethodError, match="name=value"):
            read_options([bad])


def test_the_ends_of_a_model_are_read() -> None:
    assert read_ends(None, None, None, None) == {}
    assert read_ends("y", "x", ["gain=2", "age=[3, 4]", "flag=false"], "12,10") == {
        "output": "y", "input": "x", "fixed": {"gain": 2, "age": [3, 4], "flag": False}, "size": (12, 10),
    }  # fmt: skip
    assert read_ends(None, None, None, "224") == {"size": (224, 224)}
    for fixed, size in (
        (["gain"], None),
        (["=3"], None),
        (["gain=much"], None),
        (None, "0"),
        (None, "a,b"),
        (None, "1,2,3"),
    ):
        with pytest.raises(InputError, match=r"for example|JSON"):
            read_ends(None, None, fixed, size)


def test_how_tokens_lie_is_read() -> None:
    assert read_ends(None, None, None, None, "2,8", 1) == {"grid": (2, 8), "prefix": 1}
    assert read_ends(None, None, None, None, "4", 0) == {"grid": (4, 4), "prefix": 0}
    for bad in ("0,3", "2,8,1", "wide", ""):
        with pytest.raises(InputError, match="--grid h,w, for example --grid 14,14"):
            read_ends(None, None, None, None, bad)


def test_two_ways_of_running_a_model_are_read() -> None:
    assert read_ways(None, None, False, "cuda,cpu") == [("", "cuda,cpu", "float32")]
    assert read_ways(("float32", "float16"), None, False, "cpu") == [
        ("float32", "cpu", "float32"), ("float16", "cpu", "float16"),
    ]  # fmt: skip
    assert read_ways(None, ("cpu", "cuda"), False, "cpu") == [("cpu", "cpu", "float32"), ("cuda", "cuda", "float32")]
    assert read_ways(("float32", "bfloat16"), ("cpu", "openvino"), False, "cpu") == [
        ("cpu float32", "cpu", "float32"), ("openvino bfloat16", "openvino", "bfloat16"),
    ]  # fmt: skip
    assert read_ways(None, None, True, "cpu") == [("quantised", "cpu", "float32"), ("twin", "cpu", "twin")]
    for given in (
        (("float32", "float32"), None, False),
        (None, ("cpu", "cpu"), False),
        (("float16", "twin"), None, True),
    ):
        with pytest.raises(InputError, match=r"two different ways|give one of them"):
            read_ways(*given, "cpu")


def test_pictures_are_found_once_each_in_order(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "c.txt", "deep/d.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = find_pictures([str(tmp_path), str(tmp_path / "*.jpg"), str(tmp_path / "c.txt")])
    assert [p.name for p in found] == ["a.PNG", "b.jpg", "d.webp", "c.txt"]
    with pytest.raises(ImageError, match="nothing is there"):
        find_pictures([str(tmp_path / "*.gif")])
