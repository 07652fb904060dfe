"""Models are taken apart whole: networks that ONNX Runtime optimised, names without a domain, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from camrt.errors import ModelError
from camrt.export.fusions import standard_names, take_apart
from camrt.export.fusions.apart import is_fused
from camrt.export.live import open_model
from tests.export.fusions.runs import CONTRIB, RNG, TOKENS, normal, one_node, run
from tests.export.judge import run_program


def test_a_domain_that_is_used_without_being_imported_is_found() -> None:
    model, feeds = one_node("QuickGelu", [TOKENS], {}, opset=17)
    want = run(model, feeds)
    del model.opset_import[1]
    assert [o.domain for o in standard_names(model).opset_import] == ["", CONTRIB]
    np.testing.assert_allclose(run(take_apart(standard_names(model)), feeds)[0], want[0], rtol=0, atol=1e-6)


def test_a_model_without_fusions_is_handed_back_as_it_is() -> None:
    model, _ = one_node("Relu", [normal(2, 4, 5, 6)], {}, opset=17, domain="")
    assert standard_names(model) is model
    assert not is_fused(model)
    assert take_apart(model) is model


# whole networks --------------------------------------------------------------------------------------------------


def optimised(data: bytes, folder: Path, level: str) -> bytes:
    """Return a model as ONNX Runtime saves it after optimising it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimised.onnx"), 3
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return (folder / "optimised.onnx").read_bytes()


@pytest.mark.parametrize(
    ("name", "exporter", "opset", "fused"),
    [
        ("mobilenet_v3_small", "torchscript", 11, "FusedConv"),
        ("convnext_tiny", "torchscript", 11, "BiasGelu"),
        ("vit", "torchscript", 17, "BiasGelu"),
        ("vit", "dynamo", 18, "FusedMatMul"),
    ],
)
def test_an_optimised_network_has_the_gradients_of_the_one_it_was_made_from(
    name: str, exporter: str, opset: int, fused: str, tmp_path: Path
) -> None:
    architectures = pytest.importorskip("tests.export.architectures")
    data = architectures.exported(architectures.build(name), exporter, opset)
    fast = optimised(data, tmp_path, "EXTENDED")
    assert fused in {node.op_type for node in onnx.load_from_string(fast).graph.node}
    x = RNG.normal(size=(2, 3, architectures.SIDE, architectures.SIDE)).astype(np.float32)
    seed = RNG.normal(size=(2, 10)).astype(np.float32)
    live = [open_model(held) for held in (fast, data)]
    assert not {node.domain for node in live[0].classifier.model.graph} - {""}
    logits = [run_program(one.program("forward"), x=x)["logits"] for one in live]
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-5 * np.abs(logits[1]).max())
    got, want = (run_program(one.program("input_gradient"), x=x, seed=seed)["input_gradient"] for one in live)
    assert float(np.sum(got * want) / np.sqrt(np.sum(got**2) * np.sum(want**2))) >= 0.9999
    assert live[0].manifest.default_layer.grid == live[1].manifest.default_layer.grid


@pytest.mark.parametrize("opset", [11, 18])
def test_a_fused_network_for_larger_pictures_is_refused_before_it_can_end_the_process(opset: int) -> None:
    """onnx's shape inference aborts where a Slice meets a negative size."""
    fused = "[fused] f = com.microsoft.QuickGelu(x) [conv] c = Conv(f, w1, b1) q = MaxPool<kernel_shape=[20, 20]>(c)"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}, "{CONTRIB}": 1]> small (float[N,3,8,8] x) => (float[N,4] y) '
        f"{{ {fused} s = Slice(q, from, to, rows) p = GlobalAveragePool(s) y = Flatten(p) }}"
    )
    weights = {
        "w1": normal(4, 3, 3, 3),
        "b1": normal(4),
        "from": np.int64([0]),
        "to": np.int64([9]),
        "rows": np.int64([2]),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items())
    with pytest.raises(ModelError, match="would make a tensor of shape"):
        open_model(model.SerializeToString())


def test_a_model_laid_out_for_one_machine_is_refused_with_what_to_do(tmp_path: Path) -> None:
    architectures = pytest.importorskip("tests.export.architectures")
    data = architectures.exported(architectures.build("resnet18"), "torchscript", 17)
    with pytest.raises(ModelError, match=r"com\.microsoft\.nchwc::Conv\) .*save it at the level ORT_ENABLE_EXTENDED"):
        open_model(optimised(data, tmp_path, "ALL"))
