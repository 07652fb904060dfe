"""Gradients of reductions, against central finite differences and, where elements tie, torch's autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camrt.errors import MissingRuleError
from tests.export.vjp.check import check_rule
from tests.export.vjp.run import gradients
from tests.export.vjp.spec import Spec, between, rows

SHAPE = (2, 3, 2, 4)
DOMAINS = {  # where each reduction is smooth
    "ReduceSum": (-2, 2),
    "ReduceMean": (-2, 2),
    "ReduceMax": (-2, 2),
    "ReduceMin": (-2, 2),
    "ReduceProd": (0.5, 1.5),
    "ReduceL1": (-2, 2),
    "ReduceL2": (-2, 2),
    "ReduceLogSum": (0.5, 2),
    "ReduceLogSumExp": (-2, 2),
    "ReduceSumSquare": (-2, 2),
}
AXES = {  # name -> axes input, keepdims
    "spatial": ([2, 3], 1),
    "spatial_dropped": ([2, 3], 0),
    "tokens": ([1], 0),
    "unsorted": ([-1, 1], 0),
    "batch": ([0, 2], 1),
    "all": (None, 1),
    "all_dropped": (None, 0),
}

SPECS = [
    Spec(
        op, (between(*domain, *SHAPE), None if axes is None else np.array(axes)), name, {"keepdims": keep}, opsets=(18,)
    )
    for op, domain in DOMAINS.items()
    for name, (axes, keep) in AXES.items()
]
SPECS += [
    Spec(op, (between(*domain, *SHAPE), np.zeros(0, np.int64)), "noop", {"noop_with_empty_axes": 1}, opsets=(23,))
    for op, domain in DOMAINS.items()
]
SPECS += [
    Spec("ReduceMean", (between(-2, 2, *SHAPE), np.array([2, 3])), "default", ops=("Mul", "Expand")),
    Spec("ReduceSum", (between(-2, 2, *SHAPE), np.array([-1])), "default", ops=("Expand",)),
]


@pytest.mark.parametrize(("spec", "opset"), rows(SPECS))
def test_the_gradient_equals_finite_differences(spec: Spec, opset: int) -> None:
    spec.check(opset)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_elements_that_tie_share_the_gradient_as_in_torch(op: str) -> None:
    x = np.array([[1, 2, 2, 0, 0, 2], [3, 3, 3, 3, 3, 3]], np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    (torch.amax if op == "ReduceMax" else torch.amin)(tensor, 1).sum().backward()
    assert tensor.grad is not None
    (got,) = gradients(op, [x, np.array([1])])
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-6)


def test_the_norm_of_zeros_has_gradient_zero() -> None:
    x = np.array([[0, 0, 0], [3, 0, 4]], np.float32)
    (got,) = gradients("ReduceL2", [x, np.array([1])])
    np.testing.assert_allclose(got, [[0, 0, 0], [0.6, 0, 0.8]], rtol=1e-6)


def test_a_product_with_zeros_has_the_gradient_of_torch() -> None:
    x = np.array([[2, 0, 3], [0, 0, 5], [2, -1, 3]], np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    torch.prod(tensor, 1).sum().backward()
    assert tensor.grad is not None
    (got,) = gradients("ReduceProd", [x, np.array([1])])
    np.testing.assert_allclose(got, tensor.grad.numpy(), rtol=1e-6)


def test_axes_known_only_at_run_time_are_refused() -> None:
    x = between(-2, 2, *SHAPE).astype(np.float32)
    with pytest.raises(MissingRuleError, match=r"ReduceMean at node 'the_node' .*axes are computed at run time"):
        gradients("ReduceMean", [x, np.array([1])], wrt=(0, 1))


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum"])
def test_a_symbolic_axis_is_counted_at_run_time(op: str) -> None:
    """The batch is the symbolic axis of the check; it is reduced together with a static one."""
    checked = check_rule(op, [between(-2, 2, *SHAPE), np.array([0, 3])], attributes={"keepdims": 0})
    assert "Shape" in checked.ops
