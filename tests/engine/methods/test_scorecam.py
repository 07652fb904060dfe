"""Score-CAM against loops written out, and what must hold for every method that weighs channels by masked forwards."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from onnx import helper

import camrt
from camrt.anytime import Budget
from camrt.kernels import min_max, resize
from camrt.methods.scorecam import scorecam
from camrt.noise import content_ids
from camrt.pipeline import PIPELINES
from tests import tiny
from tests.engine.methods.heads import (
    CLASSES,
    PooledStem,
    TwoLayer,
    input_evidence,
    make_head,
    make_stem,
    raw,
    run,
)
from tests.engine.methods.masked import masked_evidence

SIZE = (8, 10)
FAMILY = [
    *[("scorecam", variant, {}) for variant in ("official", "paper", "pytorch-grad-cam", "torchcam")],
    *[("scorecam", variant, {}) for variant in ("torchcam-0.3", "torchcam-0.2", "tabayashi")],
    ("scorecam", "official", {"weighting": "prob_minus_baseline"}),
    ("fasterscorecam", "official", {"max_n": 3}),
    ("fasterscorecam", "torchcam", {"max_n": 3}),
    *[("sscam", variant, {"n": 3, "sigma": 0.5}) for variant in ("prob", "input-noise", "torchcam", "torchcam-0.2")],
    *[("iscam", variant, {"n": 3}) for variant in ("riemann", "torchcam", "torchcam-0.2")],
]
PROBABILITIES = [row for row in FAMILY if row[1] in ("official", "prob", "input-noise", "riemann", "tabayashi")]


class World:
    """A stem, a head and images; what methods may ask of them."""

    def __init__(self, rng, images=3, signed=False):
        self.stem, self.head = make_stem(rng, signed=signed, pooled=True), make_head("two-layer", rng)
        self.x = rng.normal(size=(images, 3, *SIZE))
        self.target = np.arange(images) % CLASSES
        self.ids = np.arange(images)

    def forward(self, x):
        return self.head.logits(self.stem.acts(x))

    def given(self, order=slice(None), **settings):
        """Return the evidence of some images; `settings` are those of `masked_evidence`."""
        x, target = self.x[order], self.target[order]
        masked = masked_evidence(x, self.forward, target, ids=self.ids[order], **settings)
        return {**input_evidence(self.stem, self.head, x, target), **masked}

    def on_channels(self, order):
        """Return the same world with its channels in another order, or repeated with the head reading the first."""
        other = World.__new__(World)
        other.__dict__.update(self.__dict__)
        other.stem = PooledStem(self.stem.weight[order], self.stem.bias[order], self.stem.signed)
        grid = self.head.first.reshape(len(self.head.first), -1, 4, 5)[:, order].copy()
        first = [order.index(k) for k in order]
        grid[:, [place for place, found in enumerate(first) if found != place]] = 0
        other.head = replace(self.head, first=grid.reshape(len(grid), -1))
        return other


@pytest.fixture
def world(rng):
    return World(rng)


def probabilities(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def stretch(values, below=0.0):
    return (values - values.min()) / (values.max() - values.min() + below)


def by_hand(world, mask, weigh, combined=lambda a: a):
    """Return raw maps by loops: `mask` of a map, `weigh` an image's logits (K,C) by class, `combined` channels."""
    maps = []
    for x, acts, c in zip(world.x, world.stem.acts(world.x), world.target, strict=True):
        logits = np.concatenate([world.forward((x * mask(a))[None]) for a in acts])
        weights = weigh(logits, c)
        maps.append(sum(w * combined(a) for w, a in zip(weights, acts, strict=True)))
    return np.stack(maps)


def up(a, align="half_pixel"):
    return resize(a[None], SIZE, align=align)[0]


def prob(logits, c):
    return probabilities(logits)[:, c]


def softmax(logits, c):
    return probabilities(logits[:, c])


LOOPS = {
    "official": (lambda a: stretch(up(a)), prob, lambda a: a),
    "paper": (lambda a: stretch(up(a)), softmax, lambda a: a),
    "pytorch-grad-cam": (lambda a: stretch(up(a, "corners"), 1e-8), softmax, lambda a: a),
    "torchcam": (lambda a: up(stretch(a, 1e-8)), softmax, lambda a: a),
    "torchcam-0.3": (lambda a: up(stretch(a)), softmax, stretch),
    "torchcam-0.2": (lambda a: up(stretch(a)), prob, stretch),
    "tabayashi": (lambda a: up(a) / np.ptp(up(a)), prob, lambda a: a),
}


