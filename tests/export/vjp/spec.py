"""Rows of the tables that the rules of elementwise, shape, index and reduction operators are tested by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.export.vjp.check import Checked, check_rule, spaced

__all__ = ["Spec", "between", "rows"]

Array = np.ndarray[Any, Any]
OPSETS = (18, 26)  # the oldest and the newest set of operators that programs are written in


@dataclass(frozen=True)
class Spec:
    """One node: operator, inputs (floating ones take the type under test), and what differs from the usual check."""

    op: str
    inputs: tuple[Any, ...]
    name: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    wrt: tuple[int, ...] = (0,)
    runtime: tuple[int, ...] = ()
    outputs: int = 1
    cotangents: tuple[int, ...] | None = None
    opsets: tuple[int, ...] = OPSETS
    symbolic_batch: bool | Collection[int] = True
    float32: bool = True
    torch_forward: Callable[..., Any] | None = None
    ops: tuple[str, ...] | None = None  # what the float64 gradient must consist of

    def check(self, opset: int) -> Checked:
        """Check the row; see `check_rule`."""
        checked = check_rule(
            self.op,
            self.inputs,
            attributes=self.attributes,
            wrt=self.wrt,
            runtime=self.runtime,
            outputs=self.outputs,
            cotangents=self.cotangents,
            opset=opset,
            symbolic_batch=self.symbolic_batch,
            float32=self.float32,
            torch_forward=self.torch_forward,
        )
        if self.ops is not None:
            assert tuple(checked.ops) == self.ops
        return checked


def rows(specs: Sequence[Spec]) -> list[Any]:
    """Return one parameter set (row, opset) a row and opset, named after the operator."""
    return [
        pytest.param(spec, opset, id="-".join(filter(None, (spec.op, spec.name, str(opset)))))
        for spec in specs
        for opset in spec.opsets
    ]


def between(low: float, high: float, *shape: int, kinks: Collection[float] = ()) -> Array:
    """Return well separated values in (low, high), shuffled; none within 1e-3 of `kinks`, where derivatives jump."""
    values = low + (spaced(np.random.default_rng(1), *(shape or (2, 3, 2, 2))) + 1) / 2 * (high - low)
    for kink in kinks:
        assert np.abs(values - kink).min() > 1e-3, f"a value lies at the kink {kink}: choose another range"
    return values
