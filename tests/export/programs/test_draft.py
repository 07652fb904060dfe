"""A draft that is finished holds what its outputs need, under the names that were declared."""

from __future__ import annotations

import numpy as np
import onnx

from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.programs.draft import Draft
from tests.export.judge import run_program
from tests.export.onnx_text import tiny
from tests.export.programs.models import MODELS, SEED, TARGET, finished, picture


def test_a_program_holds_nothing_that_its_outputs_do_not_need() -> None:
    live = open_model(MODELS["residual"])
    tail = onnx.load_from_string(live.program("tail", ["k"]).model)  # type: ignore[arg-type]
    assert [node.op_type for node in tail.graph.node] == ["GlobalAveragePool", "Flatten", "Gemm"]
    assert {t.name for t in tail.graph.initializer} == {"w2", "b2"}
    late = onnx.load_from_string(live.program("gradient", ["k"]).model)  # type: ignore[arg-type]
    early = onnx.load_from_string(live.program("gradient", ["c"]).model)  # type: ignore[arg-type]
    assert [n.op_type for n in late.graph.node].count("Conv") == 2  # those of the forward pass
    assert [n.op_type for n in early.graph.node].count("Conv") == 3


def test_a_model_may_use_the_programs_names_for_other_things() -> None:
    names = {
        "x": "logits", "c": "gradients.0", "a": "x", "p": "activations.0", "f": "seed", "y": "target", "w1": "explained",
        "b1": "input_gradient", "w2": "context.0",
    }  # fmt: skip
    model = onnx.load_from_string(tiny())
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    plain, renamed = open_model(tiny()), open_model(model.SerializeToString())
    x = picture(plain)
    for old, new in (("c", "gradients.0"), ("a", "x")):
        for kind, feeds in (("gradient", {"target": TARGET}), ("seeded_gradient", {"seed": SEED}), ("features", {})):
            want = run_program(plain.program(kind, [old]), x=x, **feeds)
            got = run_program(renamed.program(kind, [new]), x=x, **feeds)
            assert set(want) == set(got)
            for name, array in want.items():
                np.testing.assert_array_equal(got[name], array)
        acts = run_program(plain.program("features", [old]), x=x)["activations.0"]
        want = run_program(plain.program("tail_gradient", [old]), activations__0=acts, seed=SEED)
        got = run_program(renamed.program("tail_gradient", [new]), activations__0=acts, seed=SEED)
        for name, array in want.items():
            np.testing.assert_array_equal(got[name], array)
    want = run_program(plain.program("input_gradient"), x=x, seed=SEED)
    got = run_program(renamed.program("input_gradient"), x=x, seed=SEED)
    np.testing.assert_array_equal(got["input_gradient"], want["input_gradient"])


def test_one_tensor_may_be_given_under_two_names() -> None:
    draft = Draft(load(MODELS["plain"]), ())
    draft.begin_at_image()
    draft.outputs |= {"again": draft.logits, "picture": draft.x}
    program, x = finished(draft), picture(open_model(MODELS["plain"]))
    assert (program.inputs, program.outputs) == (("x",), ("logits", "again", "picture"))
    found = run_program(program, x=x)
    np.testing.assert_array_equal(found["again"], found["logits"])
    np.testing.assert_array_equal(found["picture"], x)
