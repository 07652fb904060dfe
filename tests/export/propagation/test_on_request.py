"""The programs of other propagations as programs: what they take and give, and when a bundle holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.programs import KINDS, ON_REQUEST, WITHOUT_LAYER, build
from camrt.export.write import export
from tests.export.judge import run_program
from tests.export.onnx_text import tokens
from tests.export.propagation.runs import MODELS, SEED, behind, picture

OF_ATTENTION = {"attention", "attention_all", "map_legrad"}  # no program of a network of convolutions
OF_IMAGES = [kind for kind in ON_REQUEST if kind not in OF_ATTENTION]


@pytest.mark.parametrize("kind", sorted(OF_ATTENTION))
def test_programs_of_attention_have_the_inputs_and_outputs_that_the_table_says(kind: str) -> None:
    live = open_model(tokens(3))
    program = live.program(kind, ["n0"])
    is_map = kind == "map_legrad"
    found = ("logits", "explained", "map", "heat", "degenerate") if is_map else ("logits", "maps")
    assert (program.inputs, program.outputs) == (("x", "target" if is_map else "seed"), found)
    made = next(v for v in onnx.load_from_string(program.model).graph.output if v.name in ("map", "maps"))
    sizes = [d.dim_value for d in made.type.tensor_type.shape.dim][1:]
    assert sizes == {"attention": [2, 4, 4], "attention_all": [3, 4, 4], "map_legrad": [4, 4]}[kind]


@pytest.mark.parametrize("kind", OF_IMAGES)
def test_inputs_and_outputs_are_what_the_table_says(kind: str) -> None:
    live = open_model(MODELS["chain"])
    program = live.program(kind, [] if kind in WITHOUT_LAYER else ["a"])
    if kind in WITHOUT_LAYER:
        extra = tuple(f"biases.{i}" for i in range(3)) if kind.startswith("bias") else ()
        assert (program.inputs, program.outputs) == (("x", "seed"), ("logits", "input_gradient", *extra))
    else:
        found = {"lift": ("contributions.0",), "tail_bias_terms": ("biases.0", "biases.1")}.get(kind, ("relevance.0",))
        assert (program.inputs, program.outputs) == (("activations.0", "seed"), ("logits", *found))
    assert live.offers(kind, program.layers)


@pytest.mark.parametrize("kind", ON_REQUEST)
def test_building_leaves_the_classifier_as_it_was(kind: str) -> None:
    data, layer = (tokens(), "n0") if kind in OF_ATTENTION else (MODELS["chain"], "a")
    classifier = load(data)
    layers = [] if kind in WITHOUT_LAYER else [open_model(data).resolve(layer)]

    def state() -> list[object]:
        graph = classifier.model.graph
        nodes = [(n.op_type, [v and v.name for v in n.inputs], [v.name for v in n.outputs]) for n in graph]
        return [nodes, [v.name for v in (*graph.inputs, *graph.outputs)], sorted(graph.initializers)]

    before = state()
    build(classifier, kind, layers)
    assert state() == before


def test_a_bundle_holds_them_where_they_are_named(tmp_path: Path) -> None:
    export(MODELS["chain"], tmp_path / "plain")
    assert not {p.kind for p in export(MODELS["chain"], tmp_path / "again").programs} & set(ON_REQUEST)
    bundle = export(MODELS["chain"], tmp_path / "all", layers=["a", "e"], kinds=(*KINDS, *OF_IMAGES))
    live = open_model(MODELS["chain"])
    held = [p for p in bundle.programs if p.kind in ON_REQUEST]
    assert len(held) == 3 + 2 * 4  # without a layer, and one for each of two layers
    for program in held:
        feeds = {"x": picture(live)} if program.kind in WITHOUT_LAYER else behind(live, program.layers[0])
        got = run_program(program, **feeds, seed=SEED)
        want = run_program(live.program(program.kind, program.layers), **feeds, seed=SEED)
        assert list(got) == list(want)
        for name, array in want.items():
            np.testing.assert_array_equal(got[name], array)
