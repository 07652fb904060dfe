"""Parts of data sets, and what data sets know."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from camrt.datasets import Subset, known_of, open_dataset
from camrt.errors import InputError


@pytest.fixture
def whole(tmp_path):
    for name in "abcdefgh":
        Image.fromarray(np.full((4, 4, 3), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    lines = ["file,label,boxes", *(f"{name}.png,{i},0 0 {i + 1} 2" for i, name in enumerate("abcdefgh"))]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return open_dataset(tmp_path / "list.csv")


def test_a_draw_keeps_the_order_and_numbers_anew(whole) -> None:
    part = Subset.drawn(whole, 3, seed=1)
    assert len(part) == 3 and list(part.indices) == sorted(set(part.indices))
    for place, index in enumerate(part.indices):
        sample = part[place]
        assert (sample.index, sample.id, sample.label) == (place, whole[int(index)].id, int(index))
    with pytest.raises(IndexError):
        part[3]


def test_fewer_are_among_more_and_a_seed_decides(whole) -> None:
    five, three = (set(Subset.drawn(whole, n, seed=2).indices) for n in (5, 3))
    assert three < five
    assert set(Subset.drawn(whole, 8).indices) == set(range(8))
    assert len({tuple(Subset.drawn(whole, 3, seed=s).indices) for s in range(20)}) > 5


def test_another_draw_is_another_data_set(whole) -> None:
    marks = {Subset.drawn(whole, 3, seed=s).fingerprint for s in (0, 1)} | {whole.fingerprint}
    assert len(marks) == 3
    assert Subset.drawn(whole, 3).fingerprint == Subset.drawn(whole, 3).fingerprint
    assert pickle.loads(pickle.dumps(Subset.drawn(whole, 3)))[1].id == Subset.drawn(whole, 3)[1].id


@pytest.mark.parametrize("count", [0, 9])
def test_a_draw_of_more_than_there_are_is_refused(whole, count: int) -> None:
    with pytest.raises(InputError, match="from 1 to 8"):
        Subset.drawn(whole, count)


def test_what_is_known_is_said(whole, tmp_path) -> None:
    assert known_of(whole) == {"labels", "boxes"}
    (tmp_path / "plain.csv").write_text("file\na.png\n")
    assert known_of(open_dataset(tmp_path / "plain.csv")) == frozenset()
