"""
One network in the shapes that exporters give it: each is explained like the plain one, from the file and from a bundle.

The oracle is the network of `tiny.gap` as a plain float32 NCHW export. Weights are the same numbers in every form, so
logits, maps and gradients must be, up to the rounding of another order of sums (or of the type that the form computes
in, where it says so).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import camrt
from camrt.explanation import Explanation
from camrt.export.write import export
from tests import tiny

Array = np.ndarray[Any, Any]
H, W = tiny.SIZE
X = tiny.images(3)
LEVELS = np.clip(np.rint(X * 40 + 128), 0, 255).astype(np.uint8)  # a picture of whole numbers, and what it stands for
SEEN = (LEVELS.astype(np.float32) - 128) / 40

STAGES = (
    "c1 = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, w1, b1) a1 = Relu(c1) "
    "c2 = Conv<pads=[1, 1, 1, 1]>(a1, w2, b2) a2 = Relu(c2) "
)
POOL = "p = GlobalAveragePool(a2) f = Flatten(p) "
HEAD = "scores = Gemm(f, head, bias)"
LAST = (  # as TensorFlow's converter leaves it without its optimizers: transposed around every operator
    "t0 = Transpose<perm=[0, 3, 1, 2]>(image) c1 = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(t0, w1) "
    "u1 = Transpose<perm=[0, 2, 3, 1]>(c1) d1 = Add(u1, b1) a1 = Relu(d1) t1 = Transpose<perm=[0, 3, 1, 2]>(a1) "
    "c2 = Conv<pads=[1, 1, 1, 1]>(t1, w2) u2 = Transpose<perm=[0, 2, 3, 1]>(c2) d2 = Add(u2, b2) a2 = Relu(d2) "
)
TURNED = "x = Transpose<perm=[0, 3, 1, 2]>(image) "


@dataclass(frozen=True)
class Form:
    """
    One way to export the network.

    Attributes
    ----------
    nodes : str
        In ONNX's text syntax.
    image, scores : str
        Its input and output.
    more : dict
        Weights besides those of `tiny`.
    opset, ir : int
        Versions.
    change : callable
        What is done to the finished model.
    options : dict
        For `camrt.load` and `export`.
    given, seen : ndarray
        The pictures as the form takes them, and as the plain network does.
    tolerance : float
        Of maps and gradients, relative to their largest value.
    """

    nodes: str
    image: str = f"float[N, 3, {H}, {W}] image"
    scores: str = "float[N, 5] scores"
    more: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    ir: int = 8
    change: Callable[[onnx.ModelProto], object] = lambda model: None
    options: dict[str, Any] = field(default_factory=dict)
    given: Array = field(default_factory=lambda: X)
    seen: Array = field(default_factory=lambda: X)
    tolerance: float = 1e-5

    def model(self) -> bytes:
        """Return the file's content."""
        head = f'<ir_version: {self.ir}, opset_import: ["": {self.opset}]>'
        model = onnx.parser.parse_model(f"{head} form ({self.image}) => ({self.scores}) {{ {self.nodes} }}")
        for name, array in {**tiny.weights(), **self.more}.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        self.change(model)
        return bytes(model.SerializeToString())


def plain(nodes: str) -> str:
    """Name the image as the stages read it."""
    return nodes.replace("(x,", "(image,")


def halved(kind: int) -> Callable[[onnx.ModelProto], None]:
    """Return what stores every weight in half precision."""

    def change(model: onnx.ModelProto) -> None:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        for tensor in model.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, kind, array.shape, array.tobytes(), raw=True))

    return change


def listed(model: onnx.ModelProto) -> None:
    """List weights as inputs, as files before version 4 must."""
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def constants(model: onnx.ModelProto) -> None:
    """Hold every weight in a Constant node, and no initializer at all."""
    for tensor in reversed(model.graph.initializer):
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]


