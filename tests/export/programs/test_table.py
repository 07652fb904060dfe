"""The table of kinds: what every program takes and gives, that building one changes nothing, and what bundles hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from camrt.errors import LayerError
from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.maps import MAPS
from camrt.export.programs import EXPLAINED, KINDS, ON_REQUEST, WITHOUT_LAYER, build
from camrt.export.write import export
from tests.export.judge import run_program
from tests.export.onnx_text import tiny
from tests.export.programs.models import MODELS
from tests.export.propagation.runs import MODELS as PROPAGATED
from tests.export.propagation.runs import SEED, behind, picture

OF_ATTENTION = {"attention", "attention_all", "map_legrad"}  # no program of a network of convolutions
OF_IMAGES = [kind for kind in ON_REQUEST if kind not in OF_ATTENTION]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_program_is_a_valid_model_with_the_documented_inputs_and_outputs(name: str, kind: str) -> None:
    live = open_model(MODELS[name])
    layer = live.manifest.default_layer
    layers = [] if kind in WITHOUT_LAYER else [layer.name]
    program = live.program(kind, layers)
    assert isinstance(program.model, bytes)
    model = onnx.load_from_string(program.model)
    onnx.checker.check_model(model, full_check=True)
    context = tuple(name for name in live.program("tail", [layer.name]).inputs if name.startswith("context"))
    is_relu = layer.op in ("Relu", "Clip", "Sigmoid")  # never negative, so the graph need not tell
    row = MAPS.get(kind.removeprefix("map_"))
    signed = ("signed",) if row is not None and row.assumes_positive and not is_relu else ()
    flags = ("skipped_channels",) if kind == "map_xgradcam" else ()
    inputs, outputs = {
        "forward": (("x",), ("logits",)),
        "features": (("x",), ("logits", *context, "activations.0")),
        "gradient": (("x", "target"), ("logits", "explained", "gradients.0", "activations.0")),
        "seeded_gradient": (("x", "seed"), ("logits", "gradients.0", "activations.0")),
        "tail": (("activations.0", *context), ("logits",)),
        "tail_gradient": (("activations.0", *context, "seed"), ("logits", "gradients.0")),
        "input_gradient": (("x", "seed"), ("logits", "input_gradient")),
    }.get(kind, (("x", "target"), ("logits", "explained", "map", "heat", "degenerate", *flags, *signed)))
    assert (program.inputs, program.outputs) == (inputs, outputs)
    assert tuple(v.name for v in model.graph.input) == inputs
    assert tuple(v.name for v in model.graph.output) == outputs
    for value in [*model.graph.input, *model.graph.output]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "N", value.name
        if value.name in ("activations.0", "gradients.0"):
            assert [d.dim_value for d in value.type.tensor_type.shape.dim][1:] == [layer.channels, *layer.grid]
        if value.name == "map":
            assert [d.dim_value for d in value.type.tensor_type.shape.dim][1:] == [*layer.grid]


@pytest.mark.parametrize("kind", OF_IMAGES)
def test_inputs_and_outputs_of_programs_on_request_are_what_the_table_says(kind: str) -> None:
    live = open_model(PROPAGATED["chain"])
    program = live.program(kind, [] if kind in WITHOUT_LAYER else ["a"])
    if kind in WITHOUT_LAYER:
        extra = tuple(f"biases.{i}" for i in range(3)) if kind.startswith("bias") else ()
        assert (program.inputs, program.outputs) == (("x", "seed"), ("logits", "input_gradient", *extra))
    else:
        found = {"lift": ("contributions.0",), "tail_bias_terms": ("biases.0", "biases.1")}.get(kind, ("relevance.0",))
        assert (program.inputs, program.outputs) == (("activations.0", "seed"), ("logits", *found))
    assert live.offers(kind, program.layers)


@pytest.mark.parametrize("kind", [*KINDS, *ON_REQUEST, *EXPLAINED])
def test_building_leaves_the_classifier_as_it_was(kind: str) -> None:
    is_image = kind in OF_IMAGES or (kind in EXPLAINED and kind != "explained_legrad")
    data, layer = (PROPAGATED["chain"], "a") if is_image else (MODELS["heads"], "n1")
    classifier = load(data)
    layers = [] if kind in WITHOUT_LAYER else [open_model(data).resolve(layer)]
    graph = classifier.model.graph

    def state() -> list[object]:
        nodes = [(n.op_type, n.name, [v and v.name for v in n.inputs], [v.name for v in n.outputs]) for n in graph]
        return [nodes, list(graph.inputs), list(graph.outputs), set(graph.initializers)]

    before = state()
    build(classifier, kind, layers)
    assert state() == before


@pytest.mark.parametrize(
    ("kind", "layers", "said"),
    [
        ("tail", ["a", "p"], "the program tail is of one layer; 2 came"),
        ("map_gradcam", [], "the program map_gradcam is of one layer; 0 came"),
        ("features", [], "the program features is of several layers; 0 came"),
    ],
)
def test_a_program_of_more_or_fewer_layers_is_refused(kind: str, layers: list[str], said: str) -> None:
    live = open_model(tiny())
    found = [replace(live.manifest.default_layer, name=name) for name in layers]
    with pytest.raises(LayerError, match=said):
        build(live.classifier, kind, found)


def test_a_bundle_holds_programs_on_request_where_they_are_named(tmp_path: Path) -> None:
    export(PROPAGATED["chain"], tmp_path / "plain")
    assert not {p.kind for p in export(PROPAGATED["chain"], tmp_path / "again").programs} & set(ON_REQUEST)
    bundle = export(PROPAGATED["chain"], tmp_path / "all", layers=["a", "e"], kinds=(*KINDS, *OF_IMAGES))
    live = open_model(PROPAGATED["chain"])
    joint = {p.kind for p in bundle.programs if len(p.layers) == 2}
    assert joint == {"features", "gradient", "seeded_gradient"}  # the others start at one layer, or end in its map
    held = [p for p in bundle.programs if p.kind in ON_REQUEST]
    assert len(held) == 3 + 2 * 4  # without a layer, and one for each of two layers
    for program in held:
        feeds = {"x": picture(live)} if program.kind in WITHOUT_LAYER else behind(live, program.layers[0])
        got = run_program(program, **feeds, seed=SEED)
        want = run_program(live.program(program.kind, program.layers), **feeds, seed=SEED)
        assert list(got) == list(want)
        for name, array in want.items():
            np.testing.assert_array_equal(got[name], array)
