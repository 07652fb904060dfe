"""The demo: what it writes, and that hot spots lie on the objects it drew."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import camrt
from camrt.demo import HELD_OUT, MODEL, draw
from camrt.demo.run import METHODS_SHOWN, SCENES, STEPS, run_demo, share_in_box


def test_the_demo_writes_overlays_grids_and_a_report(tmp_path: Path) -> None:
    steps: list[int] = []
    paths = run_demo(tmp_path / "demo", advance=steps.append)
    assert sum(steps) == STEPS
    assert all(path.is_file() for path in paths)
    overlays = sum(len(labels) for _, labels in SCENES) * len(METHODS_SHOWN)
    assert len(paths) == len(set(paths)) == overlays + len(SCENES) + 1
    assert paths[-1].name == "report.html"


def test_gradcam_of_the_demo_lies_on_the_object_asked_for() -> None:
    explainer = camrt.load(MODEL)
    own, other, area = [], [], []
    for seed in range(HELD_OUT + 500, HELD_OUT + 524):
        labels = (seed % 8, (seed + 3) % 8)
        scene = draw(seed, labels)
        heats = explainer.explain(scene.image, target=list(labels)).heatmaps[0]
        for t in range(2):
            own.append(share_in_box(heats[t], scene.boxes[t]))
            other.append(share_in_box(heats[t], scene.boxes[1 - t]))
            x0, y0, x1, y1 = scene.boxes[t]
            area.append((x1 - x0) * (y1 - y0) / scene.image[..., 0].size)
    assert np.mean(own) > 3 * np.mean(area)
    assert np.mean(own) > 5 * np.mean(other)


def test_energy_in_a_box_is_its_area_for_a_constant_map_and_all_of_a_map_inside() -> None:
    heat = np.ones((10, 20))
    assert share_in_box(heat, (0, 0, 20, 10)) == 1
    assert np.isclose(share_in_box(heat, (5, 2, 10, 6)), 20 / 200)
    assert share_in_box(heat * 0, (0, 0, 5, 5)) == 0
