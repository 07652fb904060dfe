"""From maps to results: every number in its place, on the host where it should be, and enough said to make it again."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import camrt
from camrt.device import on_host
from camrt.drawing import Mapper, Request
from camrt.errors import NumericError
from camrt.image import prepare
from camrt.kernels import is_cupy
from camrt.maps import Maps
from camrt.plans import Plan, Plans
from camrt.results import drawn_of, explanation_of, fetched, made_by, provenance_of
from camrt.runs import Runs
from camrt.targets import Logit
from tests import tiny
from tests.engine import cuda_stand_in

LABELS = ("ant", "bee", "cow", "doe, deer", "elk")
TABLE = [[0, 1], [2, 3], [4, 0], [1, 4], [3, 2]]  # a class for each image and target


def batches(explainer: camrt.Explainer, plan: Plan, x: Any, table: Any = TABLE, size: int = 2) -> list[Maps]:
    """Draw maps of a few images at a time."""
    mapper = Mapper(explainer.sessions, Runs(explainer.sessions), explainer.preprocess, explainer.labels)
    columns = [[Logit(target) for target in column] for column in zip(*table, strict=True)]
    return [
        mapper.maps(plan, Request(), x[start : start + size], [column[start : start + size] for column in columns])
        for start in range(0, len(x), size)
    ]


def opened(providers: str | None = None) -> tuple[camrt.Explainer, Plans]:
    """Open a model and its plans."""
    explainer = camrt.load(tiny.mlp(), preprocess="half", labels=LABELS, providers=providers)
    return explainer, Plans(explainer.source, tiny.SIZE)


def test_everything_stands_at_its_image_and_target() -> None:
    explainer, plans = opened()
    x, plan = tiny.images(5), plans.of("gradcam", layer=["a1", "a2"])
    result = explanation_of(plan, batches(explainer, plan, x), prepare(x, explainer.preprocess), {"by": "hand"})
    logits = explainer.logits(x)
    np.testing.assert_allclose(result.logits, logits, atol=1e-6)
    assert_array_equal(result.targets, TABLE)
    for i, t in np.ndindex(5, 2):
        target = TABLE[i][t]
        np.testing.assert_allclose(result.values[i, t], logits[i, target], rtol=1e-5)
        assert result.labels[i][t] == LABELS[target]
        alone = explainer.explain(x[i : i + 1], layer=["a1", "a2"], target=target)
        np.testing.assert_allclose(result.heatmaps[i, t], alone.heatmaps[0, 0], atol=1e-5)
        for name in ("a1", "a2"):
            np.testing.assert_allclose(result.layer_raws[name][i, t], alone.layer_raws[name][0, 0], atol=1e-5)
        assert result.degenerate[i, t] == alone.degenerate[0, 0]
    assert_array_equal(result.raw, result.layer_raws["a2"])
    assert result.layers == ("a1", "a2")
    assert (result.names, result.provenance) == ([f"image_{i:03}" for i in range(5)], {"by": "hand"})
    assert {array.dtype.str for array in (result.logits, result.heatmaps, result.values)} == {"<f4"}


def test_flags_stand_at_their_image_and_target_too() -> None:
    explainer, plans = opened()
    x, plan = tiny.images(5), plans.of("rise", options={"n": 40})
    result = explanation_of(plan, batches(explainer, plan, x), prepare(x, explainer.preprocess), {})
    errors = result.flags["standard_error"]
    assert len(np.unique(errors)) == errors.size  # so that each can be told from the others
    for i, t in np.ndindex(5, 2):
        alone = explainer.explain(x[i : i + 1], method="rise", options={"n": 40}, target=TABLE[i][t])
        np.testing.assert_allclose(errors[i, t], alone.flags["standard_error"][0, 0], rtol=1e-3)


def test_one_target_an_image_is_drawn_as_it_is_explained() -> None:
    explainer, plans = opened()
    x, plan = tiny.images(5), plans.of("layercam")
    table = [[row[0]] for row in TABLE]
    drawn = drawn_of(plan, batches(explainer, plan, x, table))
    result = explainer.explain(x, method="layercam", target=np.array(table))
    np.testing.assert_allclose(drawn.heat, result.heatmaps[:, 0], atol=1e-5)
    np.testing.assert_allclose(drawn.raw, result.raw[:, 0], atol=1e-5)
    np.testing.assert_allclose(drawn.logits, result.logits, atol=1e-5)
    assert_array_equal(drawn.classes, [row[0] for row in table])
    assert_array_equal(drawn.degenerate, result.degenerate[:, 0])
    assert drawn.classes.dtype == np.int64


# where things are ------------------------------------------------------------------------------------------------


def test_what_is_on_the_host_is_not_copied() -> None:
    explainer, plans = opened()
    plan = plans.of("gradcam")
    (maps,) = batches(explainer, plan, tiny.images(2), TABLE[:2])
    assert fetched(plan, maps, LABELS) is maps


@pytest.mark.parametrize("targets", [1, 2])
def test_a_result_leaves_the_device_whole_and_a_drawn_map_stays(targets: int, world: cuda_stand_in.World) -> None:
    explainer, plans = opened("cuda")
    known, _ = opened()
    x, plan, table = tiny.images(2), plans.of("layercam"), [row[:targets] for row in TABLE[:2]]
    (want,) = batches(known, plan, x, table)
    with explainer.place() as placed:
        (maps,) = batches(explainer, plan, placed(x), table)
        got = fetched(plan, maps, LABELS)
        for array in (*got.raws, got.heat, got.degenerate, *got.flags.values(), got.evidence[0].logits):
            assert isinstance(array, np.ndarray)
        np.testing.assert_allclose(got.heat, want.heat, atol=1e-5)
        np.testing.assert_allclose(got.raws[0], want.raws[0], atol=1e-5)
        for found, other in zip(got.evidence, want.evidence, strict=True):
            assert found.names == other.names
            np.testing.assert_allclose(found.values, other.values, rtol=1e-5)  # type: ignore[arg-type]
            assert_array_equal(found.target, other.target)
        drawn = drawn_of(plan, [maps])
        assert is_cupy(drawn.heat)
        assert is_cupy(drawn.raw)
        assert isinstance(drawn.classes, np.ndarray)
        assert isinstance(drawn.degenerate, np.ndarray)
        np.testing.assert_allclose(on_host(drawn.heat), want.heat[:, 0], atol=1e-5)


def test_a_map_that_is_not_finite_is_found_when_it_leaves_the_device(world: cuda_stand_in.World) -> None:
    explainer, plans = opened("cuda")
    plan = plans.of("layercam")
    with explainer.place() as placed:
        (maps,) = batches(explainer, plan, placed(tiny.images(2)), [[0], [1]])
        maps.raws[0][1, 0, 2, 3] = np.nan
        for finish in (lambda: fetched(plan, maps, LABELS), lambda: drawn_of(plan, [maps])):
            with pytest.raises(NumericError, match=r"layercam.*a2.*image 1"):
                finish()


# provenance ------------------------------------------------------------------------------------------------------


def test_what_made_a_result_is_plain_data_with_versions_and_model() -> None:
    explainer, _ = opened()
    made = json.loads(json.dumps(made_by(explainer.sessions, explainer.preprocess)))
    for name in ("camrt", "onnxruntime", "numpy"):
        assert made[name] == version(name)
    assert made["model"]["sha256"] == explainer.manifest.model["sha256"]
    assert (made["providers"], made["precision"]) == (["CPUExecutionProvider"], "float32")
    assert camrt.Preprocess.from_dict(made["preprocess"]) == explainer.preprocess


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"method": "gradcam"}, {"fuse": None, "eigen_smooth": False}),
        ({"method": "gradcam", "layer": ["a1", "a2"], "fuse": "max"}, {"fuse": "max", "eigen_smooth": False}),
        ({"method": "gradcam", "eigen_smooth": True}, {"fuse": None, "eigen_smooth": True}),
        ({"method": "gradcam", "mask_space": "raw"}, {"fuse": None, "eigen_smooth": False}),  # it hides nothing
        ({"method": "scorecam"}, {"fuse": None, "eigen_smooth": False, "mask_space": "normalised"}),
        (
            {"method": "opticam", "variant": "official"},
            {"fuse": None, "eigen_smooth": False, "mask_space": "raw"},
        ),
    ],
)
def test_provenance_says_what_the_plan_settled(asked: dict[str, Any], said: dict[str, Any]) -> None:
    _, plans = opened()
    for tta in (False, True):
        assert provenance_of(plans.of(**asked), {"made": "here"}, tta=tta) == {"made": "here", "tta": tta, **said}


def test_a_result_can_be_made_again_from_what_it_says() -> None:
    explainer, x = opened()[0], tiny.images(2)
    asked: dict[str, Any] = {"method": "scorecam", "layer": ["a1", "a2"], "fuse": "max", "mask_space": "raw"}
    first = explainer.explain(x, target=[0, 3], pipeline="torchcam", **asked)
    told = json.loads(json.dumps(first.provenance))
    again = camrt.load(
        tiny.mlp(), preprocess=told["preprocess"], providers=told["providers"], precision=told["precision"]
    ).explain(
        x,
        method=first.method,
        variant=first.variant,
        options=first.options,
        layer=first.layers,
        pipeline=first.pipeline,
        target=first.targets,
        fuse=told["fuse"],
        eigen_smooth=told["eigen_smooth"],
        tta=told["tta"],
        mask_space=told["mask_space"],
    )
    assert_array_equal(again.heatmaps, first.heatmaps)
    assert again.provenance == first.provenance
