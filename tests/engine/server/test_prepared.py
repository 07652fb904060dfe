"""Bundles of raw models: named after their source, held by whoever needs them, swept away when nobody does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from camrt.errors import BundleError, ModelError
from camrt.server import prepared as module
from camrt.server import preparing
from camrt.server.faults import UnsupportedError
from camrt.server.prepared import hold, place_of, scratch, sweep
from camrt.server.preparing import prepare
from camrt.server.repository import Entry, find
from camrt.server.settings import Settings

PATIENCE = 60  # seconds; whatever takes longer has failed
HOLDER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(descriptor, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["beside", "cache"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Return settings of a repository with two raw models, whose bundles lie beside them, or in a cache."""
    for name in ("m", "m-1"):  # names that a careless reader of a cache mixes up
        for version in ("1", "2"):
            write(tmp_path / "repo" / name / version, f"{name} {version}")
    cache = tmp_path / "cache" if request.param == "cache" else None
    return Settings(repository=tmp_path / "repo", prepare=True, cache=cache)


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bundles be made at once, of nothing but a note of their source."""

    def run(folder: Path, out: Path, *_: object) -> None:
        (out / "bundle").mkdir()
        shutil.copy(folder / "model.onnx", out / "bundle" / "manifest.json")

    monkeypatch.setattr(preparing, "_run", run)


def write(folder: Path, content: str) -> None:
    """Write what stands for a raw model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_text(content)


def entry(settings: Settings, name: str = "m", version: str = "1") -> Entry:
    """Return a version that holds a raw model."""
    assert settings.repository is not None
    return find(settings.repository, name, version)


def made(settings: Settings, name: str = "m", version: str = "1") -> Path:
    """Return a bundle that nobody holds."""
    with prepare(entry(settings, name, version), settings) as folder:
        return folder


def place(settings: Settings) -> Path:
    """Return where the first model's bundles lie."""
    assert settings.repository is not None
    return settings.cache or settings.repository / "m"


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold a folder."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


# names ------------------------------------------------------------------------------------------------------------


def test_a_bundle_is_named_after_all_that_it_is_made_of(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    one, names = entry(settings), set[str]()
    names.add(place_of(one, settings).name)
    assert place_of(one, settings).parent == place(settings)
    (one.folder / ".hidden").touch()  # not of the model
    assert {place_of(one, settings).name} == names
    for name, content in [
        ("model.onnx", "x"), ("model.onnx.data", "x"), ("labels.txt", "x"), ("labels.txt", "y"), ("preprocess.json", "x"),
    ]:  # fmt: skip
        (one.folder / name).write_text(content)
        assert place_of(one, settings).name not in names
        names.add(place_of(one, settings).name)
    monkeypatch.setattr(module, "version", lambda _: "0.0.0")  # and by which camrt
    names.add(place_of(one, settings).name)
    assert len(names) == 7
    kinds = {name.rpartition("-")[0] for name in names}
    assert kinds == {".prepared-1"} if settings.cache is None else {"m-1"}


def test_what_is_no_raw_model_gets_no_name(settings: Settings) -> None:
    (entry(settings).folder / "run.py").touch()
    with pytest.raises(BundleError, match=r"'run\.py' does not belong"):
        place_of(entry(settings), settings)


# holding ----------------------------------------------------------------------------------------------------------


def test_what_is_not_there_cannot_be_held_nor_what_a_link_leads_to(tmp_path: Path) -> None:
    assert hold(tmp_path / "absent") is None
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="Not a directory"):
        hold(tmp_path / "link")


def test_a_system_without_such_locks_prepares_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_DIRECTORY")
    with pytest.raises(UnsupportedError, match="export the model elsewhere"):
        made(settings)


def test_many_may_hold_a_folder_and_a_descriptor_belongs_to_no_child(tmp_path: Path) -> None:
    descriptors = [hold(tmp_path) for _ in range(3)]
    for descriptor in descriptors:
        assert descriptor is not None and not os.get_inheritable(descriptor)
        os.close(descriptor)


def test_a_folder_that_was_swept_away_while_it_was_opened_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, folder, made_again = module._lock, tmp_path / "bundle", [True, False]
    folder.mkdir()

    def slow(descriptor: int, *, alone: bool) -> None:
        lock(descriptor, alone=alone)
        folder.rename(tmp_path / "gone")
        if made_again.pop(0):
            folder.mkdir()

    monkeypatch.setattr(module, "_lock", slow)
    opened = Path("/proc/self/fd")
    for _ in range(2):
        before = len(os.listdir(opened)) if opened.is_dir() else 0
        assert hold(folder) is None
        shutil.rmtree(tmp_path / "gone")
        assert not before or len(os.listdir(opened)) == before  # and no descriptor is left