ROWS = {"rows": np.array([-1, 5]), "features": np.array([-1, 6])}
KERNEL = {"kernel": tiny.weights()["head"].T.reshape(5, 6, 1, 1).copy()}
LAST_IMAGE: dict[str, Any] = {"image": f"float[N, {H}, {W}, 3] image", "given": X.transpose(0, 2, 3, 1).copy()}
WHOLE: dict[str, Any] = {"more": {"m": np.float32(128), "s": np.float32(40)}, "seen": SEEN}
SCALE = "i = Cast<to=1>(image) j = Sub(i, m) "
FORMS: dict[str, Form] = {
    "channels last": Form(TURNED + STAGES + POOL + HEAD, **LAST_IMAGE),
    "transposes everywhere": Form(LAST + "f = ReduceMean<axes=[1, 2], keepdims=0>(a2) " + HEAD, **LAST_IMAGE),
    "transposes in the head": Form(
        LAST + "t2 = Transpose<perm=[0, 3, 1, 2]>(a2) p = GlobalAveragePool(t2) t3 = Transpose<perm=[0, 2, 3, 1]>(p) "
        "f = Reshape(t3, features) " + HEAD,
        more=ROWS, **LAST_IMAGE,
    ),
    "convolution as head": Form(
        LAST + "t2 = Transpose<perm=[0, 3, 1, 2]>(a2) p = GlobalAveragePool(t2) q = Conv(p, kernel, bias) "
        "t3 = Transpose<perm=[0, 2, 3, 1]>(q) r = Reshape(t3, rows) scores = Softmax(r)",
        more={**ROWS, **KERNEL}, **LAST_IMAGE,
    ),
    "float16": Form(
        plain(STAGES) + POOL + HEAD, f"float16[N, 3, {H}, {W}] image", "float16[N, 5] scores",
        change=halved(onnx.TensorProto.FLOAT16), given=X.astype(np.float16), tolerance=5e-3,
    ),
    "float16 inside": Form(
        "x = Cast<to=10>(image) " + STAGES + POOL + "l = Gemm(f, head, bias) scores = Cast<to=1>(l)",
        change=halved(onnx.TensorProto.FLOAT16), tolerance=5e-3,
    ),
    "bfloat16": Form(
        plain(STAGES) + POOL + HEAD, f"bfloat16[N, 3, {H}, {W}] image", "bfloat16[N, 5] scores",
        change=halved(onnx.TensorProto.BFLOAT16), tolerance=5e-2,
    ),
    "one image a run": Form(
        plain(STAGES) + "p = GlobalAveragePool(a2) f = Reshape(p, one) " + HEAD,
        f"float[1, 3, {H}, {W}] image", "float[1, 5] scores", {"one": np.array([1, 6])},
    ),
    "sixteen images a run": Form(
        plain(STAGES) + "p = GlobalAveragePool(a2) f = Reshape(p, many) " + HEAD,
        f"float[16, 3, {H}, {W}] image", "float[16, 5] scores", {"many": np.array([16, 6])},
    ),
    "open size": Form(plain(STAGES) + POOL + HEAD, "float[N, 3, H, W] image", options={"size": tiny.SIZE}),
    "weights listed as inputs": Form(plain(STAGES) + POOL + HEAD, opset=8, ir=3, change=listed),
    "weights in Constant nodes": Form(plain(STAGES) + POOL + HEAD, change=constants),
    "scores without a batch": Form(
        plain(STAGES) + POOL + "g = Gemm(f, head, bias) scores = Squeeze(g, first)",
        f"float[1, 3, {H}, {W}] image", "float[5] scores", {"first": np.array([0])},
    ),
    "scores of one cell": Form(
        plain(STAGES) + "p = GlobalAveragePool(a2) scores = Conv(p, kernel, bias)", scores="float[N, 5, 1, 1] scores",
        more=KERNEL,
    ),
    "whole numbers": Form(
        SCALE + "x = Div(j, s) " + STAGES + POOL + HEAD, f"uint8[N, 3, {H}, {W}] image", given=LEVELS, **WHOLE
    ),
    "whole numbers, channels last": Form(
        SCALE + "k = Div(j, s) " + TURNED.replace("image", "k") + STAGES + POOL + HEAD,
        f"uint8[N, {H}, {W}, 3] image", given=LEVELS.transpose(0, 2, 3, 1).copy(), **WHOLE,
    ),
    "softmax and its largest": Form(
        plain(STAGES) + POOL + "l = Gemm(f, head, bias) scores = Softmax(l) label = ArgMax<axis=1>(scores)",
        scores="float[N, 5] scores, int64[N, 1] label",
    ),
    "sigmoid": Form(plain(STAGES) + POOL + "l = Gemm(f, head, bias) scores = Sigmoid(l)"),
    "several outputs": Form(
        plain(STAGES) + POOL + HEAD, scores="float[N, 5] scores, float[N, 6] f", options={"output": "scores"}
    ),
    "several inputs": Form(
        "x = Mul(image, gain) " + STAGES + "d = Dropout(a2, , training) p = GlobalAveragePool(d) f = Flatten(p) " + HEAD,
        f"float[N, 3, {H}, {W}] image, float[1] gain, bool training", options={"fixed": {"gain": 1}},
    ),
    "a second picture": Form(
        "x = Sub(image, other) " + STAGES + POOL + HEAD,
        f"float[N, 3, {H}, {W}] image, float[N, 3, {H}, {W}] other",
        options={"input": "image", "fixed": {"other": np.zeros((3, H, W))}},
    ),
}  # fmt: skip
METHODS = ("gradcam", "cam", "layercam", "eigencam")
KINDS = ("forward", "features", "gradient", "map_gradcam", "map_layercam")


