"""Cotangents at the logits: of classes, of the predicted one, and rows read off the head's weights."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from camrt.export.live import open_model
from tests.export.judge import run_program
from tests.export.onnx_text import CONV, HEAD, tiny
from tests.export.programs.models import MODELS, SEED, TARGET, picture


def test_minus_one_stands_for_the_predicted_class_of_each_image() -> None:
    live = open_model(MODELS["plain"])
    x = picture(live)
    program = live.program("gradient", ["c"])
    found = run_program(program, x=x, target=np.array([-1, 2, -1]))
    predicted = found["logits"].argmax(1)
    assert found["explained"].tolist() == [predicted[0], 2, predicted[2]]
    again = run_program(program, x=x, target=found["explained"])
    np.testing.assert_array_equal(again["gradients.0"], found["gradients.0"])


FLAT = f"{CONV} p = GlobalAveragePool(a) f = Flatten(p)"


@pytest.mark.parametrize(
    ("body", "reads"),
    [
        (f"{CONV} {HEAD}", True),
        (f"{FLAT} y = Gemm<transB=1>(f, w3, b2)", True),
        (f"{FLAT} k = MatMul(f, w2) y = Add(k, b2)", True),
        (f"{FLAT} y = Gemm<alpha=0.5>(f, w2, b2)", False),
        (f"{FLAT} k = Gemm(f, w2, b2) y = Mul(k, two)", False),
    ],
    ids=["Gemm", "transB", "MatMul", "alpha", "scaled"],
)
def test_a_row_that_is_read_is_the_product_with_a_one_hot_seed_to_the_bit(body: str, reads: bool) -> None:
    live = open_model(tiny(body, weights={"w3": (5, 4), "two": np.float32(2)}))
    x, program = picture(live), live.program("gradient", ["a"])
    found = run_program(program, x=x, target=TARGET)["gradients.0"]
    want = run_program(live.program("seeded_gradient", ["a"]), x=x, seed=SEED)["gradients.0"]
    np.testing.assert_array_equal(found, want)
    ops = Counter(node.op_type for node in onnx.load_from_string(program.model).graph.node)
    assert (ops["Gather"] > 0) is reads
    assert (ops["OneHot"] > 0) is not reads
