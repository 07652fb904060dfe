"""SS-CAM: scores averaged over noise that is shared by the channels of an image."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from camrt.kernels import min_max
from camrt.masks import Scored
from camrt.methods.sscam import sscam
from camrt.noise import standard_normal
from tests.engine.methods.heads import raw
from tests.engine.methods.test_scorecam import SIZE, World, prob, softmax, stretch, up


@pytest.fixture
def world(rng):
    return World(rng)


@pytest.mark.parametrize(
    ("variant", "plain"),
    [("prob", "official"), ("input-noise", "official"), ("torchcam", "torchcam"), ("torchcam-0.2",) * 2],
)
def test_without_noise_it_is_scorecam(world, variant, plain):
    np.testing.assert_array_equal(raw("sscam", world.given(), variant, sigma=0), raw("scorecam", world.given(), plain))
    tiny = raw("sscam", world.given(), variant, sigma=1e-9, n=2)
    np.testing.assert_allclose(tiny, raw("scorecam", world.given(), plain), atol=1e-6)


LOOPS = {
    "prob": (lambda a: stretch(up(a)), "mask", prob, lambda a: a),
    "input-noise": (lambda a: stretch(up(a)), "input", prob, lambda a: a),
    "torchcam": (lambda a: up(stretch(a, 1e-8)), "mask", None, lambda a: a),
    "torchcam-0.2": (lambda a: up(stretch(a)), "mask", prob, stretch),
}


@pytest.mark.parametrize("variant", LOOPS)
def test_each_variant_is_its_loop(world, variant):
    mask, where, weigh, combined = LOOPS[variant]
    want = []
    for n, (x, acts, c) in enumerate(zip(world.x, world.stem.acts(world.x), world.target, strict=True)):
        scores = []
        for sample in range(3):
            shape = (3, *SIZE) if where == "input" else SIZE
            noise = 0.4 * standard_normal(shape, 5, n, sample)
            seen = [x * mask(a) + noise if where == "input" else x * (mask(a) + noise) for a in acts]
            logits = np.concatenate([world.forward(image[None]) for image in seen])
            scores.append(logits if weigh is None else weigh(logits, c))
        mean = np.mean(scores, 0)
        weights = softmax(mean, c) if weigh is None else mean
        want.append(sum(w * combined(a) for w, a in zip(weights, acts, strict=True)))
    got = raw("sscam", world.given(), variant, n=3, sigma=0.4, seed=5)
    np.testing.assert_allclose(got, np.stack(want), atol=1e-12)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(world):
    one, two, other = (raw("sscam", world.given(), n=2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert abs(one - other).max() > 1e-6


def test_channels_share_their_noise_so_that_equal_channels_weigh_the_same(world):
    given = world.given()
    given["acts"][:, 4] = given["acts"][:, 1]
    weights = sscam(given["acts"], given["masked_of"], given["score_of"], n=2).array
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])


def test_more_than_twenty_thousand_forwards_must_be_confirmed(rng):
    acts, asked = rng.uniform(size=(1, 500, 2, 2)), []

    def masked_of(masks):
        asked.append(masks)
        return Scored(np.zeros((1, 500, 2)), np.ones((1, 500), bool))

    given = {"acts": acts, "masked_of": masked_of, "score_of": lambda logits, kind: logits[:, :, 0] + 0.5}
    with pytest.raises(MethodError, match=r"would take 41 x 500 = 20500 forwards an image, .* allow_slow"):
        raw("sscam", given, n=41)
    assert not asked
    for options in ({"n": 40}, {"n": 41, "sigma": 0}, {"n": 41, "allow_slow": "yes"}):
        np.testing.assert_allclose(raw("sscam", given, **options), 0.5 * acts.sum(1))
    assert [len({id(masks) for masks in asked})] == [40 + 1 + 41]


def test_more_samples_come_nearer_to_the_mean(world):
    many = min_max(raw("sscam", world.given(), n=60, sigma=1.0, seed=9))[0]
    gaps = [abs(min_max(raw("sscam", world.given(), n=n, sigma=1.0, seed=1))[0] - many).mean() for n in (1, 40)]
    assert gaps[1] < gaps[0]
