"""
The demo: explain the embedded model on pictures drawn on the spot, and write what a first-time user wants to see.

Out: overlays of several methods for several targets, a grid of methods and targets for each picture, and one HTML
report, with the share of each map's energy that lies in its object's box (the boxes are known: the pictures are ours).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..atomic import write_bytes
from ..comparison import grid_of
from ..explainer import Explainer
from ..explanation import Explanation
from ..opening import load
from ..render import png
from ..report import Figure, Section, Table, provenance, write_report
from . import MODEL
from .pictures import CLASSES, HELD_OUT, Scene, draw

__all__ = ["METHODS_SHOWN", "STEPS", "run_demo", "share_in_box"]

METHODS_SHOWN = ("gradcam", "gradcampp", "hirescam", "layercam", "eigencam", "smoothgradcampp")
SCENES = (  # seeds that training never saw, and what is drawn
    (HELD_OUT + 11, (0, 4)),
    (HELD_OUT + 23, (2, 7)),
    (HELD_OUT + 5, (1,)),
    (HELD_OUT + 42, (6, 3)),
)
STEPS = len(SCENES) * len(METHODS_SHOWN) + 1


def run_demo(
    out: Path, *, colormap: str = "jet", advance: Callable[[int], None] = lambda steps: None
) -> tuple[Path, ...]:
    """
    Write the demo's pictures and report.

    Parameters
    ----------
    out : Path
        The folder to write to; made if it is not there.
    colormap : {"jet", "viridis"}, default "jet"
        The colours.
    advance : callable, optional
        Called with 1 after each of `STEPS` steps.

    Returns
    -------
    tuple of Path
        Every file written, the report last.

    Raises
    ------
    OutputError
        If `out` cannot be written.

    Notes
    -----
    Cost: a few seconds; no network, no data.
    """
    explainer = load(MODEL)
    paths: list[Path] = []
    sections: list[Section] = []
    for seed, labels in SCENES:
        scene = draw(seed, labels)
        results = []
        for method in METHODS_SHOWN:
            results.append(explainer.explain(scene.image, method=method, target=list(labels)))
            advance(1)
        name = "_".join(CLASSES[label].replace(" ", "-") for label in labels)
        paths += _write_scene(out, name, results, colormap)
        sections.append(_section(name, scene, results, colormap))
    made = Section("How it was made", tables=[provenance(results[0].provenance)])
    paths.append(write_report(out / "report.html", "camrt demo", [*sections, made], subtitle=_subtitle(explainer)))
    advance(1)
    return tuple(paths)


def _write_scene(out: Path, name: str, results: Sequence[Explanation], colormap: str) -> list[Path]:
    """Write one picture's overlays and grid."""
    paths = []
    for result in results:
        for t, label in enumerate(result.labels[0]):
            image = result.overlay(0, t, colormap=colormap)
            paths.append(write_bytes(out / f"{name}_{result.method}_{label.replace(' ', '-')}.png", png(image)))
    sheet = grid_of(results, colormap=colormap, title=name.replace("_", " and ").replace("-", " "))
    paths.append(write_bytes(out / f"{name}_grid.png", png(sheet)))
    return paths


def _section(name: str, scene: Scene, results: Sequence[Explanation], colormap: str) -> Section:
    """Report one picture: the grid, and where each map's energy lies."""
    title = name.replace("_", " and ").replace("-", " ")
    rows = [
        (
            result.labels[0][t],
            f"{result.probabilities[0, t]:.3f}",
            *(f"{share_in_box(r.heatmaps[0, t], scene.boxes[t]):.0%}" for r in results),
        )
        for result in results[:1]
        for t in range(result.targets.shape[1])
    ]
    area = [f"{np.prod(box[2:] - box[:2]) / scene.image[..., 0].size:.0%}" for box in scene.boxes]
    table = Table(
        ("target", "probability", *(r.method for r in results)),
        rows,
        f"Share of each map's energy inside its object's box; the boxes cover {' and '.join(area)} of the picture",
    )
    sheet = grid_of(results, colormap=colormap)
    return Section(
        title, figures=[Figure(sheet, f"Maps of {title}, one row a target, one column a method")], tables=[table]
    )


def share_in_box(heat: npt.NDArray[np.floating], box: Sequence[int] | npt.NDArray[np.int64]) -> float:
    """
    Return the share of a map's energy inside a box.

    Parameters
    ----------
    heat : ndarray of float, shape (H, W)
        A heatmap.
    box : sequence of int
        ``(x0, y0, x1, y1)`` in pixels, half-open.

    Returns
    -------
    float
        In [0, 1]; 0 for an empty map.
    """
    x0, y0, x1, y1 = (int(v) for v in box)
    total = float(heat.sum())
    return float(heat[y0:y1, x0:x1].sum()) / total if total else 0.0


def _subtitle(explainer: Explainer) -> str:
    """Say what was explained."""
    layer = next(layer for layer in explainer.layers if layer.default)
    return f"The embedded classifier of {explainer.manifest.classes} textured shapes, explained at {layer.module or layer.name}"
