"""Files appear whole or not at all; the oracle is the folder's content afterwards."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from camrt.atomic import write_bytes
from camrt.errors import OutputError


def test_the_bytes_arrive_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "new" / "deep" / "a.bin", b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert list(path.parent.iterdir()) == [path]


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a much longer old content")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_the_longest_name_the_file_system_takes_is_written(tmp_path: Path) -> None:
    assert write_bytes(tmp_path / ("n" * 255), b"x").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["n" * 256, "null\x00byte", "file/below", "folder"])
def test_a_path_that_cannot_be_a_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write") as caught:
        write_bytes(tmp_path / name, b"data")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def full(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("camrt.atomic.os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_bytes(target, b"new")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == b"old"


def test_an_interruption_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_source: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("camrt.atomic.os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_bytes(tmp_path / "a", b"new")
    tmp_path.chmod(0o700)


def test_a_device_without_room_is_refused() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a read-only file system; /proc is one")
    with pytest.raises(OutputError, match="cannot write"):
        write_bytes("/proc/self/camrt-test", b"new")


def test_readers_see_old_or_new_content_never_a_part(tmp_path: Path) -> None:
    path, old, new = tmp_path / "a", b"o" * 1_000_000, b"n" * 1_000_000
    write_bytes(path, old)
    seen: set[bytes] = set()

    def read() -> None:
        for _ in range(50):
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        write_bytes(path, new)
        write_bytes(path, old)
    reader.join()
    assert seen <= {old, new}
