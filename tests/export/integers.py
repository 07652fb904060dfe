"""Small quantised classifiers for tests, and their float twins alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from camrt.export.load import Classifier
from camrt.export.programs.draft import Draft

__all__ = ["HEAD", "STEM", "WEIGHTS", "quantised", "twin_alone"]

Array = np.ndarray[Any, Any]

STEM = "[stem] c = Conv<pads=[1, 1, 1, 1]>(x, w0, b0) q = QuantizeLinear(c, s, z)"
HEAD = "d = DequantizeLinear(r, t, u) p = GlobalAveragePool(d) f = Flatten(p) [head] y = Gemm(f, wh, bh)"
_RNG = np.random.default_rng(7)
WEIGHTS: dict[str, Array] = {
    "w0": _RNG.normal(size=(4, 3, 3, 3)).astype("f4") * 0.3,
    "b0": _RNG.normal(size=4).astype("f4") * 0.2,
    "s": np.float32(0.031),
    "z": np.uint8(117),
    "t": np.float32(0.047),
    "u": np.uint8(93),
    "wh": _RNG.normal(size=(4, 5)).astype("f4"),
    "bh": _RNG.normal(size=5).astype("f4"),
}


def quantised(body: str, weights: Mapping[str, Any], *, opset: int = 18, y: str = "float[N,5] y") -> bytes:
    """
    Return a checked model that may use ONNX Runtime's own operators.

    Parameters
    ----------
    body : str
        Its nodes, in ONNX's text syntax.
    weights : mapping of str to array
        Initializers beside `WEIGHTS`.
    opset : int, default 18
        Of the default domain.
    y : str
        Its output.
    """
    imports = f'"": {opset}, "com.microsoft": 1'
    model = onnx.parser.parse_model(
        f"<ir_version: 10, opset_import: [{imports}]> tiny (float[N,3,8,8] x) => ({y}) {{ {body} }}"
    )
    read = {name for node in model.graph.node for name in node.input}
    for name, value in {**WEIGHTS, **weights}.items():
        if name in read:
            held = (
                value if isinstance(value, onnx.TensorProto) else onnx.numpy_helper.from_array(np.asarray(value), name)
            )
            model.graph.initializer.append(held)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def twin_alone(classifier: Classifier) -> bytes:
    """Return the float twin from the image to its logits, rounding by itself, the given model left out."""
    draft = Draft(classifier, ())
    draft.inputs["x"], draft.outputs["logits"] = draft.x, draft.logits
    return bytes(ir.to_proto(draft.finish("twin")).SerializeToString())
