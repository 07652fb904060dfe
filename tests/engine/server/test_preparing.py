"""Raw models become bundles elsewhere: what comes of it, and every way in which that can fail."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camrt import load
from camrt.errors import BundleError, InputError, ModelError, NumericError
from camrt.server import preparing
from camrt.server.preparing import prepare
from camrt.server.repository import Entry, find, scan
from camrt.server.settings import Settings
from camrt.server.trust import check_bundle
from tests import tiny


@pytest.fixture
def raw(tmp_path: Path) -> Entry:
    """Return a raw model in a repository."""
    folder = tmp_path / "repo" / "tiny" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(tiny.mlp())
    return find(tmp_path / "repo", "tiny")


def settings(raw: Entry, **more: Any) -> Settings:
    """Return settings of its repository."""
    return Settings(repository=raw.folder.parents[1], prepare=True, **more)


def prepared(raw: Entry, settings: Settings, stop: threading.Event | None = None) -> Path:
    """Return the bundle of a raw model, which is not held any more."""
    with prepare(raw, settings, stop) as folder:
        return folder


def stand_in(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shell script run in the place of Python, in the folder that the bundle is to be written to."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def left_behind(raw: Entry) -> list[str]:
    """Return what lies beside the version."""
    return sorted(path.name for path in raw.folder.parent.iterdir() if path != raw.folder)


def lives(process: str) -> bool:
    """Tell whether a process runs, or may run again."""
    try:
        return ") Z " not in (Path("/proc") / process / "stat").read_text()
    except OSError:
        return False


def test_a_raw_model_becomes_a_bundle_that_may_be_served(
    raw: Entry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (raw.folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    (raw.folder / "preprocess.json").write_text(json.dumps({"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}))
    folder = prepared(raw, settings(raw))
    explainer = load(check_bundle(folder, raw.folder.parents[1]))
    direct = load(raw.folder / "model.onnx", labels=list("abcde"), preprocess={"mean": [0.5] * 3, "std": [0.25] * 3})
    assert (explainer.labels, explainer.preprocess) == (direct.labels, direct.preprocess)
    x = tiny.images()
    np.testing.assert_allclose(explainer.explain(x).heatmaps, direct.explain(x).heatmaps, atol=1e-5)
    assert left_behind(raw) == [folder.name] and folder.name.startswith(".")
    assert len(scan(raw.folder.parents[1])[0]) == 1  # the prepared bundle is no version of its own

    stand_in(tmp_path, "exit 9", monkeypatch)
    assert prepared(raw, settings(raw)) == folder  # made once
    (raw.folder / "labels.txt").write_text("A\nb\nc\nd\ne\n")
    with pytest.raises(ModelError):  # made of something else: made again
        prepared(raw, settings(raw))


def test_bundles_go_to_the_cache(raw: Entry, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    folder = prepared(raw, settings(raw, cache=cache))
    assert folder.parent == cache and left_behind(raw) == []
    check_bundle(folder, cache)
    if os.name == "posix":
        assert cache.stat().st_mode & 0o777 == 0o700


def test_a_model_that_cannot_be_explained_says_why(raw: Entry) -> None:
    (raw.folder / "model.onnx").write_bytes(tiny.mlp()[:2000])
    with pytest.raises(ModelError, match=r"^'model\.onnx' is not an ONNX model \(or is cut short\)"):
        prepared(raw, settings(raw))
    assert left_behind(raw) == []


def test_it_may_use_so_much_memory(raw: Entry) -> None:
    with pytest.raises(ModelError, match="more than 41943040 bytes"):
        prepared(raw, settings(raw, prepare_memory="40MB"))
    assert left_behind(raw) == []


def test_it_may_take_so_long(raw: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, f"(sleep 600 & echo $! > {tmp_path}/child; wait)", monkeypatch)
    with pytest.raises(ModelError, match=r"longer than 0\.5 s"):
        prepared(raw, settings(raw, prepare_seconds=0.5))
    if (tmp_path / "child").is_file():  # what it started is gone with it
        child = (tmp_path / "child").read_text().strip()
        pause = threading.Event()
        assert any(not lives(child) or pause.wait(0.01) for _ in range(6000))  # the signal is on its way
    assert left_behind(raw) == []


def test_nobody_waits_for_it_any_more(raw: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    stop.set()
    stand_in(tmp_path, "exec sleep 600", monkeypatch)
    with pytest.raises(ModelError, match="the server stopped"):
        prepared(raw, settings(raw), stop)
    assert left_behind(raw) == []


@pytest.mark.parametrize(("script", "reason"), [("kill -SEGV $$", r"crashed \(SIGSEGV\)"), ("exit 3", "failed")])
def test_it_may_crash(raw: Entry, tmp_path: Path, script: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, script, monkeypatch)
    with pytest.raises(ModelError, match=reason):
        prepared(raw, settings(raw))
    assert left_behind(raw) == []


def test_it_inherits_no_secrets(raw: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMRT_ADMIN_KEYS", '["hush-hush-hush-hush"]')
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    stand_in(tmp_path, f"env > {tmp_path}/seen; exit 3", monkeypatch)
    with pytest.raises(ModelError):
        prepared(raw, settings(raw))
    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen and "hush" not in seen and "CAMRT" not in seen


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list a process' descriptors")
def test_it_holds_its_folder_so_that_nobody_sweeps_it_away(
    raw: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, f"readlink /proc/self/fd/* > {tmp_path}/seen; exit 3", monkeypatch)
    with pytest.raises(ModelError):
        prepared(raw, settings(raw))
    assert str(raw.folder.parent / ".preparing-") in (tmp_path / "seen").read_text()


def test_only_what_belongs_to_a_raw_model_is_taken(raw: Entry, tmp_path: Path) -> None:
    (raw.folder / "run.py").touch()
    with pytest.raises(BundleError, match=r"'run\.py' does not belong"):
        prepared(raw, settings(raw))
    (raw.folder / "run.py").unlink()
    shutil.move(raw.folder / "model.onnx", tmp_path / "model.onnx")
    (raw.folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="not a regular file"):
        prepared(raw, settings(raw))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"mean": "x"}'])
def test_preprocessing_that_cannot_be_read(raw: Entry, text: str) -> None:
    folder = raw.folder
    (folder / "preprocess.json").write_text(text)
    with pytest.raises(InputError) as caught:
        preparing._export(lambda *given, **more: pytest.fail("it was exported"), folder, folder / "out")
    assert "\n" not in str(caught.value)


def test_reasons_name_memory_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_peak", lambda: 0)
    assert preparing._reason(MemoryError(), 7) == preparing._reason(RuntimeError("std::bad_alloc"), 7)
    assert preparing._reason(NumericError("a\nb"), 7) == "a b"
    assert preparing._reason(KeyError("/secret"), 7) == "it cannot be prepared (KeyError)"
    monkeypatch.setattr(preparing, "_peak", lambda: 6)
    assert "more than 7 bytes" in preparing._reason(ModelError("cut short"), 7)
