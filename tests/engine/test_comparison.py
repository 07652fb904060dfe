"""Comparing methods: one grid a picture, one report, and figures that say what was seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import camrt
from camrt.comparison import compare_methods, grid_of
from camrt.errors import MethodError
from tests import tiny


@pytest.fixture
def explainer() -> camrt.Explainer:
    """Open a tiny model with labels."""
    return camrt.load(tiny.gap(), preprocess="half", labels=["ant", "bee", "cow", "doe", "elk"])


def test_pictures_of_one_name_get_files_of_their_own(explainer: camrt.Explainer, tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "photo.png")
        Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(paths[-1])
    steps: list[int] = []
    made = compare_methods(
        explainer, [str(p) for p in paths], ["gradcam", "lafam"], tmp_path / "out", advance=steps.append
    )
    assert [p.name for p in made.paths] == ["photo_grid.png", "photo_2_grid.png", "report.html"]
    assert sum(steps) == 4
    assert {(row["image"], row["method"]) for row in made.figures["results"]} == {
        (name, method) for name in ("photo", "photo_2") for method in ("gradcam", "lafam")
    }


def test_the_grid_has_a_row_a_target_and_a_column_a_method(explainer: camrt.Explainer) -> None:
    x = np.zeros((12, 10, 3), np.uint8)
    one, two = (
        grid_of([explainer.explain(x, method=m, target=targets) for m in ("gradcam", "eigencam")])
        for targets in ([0], [0, 1])
    )
    three = grid_of([explainer.explain(x, method=m, target=[0]) for m in ("gradcam", "eigencam", "lafam")])
    assert two.height - one.height == 224 + 10  # a cell and its gap
    assert three.width - one.width == 224 + 10


def test_a_misspelt_method_stops_before_anything_is_written(explainer: camrt.Explainer, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="layercam"):
        compare_methods(explainer, [np.zeros((8, 8, 3), np.uint8)], ["gradcam", "layercan"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
