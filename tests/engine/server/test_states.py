"""What is told of versions, against a table written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from camrt.errors import CamrtError
from camrt.server.faults import NotFoundError, UnreadyError
from camrt.server.repository import Entry, Misfit
from camrt.server.states import LOADING, READY, UNAVAILABLE, Note, absence, rows

NOTES = {
    ("a", 2): Note(LOADING),
    ("a", 3): Note(UNAVAILABLE, "cut short"),
    ("b", 1): Note(LOADING),
    ("gone", 7): Note(UNAVAILABLE, "was there"),
}


def test_the_index_tells_of_everything_once_in_order() -> None:
    entries = [Entry("a", version, Path("nowhere")) for version in (1, 2, 3, 10)]
    misfits = [Misfit("0", "", "not a folder", is_model=False)]
    found = rows(entries, misfits, NOTES, {"a": [3, 1], "b": [1], "kept": [4]})
    assert [tuple(row.values()) for row in found] == [
        ("a", "1", READY, ""),
        ("a", "2", LOADING, ""),
        ("a", "3", READY, "it still answers; loading it again: cut short"),
        ("a", "10", UNAVAILABLE, "not loaded"),
        ("b", "1", READY, "it still answers; loading it again: going on"),
        ("gone", "7", UNAVAILABLE, "was there"),
        ("kept", "4", READY, ""),
        ("0", "", UNAVAILABLE, "not a folder"),
    ]
    assert {tuple(row) for row in found} == {("name", "version", "state", "reason")}


@pytest.mark.parametrize(
    ("name", "version", "versions", "kind", "message", "seconds"),
    [
        ("a", None, [], UnreadyError, "model 'a' is being loaded", 5),  # one of them is
        ("a", 2, [1], UnreadyError, "model 'a' is being loaded", 5),
        ("a", 3, [1], UnreadyError, "could not be loaded; the repository's index says why", 30),
        ("a", 9, [4, 1], NotFoundError, "version 9 of model 'a' is not served; it has 1, 4", None),
        ("hollow", None, [], UnreadyError, "could not be loaded", 30),  # wanted, and not even begun
        ("hollow", 1, [], NotFoundError, "no model 'hollow'", None),
        ("c", 1, [], NotFoundError, "no model 'c'", None),
        ("x" * 100, None, [], NotFoundError, f"no model '{'x' * 64}'", None),
    ],
)
def test_what_is_not_there_is_told_with_whether_to_ask_again(
    name: str, version: int | None, versions: list[int], kind: type[CamrtError], message: str, seconds: float | None
) -> None:
    error = absence(name, version, NOTES, {("hollow", None)}, versions)
    assert type(error) is kind and message in str(error)
    assert getattr(error, "retry_after", None) == seconds
