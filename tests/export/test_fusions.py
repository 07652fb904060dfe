"""What ONNX Runtime fused is taken apart exactly: its own kernels, and networks it optimised, are the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from camrt.errors import MissingRuleError, ModelError
from camrt.export.fusions import FUSIONS, standard_names, take_apart
from camrt.export.live import open_model
from tests.export.judge import run_program

Array = np.ndarray[Any, Any]
CONTRIB = "com.microsoft"
RNG = np.random.default_rng(5)


def normal(*shape: int) -> Array:
    """Return normal random float32 numbers."""
    return RNG.normal(size=shape).astype(np.float32)


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model on ONNX Runtime as it is."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, dict(feeds))]


def one_node(
    op: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    outputs: Sequence[str] = ("y",),
    *,
    opset: int,
    domain: str = CONTRIB,
    shaped: bool = True,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a model of one node that reads "x", the first array; the others are weights. Not `shaped` hides x's axes."""
    names = ["" if a is None else f"i{i}" for i, a in enumerate(inputs)]
    node = onnx.helper.make_node(op, names, list(outputs), name="the_node", domain=domain, **attributes)
    assert inputs[0] is not None
    source = onnx.helper.make_node("Identity", ["x"], ["i0"])
    if not shaped:  # behind an operator whose shapes onnx does not know
        source = onnx.helper.make_node("QuickGelu", ["x"], ["i0"], domain=CONTRIB)
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs[0].shape)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs if name]
    weights = [onnx.numpy_helper.from_array(a, f"i{i}") for i, a in enumerate(inputs) if i and a is not None]
    graph = onnx.helper.make_graph([source, node], "fused", [x], ends, weights)
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(CONTRIB, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), {"x": inputs[0]}