def explanations(explainer: camrt.Explainer, x: Array) -> dict[str, Explanation]:
    """Return what every method says of class 2."""
    return {method: explainer.explain(x, method=method, target=2) for method in METHODS}


def compare(got: dict[str, Explanation], want: dict[str, Explanation], tolerance: float) -> None:
    """Compare logits, raw maps and heatmaps."""
    for method, result in got.items():
        scale = np.abs(want[method].raw).max()
        assert scale > 0.1
        np.testing.assert_allclose(result.raw, want[method].raw, rtol=0, atol=tolerance * scale, err_msg=method)
        np.testing.assert_allclose(result.heatmaps, want[method].heatmaps, rtol=0, atol=2 * tolerance, err_msg=method)
        reach = np.abs(want[method].logits).max()
        np.testing.assert_allclose(result.logits, want[method].logits, rtol=0, atol=tolerance * reach)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_explained_like_the_plain_export(name: str, tmp_path: Path) -> None:
    form = FORMS[name]
    data, want = form.model(), explanations(camrt.load(tiny.gap()), form.seen)
    explainer = camrt.load(data, **form.options)
    compare(explanations(explainer, form.given), want, form.tolerance)
    export(data, tmp_path / "bundle", kinds=KINDS, preprocess=explainer.preprocess.to_dict(), **form.options)
    compare(explanations(camrt.load(tmp_path / "bundle"), form.given), want, form.tolerance)


@pytest.mark.parametrize("name", [n for n in FORMS if not n.startswith(("whole", "bfloat16"))])
def test_the_gradient_at_the_picture_is_that_of_the_plain_export(name: str) -> None:
    """Not of bfloat16, whose rounded weights put other ReLUs on; `test_precision` has weights that need no rounding."""
    form = FORMS[name]
    want = camrt.load(tiny.gap()).input_gradient(form.seen, target=2)
    got = camrt.load(form.model(), **form.options).input_gradient(form.given, target=2)
    got = got.transpose(0, 3, 1, 2) if got.shape[-1] == 3 else got
    np.testing.assert_allclose(got, want, rtol=0, atol=form.tolerance * np.abs(want).max())


def test_whole_numbers_have_no_gradient_and_a_bundle_of_them_none_either(tmp_path: Path) -> None:
    data = FORMS["whole numbers"].model()
    with pytest.raises(camrt.errors.LayerError, match="input 'image' takes whole numbers"):
        camrt.load(data).input_gradient(LEVELS, target=2)
    bundle = export(data, tmp_path / "bundle")
    assert "input_gradient" not in {program.kind for program in bundle.programs}
    assert camrt.load(tmp_path / "bundle").explain(LEVELS).logits.shape == (3, 5)


def test_a_batch_that_does_not_fill_a_run_changes_nothing() -> None:
    x = tiny.images(19)
    many, free = camrt.load(FORMS["sixteen images a run"].model()), camrt.load(tiny.gap())
    assert many.manifest.batch == 16
    for n in (1, 16, 19):
        got, want = many.explain(x[:n], target=[1, 4]), free.explain(x[:n], target=[1, 4])
        np.testing.assert_allclose(got.raw, want.raw, rtol=0, atol=1e-6)
        assert len(got.heatmaps) == n


def test_one_class_alone_has_the_probability_of_its_sigmoid() -> None:
    weights = {"last": np.ones((6, 1), np.float32)}
    form = Form(
        plain(STAGES) + POOL + "l = MatMul(f, last) scores = Sigmoid(l)", scores="float[N, 1] scores", more=weights
    )
    result = camrt.load(form.model()).explain(X)
    np.testing.assert_allclose(result.probabilities, 1 / (1 + np.exp(-result.logits)), rtol=1e-6)
    assert not result.degenerate.any()
