"""The output folder; the oracles are the rows that were written, pyarrow's own reader, and the folder's content."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest

from camrt.errors import InputError, NumericError, OutputError
from camrt.shards import Run

SPEC = {"model": "a1", "methods": [{"name": "gradcam", "layer": "c4"}], "seed": 0}


def rows(pictures: range, methods: tuple[str, ...] = ("gradcam", "cam/b=1")) -> dict[str, dict[str, Any]]:
    """Return rows that can be recomputed from the index alone."""
    index = np.array(pictures)
    return {
        method: {
            "index": index,
            "name": [f"{i}.jpg" for i in pictures],
            "value": index / 7 + number,
            "value.curve": np.outer(index, [0.5, 1.0, 1.5]),
            "hit": index % 2 == 0,
        }
        for number, method in enumerate(methods)
    }


def filled(folder: Path, total: int = 10, shard_size: int = 4, shards: tuple[int, ...] | None = None) -> Run:
    """Return a run with every shard, or some, written."""
    run = Run.open(folder, SPEC, total, shard_size)
    for shard, pictures in enumerate(run.ranges):
        if shards is None or shard in shards:
            run.write(shard, rows(pictures))
    return run


def files(folder: Path) -> dict[str, bytes]:
    """Return every file by its path below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_written_is_read_back_in_order(tmp_path: Path) -> None:
    run = filled(tmp_path / "out")
    assert [list(pictures) for pictures in run.ranges] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert run.done() == [0, 1, 2] and run.missing() == [] and run.pictures_done() == 10
    table = run.table().to_pydict()
    assert table["index"] == [i for i in range(10) for _ in range(2)]
    assert table["method"] == ["cam/b=1", "gradcam"] * 10
    assert table["value"] == [i / 7 + n for i in range(10) for n in (1, 0)]
    assert table["value.curve"][7] == [1.5, 3.0, 4.5]
    assert run.methods == ["cam/b=1", "gradcam"]
    assert run.table(["hit"], "gradcam", [2]).to_pydict() == {
        "index": [8, 9],
        "method": ["gradcam"] * 2,
        "hit": [True, False],
    }
    types = dict(zip(run.schema().names, map(str, run.schema().types), strict=True))
    assert (types["value"], types["index"], types["hit"], types["name"]) == ("double", "int64", "bool", "string")
    assert types["value.curve"].startswith("list<") and "float" in types["value.curve"]