X, TOKENS = normal(2, 4, 5, 6), normal(2, 5, 12)
W, B = normal(3, 4, 3, 3), normal(3)
SQUARE, MATRIX = normal(2, 3, 5, 5), normal(6, 4)
MHA = {"num_heads": 3}
CASES: list[tuple[str, str, Sequence[Array | None], Mapping[str, Any]]] = [
    ("FusedConv", "relu", [X, W, B], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    ("FusedConv", "no_bias", [X, W], {"activation": "Tanh", "strides": [2, 1], "kernel_shape": [3, 3]}),
    ("FusedConv", "clip", [X, W, B], {"activation": "Clip", "activation_params": [0.0, 0.5]}),
    ("FusedConv", "leaky", [X, W, B], {"activation": "LeakyRelu", "activation_params": [0.3]}),
    ("FusedConv", "sigmoid", [X, W, B], {"activation": "Sigmoid"}),
    ("FusedConv", "hard", [X, W, B], {"activation": "HardSigmoid", "activation_params": [0.25, 0.4]}),
    ("FusedConv", "residual", [X, W, B, normal(2, 3, 3, 4)], {"activation": "Relu"}),
    ("FusedGemm", "relu", [normal(5, 6), MATRIX, normal(4)], {"activation": "Relu", "alpha": 0.5, "beta": 2.0}),
    ("FusedGemm", "leaky", [normal(6, 5), MATRIX], {"activation": "LeakyRelu", "activation_alpha": 0.2, "transA": 1}),
    ("FusedMatMul", "scaled", [normal(2, 3, 6), MATRIX], {"alpha": 0.3}),
    ("FusedMatMul", "right", [normal(2, 3, 6), normal(4, 6)], {"transB": 1}),
    ("FusedMatMul", "both", [SQUARE, normal(2, 3, 7, 5)], {"transA": 1, "transB": 1, "alpha": 2.0}),
    ("FusedMatMul", "batch", [normal(4, 2, 3, 5), normal(2, 3, 5, 6)], {"transBatchA": 1}),
    ("FusedMatMul", "batch_and_last", [normal(5, 2, 3, 4), normal(2, 3, 5, 6)], {"transBatchA": 1, "transA": 1}),
    ("Gelu", "", [TOKENS], {}),
    ("BiasGelu", "", [TOKENS, normal(12)], {}),
    ("FastGelu", "", [TOKENS], {}),
    ("FastGelu", "bias", [TOKENS, normal(12)], {}),
    ("QuickGelu", "", [TOKENS], {}),
    ("QuickGelu", "silu", [TOKENS], {"alpha": 1.0}),
    ("SkipLayerNormalization", "", [TOKENS, normal(2, 5, 12), normal(12), normal(12)], {"epsilon": 0.02}),
    ("SkipLayerNormalization", "bias", [TOKENS, normal(2, 5, 12), normal(12), normal(12), normal(12)], {}),
    ("SkipLayerNormalization", "no_beta", [TOKENS, normal(2, 5, 12), normal(12)], {}),
    ("SkipSimplifiedLayerNormalization", "", [TOKENS, normal(2, 5, 12), normal(12)], {"epsilon": 0.02}),
    ("SkipSimplifiedLayerNormalization", "bias", [TOKENS, normal(2, 5, 12), normal(12), normal(12)], {}),
    ("Attention", "", [TOKENS, normal(12, 36), normal(36)], MHA),
    ("Attention", "widths", [TOKENS, normal(12, 48), normal(48)], {**MHA, "qkv_hidden_sizes": [12, 12, 24]}),
    ("Attention", "scale", [TOKENS, normal(12, 36), normal(36)], {**MHA, "scale": 0.7}),
    ("Attention", "biased", [TOKENS, normal(12, 36), normal(36), None, None, normal(2, 3, 5, 5)], MHA),
    ("MultiHeadAttention", "", [TOKENS, normal(2, 7, 12), normal(2, 7, 12)], MHA),
    ("MultiHeadAttention", "bias", [TOKENS, normal(2, 7, 12), normal(2, 7, 24), normal(48)], MHA),
    ("MultiHeadAttention", "biased",
     [TOKENS, normal(2, 7, 12), normal(2, 7, 12), None, None, normal(1, 3, 5, 7)], {**MHA, "scale": 0.4}),
]  # fmt: skip


@pytest.mark.parametrize("opset", [11, 15, 20, 23])
@pytest.mark.parametrize(("op", "name", "inputs", "attributes"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_taken_apart_computes_the_same(
    op: str, name: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], opset: int
) -> None:
    model, feeds = one_node(op, inputs, attributes, opset=opset)
    found = take_apart(standard_names(model))
    assert not {node.domain for node in found.graph.node} - {""}
    assert [o.domain for o in found.opset_import] == [""]
    (want,), (got,) = run(model, feeds), run(found, feeds)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())


def test_every_fusion_is_compared_with_its_kernel() -> None:
    here = {op for op, *_ in CASES} | {"LayerNormalization", "SimplifiedLayerNormalization", "TransposeMatMul"}
    assert {f"{CONTRIB}::{op}" for op in here} | {"Attention"} == set(FUSIONS)


HEADS, FEW = normal(2, 3, 5, 4), normal(2, 3, 7, 4)


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize(
    ("inputs", "attributes"),
    [
        ([HEADS, FEW, normal(2, 3, 7, 6)], {}),
        ([HEADS, FEW, FEW], {"scale": 0.3, "is_causal": 0}),
        ([TOKENS, normal(2, 7, 12), normal(2, 7, 24)], {"q_num_heads": 3, "kv_num_heads": 3}),
    ],
)
def test_plain_attention_of_onnx_becomes_two_products_and_a_softmax(
    inputs: list[Array], attributes: Mapping[str, Any], opset: int
) -> None:
    model, feeds = one_node("Attention", inputs, attributes, opset=opset, domain="")
    found = take_apart(standard_names(model))
    counts = Counter(node.op_type for node in found.graph.node)
    assert (counts["MatMul"], counts["Softmax"], counts["Attention"]) == (2, 1, 0)
    (want,), (got,) = run(model, feeds), run(found, feeds)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())


def test_a_mask_is_added_at_opset_23() -> None:
    """From 24 on a short mask stands for a longer one, which is left to ONNX's definition."""
    inputs = [HEADS, FEW, FEW, normal(5, 7)]
    model, feeds = one_node("Attention", inputs, {}, opset=23, domain="")
    found = take_apart(standard_names(model))
    assert "Attention" not in {node.op_type for node in found.graph.node}
    np.testing.assert_allclose(run(found, feeds)[0], run(model, feeds)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "attributes", "opset"),
    [
        ([HEADS, FEW, FEW], {"is_causal": 1}, 23),
        ([HEADS, FEW, FEW], {"softcap": 2.0}, 23),
        ([HEADS, FEW, FEW, normal(5, 7)], {}, 24),
        ([HEADS, FEW, FEW, np.ones((5, 7), bool)], {}, 23),
        ([normal(2, 6, 5, 4), FEW, FEW], {}, 23),
        ([normal(2, 5, 24), normal(2, 7, 12), normal(2, 7, 12)], {"q_num_heads": 6, "kv_num_heads": 3}, 23),
    ],
)
def test_other_attention_is_left_to_onnx_definition(
    inputs: list[Array], attributes: Mapping[str, Any], opset: int
) -> None:
    model, _ = one_node("Attention", inputs, attributes, opset=opset, domain="")
    assert [node.op_type for node in take_apart(standard_names(model)).graph.node] == ["Identity", "Attention"]