@pytest.mark.parametrize("variant", LOOPS)
def test_each_variant_is_its_loop(world, variant):
    np.testing.assert_allclose(raw("scorecam", world.given(), variant), by_hand(world, *LOOPS[variant]), atol=1e-12)


def test_variants_differ(world):
    maps = [min_max(raw("scorecam", world.given(), variant))[0] for variant in LOOPS]
    assert min(abs(a - b).max() for i, a in enumerate(maps) for b in maps[:i]) > 1e-6


def test_the_baseline_is_the_hidden_image(world):
    want = []
    for x, acts, c in zip(world.x, world.stem.acts(world.x), world.target, strict=True):
        masks = [stretch(up(a)) for a in acts]
        seen = prob(np.concatenate([world.forward((x * m + 0.7 * (1 - m))[None]) for m in masks]), c)
        baseline = prob(world.forward(np.full((1, 3, *SIZE), 0.7)), c)
        want.append(sum(w * a for w, a in zip(seen - baseline, acts, strict=True)))
    got = raw("scorecam", world.given(hidden=0.7), weighting="prob_minus_baseline")
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_weights_are_probabilities(world):
    given = world.given()
    weights = scorecam(given["acts"], given["masked_of"], given["score_of"]).array
    assert ((weights > 0) & (weights < 1)).all()
    shares = scorecam(given["acts"], given["masked_of"], given["score_of"], weighting="softmax_logit").array
    np.testing.assert_allclose(shares.sum(1), 1)
    assert (shares >= 0).all()


def test_a_softmax_is_invariant_to_a_constant_baseline(world):
    given = world.given()
    shifted = {
        **given,
        "score_of": lambda logits, kind: given["score_of"](logits, kind) - np.array([[4.0], [-70], [1]]),
    }
    for variant in ("paper", "pytorch-grad-cam", "torchcam", "torchcam-0.3"):
        np.testing.assert_allclose(
            raw("scorecam", given, variant), raw("scorecam", shifted, variant), rtol=1e-9, atol=1e-12
        )


def test_large_logits_do_not_overflow(world):
    world.head = TwoLayer(world.head.first, world.head.first_bias, world.head.second * 1e4, world.head.second_bias)
    assert np.isfinite(raw("scorecam", world.given(), "paper")).all()


def test_a_constant_channel_weighs_nothing_or_what_the_hidden_image_weighs(world):
    world.stem.weight[2], world.stem.bias[2] = 0, 0.5
    given = world.given()

    def weights(variant, weighting="prob"):
        return scorecam(given["acts"], given["masked_of"], given["score_of"], variant=variant, weighting=weighting)

    for variant in ("official", "paper", "tabayashi"):
        np.testing.assert_array_equal(weights(variant).array[:, 2], 0)
        assert not weights(variant).flags
    hidden = world.forward(np.zeros((1, 3, *SIZE)))[0]
    for variant in ("torchcam", "pytorch-grad-cam"):
        mask, _, _ = LOOPS[variant]
        for n, acts in enumerate(given["acts"]):
            seen = [hidden if k == 2 else world.forward((world.x[n] * mask(a))[None])[0] for k, a in enumerate(acts)]
            want = softmax(np.stack(seen), world.target[n])
            np.testing.assert_allclose(weights(variant, "softmax_logit").array[n], want)


# ----- the family -----


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_permuting_channels_changes_nothing(world, name, variant, options):
    before = raw(name, world.given(), variant, **options)
    after = raw(name, world.on_channels([3, 0, 5, 1, 4, 2]).given(), variant, **options)
    np.testing.assert_allclose(before, after, atol=1e-12)


