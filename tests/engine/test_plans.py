"""What is asked of a map: names that mean the same, what follows from a request, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import camrt
from camrt import plans as module
from camrt.errors import InputError, LayerError, MethodError
from camrt.methods import METHODS
from camrt.plans import MASK_SPACES, Plans
from tests import tiny


def plans(data: bytes | None = None, layer: str | None = None) -> Plans:
    """Return the plans of a tiny model: ``a1`` has 4 channels, ``a2`` 6, both 6 x 5 cells."""
    source = camrt.load(data or tiny.mlp(), preprocess="half").source
    return Plans(source, tiny.SIZE, None if layer is None else source.resolve(layer))


# layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a1", "/stage1/relu/Relu", "stage1.relu", "stage1"])
def test_tensors_nodes_and_module_paths_name_the_same_layer(name: str) -> None:
    assert plans().resolve(name) == ("a1",)


def test_each_layer_is_there_once_and_the_shallowest_comes_first() -> None:
    assert plans().resolve(["a2", "stage1", "a1", "a2"]) == ("a1", "a2")


@pytest.mark.parametrize(("given", "default"), [(None, "a2"), ("stage1", "a1"), ("a2", "a2")])
def test_one_layer_is_the_default_and_is_meant_where_none_is_named(given: str | None, default: str) -> None:
    known = plans(layer=given)
    assert [layer.name for layer in known.layers if layer.default] == [default]
    assert {layer.name for layer in known.layers} >= {"a1", "a2"}
    assert known.resolve(None) == known.of("gradcam").names == (default,)


def test_a_method_of_stages_takes_each_size_once_unless_layers_are_named() -> None:
    known = plans()
    assert known.of("polycam").names == ("a2",)  # both layers have its size
    assert known.of("polycam", layer=["a1", "a2"]).names == ("a1", "a2")


# what follows ----------------------------------------------------------------------------------------------------


def test_what_is_not_said_is_the_methods_own() -> None:
    plan = plans().of("Grad-CAM++")
    assert (plan.method.id, plan.variant) == ("gradcampp", METHODS["gradcampp"].variants[0])
    assert (plan.pipeline, plan.fuse, plan.size) == ("camrt", METHODS["gradcampp"].fuse, tiny.SIZE)
    assert plans().of("smoothgradcampp", options={"n": 3}).options == {"n": 3, "spread": 0.15, "seed": 0}


@pytest.mark.parametrize(
    ("asked", "possible"),
    [
        ({}, True),
        ({"layer": "a1"}, True),
        ({"pipeline": "torchcam"}, True),  # finishing is no part of the raw map
        ({"mask_space": "raw"}, True),
        ({"layer": ["a1", "a2"]}, False),
        ({"eigen_smooth": True}, False),
        ({"method": "gradcampp", "variant": "official"}, False),
        ({"method": "scorecam"}, False),
    ],
)
def test_the_graph_makes_the_map_of_one_layer_by_the_default_variant_alone(
    asked: dict[str, Any], possible: bool
) -> None:
    assert plans().of(**{"method": "gradcam", **asked}).in_graph == possible


@pytest.mark.parametrize(
    ("method", "gradients", "forwards"),
    [
        ("gradcam", True, False),
        ("cam", True, False),  # the linear head's weights are read from its gradient
        ("eigencam", False, False),
        ("scorecam", False, True),
        ("ablationcam", False, True),
        ("fullgrad", False, False),  # has a program of its own
    ],
)
def test_a_plan_knows_what_its_method_reads(method: str, gradients: bool, forwards: bool) -> None:
    plan = plans(tiny.gap()).of(method)
    assert (plan.needs_gradients, plan.by_forwards) == (gradients, forwards)


@pytest.mark.parametrize(
    ("method", "options", "layer", "runs"),
    [
        ("gradcam", None, None, 0),
        ("rise", {"n": 40}, None, 40),
        ("scorecam", None, "a1", 4),
        ("scorecam", None, "a2", 6),
        ("scorecam", None, ["a1", "a2"], 10),
        ("reciprocam", None, "a2", 30),
    ],
)
def test_what_is_expected_of_an_image_is_a_run_for_each_mask_channel_or_cell(
    method: str, options: dict[str, object] | None, layer: Any, runs: int
) -> None:
    assert plans().of(method, options=options, layer=layer).expected == runs


@pytest.mark.parametrize("asked", MASK_SPACES)
def test_a_variant_that_is_defined_by_a_mask_space_keeps_it(asked: str) -> None:
    known = plans()
    assert known.of("opticam", mask_space=asked).mask_space == asked
    assert known.of("opticam", "official", mask_space=asked).mask_space == "raw"


# asked again -----------------------------------------------------------------------------------------------------


def test_the_same_request_is_checked_once_and_no_other_gets_its_plan() -> None:
    known = plans()
    requests: list[dict[str, Any]] = [
        {"method": "gradcam"},
        {"method": "gradcam", "layer": "a1"},
        {"method": "gradcam", "pipeline": "torchcam"},
        {"method": "gradcam", "fuse": "max"},
        {"method": "gradcam", "eigen_smooth": True},
        {"method": "gradcam", "mask_space": "raw"},
        {"method": "gradcampp"},
        {"method": "gradcampp", "variant": "official"},
    ]
    first = [known.of(**request) for request in requests]
    assert len({id(plan) for plan in first}) == len(first)
    for request, plan in zip(requests, first, strict=True):
        assert known.of(**request) is plan
        fresh = plans().of(**request)
        assert (fresh.names, fresh.variant, fresh.pipeline, fresh.fuse, fresh.eigen_smooth, fresh.mask_space) == (
            plan.names, plan.variant, plan.pipeline, plan.fuse, plan.eigen_smooth, plan.mask_space,
        )  # fmt: skip


def test_options_and_lists_of_layers_may_change_afterwards() -> None:
    known, options, layers = plans(), {"n": 2}, ["a1"]
    assert known.of("smoothgradcampp", options=options).options["n"] == 2
    assert known.of("smoothgradcampp", layer=layers).names == ("a1",)
    options["n"], layers[0] = 3, "a2"
    assert known.of("smoothgradcampp", options=options).options["n"] == 3
    assert known.of("smoothgradcampp", layer=layers).names == ("a2",)
    assert known.of("smoothgradcampp").options["n"] == METHODS["smoothgradcampp"].options["n"].default


# refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said", "asked"),
    [
        (MethodError, "gradcam", {"method": "gradcan"}),
        (MethodError, "variant", {"variant": "nonsense"}),
        (MethodError, "option", {"options": {"nonsense": 1}}),
        (MethodError, "pipeline must be one of camrt, .*; got 'nonsense'", {"pipeline": "nonsense"}),
        (MethodError, "fuse must be one of mean, .*; got 'nonsense'", {"fuse": "nonsense", "layer": ["a1", "a2"]}),
        (InputError, "mask_space must be one of normalised, raw; got 'nonsense'", {"mask_space": "nonsense"}),
        (LayerError, "stage2", {"layer": "stage3"}),
        (LayerError, "at least one layer was wanted", {"layer": []}),
        (LayerError, "'a2' has more: use gradcam, which generalises it$", {"method": "cam"}),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do_however_often_they_are_made(
    kind: type[Exception], said: str, asked: dict[str, Any]
) -> None:
    known = plans()
    for _ in range(2):
        with pytest.raises(kind, match=said) as caught:
            known.of(**{"method": "gradcam", **asked})
        assert "\n" not in str(caught.value)


def test_a_method_for_linear_heads_names_the_layer_that_has_one() -> None:
    known = plans(tiny.gap())
    assert known.of("cam").names == ("a2",)
    with pytest.raises(LayerError, match=r"'a1' has more: use gradcam, .*, or layer 'a2'$"):
        known.of("cam", layer=["a1", "a2"])


def test_the_same_request_is_checked_once_and_numbers_that_are_equal_are_not_the_same() -> None:
    known = plans()
    assert known.of("smoothgradcampp", options={"n": 3}) is known.of("smoothgradcampp", options={"n": 3})
    assert known.of("smoothgradcampp", options={"n": 3}) is not known.of("smoothgradcampp", options={"n": 4})
    assert known.of("smoothgradcampp", options={"n": 1}).options["n"] == 1
    with pytest.raises(MethodError):  # although True == 1
        known.of("smoothgradcampp", options={"n": True})
    assert known.of("layercam", layer=["a1", "a2"]).names == ("a1", "a2")  # a list has no hash


def test_no_more_plans_are_remembered_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 5)
    known = plans()
    for n in range(1, 40):
        assert known.of("smoothgradcampp", options={"n": n}).options["n"] == n
        assert len(known._known) <= 5
