"""Reading files: what is not a safe, whole classifier is refused in one line; what is one gets one form."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from camrt.errors import ModelError, NumericError
from camrt.export.load import MIN_OPSET, Classifier, load
from camrt.export.vjp.emit import dims
from tests.export.onnx_text import CONV, HEAD, tiny
from tests.export.onnx_text import TINY as WEIGHTS

AVERAGE = f"{CONV} p = GlobalAveragePool(a)"


def ops(classifier: Classifier) -> list[str]:
    """Return the operators that are left, in order."""
    return [node.op_type for node in classifier.model.graph]


def refusal(source: bytes | str | Path, **options: Any) -> str:
    """Return the one line with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# not a classifier --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"body": "y = Relu(x)", "x": "float[N,3,8] x", "y": "float[N,3,8] y"}, "rank 4 was wanted"),
        ({"body": f"{CONV} y = Relu(a)", "y": "float[N,4,8,8] y"}, "scores of shape (N, C) was wanted"),
        ({"body": f"{CONV} {HEAD} z = Cast<to=7>(y)", "y": "int64[N,5] z"}, "floating-point scores"),
        (
            {"body": f"{CONV} y = Gemm(w2, w4)", "y": "float[4,5] y", "weights": {"w4": (5, 5)}},
            "does not follow its batch",
        ),
        ({"x": "float[N,3,H,W] x"}, "leaves its size open"),
        ({"opset": 5}, "cannot be lifted"),
    ],
    ids=["rank", "map", "integers", "constant", "open", "opset_5"],
)
def test_what_is_no_classifier_is_refused(options: dict[str, Any], said: str) -> None:
    assert said in refusal(tiny(**options))


def test_an_opset_from_the_future_is_refused() -> None:
    model = onnx.load_from_string(tiny())
    model.opset_import[0].version = 99
    assert "uses opset 99, the newest supported is" in refusal(model.SerializeToString())


def test_an_operator_nobody_knows_the_shape_of_is_named() -> None:
    model = onnx.load_from_string(tiny())
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    assert "operator com.example::Relu at node 'act' makes cannot be found" in refusal(model.SerializeToString())


def test_an_output_is_chosen_by_name() -> None:
    data = tiny(f"{CONV} {HEAD} z = Relu(y)", y="float[N,5] y, float[N,5] z")
    assert [load(data, output=name).logits.name for name in ("y", "z")] == ["y", "z"]
    assert "has no output 'w'; it has: y, z" in refusal(data, output="w")


def test_an_open_input_size_is_filled_in_and_a_fixed_one_is_kept() -> None:
    assert dims(load(tiny(x="float[N,3,H,W] x"), size=(6, 9)).x) == ("N", 3, 6, 9)
    assert "size=(9, 9) does not fit" in refusal(tiny(), size=(9, 9))


@pytest.mark.parametrize("opset", [11, 18])
def test_an_input_too_small_for_the_network_is_refused_before_it_can_end_the_process(opset: int) -> None:
    """onnx's shape inference aborts where a Slice meets a negative size."""
    body = f"{CONV} q = MaxPool<kernel_shape=[20, 20]>(a) s = Slice(q, from, to, rows) {HEAD.replace('(a)', '(s)')}"
    weights = {"from": np.array([0]), "to": np.array([9]), "rows": np.array([2])}
    assert "would make a tensor of shape" in refusal(tiny(body, weights=weights, opset=opset))
    assert dims(load(tiny(body, weights=weights, opset=opset, x="float[N,3,H,W] x"), size=(32, 40)).x) == (
        "N",
        3,
        32,
        40,
    )


@pytest.mark.parametrize("opset", [11, 18])
def test_sizes_below_one_stand_for_open_ones(opset: int) -> None:
    """Some exporters write -1 or 0 for the batch."""
    for batch in (-1, 0):
        model = onnx.load_from_string(tiny(opset=opset))
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
        assert dims(load(model.SerializeToString()).logits) == ("N", 5)


@pytest.mark.parametrize("opset", [11, 18])
def test_sizes_noted_inside_the_file_are_not_believed(opset: int) -> None:
    """Whoever changes a model's input size by hand leaves the others as they were."""
    model = onnx.load_from_string(tiny(opset=opset))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["N", 4, 99, 99]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 77
    classifier = load(model.SerializeToString())
    assert classifier.classes == 5
    assert dims(next(v for node in classifier.model.graph for v in node.outputs if v.name == "a")) == ("N", 4, 8, 8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(NumericError, match="weight 'b1' holds 2 NaN or infinite numbers of 4"):
        load(tiny(weights={"b1": np.array([1, bad, 3, bad], np.float32)}))


def test_a_single_infinity_is_a_bound_and_allowed() -> None:
    data = tiny(f"{CONV} b = Max(a, low) {HEAD.replace('(a)', '(b)')}", weights={"low": np.float32(-np.inf)})
    assert load(data).classes == 5


# one form ----------------------------------------------------------------------------------------------------------


def test_a_plain_model_keeps_its_nodes_and_gets_shapes() -> None:
    classifier = load(tiny())
    assert ops(classifier) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    shapes = [dims(node.outputs[0]) for node in classifier.model.graph]
    assert shapes == [("N", 4, 8, 8), ("N", 4, 8, 8), ("N", 4, 1, 1), ("N", 4), ("N", 5)]
    assert (classifier.classes, classifier.batch, classifier.head) == (5, None, "none")
    assert (classifier.opset, classifier.producer, classifier.output) == (18, "hand", "y")


def test_the_file_is_only_read_and_known_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny())
    before = path.stat()
    classifier = load(path)
    assert path.read_bytes() == tiny() == classifier.given()
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert classifier.sha256 == hashlib.sha256(tiny()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]


