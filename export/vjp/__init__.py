"""
The gradient rules, one file an operator family; importing this package fills `camrt.export.vjp.table.RULES`.

How to add one: write a function of the emitter, the node and the cotangent of its output in the family's file, and put
`table.vjp` with the operator's name over it.
"""

from . import activation, conv, elementwise, index, matmul, norm, pool, reduce, resize, shape, softmax  # noqa: F401
from .table import RULES

__all__ = ["RULES"]