@pytest.mark.parametrize(("name", "variant", "options"), [row for row in FAMILY if row[0] != "fasterscorecam"])
def test_a_repeated_channel_counts_twice(world, name, variant, options):
    """The head does not read the copy, so that masks see the same model; with all channels twice the map is doubled."""
    one = raw(name, world.given(), variant, **options)
    two = raw(name, world.on_channels([*range(6), *range(6)]).given(), variant, **options)
    np.testing.assert_allclose(min_max(one)[0], min_max(two)[0], atol=1e-9)


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_a_batch_equals_its_images_one_by_one_in_any_order(world, name, variant, options):
    whole = raw(name, world.given(), variant, **options)
    np.testing.assert_allclose(raw(name, world.given([2, 0, 1]), variant, **options), whole[[2, 0, 1]], atol=1e-12)
    for n in range(3):
        np.testing.assert_allclose(raw(name, world.given([n]), variant, **options), whole[[n]], atol=1e-12)


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_dead_activations_give_a_zero_map(world, name, variant, options):
    given = world.given()
    given["acts"][1] = 0
    maps = raw(name, given, variant, **options)
    np.testing.assert_array_equal(maps[1], 0)
    assert abs(maps[0]).max() > 0


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_signed_activations_run_and_stay_finite(rng, name, variant, options):
    assert np.isfinite(raw(name, World(rng, signed=True).given(), variant, **options)).all()


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_a_constant_added_to_the_logits_changes_nothing(world, name, variant, options):
    before = raw(name, world.given(), variant, **options)
    world.head = replace(world.head, second_bias=world.head.second_bias + 50)
    np.testing.assert_allclose(before, raw(name, world.given(), variant, **options), atol=1e-9)


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_scaling_all_logits_is_a_temperature_and_changes_the_map(world, name, variant, options):
    before = min_max(raw(name, world.given(), variant, **options))[0]
    world.head = replace(world.head, second=world.head.second * 3, second_bias=world.head.second_bias * 3)
    assert abs(before - min_max(raw(name, world.given(), variant, **options))[0]).max() > 1e-3


@pytest.mark.parametrize(("name", "variant", "options"), [row for row in FAMILY if row[0] != "fasterscorecam"])
def test_rescaling_channels_against_the_head_counts_only_where_they_are_not_scaled(world, name, variant, options):
    """Masks have no scale and weights stay; what they weigh is a channel scaled to [0, 1], or its own values."""
    before, t = raw(name, world.given(), variant, **options), np.geomspace(0.1, 10, 6)
    world.stem = PooledStem(world.stem.weight * t[:, None], world.stem.bias * t)
    grid = world.head.first.reshape(len(world.head.first), 6, -1) / t[:, None]
    world.head = replace(world.head, first=grid.reshape(len(grid), -1))
    gap = abs(before - raw(name, world.given(), variant, **options)).max()
    assert gap < 1e-6 if variant in ("torchcam-0.2", "torchcam-0.3") else gap > 1e-2


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_a_layer_of_one_cell_is_degenerate(world, name, variant, options):
    given = world.given()
    given["acts"] = given["acts"][:, :, :1, :1]
    assert PIPELINES["camrt"](raw(name, given, variant, **options), SIZE)[1].all()


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_the_class_matters(world, name, variant, options):
    before = raw(name, world.given(), variant, **options)
    world.target = world.target + 3
    assert abs(before - raw(name, world.given(), variant, **options)).max() > 1e-6


# ----- fewer rows than were asked for -----


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_a_budget_that_suffices_changes_nothing_and_raises_no_flag(world, name, variant, options):
    whole, short = (run(name, world.given(budget=b), variant, **options) for b in (None, 100))
    np.testing.assert_array_equal(whole.array, short.array)
    assert "bound" not in short.flags


@pytest.mark.parametrize("budget", range(1, 20, 3))
@pytest.mark.parametrize(("name", "variant", "options"), PROBABILITIES)
def test_the_whole_map_lies_within_the_bound_of_a_partial_one(world, name, variant, options, budget):
    budget += "weighting" in options  # the hidden image is the first to run
    short = run(name, world.given(budget=budget), variant, **options)
    if "bound" not in short.flags:
        assert budget >= 3
        return
    whole = np.maximum(raw(name, world.given(), variant, **options), 0)
    present = np.maximum(short.array, 0)
    top = present.max((1, 2))
    seen = top > 0
    assert (abs(whole - present).max((1, 2))[seen] <= (short.flags["bound"] * top + 1e-12)[seen]).all()
    assert np.isinf(short.flags["bound"][~seen]).all()


def test_channels_that_were_not_run_have_no_part_in_a_softmax(world):
    given = world.given(budget=4)
    result = scorecam(given["acts"], given["masked_of"], given["score_of"], variant="paper", weighting="softmax_logit")
    np.testing.assert_allclose(result.array[:, :4].sum(1), 1)
    np.testing.assert_array_equal(result.array[:, 4:], 0)
    assert not result.flags  # every weight may still move


def test_an_image_that_is_complete_has_a_bound_of_zero(world):
    given = world.given(budget=5)
    given["acts"][1, 3] = 2.0  # one channel fewer to run
    flags = run("scorecam", given).flags
    assert flags["bound"][1] == 0
    assert (flags["bound"][[0, 2]] > 0).all()