def test_the_model_as_given_is_that_which_was_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny())
    classifier = load(path)
    path.write_bytes(tiny(seed=1))
    with pytest.raises(ModelError, match=r"model.onnx' has changed since it was read: load it again"):
        classifier.given()


def test_metadata_of_the_file_is_kept() -> None:
    model = onnx.load_from_string(tiny())
    onnx.helper.set_model_props(model, {"labels": "a,b,c"})
    assert load(model.SerializeToString()).metadata == {"labels": "a,b,c"}


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 20, 21, 22, 23, 24, 25, 26])
def test_every_opset_comes_out_at_18_or_newer(opset: int) -> None:
    classifier = load(tiny(opset=opset))
    assert classifier.model.opset_imports[""] == max(opset, MIN_OPSET)
    assert classifier.opset == opset
    assert ops(classifier) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]


def test_weights_listed_as_inputs_are_weights() -> None:
    model = onnx.load_from_string(tiny())
    for tensor in model.graph.initializer:
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.insert(0, value)
    classifier = load(model.SerializeToString())
    assert [value.name for value in classifier.model.graph.inputs] == ["x"]
    assert set(WEIGHTS) <= set(classifier.model.graph.initializers)


def test_weights_that_constant_nodes_hold_are_weights() -> None:
    model = onnx.load_from_string(tiny())
    for tensor in reversed(model.graph.initializer):
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    classifier = load(model.SerializeToString())
    assert "Constant" not in ops(classifier)
    assert set(WEIGHTS) <= set(classifier.model.graph.initializers)


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 18])
def test_dropout_and_identity_are_gone(opset: int) -> None:
    body = f"{CONV} d, mask = Dropout(a) i = Identity(d) {HEAD.replace('(a)', '(i)')}"
    assert ops(load(tiny(body, opset=opset))) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]


def test_constants_are_computed_once() -> None:
    body = f"{CONV} s = Sqrt(k) t = Mul(s, k) b = Mul(a, t) {HEAD.replace('(a)', '(b)')}"
    classifier = load(tiny(body, weights={"k": np.float32(4)}))
    assert ops(classifier) == ["Conv", "Relu", "Mul", "GlobalAveragePool", "Flatten", "Gemm"]
    assert float(classifier.model.graph.initializers["t"].const_value.numpy()) == 8  # type: ignore[union-attr]


def test_local_functions_are_opened() -> None:
    model = onnx.load_from_string(tiny())
    body = [onnx.helper.make_node("Neg", ["v"], ["n"]), onnx.helper.make_node("Neg", ["n"], ["w"])]
    opsets = [onnx.helper.make_opsetid("", 18)]
    model.functions.append(onnx.helper.make_function("mine", "Twice", ["v"], ["w"], body, opsets))
    model.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Twice", "mine"
    assert ops(load(model.SerializeToString())) == ["Conv", "Neg", "Neg", "GlobalAveragePool", "Flatten", "Gemm"]


def test_operators_without_a_rule_are_spelt_out_where_onnx_defines_them_by_others() -> None:
    from camrt.export.vjp import RULES

    classifier = load(tiny(f"{CONV} b = MeanVarianceNormalization(a) {HEAD.replace('(a)', '(b)')}"))
    assert "MeanVarianceNormalization" not in ops(classifier)
    assert set(ops(classifier)) <= set(RULES)


# the batch ---------------------------------------------------------------------------------------------------------

CHAIN = (
    f"{AVERAGE} s = Shape(p) zero = Constant<value_int=0>() n = Gather(s, zero) axes = Constant<value_ints=[0]>() "
    "n1 = Unsqueeze(n, axes) rest = Constant<value_ints=[-1]>() to = Concat<axis=0>(n1, rest) f = Reshape(p, to) "
    "y = Gemm(f, w2, b2)"
)


def test_shapes_computed_in_the_graph_leave_the_batch_free() -> None:
    classifier = load(tiny(CHAIN))
    assert ops(classifier) == ["Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm"]
    assert dims(classifier.logits) == ("N", 5)


def test_a_batch_fixed_in_the_file_alone_is_freed() -> None:
    classifier = load(tiny(x="float[1,3,8,8] x", y="float[1,5] y"))
    assert classifier.batch is None
    assert dims(classifier.x) == ("N", 3, 8, 8)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_fixed_by_a_reshape_is_kept(batch: int) -> None:
    body = f"{AVERAGE} to = Constant<value_ints=[{batch}, -1]>() f = Reshape(p, to) y = Gemm(f, w2, b2)"
    classifier = load(tiny(body, x=f"float[{batch},3,8,8] x", y=f"float[{batch},5] y"))
    assert classifier.batch == batch
    assert dims(classifier.logits) == (batch, 5)
