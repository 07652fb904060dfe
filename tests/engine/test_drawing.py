"""From a plan and inputs to maps: each target and layer by itself, in the graph or out of it, mirrored or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import camrt
from camrt.anytime import Budget
from camrt.drawing import TTA_GAINS, Mapper, Request
from camrt.errors import CancelledError, MethodError
from camrt.export.programs import KINDS
from camrt.kernels import min_max, resize
from camrt.limits import Cancellation, Limits
from camrt.maps import Maps
from camrt.methods import METHODS
from camrt.plans import Plan, Plans
from camrt.runs import Runs
from camrt.targets import Logit, Probability
from tests import tiny

OPTIONS: dict[str, dict[str, object]] = {"rise": {"n": 60}}  # that spare runs where a test is not about them
LOOSE = {"rtol": 1e-4, "atol": 1e-5}


class Model:
    """A tiny model, its plans, and what makes its maps."""

    def __init__(self, data: bytes | None = None) -> None:
        self.explainer = camrt.load(data or tiny.mlp(), preprocess="half")
        sessions, preprocess = self.explainer.sessions, self.explainer.preprocess
        self.plans = Plans(sessions.source, preprocess.size)
        self.mapper = Mapper(sessions, Runs(sessions), preprocess)

    def plan(self, method: str = "gradcam", **asked: Any) -> Plan:
        """Return a plan."""
        return self.plans.of(method, options=asked.pop("options", OPTIONS.get(method)), **asked)

    def maps(self, x: Any, targets: Any, plan: Plan, request: Request | None = None) -> Maps:
        """Return the maps of some classes or targets, the same for every image."""
        columns = [[Logit(target) if isinstance(target, int) else target] * len(x) for target in targets]
        return self.mapper.maps(plan, request or Request(), x, columns)

    def run_by(self, call: Callable[[], object]) -> list[Any]:
        """Return the images that a call runs forward once more."""
        seen: list[Any] = []
        run = self.explainer.sessions.run_unchecked

        def watching(kind: str, layers: Any, feeds: dict[str, Any], limits: Any) -> Any:
            seen.extend(feeds["x"].copy() if kind == "forward" else [])
            return run(kind, layers, feeds, limits)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.explainer.sessions, "run_unchecked", watching)
            call()
        return seen


@pytest.fixture(scope="module")
def model() -> Model:
    """Open a model whose gradient depends on the image."""
    return Model()


def ids() -> list[str]:
    """Return every method id except those that need a linear head or attention."""
    return sorted(name for name, method in METHODS.items() if not {"head", "attention_of"} & set(method.needs))


# one way and another ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipeline", ["camrt", "torchcam", "pytorch-grad-cam"])
@pytest.mark.parametrize("method", [kind.removeprefix("map_") for kind in KINDS if kind.startswith("map_")])
def test_a_map_made_in_the_graph_is_the_one_made_of_its_evidence(method: str, pipeline: str, model: Model) -> None:
    x, plan = tiny.images(4), model.plan(method, pipeline=pipeline)
    assert plan.in_graph
    inside, outside = (model.maps(x, [2], one) for one in (plan, replace(plan, in_graph=False)))
    scale = np.abs(outside.raws[0]).max()
    assert_allclose(inside.raws[0], outside.raws[0], atol=1e-5 * scale)
    assert_allclose(inside.heat, outside.heat, atol=1e-4)
    assert_array_equal(inside.degenerate, outside.degenerate)
    assert inside.flags.keys() == outside.flags.keys()
    for name, flag in outside.flags.items():
        assert_array_equal(inside.flags[name], flag)
    assert_allclose(inside.evidence[0].logits, outside.evidence[0].logits, atol=1e-5)


@pytest.mark.parametrize(("targets", "tolerance"), [([1], 2e-6), ([1, 2], 0)])  # one alone is finished inside the graph
def test_the_heatmap_is_the_pipeline_of_the_raw_map(targets: list[int], tolerance: float, model: Model) -> None:
    maps = model.maps(tiny.images(3), targets, model.plan())
    for place in range(len(targets)):
        want, flat = min_max(resize(np.maximum(maps.raws[0][:, place], 0), tiny.SIZE))
        assert_allclose(maps.heat[:, place], want, atol=tolerance)
        assert_array_equal(maps.degenerate[:, place], flat)
        assert (maps.heat.min(), maps.heat.max()) == (0, 1)


# targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ids())
def test_several_targets_equal_one_call_each(method: str, model: Model) -> None:
    x, plan = tiny.images(3), model.plan(method)
    together = model.maps(x, [3, 1, 4], plan)
    for place, target in enumerate([3, 1, 4]):
        alone = model.maps(x, [target], plan)
        assert_allclose(together.raws[0][:, place], alone.raws[0][:, 0], **LOOSE)
        assert_array_equal(together.evidence[place].target, alone.evidence[0].target)
        assert_array_equal(alone.evidence[0].target, target)


def test_several_targets_share_the_masked_forwards(model: Model) -> None:
    x, plan = tiny.images(2), model.plan("scorecam")
    one, three = (model.run_by(lambda t=targets: model.maps(x, t, plan)) for targets in ([0], [0, 2, 4]))  # type: ignore[misc]
    assert 0 < len(three) == len(one) <= 2 * tiny.CHANNELS


@pytest.mark.parametrize("method", ["eigencam", "kpcacam", "fem", "lafam", "fakecam", "randomcam"])
def test_methods_without_gradients_do_not_depend_on_the_class(method: str, model: Model) -> None:
    maps = model.maps(tiny.images(3), [0, 1, 4], model.plan(method))
    (raw,) = maps.raws
    assert raw.shape[:2] == (3, 3)
    assert_array_equal(raw[:, 0], raw[:, 1])
    assert_array_equal(raw[:, 0], raw[:, 2])
    assert [found.target.tolist() for found in maps.evidence] == [[0] * 3, [1] * 3, [4] * 3]


# layers ----------------------------------------------------------------------------------------------------------


def test_several_layers_are_fused_by_their_mean(model: Model) -> None:
    x = tiny.images(3)
    both = model.maps(x, [1], model.plan(layer=["a2", "a1"]))
    each = [model.maps(x, [1], model.plan(layer=name)) for name in ("a1", "a2")]
    want, _ = min_max((each[0].heat[:, 0] + each[1].heat[:, 0]) / 2)
    assert_allclose(both.heat[:, 0], want, atol=1e-5)
    for raw, alone in zip(both.raws, each, strict=True):
        assert_allclose(raw, alone.raws[0], atol=1e-5)


def test_eigen_smoothing_is_the_leading_component_of_the_weighted_activations(model: Model) -> None:
    x = tiny.images(2)
    weighted = model.explainer.gradients(x, 1)["a2"] * model.explainer.activations(x)["a2"]
    maps = model.maps(x, [1], model.plan("hirescam", eigen_smooth=True))
    for raw, tensor in zip(maps.raws[0][:, 0], weighted, strict=True):
        flat = tensor.reshape(len(tensor), -1).T.astype("f8")
        flat = flat - flat.mean(axis=0)
        _, _, basis = np.linalg.svd(flat, full_matrices=False)
        want = flat @ basis[0]
        cosine = abs(want @ raw.ravel()) / (np.linalg.norm(want) * np.linalg.norm(raw))
        assert cosine > 0.999


# hidden pixels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["normalised", "raw"])
def test_an_occluded_patch_shows_the_mask_spaces_colour(space: str, model: Model) -> None:
    x = tiny.images(2)
    plan = model.plan("occlusion", mask_space=space)
    black = np.array(model.explainer.preprocess.black, "f4")
    assert (black != 0).all()  # otherwise both spaces would be one
    shown = black if space == "raw" else 0 * black
    seen = model.run_by(lambda: model.maps(x, [1], plan))
    assert seen
    for image in seen:
        changed = [(image != one).any(0) for one in x]
        hidden = min(changed, key=np.sum)  # it is a copy of one of the two
        assert 0 < hidden.sum() < hidden.size
        assert_array_equal(image[:, hidden], np.repeat(shown[:, None], hidden.sum(), axis=1))


# what a call asks beside its plan --------------------------------------------------------------------------------


def test_a_budget_is_for_each_target_by_itself_and_is_said_in_flags(model: Model) -> None:
    x, plan = tiny.images(2), model.plan("scorecam")
    maps = model.maps(x, [0, 1, 2], plan, Request(budget=Budget(forwards=3)))
    assert_array_equal(maps.flags["forwards"], np.full((2, 3), 3))
    assert not maps.flags["complete"].any()
    exact, ample = (model.maps(x, [0, 1, 2], plan, Request(budget=one)) for one in (None, Budget(forwards=100)))
    assert ample.flags["complete"].all()
    assert "complete" not in exact.flags
    assert_allclose(ample.raws[0], exact.raws[0], atol=1e-6 * np.abs(exact.raws[0]).max())


def test_a_request_that_was_cancelled_runs_nothing(model: Model) -> None:
    switch = Cancellation()
    switch.cancel()
    with Limits(None, switch) as limits:
        for method in ("gradcam", "scorecam"):
            with pytest.raises(CancelledError):
                model.maps(tiny.images(1), [0], model.plan(method), Request(limits))


# augmented -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [[1], [1, 3], [None]])
def test_augmented_maps_are_the_mean_of_six_with_the_clean_images_classes(targets: list[Any], model: Model) -> None:
    x, plan = tiny.images(20), model.plan()
    clean = model.explainer.logits(x)
    assert (
        model.explainer.logits(x[..., ::-1]).argmax(1) != clean.argmax(1)
    ).any()  # there, None would be another class
    columns = [[Logit(target)] * len(x) for target in targets]
    fixed = [[Logit(int(row.argmax()) if target is None else target) for row in clean] for target in targets]
    turns = [
        (model.mapper.maps(plan, Request(), side * np.float32(gain), fixed), side is not x)
        for gain in TTA_GAINS
        for side in (x, x[..., ::-1])
    ]
    maps = model.mapper.augmented(plan, Request(), x, columns)
    for name in ("heat", "raws"):
        found = [getattr(turn, name) if name == "heat" else turn.raws[0] for turn, _ in turns]
        want = [array[..., ::-1] if mirrored else array for array, (_, mirrored) in zip(found, turns, strict=True)]
        got = maps.heat if name == "heat" else maps.raws[0]
        assert_allclose(got, np.mean(want, axis=0), atol=1e-5)
    assert_allclose(maps.evidence[0].logits, clean, atol=1e-6)
    assert_array_equal(maps.degenerate, np.all([turn.degenerate for turn, _ in turns], axis=0))


def test_augmented_maps_of_another_target_keep_the_clean_images_rival(model: Model) -> None:
    x, plan = tiny.images(2), model.plan(layer=["a1", "a2"])
    maps = model.mapper.augmented(plan, Request(), x, [[Probability(2)] * 2])
    assert_allclose(maps.evidence[0].values, model.explainer.explain(x, target=Probability(2)).values[:, 0], rtol=1e-5)
    assert len(maps.raws) == 2


def test_integer_inputs_cannot_be_brightened(model: Model) -> None:
    x = np.zeros((1, 3, *tiny.SIZE), np.uint8)
    with pytest.raises(MethodError, match="needs a floating-point model; this one takes uint8"):
        model.mapper.augmented(model.plan(), Request(), x, [[Logit(0)]])


def test_progress_of_six_turns_rises_once_from_nothing_to_all(model: Model) -> None:
    seen: list[float] = []
    model.mapper.augmented(
        model.plan("scorecam"), Request(progress=seen.append), tiny.images(2), [[Logit(0)] * 2, [Logit(1)] * 2]
    )
    assert seen == sorted(seen)
    assert {int(6 * share) for share in seen} == set(range(6))  # every turn is heard of, each within its sixth
    assert 0 < seen[0] < seen[-1] < 1  # what is left is told when the batch is done
