"""Reading files: what is not a safe, whole classifier is refused in one line; what is one gets one form."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from camrt.errors import CamrtError, ModelError, NumericError
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


def changed(change: Callable[[onnx.TensorProto], object], **options: Any) -> bytes:
    """Return the tiny classifier with its first weight changed."""
    model = onnx.load_from_string(tiny(**options))
    change(model.graph.initializer[0])
    return model.SerializeToString()


# files that are not whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (tiny()[:400], "is not an ONNX model (or is cut short)"),
        (tiny()[:-1], "is not an ONNX model (or is cut short)"),
        (np.random.default_rng(0).bytes(1000), "is not an ONNX model"),
        (b"this is a text about models\n" * 10, "is not an ONNX model"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no graph"),
        (tiny().replace(b"Relu", b"Rulu"), "is not a valid ONNX model: No Op registered for Rulu"),
        (tiny().replace(b"act", b"a\xfft"), "which is not UTF-8"),
    ],
    ids=["empty", "cut", "last_byte", "random", "text", "no_graph", "unknown_operator", "name"],
)
def test_what_is_no_whole_model_is_refused(data: bytes, said: str) -> None:
    assert said in refusal(data)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "none.onnx")
    assert "is a folder" in refusal(str(tmp_path))
    assert "is not there" in refusal("none\0.onnx")


def test_a_damaged_file_is_refused_or_read_but_never_anything_else() -> None:
    """400 files with up to three bytes changed at random, most of them where the structure is."""
    rng, good = np.random.default_rng(0), tiny()
    structure = 330  # bytes before the weights
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(structure if rng.random() < 0.8 else len(data))] = rng.integers(256)
        try:
            load(bytes(data))
        except CamrtError as error:
            assert "\n" not in str(error)


# files that lie about their size -----------------------------------------------------------------------------------


def _resized(*shape: int) -> Callable[[onnx.TensorProto], object]:
    return lambda tensor: tensor.dims.__setitem__(slice(None), shape)


def _without_data(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.dims[:] = [2**31, 2**31]


def _short_floats(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.float_data[:] = [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_resized(2**40, 2**40), "is damaged"),
        (_without_data, "is not a valid ONNX model"),
        (_resized(4, 3, 3, 4), "should hold 576 bytes, it holds 432"),
        (_resized(-4, 3, 3, 3), "has a negative dimension"),
        (lambda t: t.__setattr__("raw_data", t.raw_data[:-1]), "should hold 432 bytes, it holds 431"),
        (lambda t: t.__setattr__("raw_data", t.raw_data * 2), "should hold 432 bytes, it holds 864"),
        (lambda t: t.__setattr__("data_type", 99), "unknown element type 99"),
        (_short_floats, "is not a valid ONNX model"),
    ],
    ids=["huge", "huge_without_data", "larger", "negative", "shorter", "longer", "type", "floats"],
)
def test_a_weight_that_holds_other_than_its_shape_says_is_refused(change: Any, said: str) -> None:
    assert said in refusal(changed(change))


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny())
    path.chmod(0)
    assert f"has {len(tiny())} bytes, at most 500 are read" in refusal(path, max_bytes=500)


@pytest.mark.parametrize(
    "body",
    [
        f"{CONV} s = Constant<value_ints=[1099511627776]>() z = ConstantOfShape(s) q = ReduceSum<keepdims=0>(z) b = Add(a, q)",
        f"{CONV} g = GlobalAveragePool(a) s = Constant<value_ints=[1, 4, 100000, 100000]>() b = Expand(g, s)",
        f"{CONV} s = Constant<value_ints=[1, 1, 50000, 50000]>() b = Tile(a, s)",
        f"{CONV} s = Constant<value_ints=[0, 0, 90000, 90000, 0, 0, 0, 0]>() b = Pad(a, s)",
    ],
    ids=["ConstantOfShape", "Expand", "Tile", "Pad"],
)
def test_a_small_file_that_asks_for_absurd_memory_is_refused(body: str) -> None:
    data = tiny(f"{body} {HEAD.replace('(a)', '(b)')}")
    assert "elements are allowed" in refusal(data)


# weights beside the file -------------------------------------------------------------------------------------------


def outside(folder: Path, **entries: Any) -> Path:
    """Write the tiny classifier with its first weight said to lie elsewhere; `weights.bin` holds it at byte 64."""
    folder.mkdir(exist_ok=True)

    def move(tensor: onnx.TensorProto) -> None:
        (folder / "weights.bin").write_bytes(b"\0" * 64 + tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))

    path = folder / "model.onnx"
    path.write_bytes(changed(move))
    return path


@pytest.mark.parametrize("length", [{"length": 432}, {}], ids=["length", "to_the_end"])
def test_weights_beside_the_file_are_read(tmp_path: Path, length: dict[str, int]) -> None:
    inside = load(tiny())
    beside = load(outside(tmp_path, location="weights.bin", offset=64, **length))
    for name, value in inside.model.graph.initializers.items():
        other = beside.model.graph.initializers[name].const_value
        assert value.const_value is not None
        assert other is not None
        np.testing.assert_array_equal(value.const_value.numpy(), other.numpy())
    assert beside.sha256 != inside.sha256
    assert not onnx.load_from_string(beside.given).graph.initializer[0].external_data


def test_weights_in_a_folder_below_are_read(tmp_path: Path) -> None:
    path = outside(tmp_path, location="deep/weights.bin", offset=64, length=432)
    (tmp_path / "deep").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "deep" / "weights.bin")
    assert load(path).classes == 5


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "../secret.bin"}, "points outside the model's folder ('../secret.bin'): refused"),
        ({"location": "deep/../../secret.bin"}, "points outside"),
        ({"location": "..\\secret.bin"}, "points outside"),
        ({"location": "C:\\secret.bin"}, "points outside"),
        ({"location": "/etc/hostname"}, "points outside"),
        ({"location": ""}, "points outside"),
        ({}, "points outside"),
        ({"location": "link.bin"}, "points outside"),
        ({"location": "folder_link/secret.bin"}, "points outside"),
        ({"location": "none.bin"}, "which is not beside the model"),
        ({"location": "."}, "which is not beside the model"),
        ({"location": "weights.bin", "offset": 10**12, "length": 432}, "which is shorter"),
        ({"location": "weights.bin", "offset": 65, "length": 432}, "which is shorter"),
        ({"location": "weights.bin", "offset": -1, "length": 432}, "which is shorter"),
        ({"location": "weights.bin", "offset": 0, "length": -5}, "which is shorter"),
        ({"location": "weights.bin", "offset": "a", "length": 432}, "not a number"),
        ({"location": "weights.bin", "offset": 64, "length": 428}, "should hold 432 bytes, it holds 428"),
        ({"location": "weights.bin"}, "should hold 432 bytes, it holds 496"),
    ],
)
def test_weights_anywhere_else_are_refused(tmp_path: Path, entries: dict[str, Any], said: str) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\1" * 432)
    path = outside(tmp_path / "model", **entries)
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    (path.parent / "folder_link").symlink_to(tmp_path, target_is_directory=True)
    assert said in refusal(path)


def test_weights_beside_are_not_looked_for_where_bytes_are_given(tmp_path: Path) -> None:
    data = outside(tmp_path, location="weights.bin", offset=64, length=432).read_bytes()
    assert "give the file's path, not its bytes" in refusal(data)


def test_the_limit_counts_weights_beside_the_file(tmp_path: Path) -> None:
    path = outside(tmp_path, location="weights.bin", offset=64, length=432)
    size = path.stat().st_size
    assert load(path, max_bytes=size + 432).classes == 5
    assert f"has {size + 432} bytes" in refusal(path, max_bytes=size + 431)


# not a classifier --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"x": "float[N,3,8,8] x, float[N,4] extra"},
            "one image input was wanted, this model has 2: x [N,3,8,8], extra [N,4]",
        ),
        ({"body": "y = Relu(x)", "x": "float[N,3,8] x", "y": "float[N,3,8] y"}, "rank 4 was wanted"),
        ({"y": "float[N,5] y, float[N,4,8,8] a"}, "has 2 outputs (y, a): choose one with output="),
        ({"body": f"{CONV} y = Relu(a)", "y": "float[N,4,8,8] y"}, "scores of shape (N, C) was wanted"),
        ({"body": f"{CONV} {HEAD} z = ArgMax<axis=1>(y)", "y": "int64[N,1] z"}, "scores"),
        ({"body": f"{CONV} {HEAD} z = Cast<to=7>(y)", "y": "int64[N,5] z"}, "floating-point scores"),
        (
            {"body": f"{CONV} y = Gemm(w2, w4)", "y": "float[4,5] y", "weights": {"w4": (5, 5)}},
            "does not follow its batch",
        ),
        ({"x": "float[N,3,H,W] x"}, "leaves its size open"),
        ({"opset": 5}, "cannot be lifted"),
    ],
    ids=["inputs", "rank", "outputs", "map", "argmax", "integers", "constant", "open", "opset_5"],
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
    assert path.read_bytes() == tiny() == classifier.given
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert classifier.sha256 == hashlib.sha256(tiny()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_of_the_file_is_kept() -> None:
    model = onnx.load_from_string(tiny())
    onnx.helper.set_model_props(model, {"labels": "a,b,c"})
    assert load(model.SerializeToString()).metadata == {"labels": "a,b,c"}


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 20, 21, 22, 23])
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


# the head ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "head"), [("Softmax", "softmax"), ("LogSoftmax", "log_softmax"), ("Sigmoid", "sigmoid")]
)
@pytest.mark.parametrize("opset", [7, 11, 13, 18])
def test_the_scores_are_what_lies_before_a_final_softmax(op: str, head: str, opset: int) -> None:
    classifier = load(tiny(f"{CONV} {HEAD} z = {op}(y)", y="float[N,5] z", opset=opset))
    assert (classifier.logits.name, classifier.head, classifier.output) == ("y", head, "z")
    assert ops(classifier)[-1] == "Gemm"


@pytest.mark.parametrize("opset", [7, 12, 13, 18])
def test_scores_of_a_convolution_lose_their_single_cell(opset: int) -> None:
    """SqueezeNet's form: a softmax over (N, C, 1, 1); before opset 13 it means all axes from the second on."""
    axis = "" if opset < 13 else "<axis=1>"
    classifier = load(
        tiny(f"{AVERAGE} q = Conv(p, w3) y = Softmax{axis}(q)", y="float[N,5,1,1] y", opset=opset, **CELL)
    )
    assert classifier.head == "softmax"
    assert dims(classifier.logits) == ("N", 5)
    assert ops(classifier)[-1] in ("Reshape", "Flatten")


CELL: dict[str, Any] = {"weights": {"w3": (5, 4, 1, 1)}}


def test_a_softmax_before_a_reshape_is_found() -> None:
    body = f"{AVERAGE} q = Conv(p, w3) s = Softmax<axis=1>(q) axes = Constant<value_ints=[2, 3]>() y = Squeeze(s, axes)"
    classifier = load(tiny(body, **CELL))
    assert (classifier.head, dims(classifier.logits)) == ("softmax", ("N", 5))


def test_a_softmax_inside_the_network_is_no_head() -> None:
    classifier = load(tiny(f"{CONV} b = Softmax<axis=1>(a) {HEAD.replace('(a)', '(b)')}"))
    assert (classifier.head, classifier.logits.name) == ("none", "y")


def test_a_softmax_over_another_axis_is_no_head() -> None:
    """Over axis 0 it compares images; what lies before it are not the scores of its classes."""
    classifier = load(tiny(f"{CONV} {HEAD} z = Softmax<axis=0>(y)", y="float[N,5] z"))
    assert (classifier.head, classifier.logits.name) == ("none", "z")
