"""Listings: what is in one is what comes out, and its fingerprint changes with each part that it covers."""

from __future__ import annotations

import hashlib
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from camrt.datasets.files import Files, MaskFiles
from camrt.datasets.sample import Dataset, Listing, Ragged
from camrt.errors import InputError
from tests.engine.datasets.made import picture


def listing(root: Path, names: tuple[str, ...] = ("a.png", "b.png"), **columns: object) -> Listing:
    """Return a data set of a few files."""
    return Listing("made", names, Files(str(root), names), **columns)  # type: ignore[arg-type]


def test_a_sample_holds_its_own_row(tmp_path: Path) -> None:
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    boxes = Ragged.of([None, [(0, 1, 2, 3), (4, 5, 6, 7)]])
    data = listing(tmp_path, labels=np.array([-1, 5]), boxes=boxes, sizes=np.array([[0, 0], [6, 8]]))
    first, second = data[0], data[-1]
    assert (first.index, first.id, first.label, first.boxes, first.size) == (0, "a.png", None, None, None)
    assert (second.index, second.id, second.label, second.size) == (1, "b.png", 5, (6, 8))
    assert second.boxes is not None and second.boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert Path(str(second.read())) == (tmp_path / "b.png").resolve()
    assert isinstance(data, Dataset)


@pytest.mark.parametrize("index", [2, -3])
def test_a_sample_that_is_not_there_is_an_index_error(tmp_path: Path, index: int) -> None:
    with pytest.raises(IndexError, match="samples 0 to 1"):
        listing(tmp_path)[index]


def test_ragged_rows_come_back_as_they_went_in() -> None:
    rows: list[list[tuple[float, ...]] | None] = [[(1, 2, 3, 4)], None, [], [(5, 6, 7, 8), (9, 10, 11, 12)]]
    ragged = Ragged.of(rows)
    assert [None if (row := ragged.row(i)) is None else row.tolist() for i in range(4)] == [
        [[1, 2, 3, 4]],
        None,
        None,
        [[5, 6, 7, 8], [9, 10, 11, 12]],
    ]


def test_an_empty_listing_and_one_at_odds_with_itself_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'made' is empty"):
        listing(tmp_path, ())
    with pytest.raises(InputError, match=r"samples 0 and 2 have the same id 'a.png'"):
        listing(tmp_path, ("a.png", "b.png", "a.png"))
    with pytest.raises(InputError, match="2 ids but 3 labels"):
        listing(tmp_path, labels=np.zeros(3, np.int64))


def test_the_fingerprint_changes_with_every_part_it_covers_and_with_nothing_else(tmp_path: Path) -> None:
    for folder in ("here", "moved"):
        picture(tmp_path / folder / "a.png"), picture(tmp_path / folder / "b.png")
    here = tmp_path / "here"
    boxes = Ragged.of([[(0, 0, 1, 1)], None])
    base = listing(here, labels=np.array([1, 2]), boxes=boxes).fingerprint
    assert listing(tmp_path / "moved", labels=np.array([1, 2]), boxes=boxes).fingerprint == base
    others = [
        listing(here, labels=np.array([1, 3]), boxes=boxes),
        listing(here, labels=np.array([1, 2])),
        listing(here, labels=np.array([1, 2]), boxes=Ragged.of([[(0, 0, 1, 1.5)], None])),
        listing(here, labels=np.array([1, 2]), boxes=Ragged.of([None, [(0, 0, 1, 1)]])),
        listing(here, ("b.png", "a.png"), labels=np.array([1, 2]), boxes=boxes),
        listing(here, labels=np.array([1, 2]), boxes=boxes, marks=MaskFiles(str(here), ["a.png", ""])),
    ]
    found = {base, *(other.fingerprint for other in others)}
    picture(here / "b.png", 30, 30)
    found.add(listing(here, labels=np.array([1, 2]), boxes=boxes).fingerprint)
    (here / "b.png").unlink()
    found.add(listing(here, labels=np.array([1, 2]), boxes=boxes).fingerprint)
    assert len(found) == 1 + len(others) + 2 and all(len(text) == hashlib.sha256().digest_size * 2 for text in found)


def test_a_listing_and_its_samples_travel_by_pickle(tmp_path: Path) -> None:
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    data = listing(tmp_path, boxes=Ragged.of([None, [(0, 1, 2, 3)]]), marks=MaskFiles(str(tmp_path), ["", "a.png"]))
    there = pickle.loads(pickle.dumps(data))
    assert there.fingerprint == data.fingerprint and there[1].read() == data[1].read()
    sample = pickle.loads(pickle.dumps(data[1]))
    assert sample.mask is not None and sample.mask().all() and sample.boxes.tolist() == [[0, 1, 2, 3]]


def test_a_long_listing_holds_a_few_hundred_bytes_a_sample(tmp_path: Path) -> None:
    count = 100_000
    tracemalloc.start()
    try:
        names = tuple(f"pictures/{number:08d}.png" for number in range(count))
        data = listing(
            tmp_path, names, labels=np.zeros(count, np.int64), boxes=Ragged.of([[(0.0, 1.0, 2.0, 3.0)]] * count)
        )
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 300 * count and data[count - 1].id == "pictures/00099999.png"
