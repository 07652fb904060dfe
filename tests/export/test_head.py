"""The scores: which output holds them, what lies before a softmax, and what is no classifier at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from camrt.errors import ModelError
from camrt.export.live import open_model
from camrt.export.load import Classifier, load
from camrt.export.verify import check_parity, run
from camrt.export.vjp.emit import dims
from tests.export.onnx_text import CONV, HEAD, tiny

AVERAGE = f"{CONV} p = GlobalAveragePool(a)"
X = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)


def ops(classifier: Classifier) -> list[str]:
    """Return the operators that are left, in order."""
    return [node.op_type for node in classifier.model.graph]


def scores(data: bytes, **options: Any) -> np.ndarray[Any, Any]:
    """Return what the forward program makes of `X`."""
    program = open_model(data, **options).program("forward").model
    assert isinstance(program, bytes)
    return run(program, {"x": X})[0]


def refusal(data: bytes, **options: Any) -> str:
    """Return the one line with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load(data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PLAIN = scores(tiny())

# which output ------------------------------------------------------------------------------------------------------


def test_an_output_is_chosen_by_name_and_nothing_else_is_kept() -> None:
    data = tiny(f"{CONV} {HEAD} z = Relu(y)", y="float[N,5] y, float[N,5] z, float[N,4,8,8] a")
    assert [load(data, output=name).logits.name for name in ("y", "z")] == ["y", "z"]
    assert [v.name for v in onnx.load_from_string(load(data, output="y").given()).graph.output] == ["y"]
    assert "has no output 'w'; it has: y, z, a" in refusal(data, output="w")
    assert "has 3 outputs (y [N,5], z [N,5], a [N,4,8,8]): choose the one with class scores by output=" in refusal(data)


def test_a_tensor_inside_can_be_the_output() -> None:
    data = tiny(f"{CONV} {HEAD} z = Gemm(y, w4)", y="float[N,2] z", weights={"w4": (5, 2)})
    assert load(data, output="y").classes == 5
    np.testing.assert_array_equal(scores(data, output="y"), PLAIN)


def test_outputs_of_the_same_scores_need_no_name() -> None:
    classifier = load(tiny(f"{CONV} {HEAD} z = Softmax<axis=1>(y)", y="float[N,5] y, float[N,5] z"))
    assert (classifier.logits.name, classifier.head) == ("y", "none")


LABELS = {
    "argmax_beside": ("s = Softmax<axis=1>(y) l = ArgMax<axis=1>(s)", "float[N,5] s, int64[N,1] l"),
    "argmax_alone": ("s = Softmax<axis=1>(y) l = ArgMax<axis=-1, keepdims=0>(s)", "int64[N] l"),
    "argmax_cast": ("l = ArgMax<axis=1>(y) c32 = Cast<to=6>(l) z = Identity(c32)", "int32[N,1] z"),
    "topk": ("k = Constant<value_ints=[3]>() s = Softmax<axis=1>(y) v, i = TopK(s, k)", "float[N,3] v, int64[N,3] i"),
}


@pytest.mark.parametrize("form", LABELS)
def test_labels_are_followed_back_to_the_scores_they_are_read_from(form: str) -> None:
    body, y = LABELS[form]
    data = tiny(f"{CONV} {HEAD} {body}", y=y)
    np.testing.assert_array_equal(scores(data), PLAIN)
    live = open_model(data)
    assert live.manifest.head == ("none" if form == "argmax_cast" else "softmax")
    assert check_parity(live.classifier, live, X)["max_rel"] <= 1e-6


@pytest.mark.parametrize("asked", [None, "table", "name"])
def test_the_labels_and_tables_of_classical_libraries_are_followed_too(asked: str | None) -> None:
    """A label by name, and a sequence of maps from label to probability, as converters of other libraries write them."""
    model = onnx.load_from_string(
        tiny(f"{CONV} {HEAD} s = Softmax<axis=1>(y) i = ArgMax<axis=1, keepdims=0>(s)", y="int64[N] i")
    )
    letters = list("abcde")
    model.graph.node.append(
        helper.make_node(
            "LabelEncoder", ["i"], ["name"], domain="ai.onnx.ml", keys_int64s=range(5), values_strings=letters
        )
    )
    model.graph.node.append(
        helper.make_node("ZipMap", ["s"], ["table"], domain="ai.onnx.ml", classlabels_strings=letters)
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    del model.graph.output[:]
    table = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output.append(helper.make_tensor_value_info("name", TensorProto.STRING, ["N"]))
    model.graph.output.append(helper.make_value_info("table", helper.make_sequence_type_proto(table)))
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    np.testing.assert_array_equal(scores(data, output=asked), PLAIN)
    assert load(data, output=asked).output == "s"


def test_the_largest_of_several_images_is_no_label() -> None:
    body, x = f"{CONV} {HEAD} l = ArgMax<axis=0>(y)", "float[1,3,8,8] x"
    assert "floating-point scores were wanted, output 'l' is INT64" in refusal(tiny(body, x=x, y="int64[1,5] l"))


def test_what_is_no_tensor_of_numbers_is_refused() -> None:
    sequence = tiny(f"{CONV} {HEAD} s = SequenceConstruct(y)", y="seq(float[N,5]) s")
    maybe = tiny(f"{CONV} {HEAD} s = Optional(y)", y="optional(float[N,5]) s")
    words = tiny(f"{CONV} {HEAD} s = Cast<to=8>(y)", y="string[N,5] s")
    for data, kind in ((sequence, "s sequence"), (maybe, "s optional"), (words, "s string[N,5]")):
        assert f"a tensor of scores was wanted, output {kind} is none: name another" in refusal(data)


# the logits --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "after", ["z = Identity(s)", "z = Cast<to=11>(s)", "z = Reshape(s, rows)", "z = Transpose<perm=[0, 1]>(s)"]
)
def test_what_moves_the_probabilities_only_is_passed(after: str) -> None:
    kind = "double" if "Cast" in after else "float"
    rows = {"rows": np.array([-1, 5])}
    data = tiny(f"{CONV} {HEAD} s = Softmax<axis=1>(y) {after}", y=f"{kind}[N,5] z", weights=rows)
    assert load(data).head == "softmax"
    np.testing.assert_array_equal(scores(data), PLAIN)


@pytest.mark.parametrize("shifted", [True, False])
def test_a_softmax_spelt_out_is_found(shifted: bool) -> None:
    less = "m = ReduceMax(y, last) d = Sub(y, m)" if shifted else "d = Identity(y)"
    body = f"{CONV} {HEAD} {less} e = Exp(d) t = ReduceSum(e, last) z = Div(e, t)"
    data = tiny(body, y="float[N,5] z", weights={"last": np.array([-1])})
    assert load(data).head == "softmax"
    np.testing.assert_array_equal(scores(data), PLAIN)


@pytest.mark.parametrize(
    "body",
    [
        "e = Exp(y) t = ReduceSum(e, first) z = Div(e, t)",
        "e = Exp(y) t = ReduceSum(y, last) z = Div(e, t)",
        "e = Exp(y) r = Relu(y) q = Exp(r) t = ReduceSum(q, last) z = Div(e, t)",
    ],
    ids=["over_images", "of_scores", "of_others"],
)
def test_what_only_looks_like_a_softmax_is_none(body: str) -> None:
    data = tiny(f"{CONV} {HEAD} {body}", y="float[N,5] z", weights={"last": np.array([-1]), "first": np.array([0])})
    assert (load(data).head, load(data).logits.name) == ("none", "z")


ONE_ROW = {
    "squeeze": f"{CONV} {HEAD} axes = Constant<value_ints=[0]>() z = Squeeze(y, axes)",
    "reshape": f"{CONV} {HEAD} to = Constant<value_ints=[5]>() z = Reshape(y, to)",
    "gather": f"{CONV} {HEAD} first = Constant<value_int=0>() z = Gather<axis=0>(y, first)",
    "early": f"{AVERAGE} to = Constant<value_ints=[4]>() f = Reshape(p, to) m = MatMul(f, w2) z = Add(m, b2)",
    "softmax": f"{AVERAGE} to = Constant<value_ints=[4]>() f = Reshape(p, to) m = MatMul(f, w2) q = Add(m, b2) z = Softmax<axis=0>(q)",
}


@pytest.mark.parametrize("form", ONE_ROW)
def test_scores_without_a_batch_axis_are_those_of_one_image(form: str) -> None:
    data = tiny(ONE_ROW[form], x="float[1,3,8,8] x", y="float[5] z")
    live = open_model(data)
    assert (live.manifest.batch, live.manifest.classes) == (1, 5)
    assert live.manifest.head == ("softmax" if form == "softmax" else "none")
    program = live.program("forward").model
    assert isinstance(program, bytes)
    rows = [run(program, {"x": x[None]})[0] for x in X]
    np.testing.assert_allclose(np.concatenate(rows), PLAIN, rtol=0, atol=1e-6)


def test_one_class_alone_is_a_yes_or_no_model() -> None:
    classifier = load(tiny(f"{CONV} {HEAD} q = Gemm(y, w4) z = Sigmoid(q)", y="float[N,1] z", weights={"w4": (5, 1)}))
    assert (classifier.classes, classifier.head, classifier.logits.name) == (1, "sigmoid", "q")


def test_logits_are_float32_whatever_the_model_ends_in() -> None:
    data = tiny(f"{CONV} {HEAD} z = Cast<to=11>(y)", y="double[N,5] z")
    assert scores(data).dtype == np.float32
    np.testing.assert_array_equal(scores(data), PLAIN)


NO_CLASSIFIER = {
    "map": (f"{CONV} y = Relu(a)", "float[N,4,8,8] y", "one map a class, as segmentation models and backbones give"),
    "labels of pixels": (f"{CONV} y = ArgMax<axis=1>(a)", "int64[N,1,8,8] y", "one map a class"),
    "boxes": (f"{CONV} r = Reshape(a, to) y = Transpose<perm=[0, 2, 1]>(r)", "float[N,64,4] y", "one row a box"),
    "integers": (f"{CONV} {HEAD} z = Cast<to=7>(y)", "int64[N,5] z", "floating-point scores were wanted"),
}


@pytest.mark.parametrize("kind", NO_CLASSIFIER)
def test_what_is_no_classifier_is_told_what_it_is_and_what_to_do(kind: str) -> None:
    body, y, said = NO_CLASSIFIER[kind]
    message = refusal(tiny(body, y=y, weights={"to": np.array([0, 4, 64])}))
    assert said in message
    assert kind == "integers" or ("name another tensor with output= (--output), or append" in message)


UNITS = {
    "reduce_l2": "n = ReduceL2(y, last) z = Div(y, n)",
    "floor": "n = ReduceL2(y, last) m = Max(n, tiny) e = Expand(m, to) z = Div(y, e)",
    "spelt_out": "q = Mul(y, y) t = ReduceSum(q, last) n = Sqrt(t) z = Div(y, n)",
    "squares": "q = ReduceSumSquare(y, last) n = Sqrt(q) m = Clip(n, tiny) z = Div(y, m)",
    "operator": "z = LpNormalization<axis=1>(y)",
}
EMBEDDING = {
    "last": np.array([-1]),
    "tiny": np.float32(1e-12),
    "to": np.array([1, 5]),
    "w6": (5, 7),
    "rows": np.array([0]),
}


@pytest.mark.parametrize("form", UNITS)
def test_an_image_embedding_of_unit_length_is_no_classifier(form: str) -> None:
    message = refusal(tiny(f"{CONV} {HEAD} {UNITS[form]}", y="float[N,5] z", weights=EMBEDDING))
    assert "has length 1 by construction: it is an image embedding" in message
    assert "append a MatMul with constant class embeddings (D, C)" in message


@pytest.mark.parametrize("form", UNITS)
def test_an_image_embedding_times_class_embeddings_is_a_classifier(form: str) -> None:
    body = f"{CONV} {HEAD} {UNITS[form]} s = MatMul(z, w6)"
    assert load(tiny(body, y="float[N,7] s", weights=EMBEDDING)).classes == 7


@pytest.mark.parametrize("body", ["n = ReduceL2(y, rows) z = Div(y, n)", "n = ReduceL2(f, last) z = Div(y, n)"])
def test_a_division_by_another_norm_makes_no_embedding(body: str) -> None:
    assert load(tiny(f"{CONV} {HEAD} {body}", y="float[N,5] z", weights=EMBEDDING)).classes == 5


def test_an_output_called_an_embedding_is_no_classifier_unless_it_is_asked_for() -> None:
    body = f"{CONV} {HEAD}".replace("y = Gemm", "image_embeds = Gemm")
    data = tiny(body, y="float[N,5] image_embeds")
    assert "the output 'image_embeds' is an image embedding" in refusal(data)
    assert load(data, output="image_embeds").classes == 5


@pytest.mark.parametrize("axis", [2, 3])
def test_a_softmax_over_a_single_cell_is_no_head(axis: int) -> None:
    """Over an axis of length one it makes ones of everything: the scores are gone."""
    classifier = load(tiny(f"{AVERAGE} q = Conv(p, w3) y = Softmax<axis={axis}>(q)", y="float[N,5,1,1] y", **CELL))
    assert classifier.head == "none"


def test_a_label_that_is_taken_out_of_a_list_of_classes_is_followed() -> None:
    model = onnx.load_from_string(tiny(f"{CONV} {HEAD} i = ArgMax<axis=1, keepdims=0>(y)", y="int64[N] i"))
    model.graph.node.append(helper.make_node("ArrayFeatureExtractor", ["numbers", "i"], ["label"], domain="ai.onnx.ml"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(10, 15), "numbers"))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("label", TensorProto.INT64, [1, "N"]))
    np.testing.assert_array_equal(scores(model.SerializeToString()), PLAIN)
