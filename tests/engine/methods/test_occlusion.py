"""Occlusion: a loop over patches, a model that looks at one pixel, and the order in which patches are run."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from camrt.methods import resolve, validate
from camrt.methods.occlusion import _covered
from tests.engine.methods.heads import input_evidence, make_head, make_stem, raw
from tests.engine.methods.masked import masked_evidence

SIZE = (8, 10)


@pytest.fixture
def setting(rng):
    """Return a forward pass, images, targets and the evidence of both."""
    stem, head = make_stem(rng, pooled=True), make_head("two-layer", rng)
    x, target = rng.normal(size=(3, 3, *SIZE)), np.array([2, 0, 5])
    return lambda images: head.logits(stem.acts(images)), x, target, input_evidence(stem, head, x, target)


def probability(logits, target):
    """Return the target's probability."""
    odds = np.exp(logits)
    return odds[target] / odds.sum()


@pytest.mark.parametrize(
    ("patch", "stride", "height", "width", "tops", "lefts"),
    [
        (0.5, 0.5, 4, 5, (0, 4), (0, 5)),  # two halves
        (0.5, 0.25, 4, 5, (0, 2, 4), (0, 2, 5)),  # 2.5 rounds to the even 2
        (0.25, 0.2, 2, 3, (0, 2, 3, 4, 6), (0, 2, 4, 5, 7)),  # five places: 0, 1.5, 3, 4.5, 6; 0, 1.75, 3.5, 5.25, 7
        (0.3, 0.3, 3, 3, (0, 2, 3, 5), (0, 2, 5, 7)),
        (1.0, 1.0, 8, 10, (0,), (0,)),
        (0.01, 0.01, 1, 1, tuple(range(8)), tuple(range(10))),  # more places than pixels: every pixel once
    ],
)
def test_the_map_is_that_of_a_loop_over_patches(setting, patch, stride, height, width, tops, lefts):
    forward, x, target, given = setting
    want, signs = np.zeros((3, *SIZE)), set()
    for n, image in enumerate(x):
        drops, covers = np.zeros(SIZE), np.zeros(SIZE)
        for top in tops:
            for left in lefts:
                spot = slice(top, top + height), slice(left, left + width)
                hidden = image.copy()
                hidden[:, *spot] = 0
                drop = probability(forward(image[None])[0], target[n])
                drop -= probability(forward(hidden[None])[0], target[n])
                drops[spot] += drop
                covers[spot] += 1
                signs.add(drop > 0)
        assert covers.all()
        want[n] = drops / covers
    np.testing.assert_allclose(raw("occlusion", given, patch=patch, stride=stride), want, atol=1e-6)
    assert signs == {True, False}


@pytest.mark.parametrize("patch", [0.05, 0.11, 0.2, 1 / 3, 0.7])
@pytest.mark.parametrize("side", [7, 32, 224])
def test_every_pixel_is_covered_whatever_the_stride(patch, side):
    for share in (1, 0.9, 0.5, 0.25):
        covered = _covered(side, patch, share * patch)
        assert covered.any(axis=0).all()
        assert len(covered) <= resolve("occlusion").runs({"patch": patch, "stride": share * patch}, 8, 49) ** 0.5
        assert covered[0, 0]
        assert covered[-1, -1]


def test_the_default_takes_289_patches():
    method = resolve("occlusion")
    _, options = validate(method)
    assert method.runs(options, 8, 49) == 17**2 == method.work - 1
    assert len(_covered(224, **options)) == 17


def test_what_is_hidden_shows_the_mask_space(setting):
    forward, x, target, given = setting
    made = raw("occlusion", {**given, **masked_evidence(x, forward, target, hidden=-1.5)}, patch=0.5, stride=0.5)
    image = x[0].copy()
    image[:, :4, :5] = -1.5
    want = probability(forward(x[[0]])[0], 2) - probability(forward(image[None])[0], 2)
    np.testing.assert_allclose(made[0, :4, :5], want, atol=1e-6)


def test_a_model_that_looks_at_one_pixel_loses_all_of_it_there_and_nothing_a_patch_away():
    x = np.zeros((1, 3, 10, 10))
    x[0, :, 4, 6] = 1.0

    def forward(images):
        seen = images[:, 0, 4, 6]
        return np.stack([2 * seen, 0 * seen], axis=1)

    given = {**masked_evidence(x, forward, np.array([0])), "x": x, "size": (10, 10), "logits": forward(x)}
    made = raw("occlusion", given, patch=0.3, stride=0.1)[0]
    drop = 1 / (1 + np.exp(-2)) - 0.5
    assert made[4, 6] == pytest.approx(drop)
    assert made.max() == made[4, 6]
    far = np.ones((10, 10), bool)
    far[2:7, 4:9] = False
    assert abs(made[far]).max() < 1e-9
    assert made[3, 6] == pytest.approx(drop * 2 / 3)  # of the nine patches that cover it, six cover the pixel below


def test_gaps_between_patches_are_refused(setting):
    with pytest.raises(MethodError, match=r"must be at most its patch, 0\.2, to leave no pixel out; got 0\.5"):
        raw("occlusion", setting[3], stride=0.5)


def masks_of(given, **options):
    """Return the masks that are asked for, (patches, H, W), in the order of their rows."""
    asked = []

    def masked_of(masks):
        asked.append(masks.maps)
        return given["masked_of"](masks)

    raw("occlusion", {**given, "masked_of": masked_of}, **options)
    return asked[0].make(0, np.arange(asked[0].count)), asked[0].key


def test_every_patch_is_asked_for_once(setting):
    masks, _ = masks_of(setting[3], patch=0.2, stride=0.1)
    assert len({mask.tobytes() for mask in masks}) == len(masks) == 7 * 9
    assert set(np.unique(masks)) == {0.0, 1.0}
    assert ((1 - masks).sum((1, 2)) == 4).all()


def test_the_first_patches_already_cover_the_whole_image(setting):
    masks, _ = masks_of(setting[3], patch=0.2, stride=0.1)
    hidden = (masks[: len(masks) // 4] == 0).any(0)
    assert hidden.mean() > 0.5
    assert all(quarter.any() for half in np.split(hidden, 2) for quarter in np.split(half, 2, axis=1))


def test_several_targets_name_their_masks_alike(setting):
    assert (
        masks_of(setting[3], patch=0.2)[1] == masks_of(setting[3], patch=0.2)[1] != masks_of(setting[3], patch=0.3)[1]
    )


def test_patches_that_were_not_run_count_for_nothing(setting):
    forward, x, target, given = setting
    masks, _ = masks_of(given, patch=0.3, stride=0.2)
    some = raw("occlusion", {**given, **masked_evidence(x, forward, target, budget=5)}, patch=0.3, stride=0.2)
    for n, image in enumerate(x):
        drops, covers = np.zeros(SIZE), np.zeros(SIZE)
        for mask in masks[:5]:
            clean, hidden = forward(image[None])[0], forward((image * mask)[None])[0]
            drops += (1 - mask) * (probability(clean, target[n]) - probability(hidden, target[n]))
            covers += 1 - mask
        np.testing.assert_allclose(some[n], drops / np.maximum(covers, 1), atol=1e-6)
    assert not raw("occlusion", {**given, **masked_evidence(x, forward, target, budget=0)}).any()


def test_the_model_is_a_black_box():
    assert not {"acts", "grads", "head"} & set(resolve("occlusion").needs)