def test_nothing_run_is_a_zero_map_that_may_become_anything(world):
    for variant in ("official", "paper"):
        result = run("scorecam", world.given(budget=0), variant)
        np.testing.assert_array_equal(result.array, 0)
        assert "bound" not in result.flags or np.isinf(result.flags["bound"]).all()


# ----- through an explainer -----


@cache
def explainer_of_mlp():
    """Open a tiny model, once."""
    return camrt.load(tiny.mlp(), preprocess="half")


def opened():
    """Return a tiny model and five images, which makes two batches."""
    return explainer_of_mlp(), tiny.images(5)


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_an_explainer_s_maps_are_those_of_masked_forwards_one_by_one(name, variant, options):
    explainer, x = opened()
    acts, target = explainer.activations(x)["a2"], np.arange(5) % tiny.CLASSES
    given = {
        "acts": acts,
        **masked_evidence(x.astype("f8"), lambda at: explainer.logits(at.astype("f4")), target, ids=content_ids(x)),
    }
    result = explainer.explain(x, method=name, variant=variant, options=options, target=list(range(tiny.CLASSES)))
    got = result.raw[np.arange(5), target]
    np.testing.assert_allclose(got, raw(name, given, variant, **options), atol=2e-5 * abs(got).max())


@pytest.mark.parametrize(("name", "variant", "options"), FAMILY)
def test_all_targets_of_one_request_equal_one_request_each(name, variant, options):
    explainer, x = opened()
    whole = explainer.explain(x, method=name, variant=variant, options=options, target=[3, 0, 4])
    for place, c in enumerate((3, 0, 4)):
        single = explainer.explain(x, method=name, variant=variant, options=options, target=c)
        np.testing.assert_array_equal(whole.raw[:, [place]], single.raw)


def test_a_raw_mask_space_hides_with_black():
    explainer, x = opened()
    acts, black = explainer.activations(x)["a2"], float(np.ravel(explainer.preprocess.black)[0])
    assert black != 0
    forward = lambda at: explainer.logits(at.astype("f4"))
    given = {"acts": acts, **masked_evidence(x.astype("f8"), forward, np.full(5, 2), hidden=black)}
    for weighting in ("prob", "prob_minus_baseline"):
        options = {"weighting": weighting}
        got = explainer.explain(x, method="scorecam", target=2, options=options, mask_space="raw").raw[:, 0]
        np.testing.assert_allclose(got, raw("scorecam", given, **options), atol=2e-5 * abs(got).max())


@pytest.mark.parametrize("forwards", range(1, 6))
@pytest.mark.parametrize(("name", "options"), [("scorecam", {}), ("iscam", {"n": 2}), ("fasterscorecam", {"max_n": 4})])
def test_under_a_budget_the_exact_map_lies_within_the_bound(name, options, forwards):
    explainer, x = opened()
    asked = {"method": name, "options": options, "target": [1, 2]}
    whole = np.maximum(explainer.explain(x, **asked).raw, 0)
    short = explainer.explain(x, **asked, budget=Budget(forwards=forwards))
    if "bound" not in short.flags:
        np.testing.assert_array_equal(short.raw, whole)
        return
    present = np.maximum(short.raw, 0)
    top = present.max((2, 3))
    assert (top > 0).all()
    assert (abs(whole - present).max((2, 3)) <= short.flags["bound"] * top * (1 + 1e-5)).all()
    assert (short.flags["bound"] > 0).any()


def test_a_batch_with_nothing_left_to_run_stands_beside_one_that_is_cut_short():
    """The fifth image makes a batch of its own; behind a convolution of one pixel its channels are all constant."""
    arrays = {name: value for name, value in tiny.weights().items() if name in ("w1", "b1", "head")}
    arrays = {"w1": arrays["w1"][:, :, :1, :1], "b1": arrays["b1"], "head": arrays["head"][:4]}
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c"]),
        helper.make_node("Relu", ["c"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["scores"]),
    ]
    explainer, x = camrt.load(tiny._model(nodes, arrays), preprocess="half"), tiny.images(5)
    x[4] = 0.3
    flags = explainer.explain(x, method="scorecam", target=[0, 1], budget=Budget(forwards=2)).flags
    assert (flags["bound"][:4] > 0).all()
    np.testing.assert_array_equal(flags["bound"][4], 0)
