"""What the worker writes for plain ONNX Runtime to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.testing import assert_allclose

from bench.work_camrt import Camrt
from camrt.export import heavy
from tests.export.onnx_text import tiny


@pytest.mark.parametrize("heavy_from", [1, 2**28])
def test_the_bare_tail_is_one_file_even_where_weights_are_kept_apart(
    heavy_from: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(heavy, "HEAVY", heavy_from)
    monkeypatch.setattr(heavy, "LARGE", 72)
    whole, file = tmp_path / "whole.onnx", tmp_path / "tail.onnx"
    whole.write_bytes(tiny())
    assert Camrt().tail(str(whole), str(file)) == 4
    acts = rng.random((2, 4, 8, 8), np.float32)
    tail = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(whole).graph.initializer}
    (logits,) = tail.run(None, {tail.get_inputs()[0].name: acts})
    assert_allclose(logits, acts.mean((2, 3)) @ weights["w2"] + weights["b2"], rtol=1e-5, atol=1e-6)
