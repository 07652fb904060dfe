"""Files of a data set: none outside its folder is ever named or opened."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from camrt.datasets.files import Files, MaskFiles, locate, pictures, read_text, relative_name, root_folder
from camrt.errors import ImageError, InputError
from tests.engine.datasets.made import palette, picture


def test_pictures_are_found_by_their_suffix_at_any_depth_in_order(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a.webp", "notes.txt", ".hidden/x.png", "b/.x.png", "b/c/3.jpeg"):
        picture(tmp_path / name)
    assert pictures(tmp_path) == ["a.webp", "b/1.png", "b/2.JPG", "b/c/3.jpeg"]


def test_a_link_to_a_folder_is_not_followed_without_a_word(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cats").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"'cats'.*links are not followed"):
        pictures(tmp_path / "set")


@pytest.mark.parametrize(
    "name",
    ["../a.png", "b/../../a.png", "/etc/passwd", "C:\\a.png", "\\\\host\\a.png", "b\\..\\..\\a", "", ".", "a\0b"],
)
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="row 3"):
        relative_name(name, "row 3")


def test_a_link_is_read_within_the_root_and_refused_beyond_it(tmp_path: Path) -> None:
    inside, outside = picture(tmp_path / "set" / "a.png"), picture(tmp_path / "set2" / "secret.png")
    (tmp_path / "set" / "near.png").symlink_to(inside)
    (tmp_path / "set" / "far.png").symlink_to(outside)
    root = str(tmp_path / "set")
    assert locate(root, "near.png") == os.path.realpath(inside)
    with pytest.raises(ImageError, match=r"'far\.png' is a link out of"):
        Files(root, ["far.png"]).reader(0)()


def test_an_absolute_path_is_taken_as_the_user_wrote_it(tmp_path: Path) -> None:
    path = picture(tmp_path / "else" / "a.png")
    files = Files(str(tmp_path / "root"), [str(path), "missing.png"])
    assert files.reader(0)() == str(path) and files.n_bytes(0) == path.stat().st_size and files.n_bytes(1) == -1


def test_a_mask_file_is_true_where_it_is_not_zero(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 255], [7, 0, 0]])
    palette(tmp_path / "m.png", numbers)
    masks = MaskFiles(str(tmp_path), ["m.png", ""])
    read = masks.mask(0)
    assert read is not None and masks.mask(1) is None
    np.testing.assert_array_equal(read(), numbers != 0)


def test_a_short_list_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    tracemalloc.start()
    try:
        assert read_text(tmp_path / "a.txt", "the list") == "text"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_text_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 3"):
        read_text(tmp_path / "latin.txt", "the list")
    with pytest.raises(InputError, match=r"cannot read the list .*No such file"):
        read_text(tmp_path / "none.txt", "the list")
    with pytest.raises(InputError, match="does not exist"):
        root_folder(tmp_path / "none", "a folder")
    with pytest.raises(InputError, match="is not a folder"):
        root_folder(tmp_path / "latin.txt", "a folder")