def test_a_scratch_folder_that_is_swept_away_at_once_is_made_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_first: list[Path] = []

    def first_gone(folder: Path) -> int | None:
        if not made_first:
            made_first.append(folder)
            sweep(settings)
        return hold(folder)

    monkeypatch.setattr(module, "hold", first_gone)
    with scratch(place(settings)) as (folder, _):
        assert folder.is_dir() and made_first != [folder] and not made_first[0].exists()
    assert not folder.exists()


# sweeping ---------------------------------------------------------------------------------------------------------


def test_bundles_of_what_is_there_stay(settings: Settings) -> None:
    folders = [made(settings, name, version) for name in ("m", "m-1") for version in ("1", "2")]
    sweep(settings)
    sweep(settings, "m")
    assert len(set(folders)) == 4 and all((folder / "manifest.json").is_file() for folder in folders)


def test_bundles_whose_source_has_changed_or_gone_are_removed_and_no_others(settings: Settings) -> None:
    folders = {(name, version): made(settings, name, version) for name in ("m", "m-1") for version in ("1", "2")}
    write(entry(settings, "m", "1").folder, "changed")
    shutil.rmtree(entry(settings, "m", "2").folder)
    (entry(settings, "m-1", "2").folder / "manifest.json").touch()  # a bundle lies there now
    sweep(settings, "m")
    assert {key for key, folder in folders.items() if folder.exists()} == {("m-1", "1"), ("m-1", "2")}
    again = made(settings, "m", "1")
    sweep(settings)
    assert {key for key, folder in folders.items() if folder.exists()} == {("m-1", "1")} and again.exists()
    assert not list(place(settings).glob(".preparing-*"))


def test_the_last_version_that_goes_takes_its_bundle_along(settings: Settings) -> None:
    folder = made(settings)
    for version in ("1", "2"):
        shutil.rmtree(entry(settings, "m", version).folder)
    sweep(settings)
    assert not folder.exists()


