"""The geometry of windows against ONNX Runtime's output shapes; slices, pads and weaving against NumPy."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from camrt.errors import MissingRuleError
from camrt.export.vjp.emit import Emit
from camrt.export.vjp.window import (
    FAR,
    Window,
    extend,
    interleave,
    read_window,
    repeat,
    spatial_slice,
)
from tests.export.vjp.run import emitted


def pool(size: int, **attributes: Any) -> ir.Node:
    """Return a one-dimensional MaxPool node."""
    x = ir.Value(name="x", shape=ir.Shape(["N", 1, size]), type=ir.TensorType(ir.DataType.FLOAT))
    return ir.node("MaxPool", [x], attributes, name="the_node")


def count_in_onnxruntime(size: int, **attributes: Any) -> int:
    """Return the length of what ONNX Runtime makes of a line."""
    node = onnx.helper.make_node("MaxPool", ["x"], ["y"], **attributes)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "line", [value("x", 1, [1, 1, "n"])], [value("y", 1, [1, 1, None])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return int(session.run(None, {"x": np.zeros((1, 1, size), np.float32)})[0].shape[2])


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("pads", ["VALID", "SAME_UPPER", "SAME_LOWER", [0, 0], [1, 0], [0, 1], [1, 1]])
def test_windows_are_counted_as_onnxruntime_counts_them(pads: str | list[int], ceil: int) -> None:
    where = {"auto_pad": pads} if isinstance(pads, str) else {"pads": pads}
    kernels = [(2, 2, 1), (3, 2, 1), (3, 1, 1), (5, 3, 1)]
    if not str(pads).startswith("SAME"):  # there ONNX Runtime wants neither gaps between windows nor dilations
        kernels += [(2, 3, 1), (3, 2, 2)]
    for kernel, stride, dilation in kernels:
        for size in (7, 8, 9):
            attributes = {
                "kernel_shape": [kernel],
                "strides": [stride],
                "dilations": [dilation],
                "ceil_mode": ceil,
                **where,
            }
            window = read_window(pool(size, **attributes), [kernel], ceil=bool(ceil))
            assert window.counts == (count_in_onnxruntime(size, **attributes),), (attributes, size)


def test_same_pads_of_dilated_windows_are_refused() -> None:
    node = pool(9, kernel_shape=[3], dilations=[2], auto_pad="SAME_UPPER")
    with pytest.raises(MissingRuleError, match="SAME_UPPER with dilations, which runtimes read differently"):
        read_window(node, [3])


def test_a_window_knows_its_extent_span_and_surplus() -> None:
    """3 taps, 2 apart, from -1 in steps of 3 over 9: they start at -1, 2, 5 and span 11, which is 1 beyond the end."""
    node = pool(9, kernel_shape=[3], strides=[3], dilations=[2], pads=[1, 1])
    window = read_window(node, [3])
    assert window == Window((9,), (3,), (3,), (2,), (1,), (1,), (3,))
    assert (window.extents, window.spans, window.surplus) == ((5,), (11,), (1,))


def test_a_window_along_some_axes_leaves_the_others_as_they_are_or_as_they_come_out() -> None:
    window = Window((9, 8), (3, 2), (2, 2), (1, 1), (1, 0), (1, 0), (5, 4))
    assert window.along([1]) == Window((9, 8), (1, 2), (1, 2), (1, 1), (0, 0), (0, 0), (9, 4))
    assert window.along([0], counted=[1]) == Window((9, 4), (3, 1), (2, 1), (1, 1), (1, 0), (1, 0), (5, 4))


@pytest.mark.parametrize(
    ("begins", "ends"), [([1, 0], [2, 3]), ([-1, 2], [0, -2]), ([-2, -1], [-1, 0]), ([0, 0], [0, 0])]
)
def test_extending_pads_and_crops(begins: list[int], ends: list[int], rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 5, 6)).astype(np.float32)
    crop = [slice(max(0, -b), n + min(0, end)) for b, end, n in zip(begins, ends, x.shape[2:], strict=True)]
    width = [(0, 0), (0, 0), *((max(0, b), max(0, end)) for b, end in zip(begins, ends, strict=True))]
    want = np.pad(x[:, :, *crop], width, constant_values=7.0)
    got = emitted(x, lambda e, value: e.Identity(extend(e, value, begins, ends, fill=7.0)))
    assert np.array_equal(got, want)


def test_what_is_kept_whole_is_not_sliced() -> None:
    x = ir.Value(name="x", shape=ir.Shape(["N", 1, 4, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    e = Emit(ir.Graph([x], [], nodes=[], opset_imports={"": 18}))
    assert spatial_slice(e, x, [0, 0], [FAR, FAR]) is x
    assert extend(e, x, [0, 0], [0, 0]) is x


@pytest.mark.parametrize("strides", [(2, 2), (1, 3), (2, 1), (1, 1), (3,), (2, 1, 2)])
def test_weaving_puts_every_phase_in_its_place(strides: tuple[int, ...], rng: np.random.Generator) -> None:
    sizes = [2, 3, 2][: len(strides)]
    x = rng.standard_normal((2, 3, *(n * s for n, s in zip(sizes, strides, strict=True)))).astype(np.float32)

    def apart_and_together(e: Emit, value: ir.Value) -> ir.Value:
        phases = product(*(range(s) for s in strides))
        far = [FAR] * len(strides)
        parts = {phase: spatial_slice(e, value, phase, far, strides) for phase in phases}
        result: ir.Value = e.Identity(interleave(e, parts, sizes, strides))
        return result

    assert np.array_equal(emitted(x, apart_and_together), x)


def test_repeating_gives_every_element_as_often_as_asked(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 2, 3)).astype(np.float32)
    assert np.array_equal(emitted(x, lambda e, value: repeat(e, value, [3, 2])), x.repeat(3, 2).repeat(2, 3))
