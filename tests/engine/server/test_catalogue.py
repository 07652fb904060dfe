"""What is to be served, by the settings and by what lies there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from camrt.demo import MODEL
from camrt.errors import InputError
from camrt.server.catalogue import asked, listed, located
from camrt.server.faults import NotFoundError
from camrt.server.repository import Entry
from camrt.server.settings import Settings


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Return a repository of two versions of one model, a model without one, and a stray file."""
    for version in ("9", "10"):
        (tmp_path / "b" / version).mkdir(parents=True)
        (tmp_path / "b" / version / "manifest.json").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "stray").touch()
    return tmp_path


def test_the_embedded_model_is_all_there_is_where_there_is_no_repository() -> None:
    alone = Settings()
    entry = Entry("camrt-demo", 1, MODEL)
    assert asked(alone) == [("camrt-demo", None)] and listed(alone) == ([entry], [])
    assert located(alone, "camrt-demo", None) == located(alone, "camrt-demo", "1") == entry
    for name, version in (("camrt-demo", "2"), ("m", None), ("camrt-demo", "01")):
        with pytest.raises(NotFoundError, match="beside the embedded"):
            located(alone, name, version)


def test_every_model_is_to_be_there_broken_ones_too_and_stray_files_not(repo: Path) -> None:
    assert asked(Settings(repository=repo)) == [("a", None), ("b", None)]


def test_or_those_that_are_named_each_once_in_order(repo: Path) -> None:
    settings = Settings(repository=repo, control="explicit", load=("b:10", "b", "a", "b:10", "c:1"))
    assert asked(settings) == [("b", 10), ("b", None), ("a", None), ("c", 1)]
    for wrong in ("b:", "b:x", "b:0", "../b", ""):
        with pytest.raises(InputError):
            asked(Settings(repository=repo, control="explicit", load=(wrong,)))


def test_the_repository_is_looked_at_each_time(repo: Path) -> None:
    settings = Settings(repository=repo)
    assert [(entry.name, entry.version) for entry in listed(settings)[0]] == [("b", 9), ("b", 10)]
    assert located(settings, "b", None).version == 10 and located(settings, "b", "9").folder == repo / "b" / "9"
    shutil.rmtree(repo / "b" / "10")
    assert located(settings, "b", None).version == 9
    with pytest.raises(InputError, match="no version is in it"):
        located(settings, "a", None)
    shutil.rmtree(repo)
    assert listed(settings) == ([], [])  # what is loaded goes on answering
    with pytest.raises(InputError):
        located(settings, "b", None)