def test_what_is_somebody_else_s_is_left(settings: Settings, tmp_path: Path) -> None:
    own = [
        ".prepared-1",
        ".prepared-1-0123456789abcde",
        ".prepared-1-0123456789abcdef0",
        "m-1-0123456789abcdef0",
        ".prepared-0-0123456789abcdef",
        "m-1-0123456789ABCDEF",
        "m-1",
        "x",
    ]
    if settings.cache:  # of a model of another repository
        own += ["other-1-0123456789abcdef"]
    for name in own:
        (place(settings) / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    stale = "m-1-0123456789abcdef" if settings.cache else ".prepared-1-0123456789abcdef"
    (place(settings) / stale).symlink_to(tmp_path / "elsewhere")
    (place(settings) / ".preparing-file").touch()
    sweep(settings)
    assert all((place(settings) / name).is_dir() for name in own)
    assert (place(settings) / stale).is_symlink() and (place(settings) / ".preparing-file").is_file()


def test_nothing_is_swept_where_nothing_is_prepared(settings: Settings) -> None:
    folder = made(settings)
    write(entry(settings).folder, "changed")
    sweep(settings.model_copy(update={"prepare": False}))
    sweep(settings.model_copy(update={"repository": None}))
    assert folder.exists()
    assert settings.repository is not None
    settings.repository.rename(settings.repository.with_name("away"))  # a volume that is not there for a while
    sweep(settings)
    if settings.cache:
        assert folder.exists()


def test_a_source_that_cannot_be_read_keeps_its_bundle(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    folder, source = made(settings), entry(settings).folder
    (source / "run.py").touch()
    caplog.set_level("INFO", "camrt.server")
    sweep(settings)
    assert folder.exists() and "was left: 'run.py' does not belong" in caplog.text
    (source / "run.py").unlink()
    (source / "model.onnx").write_text("changed")
    sweep(settings)
    assert not folder.exists()


# two servers ------------------------------------------------------------------------------------------------------


def test_what_another_process_holds_stays_until_it_ends_however_it_ends(settings: Settings) -> None:
    folder = made(settings)
    write(entry(settings).folder, "changed")
    with held_elsewhere(folder) as process:
        sweep(settings)
        assert (folder / "manifest.json").is_file()
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        sweep(settings)
        assert not folder.exists()


def test_what_this_process_holds_stays_as_long_as_the_context_lasts(settings: Settings) -> None:
    with ExitStack() as one, prepare(entry(settings), settings) as folder:
        one.enter_context(prepare(entry(settings), settings))
        write(entry(settings).folder, "changed")
        sweep(settings)
        assert folder.exists()
        one.close()
        sweep(settings)
        assert folder.exists()
    sweep(settings)
    assert not folder.exists()


def test_what_is_held_after_the_look_and_before_the_removal_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(settings)
    write(entry(settings).folder, "changed")
    with ExitStack() as late:

        def nobody_yet(looked_at: Path) -> bool:
            late.enter_context(held_elsewhere(looked_at))
            return False

        monkeypatch.setattr(module, "_is_held", nobody_yet)
        sweep(settings)
        assert (folder / "manifest.json").is_file()


def test_a_source_is_not_read_for_a_bundle_that_is_held(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Entry] = []
    with prepare(entry(settings), settings):
        made(settings, "m", "2")
        real = module._made_of
        monkeypatch.setattr(module, "_made_of", lambda source: (read.append(source), real(source))[1])
        sweep(settings)
    assert read == [entry(settings, "m", "2")]


def test_what_an_interrupted_preparation_left_is_removed_but_none_that_goes_on(settings: Settings) -> None:
    """The process that prepares inherits the lock: it is not disturbed when its server was killed."""
    folder = place(settings) / ".preparing-x"
    folder.mkdir(parents=True)
    descriptor = hold(folder)
    assert descriptor is not None
    sweep(settings)
    assert folder.is_dir()
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[descriptor]) as child:
        os.close(descriptor)  # the server is killed, and cleans nothing up
        sweep(settings)
        assert folder.is_dir()
        child.kill()
        child.wait(PATIENCE)
        sweep(settings)
        assert not folder.exists()


def test_two_that_prepare_the_same_at_a_time_get_the_same_bundle(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, run = threading.Barrier(2), preparing._run

    def together(*given: Any) -> None:
        run(*given)
        both.wait(PATIENCE)  # each has made its own, and none is in its place yet

    monkeypatch.setattr(preparing, "_run", together)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(made(settings)), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(found) == 2 and found[0] == found[1] and (found[0] / "manifest.json").is_file()
    assert not list(place(settings).glob(".preparing-*"))


def test_a_bundle_that_is_swept_away_before_it_is_held_is_made_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[Path] = []

    def late(folder: Path) -> int | None:
        times.append(folder)
        if len(times) == 2:  # made, and not held yet: a server of another camrt finds it useless
            shutil.rmtree(folder)
        return hold(folder)

    monkeypatch.setattr(preparing, "hold", late)
    with prepare(entry(settings), settings) as folder:
        assert times == [folder] * 3 and (folder / "manifest.json").is_file()


def test_a_place_that_is_taken_by_something_else_is_said(settings: Settings) -> None:
    target = place_of(entry(settings), settings)
    target.parent.mkdir(exist_ok=True)
    target.touch()
    with pytest.raises(OSError, match="Not a directory"):
        made(settings)


@pytest.mark.parametrize("refusal", [OSError(9, "Bad file descriptor"), OSError(95, "Operation not supported")])
def test_where_folders_cannot_be_locked_models_are_served_and_nothing_is_removed(
    refusal: OSError, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, *, alone: bool) -> None:
        raise refusal

    monkeypatch.setattr(module, "_lock", refuse)
    caplog.set_level("INFO", "camrt.server")
    folder = made(settings)
    write(entry(settings).folder, "changed")
    sweep(settings)
    assert folder.exists() and f"{folder.name} was left: {refusal.strerror}" in caplog.text


def test_nothing_can_be_made_where_nothing_can_be_written(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.tempfile, "mkdtemp", full)
    with pytest.raises(BundleError, match=r"beside the model \(No space left on device\): set cache"):
        made(settings)


def test_a_preparation_that_fails_leaves_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ModelError("cut short")

    monkeypatch.setattr(preparing, "_run", fails)
    with pytest.raises(ModelError):
        made(settings)
    assert not [path for path in place(settings).iterdir() if path.name.startswith(".")]