@pytest.mark.parametrize("opset", [11, 16])
@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("LayerNormalization", [TOKENS, normal(12), normal(12)], {"epsilon": 0.02, "axis": -1}),
        ("LayerNormalization", [TOKENS, normal(5, 12)], {"axis": 1}),
        ("SimplifiedLayerNormalization", [TOKENS, normal(12)], {"epsilon": 0.02, "axis": -1}),
    ],
)
def test_operators_that_pass_for_onnx_own_are_too(
    op: str, inputs: list[Array], attributes: Mapping[str, Any], opset: int
) -> None:
    model, feeds = one_node(op, inputs, attributes, opset=opset, domain="")
    found = take_apart(standard_names(model))
    (want,), (got,) = run(model, feeds), run(found, feeds)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())


def test_a_domain_that_is_used_without_being_imported_is_found() -> None:
    model, feeds = one_node("QuickGelu", [TOKENS], {}, opset=17)
    want = run(model, feeds)
    del model.opset_import[1]
    assert [o.domain for o in standard_names(model).opset_import] == ["", CONTRIB]
    np.testing.assert_allclose(run(take_apart(standard_names(model)), feeds)[0], want[0], rtol=0, atol=1e-6)


def test_the_sum_that_a_skip_normalisation_gives_away_is_kept() -> None:
    inputs = [TOKENS, normal(2, 5, 12), normal(12), normal(12), normal(12)]
    model, feeds = one_node("SkipLayerNormalization", inputs, {}, ["y", "", "", "sum"], opset=17)
    found = take_apart(standard_names(model))
    assert [value.name for value in found.graph.output] == ["y", "sum"]
    for got, want in zip(run(found, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_axes_are_turned_even_where_their_number_is_not_known() -> None:
    model, feeds = one_node("FusedMatMul", [SQUARE, normal(2, 3, 5, 4)], {"transA": 1}, opset=17, shaped=False)
    found = take_apart(standard_names(model))
    assert "Einsum" in {node.op_type for node in found.graph.node}
    np.testing.assert_allclose(run(found, feeds)[0], run(model, feeds)[0], rtol=0, atol=1e-4)


def test_a_model_without_fusions_is_handed_back_as_it_is() -> None:
    model, _ = one_node("Relu", [X], {}, opset=17, domain="")
    assert standard_names(model) is model
    assert take_apart(model) is model


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "outputs", "reason"),
    [
        ("FusedConv", [X, W], {"activation": "Softsign"}, ["y"], "its activation 'Softsign'"),
        ("FusedMatMul", [SQUARE, SQUARE], {"transBatchA": 1}, ["y"], "number of axes it turns is not known"),
        ("Attention", [TOKENS, normal(12, 36), normal(36)], {**MHA, "unidirectional": 1}, ["y"], "unidirectional"),
        ("Attention", [TOKENS, normal(12, 36), None, np.int32([5, 5])], MHA, ["y"], r"input 3 \('i3'\) is given"),
        ("MultiHeadAttention", [normal(2, 5, 3, 3, 4)], MHA, ["y"], "packed in one"),
        ("SkipLayerNormalization", [TOKENS, TOKENS, normal(12)], {}, ["y", "mean"], "its output 'mean' is used"),
    ],
)
def test_what_is_not_covered_is_refused_with_its_node(
    op: str, inputs: list[Array | None], attributes: Mapping[str, Any], outputs: list[str], reason: str
) -> None:
    model, _ = one_node(op, inputs, attributes, outputs, opset=17, shaped=op != "FusedMatMul")
    with pytest.raises(MissingRuleError, match=rf"com\.microsoft::{op} at node 'the_node' .*{reason}") as caught:
        take_apart(standard_names(model))
    assert "\n" not in str(caught.value)


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
