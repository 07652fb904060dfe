"""Layers in every layout, turned by the graph as NumPy turns them, and back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from camrt.export.live import open_model
from camrt.export.programs.draft import Draft
from camrt.export.programs.layouts import canonical, channels_first, image_size, original, prefix_shape, token_axis
from camrt.export.vjp.emit import described
from tests.export.judge import canonical as by_hand
from tests.export.judge import run_program
from tests.export.onnx_text import CONV, HEAD, tiny
from tests.export.programs.models import MODELS, finished, picture

FIRST = (
    "e = Conv<strides=[2, 2]>(x, wp) r = Reshape(e, flat) t = Transpose<perm=[2, 0, 1]>(r) "
    "o = Mul(t, one) q = MatMul(o, wq) s = Sigmoid(q) m = Add(o, s) "
    "p = ReduceMean<keepdims=0>(m, rows) y = Gemm(p, w2, b2)"
)
LAYOUTS = {
    "nchw": (MODELS["plain"], "c"),
    "nhwc": (MODELS["channels_last"], "a"),
    "tokens": (MODELS["tokens"], "n0"),
    "no_class_token": (MODELS["no_class_token"], "n0"),
    "tokens_first": (
        tiny(
            FIRST,
            weights={
                "wp": (4, 3, 2, 2), "flat": np.array([0, 4, 16]), "one": np.float32(1), "wq": (4, 4), "rows": np.array([0]),
            },
        ),
        "o",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layer_is_turned_as_numpy_turns_it_and_back(name: str) -> None:
    data, tensor = LAYOUTS[name]
    live = open_model(data)
    layer = live.resolve(tensor)
    assert layer.layout == name.replace("no_class_token", "tokens")
    assert token_axis(layer) == {"tokens": 1, "tokens_first": 0}.get(layer.layout)
    draft = Draft(live.classifier, [layer])
    draft.begin_at_image()
    (value,), e = draft.values, draft.emit
    turned, prefix = canonical(draft, layer, value), None
    if layer.prefix:
        prefix = e.Slice(value, e.const([0]), e.const([layer.prefix]), e.const([token_axis(layer) or 0]))
        assert prefix_shape(draft, layer) == ["N", layer.prefix, layer.channels]
    back = described(original(draft, layer, turned, prefix), value)
    draft.outputs |= {"given": value, "turned": turned, "back": back}
    found = run_program(finished(draft), x=picture(live))
    assert found["turned"].shape == (3, layer.channels, *layer.grid)
    np.testing.assert_array_equal(found["turned"], by_hand(layer, found["given"]))
    np.testing.assert_array_equal(found["back"], found["given"])


def test_any_tensor_with_its_channels_last_gets_them_first() -> None:
    live = open_model(MODELS["channels_last"])
    draft = Draft(live.classifier, ())
    draft.begin_at_image()
    draft.outputs["image"] = channels_first(draft, draft.x)
    x, program = picture(live), finished(draft)
    np.testing.assert_array_equal(run_program(program, x=x)["image"], x.transpose(0, 3, 1, 2))
    sides = onnx.load_from_string(program.model).graph.output[1].type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in sides] == ["N", 3, 8, 8]


@pytest.mark.parametrize(("x", "size"), [("float[N,3,6,10] x", (6, 10)), ("float[N,10,6,3] x", (10, 6))])
def test_the_size_of_the_image_is_height_before_width_in_either_layout(x: str, size: tuple[int, int]) -> None:
    body = (
        f"{CONV} {HEAD}" if "N,3" in x else f"t = Transpose<perm=[0, 3, 1, 2]>(x) {CONV.replace('(x,', '(t,')} {HEAD}"
    )
    assert image_size(Draft(open_model(tiny(body, x=x)).classifier, ())) == size
