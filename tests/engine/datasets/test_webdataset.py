"""Tar shards: samples by key, members by offset, and archives that are refused."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from camrt.datasets.webdataset import find_shards, webdataset
from camrt.errors import ImageError, InputError
from tests.engine.datasets.made import content


def write(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    """Write a shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_members_of_a_key_are_one_sample_and_bytes_come_back(tmp_path: Path) -> None:
    pictures = [content(colour=10), content(colour=20, form="JPEG"), content(colour=30)]
    note = json.dumps({"label": 9, "boxes": [[0, 0, 2.5, 3]]}).encode()
    write(
        tmp_path / "a-000.tar",
        [
            ("x/1.png", pictures[0]),
            ("x/1.cls", b"4\n"),
            ("x/1.json", note),
            ("x/2.cls", b"5"),
            ("x/2.JPG", pictures[1]),
        ],
    )
    write(
        tmp_path / "a-001.tar", [("x/3.json", note), ("x/3.seg.png", b"?"), ("x/3.png", pictures[2]), ("4.cls", b"1")]
    )
    data = webdataset(str(tmp_path / "a-{000..001}.tar"))
    assert [(sample.id, sample.label) for sample in data] == [("x/1", 4), ("x/2", 5), ("x/3", 9)]
    assert [sample.read() for sample in data] == pictures
    assert [None if sample.boxes is None else sample.boxes.tolist() for sample in data] == [
        [[0, 0, 2.5, 3]],
        None,
        [[0, 0, 2.5, 3]],
    ]
    there = pickle.loads(pickle.dumps(data))
    assert there[2].read() == pictures[2] and there.fingerprint == data.fingerprint


def test_class_names_go_through_the_map(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [("1.png", content()), ("1.cls", b"tabby"), ("2.png", content()), ("2.cls", b"none")])
    labels = {"tabby": 281, "none": None}
    assert [(sample.id, sample.label) for sample in webdataset(tmp_path / "a.tar", labels=labels)] == [("1", 281)]


def test_shards_are_found_by_folder_pattern_and_list(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"s-{n:02d}.tar", [(f"{n}.png", content())])) for n in range(3)]
    for spec in (
        tmp_path,
        str(tmp_path / "s-*.tar"),
        str(tmp_path / "s-{00..02}.tar"),
        str(tmp_path / "s-0{0,1,2}.tar"),
    ):
        assert find_shards(spec) == paths
    assert find_shards(list(reversed(paths))) == paths[::-1]
    with pytest.raises(InputError, match=r"there is no shard .*s-03\.tar"):
        find_shards(str(tmp_path / "s-{00..03}.tar"))
    with pytest.raises(InputError, match=r"no \.tar file lies in"):
        (tmp_path / "empty").mkdir()
        find_shards(tmp_path / "empty")
    with pytest.raises(InputError, match="more than 100,000"):
        find_shards("s-{0..999999999}.tar")


def link(path: Path, kind: bytes) -> Path:
    """Write a shard with a picture that is a link."""
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("1.png")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    return path


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(InputError, match=r"member '1\.png' is a link, device or sparse file"):
        webdataset(link(tmp_path / "a.tar", kind))


BAD: list[tuple[list[tuple[str, bytes]], str]] = [
    ([("../1.png", b"x")], "leads out"),
    ([("a/../../1.png", b"x")], "leads out"),
    ([("/etc/1.png", b"x")], "absolute path"),
    ([("1.png", b"x"), ("1.jpg", b"x")], "key '1' has two pictures"),
    ([("1.cls", b"1")], "no picture is in"),
    ([], "no picture is in"),
    ([("1.png", b"x"), ("1.cls", b"1" * 1_000_001)], "larger than 1000000 bytes"),
    ([("1.png", b"x"), ("1.cls", b"\xff")], "cannot index the shard"),
    ([("1.png", b"x"), ("1.json", b"{")], "cannot index the shard"),
    ([("1.png", b"x"), ("1.json", b"[]")], "must hold an object; got list"),
    ([("1.png", b"x"), ("1.json", b'{"label": [1]}')], "must be a number or a text"),
    ([("1.png", b"x"), ("1.json", b'{"boxes": [[1, 2]]}')], "lists of x0, y0, x1, y1"),
    ([("1.png", b"x"), ("1.json", b'{"boxes": [[1, 2, 3, 1%s]]}' % (b"0" * 400))], "lists of x0, y0, x1, y1"),
    ([("1.png", b"x"), ("1.json", b"[" * 100_000)], "cannot index the shard"),
]


@pytest.mark.parametrize(("members", "message"), BAD)
def test_other_archives_say_what_is_wrong(tmp_path: Path, members: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        webdataset(write(tmp_path / "a.tar", members))


def test_a_header_of_negative_size_ends_the_walk(tmp_path: Path) -> None:
    """A size of -512 leads from behind the header, which has 512 bytes, to its beginning, again and again."""
    info = tarfile.TarInfo("1.txt")
    info.size = -512
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(InputError, match="negative size"):
        webdataset(tmp_path / "a.tar")


def test_the_same_key_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.tar", [("1.png", content())])
    with pytest.raises(InputError, match="same id '1'"):
        webdataset(tmp_path)


def test_headers_are_let_go_while_they_are_walked(tmp_path: Path) -> None:
    count = 2000
    path = write(tmp_path / "a.tar", [(f"{number}.png", b"x") for number in range(count)])
    tracemalloc.start()
    try:
        assert len(webdataset(path)) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500 * count


def test_compressed_cut_and_other_files_are_no_shards(tmp_path: Path) -> None:
    zipped = write(tmp_path / "z.tar", [("1.png", content())], "w:gz")
    cut = write(tmp_path / "c.tar", [("1.png", content()), ("2.png", bytes(5000))])
    cut.write_bytes(cut.read_bytes()[:3000])
    (tmp_path / "t.tar").write_bytes(b"text" * 1000)
    for path in (zipped, cut, tmp_path / "t.tar"):
        with pytest.raises(InputError, match="cannot be read as an uncompressed tar"):
            webdataset(path)


def test_a_shard_cut_after_indexing_is_a_broken_picture(tmp_path: Path) -> None:
    data = webdataset(write(tmp_path / "a.tar", [("1.png", content())]))
    (tmp_path / "a.tar").write_bytes(bytes(520))
    with pytest.raises(ImageError, match="ends within a picture"):
        data[0].read()
    (tmp_path / "a.tar").unlink()
    with pytest.raises(ImageError, match="cannot read"):
        data[0].read()
