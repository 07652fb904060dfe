"""Sheets of best and worst maps, drawn from a run on the disk with a stand-in for the model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from camrt.errors import ImageError
from camrt.galleries import CELL, gallery, judge_of
from camrt.render import blend
from camrt.shards import Run
from camrt.summary import Figure
from camrt.tables import Column
from tests.engine.figures import example, spec, summary

pytest.importorskip("pyarrow", reason="rows need the extra eval")

ADCC = Column("adcc", "adcc", "higher", True)
DROP = Column("average_drop", "average_drop", "lower", True)
VALUES = (0.5, 0.9, 0.1, 0.7, 0.3, 0.6, 0.2)


class Model:
    """Explains picture i by a map of its own grey, and writes down what was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def explain(self, images: list[bytes], **asked: Any) -> Any:
        """Return a picture of value 10 i and a map that is 0 on the left and 1 on the right."""
        if images[0] == b"broken":
            raise ImageError("gone")
        self.asked.append({"picture": int(images[0]), **asked})
        heat = np.zeros((1, 1, 32, 32), np.float32)
        heat[..., 16:] = 1
        return SimpleNamespace(pictures=[np.full((32, 32, 3), 10 * int(images[0]), np.uint8)], heatmaps=heat)


class Pictures:
    """Picture i holds the number i; number 5 is gone."""

    def __getitem__(self, index: int) -> Any:
        return SimpleNamespace(read=lambda: b"broken" if index == 5 else str(index).encode())


def run_of(folder: Path, values: tuple[float, ...] = VALUES) -> Run:
    """Write rows of one method, the last picture without a value."""
    run = Run.open(folder, spec(), total=len(values) + 1, shard_size=100)
    rows = {
        "index": np.arange(len(values) + 1),
        "id": [f"folder/{i}.jpg" for i in range(len(values) + 1)],
        "class": np.arange(len(values) + 1) + 100,
        "adcc": np.ma.array([*values, 0.0], mask=[*[False] * len(values), True]),
        "average_drop": np.array([*values, 0.4]),
    }
    run.write(0, {"gradcam": rows})
    return run


def test_the_best_and_the_worst_are_explained_as_in_the_run(tmp_path: Path) -> None:
    model: Any = Model()
    pictures: Any = Pictures()
    (sheet,) = gallery(run_of(tmp_path / "run"), model, pictures, ADCC)
    assert [asked["picture"] for asked in model.asked] == [1, 3, 2, 6, 4]  # 5, the third best, is gone
    assert model.asked[0] == {
        "picture": 1,
        "method": "gradcam",
        "variant": "paper",
        "options": {},
        "target": 101,
        "layer": None,
        "pipeline": "camrt",
        "mask_space": "normalised",
    }
    told = (
        "folder/1.jpg 90.00",
        "folder/3.jpg 70.00",
        "folder/5.jpg 60.00",
        "folder/2.jpg 10.00",
        "folder/6.jpg 20.00",
    )
    assert all(words in sheet.alt for words in told) and sheet.caption == "Grad-CAM"
    assert [sheet.alt.index(words) for words in told] == sorted(sheet.alt.index(words) for words in told)


def test_lower_is_better_turns_the_sheet_around(tmp_path: Path) -> None:
    model: Any = Model()
    pictures: Any = Pictures()
    gallery(run_of(tmp_path / "run"), model, pictures, DROP, count=2)
    assert [asked["picture"] for asked in model.asked] == [2, 6, 1, 3]


def test_the_maps_lie_over_their_pictures_and_a_missing_one_leaves_its_place_empty(tmp_path: Path) -> None:
    model: Any = Model()
    pictures: Any = Pictures()
    (sheet,) = gallery(run_of(tmp_path / "run"), model, pictures, ADCC)
    drawn = np.asarray(sheet.image)
    heat = np.zeros((32, 32), np.float32)
    heat[:, 16:] = 1
    left, right = blend(np.full((32, 32, 3), 10, np.uint8), heat)[0, [0, -1]]
    x = drawn.shape[1] - 3 * CELL - 20  # three cells and two gaps at the right
    assert (
        drawn[CELL // 2, x + 10].tolist() == left.tolist()
        and drawn[CELL // 2, x + CELL - 10].tolist() == right.tolist()
    )
    assert (drawn[10 : CELL - 10, -CELL + 5 : -5] == 255).all()


def test_few_pictures_are_not_shown_on_both_sides(tmp_path: Path) -> None:
    for count, want in ((1, [0]), (2, [0, 1]), (3, [0, 1])):
        model: Any = Model()
        pictures: Any = Pictures()
        gallery(run_of(tmp_path / str(count), (0.9, 0.1, 0.5)[:count]), model, pictures, ADCC)
        assert [asked["picture"] for asked in model.asked] == want


def test_a_method_without_the_column_has_no_sheet(tmp_path: Path) -> None:
    nothing: Any = None
    assert gallery(run_of(tmp_path / "run"), nothing, nothing, Column("insertion", "insertion", "higher", False)) == []


def test_adcc_ranks_pictures_where_it_is_there_then_what_says_most() -> None:
    made = example()
    assert judge_of(made) == ADCC
    rest = summary([f for f in made.figures if f.metric != "adcc"])
    assert judge_of(rest) == Column("average_gain", "average_gain", "higher", True)
    ties = Figure("a", "sparseness", "sparseness", 0.1, 0.1, 0.1, 5, None, "neither", False)
    assert judge_of(summary([ties])) is None
    odd = Figure("a", "iou", "iou", 0.1, 0.1, 0.1, 5, None, "higher", False)
    assert judge_of(summary([ties, odd])) == Column("iou", "iou", "higher", False)
