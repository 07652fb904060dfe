"""Gradients of what moves, repeats, joins or cuts values, against central finite differences (exact: all are linear)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from camrt.errors import MissingRuleError
from tests.export.vjp.check import check_rule
from tests.export.vjp.run import gradients
from tests.export.vjp.spec import Spec, between, rows

X = between(-2, 2, 2, 3, 4, 5)
WIDE = between(-2, 2, 2, 3, 6, 7)
LAST = np.iinfo(np.int64).max
FIRST = np.iinfo(np.int64).min


def _slice(
    name: str,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
    ops: tuple[str, ...] | None = None,
) -> Spec:
    """Return a row for Slice of `WIDE`."""
    extra = [None if a is None else np.array(a, np.int64) for a in (axes, steps)]
    return Spec("Slice", (WIDE, np.array(starts, np.int64), np.array(ends, np.int64), *extra), name, ops=ops)


def _pad(name: str, mode: str, pads: Sequence[int], axes: Sequence[int] | None = None, **kwargs: Any) -> Spec:
    """Return a row for Pad of `X`."""
    inputs = (X, np.array(pads, np.int64), None, None if axes is None else np.array(axes, np.int64))
    return Spec("Pad", inputs, f"{mode}_{name}", {"mode": mode}, **kwargs)


def _torch_pad(x: torch.Tensor, pads: torch.Tensor, *rest: object) -> torch.Tensor:
    """Pad with zeros, or crop where pads are negative: the reference evaluator cannot."""
    ends = pads.reshape(2, -1).T.flip(0).ravel()
    return torch.nn.functional.pad(x, ends.tolist())


SPECS = [
    Spec("Reshape", (X, np.array([-1, 60], np.int64)), "flat", ops=("Reshape",)),
    Spec("Reshape", (X, np.array([0, 0, -1], np.int64)), "copied"),
    Spec("Reshape", (X, np.array([-1, 2, 5], np.int64)), "merged_batch"),
    Spec("Flatten", (X,), ops=("Reshape",)),
    Spec("Flatten", (X,), "axis_2", {"axis": 2}),
    Spec("Flatten", (X,), "axis_-1", {"axis": -1}),
    Spec("Squeeze", (X[:, :1, :, :1], np.array([1, 3], np.int64)), "axes", ops=("Reshape",)),
    Spec("Squeeze", (X[:, :, :1, :1],), "all", symbolic_batch=False),
    Spec("Unsqueeze", (X, np.array([1, -1], np.int64)), ops=("Reshape",)),
    Spec("Transpose", (X,), "reversed", ops=("Transpose",)),
    Spec("Transpose", (X,), "cycle", {"perm": [0, 2, 3, 1]}, ops=("Transpose",)),
    Spec("Expand", (X[:, :, :1, :1], np.array([1, 1, 4, 5], np.int64)), "grid"),
    Spec("Expand", (X[:1, :, 0, 0], np.array([4, 2, 1, 3], np.int64)), "new_axes", symbolic_batch=False),
    Spec("Expand", (X, np.array([1], np.int64)), "nothing", ops=()),
    Spec("Tile", (X, np.array([1, 2, 1, 3], np.int64))),
    Spec("Tile", (X, np.array([2, 1, 1, 1], np.int64)), "batch"),
    Spec("Tile", (X, np.array([1, 1, 1, 1], np.int64)), "once", ops=()),
    Spec("Concat", (X, X[:, :1] * 2, X[:, :2] + 1), "channels", {"axis": 1}, (0, 1, 2), ops=("Split",)),
    Spec("Concat", (X, X[..., :2]), "last", {"axis": -1}, (0, 1)),
    Spec("Concat", (X, X * 2), "batch", {"axis": 0}, (0, 1), ops=("Shape", "Shape", "Concat", "Split")),
    Spec("Concat", (X * 2, X, X + 1), "constants", {"axis": 1}, (1,), symbolic_batch=False, ops=("Slice",)),
    Spec("Concat", (X,), "one", {"axis": 1}, ops=()),
    Spec("Split", (X,), "equal", {"axis": 2, "num_outputs": 2}, outputs=2, ops=("Concat",)),
    Spec("Split", (X,), "uneven", {"axis": 3, "num_outputs": 2}, outputs=2),
    Spec("Split", (X, np.array([1, 2], np.int64)), "sizes", {"axis": 1}, outputs=2),
    Spec("Split", (X, np.array([1, 1, 1], np.int64)), "first", {"axis": 1}, outputs=3, cotangents=(0,), ops=("Pad",)),
    Spec("Split", (X, np.array([1, 1, 1], np.int64)), "middle", {"axis": 1}, outputs=3, cotangents=(1,), ops=("Pad",)),
    Spec("Split", (X, np.array([1, 1, 2], np.int64)), "gap", {"axis": -2}, outputs=3, cotangents=(0, 2)),
    Spec("Split", (X, np.array([1, 1, 1, 2], np.int64)), "tail", {"axis": 3}, outputs=4, cotangents=(1, 3)),
    _slice("corner", [0, 0], [2, 3], [2, 3], ops=("Pad",)),
    _slice("all_axes", [0, 1, 2, 3], [LAST, LAST, LAST, LAST]),
    _slice("negative", [-4, 1], [-1, -2], [-2, 1], ops=("Pad",)),
    _slice("whole", [0], [LAST], [0], ops=()),
    _slice("beyond", [1, -100], [100, 2], [2, 3]),
    _slice("even", [0, 0], [LAST, LAST], [2, 3], [2, 2]),
    _slice("odd", [1, 1], [LAST, LAST], [2, 3], [2, 2]),
    _slice("patch_merging", [0, 1], [6, 6], [2, 3], [2, 2]),
    _slice("thirds", [1, 2], [LAST, 6], [2, 3], [3, 3]),
    _slice("mixed_steps", [1, 1, 0], [3, 6, LAST], [1, 2, 3], [1, 2, 4]),
    _slice("reversed", [-1, -1], [FIRST, FIRST], [2, 3], [-1, -1], ops=("Slice",)),
    _slice("backward", [4], [0], [3], [-1], ops=("Slice", "Pad")),
    _slice("backward_by_2", [5, -1], [FIRST, 0], [2, 3], [-2, -3]),
    _slice("one_far_step", [3], [4], [3], [5], ops=("Pad",)),
    _slice("one_back_step", [3], [2], [3], [-5], ops=("Pad",)),
    _pad("around", "constant", [0, 0, 1, 2, 0, 0, 3, 1], ops=("Slice",)),
    _pad("axes", "constant", [1, 2, 0, 1], [2, -1]),
    _pad("negative", "constant", [0, 1, -1, 2, 0, 0, -2, -1], torch_forward=_torch_pad),
    _pad("cropped", "constant", [0, 0, -1, -1, 0, 0, 0, -2], ops=("Pad",), torch_forward=_torch_pad),
    _pad("nothing", "constant", [0] * 8, ops=()),
    _pad("around", "reflect", [0, 0, 1, 2, 0, 0, 3, 1]),
    _pad("one_side", "reflect", [0, 0, 0, 2, 0, 0, 0, 0]),
    _pad("axes", "reflect", [1, 1, 1, 1], [2, 3]),
    _pad("around", "edge", [0, 0, 1, 2, 0, 0, 3, 1]),
    _pad("channels", "edge", [0, 2, 0, 0, 0, 1, 0, 0]),
    _pad("around", "wrap", [0, 0, 1, 2, 0, 0, 3, 1], opsets=(19, 23)),
    _pad("far", "wrap", [0, 0, 0, 5, 0, 0, 0, 4], opsets=(19, 23)),
    Spec("DepthToSpace", (between(-2, 2, 2, 12, 2, 3),), "DCR", {"blocksize": 2}, ops=("SpaceToDepth",)),
    Spec("DepthToSpace", (between(-2, 2, 2, 8, 2, 3),), "CRD", {"blocksize": 2, "mode": "CRD"}),
    Spec("SpaceToDepth", (between(-2, 2, 2, 3, 4, 6),), "", {"blocksize": 2}, ops=("DepthToSpace",)),
    Spec("Trilu", (X,), "upper", ops=("Trilu",)),
    Spec("Trilu", (X, np.array(1, np.int64)), "lower", {"upper": 0}),
]


@pytest.mark.parametrize(("spec", "opset"), rows(SPECS))
def test_the_gradient_equals_finite_differences(spec: Spec, opset: int) -> None:
    spec.check(opset)


def test_negative_pads_that_repeat_values_are_refused() -> None:
    """NumPy cannot run them, so the rule is asked before anything runs."""
    pads = np.array([0, 0, 1, 1, 0, 0, -1, 1])
    with pytest.raises(MissingRuleError, match="negative pads in mode 'edge'"):
        gradients("Pad", [X.astype(np.float32), pads], {"mode": "edge"})


def test_a_range_between_computed_bounds_is_refused() -> None:
    bounds = [np.float32(0), np.float32(3), np.float32(1)]
    with pytest.raises(MissingRuleError, match=r"Range at node 'the_node' .*its bounds 'input_1' are computed"):
        gradients("Range", bounds, wrt=(1,))


@pytest.mark.parametrize(
    ("op", "inputs", "runtime", "attributes", "reason"),
    [
        ("Slice", [X, np.array([1]), np.array([2]), np.array([2])], (1,), {}, "starts are computed at run time"),
        ("Slice", [X, np.array([0]), np.array([1]), np.array([0])], (), {}, "axis 0 is 'N'; a static one"),
        ("Tile", [X, np.array([1, 1, 1, 2])], (1,), {}, "repeats are computed at run time"),
        ("Pad", [X, np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(0)], (2,), {}, "the value that fills its border"),
    ],
)
def test_what_is_not_constant_is_refused_by_name(
    op: str, inputs: list[Any], runtime: tuple[int, ...], attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(MissingRuleError, match=rf"{op} at node 'the_node' .*{reason}") as caught:
        check_rule(op, inputs, runtime=runtime, attributes=attributes, symbolic_batch=[0])
    assert "\n" not in str(caught.value)