def test_any_reader_of_the_hive_layout_sees_shard_and_method(tmp_path: Path) -> None:
    run = filled(tmp_path / "out")
    (run.folder / "rows" / "shard=00001" / "_note.json").write_text("{}")
    table = pyarrow.dataset.dataset(run.folder / "rows", partitioning="hive").to_table().to_pydict()
    assert {*zip(table["shard"], table["method"], table["index"], strict=True)} == {
        (i // 4, method, i) for i in range(10) for method in ("gradcam", "cam/b=1")
    }


def test_shards_written_in_any_order_and_by_anyone_are_the_same_bytes(tmp_path: Path) -> None:
    run = filled(tmp_path / "a")
    other = Run.open(tmp_path / "b", SPEC, 10, 4)
    for shard in (2, 0, 1):
        shuffled = rows(other.ranges[shard])
        turned = {m: {n: v[::-1] for n, v in columns.items()} for m, columns in reversed(list(shuffled.items()))}
        assert Run.open(tmp_path / "b", SPEC, 10, 4).write(shard, turned)
    assert files(run.folder) == files(other.folder)


def test_the_first_complete_shard_stands(tmp_path: Path) -> None:
    run = filled(tmp_path / "out", shards=(0,))
    before = files(run.folder)
    assert run.write(0, {"gradcam": {"index": np.arange(4), "value": np.zeros(4)}}) is False
    assert files(run.folder) == before


def test_a_writer_that_is_overtaken_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, rename = Run.open(tmp_path / "out", SPEC, 10, 4), os.rename

    def late(part: Path, place: Path) -> None:
        monkeypatch.setattr("camrt.shards.os.rename", rename)
        assert run.write(0, rows(range(4)))  # sweeps the other's part as well
        rename(part, place)

    monkeypatch.setattr("camrt.shards.os.rename", late)
    assert run.write(0, rows(range(4), ("other",))) is False
    assert run.methods == ["cam/b=1", "gradcam"]
    assert list((run.folder / ".parts").iterdir()) == []


def test_parts_deal_every_shard_once(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "out", SPEC, 100, 7)
    parts = [run.missing((i, 4)) for i in range(4)]
    assert sorted(shard for part in parts for shard in part) == list(range(15))
    assert {len(part) for part in parts} == {3, 4}
    for part in ((4, 4), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match="part"):
            run.missing(part)


def test_an_open_run_is_continued_and_read_without_the_spec(tmp_path: Path) -> None:
    filled(tmp_path / "out", shards=(1,))
    assert Run.open(tmp_path / "out", json.loads(json.dumps(SPEC)), 10, 4).missing() == [0, 2]
    run = Run.load(tmp_path / "out")
    assert (run.spec, run.total, run.shard_size, run.done()) == (SPEC, 10, 4, [1])


@pytest.mark.parametrize(
    ("spec", "total", "told"),
    [
        ({**SPEC, "seed": 1}, 10, "seed is 0 there and 1 here"),
        ({**SPEC, "methods": [{"name": "gradcam", "layer": "c5"}]}, 10, 'methods.0.layer is "c4" there and "c5" here'),
        ({"model": "a1", "methods": SPEC["methods"]}, 10, "seed is 0 there and missing here"),
        (SPEC, 11, "total is 10 there and 11 here"),
        ({"a": 1, "b": 2}, 10, "2 more differ"),
    ],
)
def test_another_evaluation_is_refused_by_what_differs(tmp_path: Path, spec: Any, total: int, told: str) -> None:
    before = files(filled(tmp_path / "out", shards=(0,)).folder)
    with pytest.raises(OutputError, match="another evaluation") as caught:
        Run.open(tmp_path / "out", spec, total, 4)
    assert told in str(caught.value) and "another folder" in str(caught.value)
    assert files(tmp_path / "out") == before


def test_a_folder_that_is_no_run_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(OutputError, match="not empty"):
        Run.open(tmp_path, SPEC, 10, 4)
    assert files(tmp_path) == {"thesis.tex": b"all of it"}
    with pytest.raises(OutputError, match="no folder of an evaluation"):
        Run.load(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "spec.json").write_text('{"schema": "something/9"}')
    with pytest.raises(OutputError, match="something/9"):
        Run.open(tmp_path / "other", SPEC, 10, 4)


def test_an_empty_evaluation_is_refused(tmp_path: Path) -> None:
    for total, size in ((0, 4), (4, 0)):
        with pytest.raises(InputError, match="one at least"):
            Run.open(tmp_path / "out", SPEC, total, size)
    assert not (tmp_path / "out").exists()


def test_the_first_of_two_openers_names_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr("camrt.shards.os.link", link)
        Run.open(tmp_path / "out", {"seed": 1}, 10, 4)
        link(source, target)

    monkeypatch.setattr("camrt.shards.os.link", late)
    with pytest.raises(OutputError, match="seed is 1 there and 0 here"):
        Run.open(tmp_path / "out", SPEC, 10, 4)
    assert Run.load(tmp_path / "out").spec == {"seed": 1}


def test_a_file_system_without_links_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_source: Path, _target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("camrt.shards.os.link", none)
    assert Run.open(tmp_path / "out", SPEC, 10, 4).spec == SPEC


def test_what_dead_writers_left_is_removed_once_it_is_superfluous(tmp_path: Path) -> None:
    run = filled(tmp_path / "out", shards=(0,))
    for name in ("shard=00000.aa", "shard=00001.bb", "spec.json.cc"):
        (run.folder / ".parts" / name / "method=gradcam").mkdir(parents=True)
        (run.folder / ".parts" / name / "method=gradcam" / "rows.parquet").write_bytes(b"PAR1")
    assert Run.open(tmp_path / "out", SPEC, 10, 4).done() == [0]
    assert os.listdir(run.folder / ".parts") == ["shard=00001.bb"]  # it may be somebody's who is at work
    run.write(1, rows(range(4, 8)))
    assert os.listdir(run.folder / ".parts") == []


def test_problems_stand_beside_the_rows(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "out", SPEC, 10, 4)
    some = rows(range(4))
    some["gradcam"] = {name: values[1:] for name, values in some["gradcam"].items()}
    run.write(0, some, [{"index": 0, "method": "gradcam", "why": "flat"}])
    run.write(2, {}, [{"index": 9, "why": "not a picture"}, {"index": 8, "why": "empty file"}])
    assert [(p["index"], p["why"]) for p in run.problems()] == [(0, "flat"), (8, "empty file"), (9, "not a picture")]
    assert run.table(["index"]).num_rows == 7
    assert run.done() == [0, 2]


@pytest.mark.parametrize(
    ("index", "problems"),
    [([0, 1, 2], []), ([0, 1, 2, 2], []), ([1, 2, 3, 4], []), ([0, 1, 2, 3], [{"index": 3}]), ([], [])],
)
def test_no_picture_is_lost_or_counted_twice(tmp_path: Path, index: list[int], problems: list[dict[str, int]]) -> None:
    run = Run.open(tmp_path / "out", SPEC, 10, 4)
    with pytest.raises(InputError, match="one row or one problem"):
        run.write(0, {"gradcam": {"index": np.array(index, np.int64), "value": np.zeros(len(index))}}, problems)
    assert run.done() == [] and not (run.folder / "rows").exists()


def test_values_without_a_number_are_refused(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "out", SPEC, 10, 4)
    for bad in (np.nan, np.inf):
        with pytest.raises(NumericError, match="'value'"):
            run.write(0, {"gradcam": {"index": np.arange(4), "value": np.array([0, 1, bad, 2])}})
    assert run.done() == []


@pytest.mark.parametrize("damage", ["shorter", "longer", "footer", "gone", "manifest"])
def test_a_damaged_shard_is_named_when_the_run_is_opened(tmp_path: Path, damage: str) -> None:
    run = filled(tmp_path / "out")
    shard = run.folder / "rows" / "shard=00001"
    path = shard / "method=gradcam" / "rows.parquet"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "manifest":
        path = shard / "_shard.json"
        path.write_bytes(b"{")
    else:
        path.write_bytes(
            {"shorter": data[:-20], "longer": data + b"x", "footer": data[:-30] + b"?" + data[-29:]}[damage]
        )
    for again in (lambda: Run.load(run.folder), lambda: Run.open(run.folder, SPEC, 10, 4), run.table):
        with pytest.raises(OutputError, match="damaged") as caught:
            again()
        assert str(path) in str(caught.value) and f"delete the folder {str(shard)!r}" in str(caught.value)
    for file in files(shard):
        (shard / file).unlink()
    for folder in sorted(shard.rglob("*"), reverse=True):
        folder.rmdir()
    shard.rmdir()
    again_run = Run.open(run.folder, SPEC, 10, 4)
    assert again_run.missing() == [1]


def test_a_page_that_rotted_is_named_when_it_is_read(tmp_path: Path) -> None:
    run = filled(tmp_path / "out")
    path = run.folder / "rows" / "shard=00002" / "method=gradcam" / "rows.parquet"
    data = path.read_bytes()
    whole, said = run.table(), 0
    for place in range(4, len(data) // 2, 9):  # pages, behind the magic number
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            assert run.table().equals(whole), place
        except OutputError as error:
            said += 1
            assert str(path) in str(error)
    assert said > 10


def full(_path: Path, _data: bytes) -> int:
    """Write nothing."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_shards_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = filled(tmp_path / "out", shards=(0,))
    before = files(run.folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left") as caught:
            run.write(1, rows(range(4, 8)))
        assert "shard 1" in str(caught.value) and "make room" in str(caught.value)
        with pytest.raises(OutputError, match="No space left"):
            Run.open(tmp_path / "new", SPEC, 10, 4)
    assert files(run.folder) == before and os.listdir(run.folder / ".parts") == []
    assert run.write(1, rows(range(4, 8)))


CRAMPED = """
import resource, sys, numpy as np
from camrt.shards import Run
run = Run.open(sys.argv[1], {"model": "a1"}, 8, 4)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
run.write(0, {"gradcam": {"index": np.arange(4), "value": np.arange(4.0)}})
run.write(1, {"gradcam": {"index": np.arange(4, 8), "value.curve": np.random.default_rng(0).random((4, 999))}})
"""


def test_a_write_that_the_system_cuts_off_leaves_no_part(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", CRAMPED, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert "OutputError: cannot write shard 1" in told.stderr and "File too large" in told.stderr
    run = Run.load(tmp_path / "out")
    assert run.done() == [0] and run.table(["value"])["value"].to_pylist() == [0.0, 1.0, 2.0, 3.0]
    assert os.listdir(run.folder / ".parts") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """Return a file system of 256 kB; skip where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_really_full_leaves_whole_shards(small_disk: Path, rng: np.random.Generator) -> None:
    run = Run.open(small_disk / "out", SPEC, 4000, 4)
    with pytest.raises(OutputError, match="No space left"):
        for shard, pictures in enumerate(run.ranges):
            run.write(shard, {"gradcam": {"index": np.array(pictures), "c": rng.random((4, 500))}})
    run = Run.load(run.folder)
    assert run.done() == list(range(len(run.done()))) and len(run.done()) > 2
    assert run.table()["index"].to_pylist() == list(range(4 * len(run.done())))
    assert os.listdir(run.folder / ".parts") == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write in"):
        Run.open(tmp_path / "file" / "out", SPEC, 10, 4)
    if Path("/proc/self").is_dir():
        with pytest.raises(OutputError, match="cannot write in"):
            Run.open("/proc/self/out", SPEC, 10, 4)


def test_a_read_only_folder_is_refused_before_work_and_read_when_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "some", shards=(0,))
    filled(tmp_path / "all")

    def read_only(_path: Path, *_args: Any, **_keywords: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OutputError, match="Read-only file system"):
        Run.open(tmp_path / "some", SPEC, 10, 4)
    assert Run.open(tmp_path / "all", SPEC, 10, 4).table().num_rows == 20


def test_a_column_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'valve'; choose from .*value"):
        filled(tmp_path / "out").table(["valve"])


def test_a_column_that_one_method_lacks_is_null_there(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "out", SPEC, 2, 2)
    run.write(0, {"b": {"index": [0, 1], "x": [1.0, None]}, "a": {"index": [0, 1], "y": [3, 4]}})
    assert run.table(["y", "x"]).to_pydict() == {
        "index": [0, 0, 1, 1],
        "method": ["a", "b", "a", "b"],
        "y": [3, None, 4, None],
        "x": [None, 1.0, None, None],
    }
    assert run.schema("a").names == ["index", "y"]
