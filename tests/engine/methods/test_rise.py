"""RISE: masks by hand, a loop over masked images, the Monte-Carlo error, and what masks may depend on."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.kernels import resize
from camrt.methods import resolve
from tests.engine.methods.heads import CLASSES, input_evidence, make_head, make_stem, run
from tests.engine.methods.masked import masked_evidence

SIZE = (8, 10)
IDS = np.array([9, 2**63, 77], np.uint64)


@pytest.fixture
def setting(rng):
    """Return a forward pass, images, targets and the evidence of both."""
    stem, head = make_stem(rng, pooled=True), make_head("two-layer", rng)
    x, target = rng.normal(size=(3, 3, *SIZE)), np.array([2, 0, 5])
    given = {**input_evidence(stem, head, x, target), "ids": IDS}
    return lambda images: head.logits(stem.acts(images)), x, target, given


def recorded(given, **options):
    """Return RISE's result and the masks it asked for."""
    asked = []

    def masked_of(masks):
        asked.append(masks)
        return given["masked_of"](masks)

    result = run("rise", {**given, "masked_of": masked_of}, **options)
    return result, asked[0]


def scores(setting, masks):
    """Return the target's probability of every masked image, one after the other."""
    forward, x, target, _ = setting
    found = np.zeros((len(x), masks.maps.count))
    for n, image in enumerate(x):
        for i, mask in enumerate(masks.maps.make(n, np.arange(masks.maps.count))):
            odds = np.exp(forward((image * mask)[None])[0])
            found[n, i] = odds[target[n]] / odds.sum()
    return found


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_the_map_is_the_sum_of_equation_6(setting, p):
    result, masks = recorded(setting[3], n=70, s=3, p=p)
    weights = scores(setting, masks)
    for n in range(3):
        made = masks.maps.make(n, np.arange(70)).astype("f8")
        want = sum(weight * mask for weight, mask in zip(weights[n], made, strict=True)) / (p * 70)
        np.testing.assert_allclose(result.array[n], want, atol=1e-6)


def test_the_standard_error_is_that_of_a_mean_at_every_pixel(setting):
    result, masks = recorded(setting[3], n=70, s=3)
    weights = scores(setting, masks)
    for n in range(3):
        terms = weights[n][:, None, None] * masks.maps.make(n, np.arange(70))
        error = terms.std(axis=0, ddof=1) / 70**0.5
        want = np.sqrt((error**2).mean()) / np.ptp(terms.mean(axis=0))
        assert result.flags["standard_error"][n] == pytest.approx(want, rel=1e-4)


def test_the_standard_error_falls_with_the_root_of_the_number_of_masks(setting):
    few, many = (run("rise", setting[3], n=n, s=3).flags["standard_error"] for n in (100, 1600))
    assert ((few / many > 2) & (few / many < 8)).all()  # 4, and the range of the map narrows too


def drawn(seed, image, n, s, p):
    """Draw cells and offsets anew, mask by mask from one stream."""
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, image))))
    for _ in range(n):
        cells = (stream.random(s * s) < p).reshape(s, s)
        yield cells, stream.random(2)


@pytest.mark.parametrize("s", [1, 3, 7])
def test_masks_are_upsampled_grids_cropped_at_an_offset_within_a_cell(setting, s):
    _, masks = recorded(setting[3], n=20, s=s, seed=4)
    height, width = -(-SIZE[0] // s), -(-SIZE[1] // s)
    for n, image in enumerate(IDS):
        made = masks.maps.make(n, np.arange(20))
        for mask, (cells, place) in zip(made, drawn(4, int(image), 20, s, 0.5), strict=True):
            wide = resize(cells[None].astype("f4"), ((s + 1) * height, (s + 1) * width))[0]
            top, left = int(place[0] * height), int(place[1] * width)
            np.testing.assert_allclose(mask, wide[top : top + SIZE[0], left : left + SIZE[1]], atol=1e-6)
        assert made.dtype == np.float32
        assert made.min() >= 0
        assert made.max() <= 1 + 1e-6


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_a_pixel_is_seen_with_probability_p(setting, p):
    _, masks = recorded({**setting[3], **blind(setting)}, n=4000, p=p)
    mean = masks.maps.make(0, np.arange(4000)).mean(axis=0)
    assert abs(mean - p).max() < 5 * (p * (1 - p) / 4000) ** 0.5


def blind(setting):
    """Return evidence that runs nothing."""
    return masked_evidence(setting[1], setting[0], setting[2], budget=0)


def test_a_mask_depends_on_seed_image_and_index_alone(setting):
    def masks(order, **options):
        given = {**setting[3], "ids": IDS[order], "x": setting[1][order]}
        given |= masked_evidence(setting[1][order], setting[0], setting[2][order], budget=0)
        made = recorded(given, **{"n": 30, **options})[1].maps
        return made, {int(IDS[i]): made.make(place, np.arange(made.count)) for place, i in enumerate(order)}

    lazy, whole = masks([0, 1, 2])
    for order in ([2, 0, 1], [1], [0, 2]):
        for image, made in masks(order)[1].items():
            np.testing.assert_array_equal(made, whole[image])
    for image, made in masks([0, 1, 2], n=50)[1].items():
        np.testing.assert_array_equal(made[:30], whole[image])
    np.testing.assert_array_equal(lazy.make(1, np.array([7, 3, 3])), whole[int(IDS[1])][[7, 3, 3]])
    assert abs(whole[9] - whole[77]).max() > 0.5
    assert abs(masks([0], seed=1)[1][9] - whole[9]).max() > 0.5


def test_several_targets_name_their_masks_alike(setting):
    first, second, other = (recorded(setting[3], n=9, **given)[1].maps.key for given in ({}, {}, {"seed": 1}))
    assert first == second != other


def test_a_budget_gives_what_fewer_masks_would(setting):
    some = {**setting[3], **masked_evidence(setting[1], setting[0], setting[2], budget=40)}
    short, want = run("rise", some, n=100, s=3), run("rise", setting[3], n=40, s=3)
    np.testing.assert_allclose(short.array, want.array, atol=1e-12)
    np.testing.assert_allclose(short.flags["standard_error"], want.flags["standard_error"])


def test_nothing_run_is_a_map_of_zeros_that_says_so(setting):
    result = run("rise", {**setting[3], **blind(setting)}, n=10)
    assert not result.array.any()
    assert result.flags["standard_error"].tolist() == [1, 1, 1]
    assert run("rise", setting[3], n=1).flags["standard_error"].tolist() == [1, 1, 1]


def test_the_model_is_a_black_box(setting):
    assert not {"acts", "grads", "head"} & set(resolve("rise").needs)
    other = {**setting[3], **masked_evidence(setting[1], setting[0], (setting[2] + 1) % CLASSES)}
    one, two = (run("rise", given, n=50).array for given in (setting[3], other))
    assert abs(one - two).max() > 1e-3
