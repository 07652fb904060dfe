"""Precision is what the caller asks for, or an error; and what is run then is what the name says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import MethodError, MissingExtraError
from camrt.export import export, open_model
from camrt.precision import PRECISIONS, arrange
from camrt.providers import parse_providers
from tests import tiny
from tests.export import integers

Array = np.ndarray[Any, Any]
QUANTISED = integers.quantised(f"{integers.STEM} r = Identity(q) {integers.HEAD}", {})


def kernel(x: Array) -> Array:
    """Return the logits of the quantised model's float numbers, without any rounding: conv, average, linear."""
    from scipy.signal import correlate

    w, b = integers.WEIGHTS["w0"], integers.WEIGHTS["b0"]
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    c = np.stack([[correlate(image, k, "valid")[0] for k in w] for image in padded]) + b[:, None, None]
    s, z, t, u = (float(integers.WEIGHTS[name]) for name in "sztu")
    a = (np.clip(c, -z * s, (255 - z) * s) / s + z - u) * t  # the integers' range cuts, and they are read anew
    return a.mean((2, 3)) @ integers.WEIGHTS["wh"].astype(np.float64) + integers.WEIGHTS["bh"]


def test_float32_runs_the_programs_as_they_are() -> None:
    live = open_model(tiny.gap())
    source, providers = arrange("float32", live, parse_providers("cpu"))
    assert source is live
    assert providers == parse_providers("cpu")


def test_float16_is_float32_but_for_its_rounding_and_says_so() -> None:
    x = tiny.images(3)
    wide, half = (camrt.load(tiny.gap(), precision=how, preprocess="half") for how in ("float32", "float16"))
    a, b = wide.logits(x), half.logits(x)
    assert 0 < np.abs(a - b).max() < 2.0**-9 * np.abs(a).max()
    results = [e.explain(x, target=2) for e in (wide, half)]
    np.testing.assert_allclose(results[1].heatmaps, results[0].heatmaps, atol=0.01)
    assert [r.provenance["precision"] for r in results] == ["float32", "float16"]


@pytest.mark.parametrize(("precision", "providers"), [("float16", "cpu"), ("bfloat16", "openvino")])
def test_no_map_is_made_in_a_graph_of_few_digits(precision: str, providers: str) -> None:
    source, _ = arrange(precision, live := open_model(tiny.gap()), parse_providers(providers))
    layer = (live.manifest.default_layer.name,)
    assert live.offers("map_gradcam", layer)
    assert not source.offers("map_gradcam", layer)
    assert source.offers("gradient", layer)
    assert source.manifest is live.manifest
    assert source.resolve(layer[0]) == live.resolve(layer[0])


def test_tf32_and_bfloat16_are_options_of_their_providers() -> None:
    live = open_model(tiny.gap())
    _, (cuda, cpu) = arrange("tf32", live, parse_providers("cuda,cpu"))
    assert (cuda.options["use_tf32"], dict(cpu.options)) == ("1", {})
    source, (openvino,) = arrange("bfloat16", live, parse_providers("openvino"))
    assert '"bf16"' in openvino.options["load_config"]
    assert source.program("forward").model == live.program("forward").model


@pytest.mark.parametrize(
    ("precision", "providers", "said"),
    [
        ("int4", "cpu", r"one of float32, tf32, float16, bfloat16, twin; got 'int4'"),
        ("tf32", "cpu,cuda", "tf32 is a precision of cuda"),
        ("bfloat16", "cpu", "bfloat16 is a precision of openvino"),
        ("bfloat16", "cuda", "bfloat16 is a precision of openvino"),
        ("float16", "openvino", "openvino runs float32 or bfloat16"),
        ("twin", "cpu", "is not quantised"),
    ],
)
def test_what_cannot_be_given_is_refused(precision: str, providers: str, said: str) -> None:
    with pytest.raises(MethodError, match=said):
        camrt.load(tiny.gap(), precision=precision, providers=providers)
    assert "int4" not in PRECISIONS


def test_a_quantised_model_is_not_half_of_anything(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="computes with integers, float16"):
        camrt.load(QUANTISED, precision="float16")
    (tmp_path / "q.onnx").write_bytes(QUANTISED)
    export(tmp_path / "q.onnx", tmp_path / "b")
    with pytest.raises(MethodError, match="bundle holds no float twin"):
        camrt.load(tmp_path / "b", precision="twin")


def test_a_twin_rounds_nothing() -> None:
    """Against the same arithmetic in float64: the twin to float32's rounding, the given model not."""
    pytest.importorskip("scipy")
    x = np.random.default_rng(3).normal(size=(3, 3, 8, 8)).astype(np.float32)
    given, twin = (camrt.load(QUANTISED, precision=how, preprocess="half") for how in ("float32", "twin"))
    want = kernel(x)
    np.testing.assert_allclose(twin.logits(x), want, atol=1e-5)
    assert np.abs(given.logits(x) - want).max() > 1e-4
    assert "quantised" in given.manifest.model
    assert "quantised" not in twin.manifest.model
    np.testing.assert_allclose(
        twin.explain(x, target=1).values[:, 0], want[:, 1], atol=1e-5
    )  # the gradient program too


def test_float16_without_onnx_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    live = open_model(tiny.gap())
    monkeypatch.delitem(sys.modules, "camrt.export.half", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"camrt\[export\]"):
        arrange("float16", live, parse_providers("cpu"))
