"""The second version of a model, which must be told from the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import camrt
from bench.serve_outcomes import Outcome
from bench.serve_stage import Load, changed
from camrt.demo import MODEL, draw


def test_the_changed_model_is_the_same_network_with_other_heatmaps(tmp_path: Path) -> None:
    changed(MODEL, tmp_path / "other.onnx")
    first, second = onnx.load(MODEL), onnx.load(tmp_path / "other.onnx")
    assert [node.op_type for node in first.graph.node] == [node.op_type for node in second.graph.node]
    heat = [camrt.load(path).explain(draw(5, [1]).image).heatmaps for path in (MODEL, tmp_path / "other.onnx")]
    assert np.abs(heat[0] - heat[1]).max() > 0.01  # a hundred times what counts as the same answer


def test_a_load_is_summed_up() -> None:
    seen = [Outcome(0.0, 0.0, 1.0, 200), Outcome(0.0, 0.0, 2.0, 200, right=False), Outcome(0.0, 0.0, 1.0, 429, True)]
    load = Load(seen, cpu=0.1, seconds=2.0)
    assert (load.throughput, load.failed) == (0.5, 2)
