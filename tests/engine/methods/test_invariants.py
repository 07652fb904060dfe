"""What must hold for many methods at once: equivariances, class independence, degenerate layers, batches."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.methods import METHODS, resolve
from camrt.pipeline import PIPELINES
from tests.engine.methods.heads import (
    CLASS_FREE,
    CLASSES,
    EDITED,
    GRADIENT,
    HW,
    PURE,
    SIZE,
    TAIL,
    FlattenLinear,
    K,
    TwoLayer,
    evidence,
    input_evidence,
    make_acts,
    make_head,
    make_stem,
    raw,
    run,
)

VARIANTS = [(name, variant) for name in PURE for variant in resolve(name).variants]
LOOKING = [row for row in VARIANTS if row[0] != "fakecam"]  # Fake-CAM has a corner of its own, whatever the layer
ASKING = (*TAIL, *EDITED)
OF_A_TAIL = [row for row in VARIANTS if row[0] in ASKING and row != ("liftcam", "lime")]  # lime draws sets of channels
GIVEN_GRADIENTS = [row for row in LOOKING if row[0] not in ASKING]
COUNTING = ("lafam", "randomcam", "kpcacam")  # the number of channels enters their maps
EIGEN_SIGN = {
    ("eigencam", "pytorch-grad-cam"),
    ("eigengradcam", "pytorch-grad-cam"),
}  # LAPACK's sign is anybody's guess


def heat_of(name, given, variant=None, **options):
    """Return the finished heatmap of a method on one layer."""
    result = run(name, given, variant, **options)
    if result.gives == "heatmap":
        return result.array
    return PIPELINES["camrt"](result.array, SIZE, resolve(name).relu_of(variant or resolve(name).variants[0]))[0]


def scaled(head: TwoLayer, factor: float, shift: float = 0.0) -> TwoLayer:
    """Scale every logit, and add a constant to all of them."""
    return TwoLayer(head.first, head.first_bias, head.second * factor, head.second_bias * factor + shift)


def on_channels(head: TwoLayer, order=None, factors=None) -> TwoLayer:
    """Permute the channels a head reads, or divide its weights by factors of the channels."""
    first = head.first.reshape(-1, K, *HW)
    first = first[:, order] if order is not None else first / factors[:, None, None]
    return TwoLayer(first.reshape(len(first), -1), head.first_bias, head.second, head.second_bias)


# ----- identities of architectures -----


def test_under_a_gap_head_four_methods_agree(rng):
    given = evidence(make_head("gap", rng), make_acts(rng))
    cells = HW[0] * HW[1]
    for name in ("gradcam", "hirescam", "xgradcam"):
        np.testing.assert_allclose(raw(name, given), raw("cam", given) / cells, atol=1e-12)


def test_under_a_flattened_head_two_maps_sum_to_the_same_number(rng):
    given = evidence(make_head("flatten", rng), make_acts(rng))
    np.testing.assert_allclose(raw("hirescam", given).sum((1, 2)), raw("xgradcam", given).sum((1, 2)), atol=1e-10)


@pytest.mark.parametrize(("name", "variant"), [row for row in VARIANTS if row != ("fakecam", "pixel")])
def test_a_layer_of_one_cell_is_degenerate(rng, name, variant):
    acts = np.maximum(rng.normal(size=(3, K, 1, 1)), 0.1)
    given = evidence(make_head("two-layer", rng, hw=(1, 1)), acts)
    for order in PIPELINES.values():
        heat, degenerate = order(raw(name, given, variant), SIZE, True)
        assert degenerate.all()
        assert (heat == 0).all()


@pytest.mark.parametrize(("name", "variant"), [row for row in LOOKING if row[0] != "reciprocam"])
def test_dead_activations_give_a_zero_map(rng, name, variant):
    acts = make_acts(rng)
    acts[1] = 0
    given = evidence(make_head("two-layer", rng), acts)
    np.testing.assert_array_equal(raw(name, given, variant)[1], 0)
    assert abs(raw(name, given, variant)[0]).max() > 0


@pytest.mark.parametrize(("name", "variant"), [row for row in GIVEN_GRADIENTS if row[0] not in COUNTING])
def test_a_dead_channel_changes_nothing(rng, name, variant):
    acts, grads = make_acts(rng), rng.normal(size=(3, K, *HW))
    wider = {
        "acts": np.pad(acts, ((0, 0), (0, 2), (0, 0), (0, 0))),
        "grads": np.pad(grads, ((0, 0), (0, 2), (0, 0), (0, 0))),
    }
    wider["grads"][:, -1] = 0.3
    common = evidence(make_head("two-layer", rng), acts)
    narrow = {**common, "grads": grads, "gradients_of": lambda seed: grads}
    wide = {**common, **wider, "gradients_of": lambda seed: wider["grads"]}
    one, two = (raw(name, given, variant) for given in (narrow, wide))
    np.testing.assert_allclose(
        abs(one) if (name, variant) in EIGEN_SIGN else one,
        abs(two) if (name, variant) in EIGEN_SIGN else two,
        atol=1e-10,
    )


@pytest.mark.parametrize(("name", "variant"), OF_A_TAIL)
def test_a_dead_channel_changes_nothing_for_methods_that_ask_the_tail(rng, name, variant):
    acts, head = make_acts(rng), make_head("two-layer", rng)
    grown = np.concatenate([head.first.reshape(-1, K, *HW), rng.normal(size=(12, 2, *HW))], axis=1)
    wider = TwoLayer(grown.reshape(12, -1), head.first_bias, head.second, head.second_bias)
    dead = np.pad(acts, ((0, 0), (0, 2), (0, 0), (0, 0)))
    one, two = raw(name, evidence(head, acts), variant), raw(name, evidence(wider, dead), variant)
    np.testing.assert_allclose(one, two, atol=1e-10)


@pytest.mark.parametrize("name", CLASS_FREE)
def test_class_free_methods_see_neither_class_nor_head(rng, name):
    acts = make_acts(rng)
    one = evidence(make_head("two-layer", rng), acts, np.array([0, 1, 2]))
    two = evidence(make_head("flatten", rng), acts, np.array([5, 5, 5]))
    assert METHODS[name].class_free
    np.testing.assert_array_equal(raw(name, one), raw(name, two))


def test_the_other_methods_depend_on_the_class(rng):
    acts, head = make_acts(rng), make_head("two-layer", rng)
    for name in (*GRADIENT, *ASKING, "finercam", "refinecam"):
        one, two = (raw(name, evidence(head, acts, np.full(3, c))) for c in (0, 4))
        assert not METHODS[name].class_free
        assert abs(one - two).max() > 1e-6


# ----- equivariances -----


@pytest.mark.parametrize("name", [*GRADIENT, "finercam", *ASKING])
@pytest.mark.parametrize("factor", [0.05, 30.0])
def test_scaling_all_logits_leaves_heatmaps_but_of_methods_with_a_softmax_or_a_product(rng, name, factor):
    acts, head = make_acts(rng), make_head("two-layer", rng)
    before, after = (heat_of(name, evidence(h, acts)) for h in (head, scaled(head, factor)))
    if name in ("gradcampp", "finercam", "shapleycam", "reciprocam"):
        assert abs(before - after).max() > 1e-3
    else:
        np.testing.assert_allclose(before, after, atol=1e-9)


@pytest.mark.parametrize(("name", "variant"), [("gradcampp", "torchcam"), ("finercam", "torchcam")])
def test_scaling_all_logits_leaves_two_torchcam_variants(rng, name, variant):
    acts, head = make_acts(rng), make_head("two-layer", rng)
    before, after = (heat_of(name, evidence(h, acts), variant) for h in (head, scaled(head, 7.0)))
    np.testing.assert_allclose(before, after, atol=1e-9)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_constant_added_to_the_logits_changes_nothing(rng, name, variant):
    acts, head = make_acts(rng), make_head("two-layer", rng)
    look = heat_of if name in EDITED else raw  # what a score is divided by, and a map of logits, move with them
    before, after = (look(name, evidence(h, acts), variant) for h in (head, scaled(head, 1.0, shift=50.0)))
    if name == "ablationcam" and variant != "abs":
        turned = evidence(head, acts)["logits"][np.arange(3), np.arange(3)] < 0
        assert 0 < turned.sum() < 3  # a score that was negative is positive now, and the map turns round
        np.testing.assert_allclose(before[~turned], after[~turned], atol=1e-9)
        assert abs(before - after)[turned].max() > 0.1
    else:
        np.testing.assert_allclose(before, after, atol=1e-9)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_permuting_channels_changes_nothing_but_random_maps(rng, name, variant):
    acts, head, order = make_acts(rng), make_head("two-layer", rng), rng.permutation(K)
    before = raw(name, evidence(head, acts), variant)
    after = raw(name, evidence(on_channels(head, order=order), acts[:, order]), variant)
    if name == "randomcam" or variant == "lime":
        assert abs(before - after).max() > 1e-6
    elif (name, variant) in EIGEN_SIGN:
        np.testing.assert_allclose(abs(before), abs(after), atol=1e-9)
    else:
        np.testing.assert_allclose(before, after, atol=1e-9)


RESCALED = [
    ("gradcam", "paper", True),
    ("gradcampp", "paper", True),
    ("gradcampp", "no-relu", True),
    ("hirescam", "official", True),
    ("xgradcam", "paper", True),
    ("layercam", "official", True),
    ("elementwisecam", "pytorch-grad-cam", True),
    ("eigengradcam", "centred", True),
    ("finercam", "official", True),
    ("refinecam", "official", True),
    ("shapleycam", "rest", True),
    ("shapleycam", "logit", True),
    ("liftcam", "official", False),
    ("liftcam", "lrp", False),
    ("reciprocam", "official", True),
    ("ablationcam", "abs", False),
    ("eigencam", "paper", False),
    ("eigencam", "centred", False),
    ("gradcampp", "torchcam", False),
    ("gradcampp", "pytorch-grad-cam", False),  # its eps
    ("kpcacam", "pytorch-grad-cam", False),
    ("lafam", "paper", False),
]


@pytest.mark.parametrize(("name", "variant", "kept"), RESCALED)
def test_rescaling_channels_against_the_head_keeps_the_maps_of_gradient_methods(rng, name, variant, kept):
    acts, head, factors = make_acts(rng), make_head("two-layer", rng), np.geomspace(1e-3, 1e3, K)
    before = raw(name, evidence(head, acts), variant)
    after = raw(name, evidence(on_channels(head, factors=factors), acts * factors[:, None, None]), variant)
    if kept:
        np.testing.assert_allclose(before, after, rtol=1e-8, atol=1e-10)
    else:
        assert abs(before - after).max() > 1e-4


def test_rescaling_channels_against_a_gap_head_keeps_cam(rng):
    acts, head, factors = make_acts(rng), make_head("gap", rng), np.geomspace(1e-3, 1e3, K)
    before = raw("cam", evidence(head, acts))
    head.weight = head.weight / factors
    np.testing.assert_allclose(before, raw("cam", evidence(head, acts * factors[:, None, None])), atol=1e-10)


@pytest.mark.parametrize(("name", "variant"), OF_A_TAIL)
def test_flipping_a_layer_and_its_tail_flips_the_map(rng, name, variant):
    acts, head = make_acts(rng), make_head("two-layer", rng)
    turned = head.first.reshape(-1, K, *HW)[..., ::-1].reshape(12, -1)
    mirrored = evidence(TwoLayer(turned, head.first_bias, head.second, head.second_bias), acts[..., ::-1])
    one, two = raw(name, evidence(head, acts), variant), raw(name, mirrored, variant)[..., ::-1]
    np.testing.assert_allclose(one, two, atol=1e-9)


@pytest.mark.parametrize(("name", "variant"), GIVEN_GRADIENTS)
def test_flipping_a_layer_flips_its_map(rng, name, variant):
    acts, grads = make_acts(rng), rng.normal(size=(3, K, *HW))
    common = evidence(make_head("two-layer", rng), acts)
    plain = {**common, "grads": grads, "gradients_of": lambda seed: grads}
    mirrored = {
        **common,
        "acts": acts[..., ::-1],
        "grads": grads[..., ::-1],
        "gradients_of": lambda seed: grads[..., ::-1],
    }
    one, two = raw(name, plain, variant), raw(name, mirrored, variant)[..., ::-1]
    if (name, variant) in EIGEN_SIGN:
        one, two = abs(one), abs(two)
    np.testing.assert_allclose(one, two, atol=1e-9)


# ----- determinism and batches -----


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_a_batch_equals_its_images_one_by_one_in_any_order(rng, name, variant):
    acts, head = make_acts(rng, images=4), make_head("two-layer", rng)
    target, ids = np.array([3, 0, 6, 2]), np.array([9, 2**63, 1, 77], np.uint64)

    def maps(order):
        return raw(name, {**evidence(head, acts[order], target[order]), "ids": ids[order]}, variant)

    whole, order = maps([0, 1, 2, 3]), [2, 0, 3, 1]
    np.testing.assert_allclose(maps(order), whole[order], atol=1e-12)
    for index in range(4):
        np.testing.assert_allclose(maps([index]), whole[[index]], atol=1e-12)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_same_call_gives_the_same_bits_and_leaves_its_evidence_alone(rng, name):
    head = make_head("gap" if name == "cam" else "two-layer", rng)
    given = input_evidence(make_stem(rng), head, rng.normal(size=(2, 3, *HW)))
    kept = {key: value.copy() for key, value in given.items() if isinstance(value, np.ndarray)}
    for variant in METHODS[name].variants:
        np.testing.assert_array_equal(raw(name, given, variant), raw(name, given, variant))
    for key, value in kept.items():
        np.testing.assert_array_equal(given[key], value)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_signed_activations_run_and_stay_finite(rng, name, variant):
    acts = make_acts(rng, signed=True)
    assert np.isfinite(raw(name, evidence(make_head("two-layer", rng), acts), variant)).all()


def test_heads_have_the_gradients_they_claim(rng):
    acts = make_acts(rng)
    for kind in ("gap", "flatten", "two-layer"):
        head = make_head(kind, rng)
        direction, seed = rng.normal(size=acts.shape), rng.normal(size=(3, CLASSES))
        change = (head.logits(acts + 1e-6 * direction) - head.logits(acts - 1e-6 * direction)) / 2e-6
        got = (head.grads(acts, seed) * direction).sum()
        assert got == pytest.approx((change * seed).sum(), rel=1e-6)
    assert isinstance(make_head("flatten", rng), FlattenLinear)
