"""
Methods of masked forwards, asked through an explainer on a real model.

Oracles: loops that mask images with NumPy and ask the model for logits; each image and target alone; counted runs.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.kernels import gaussian_blur, min_max, resize
from camrt.methods.polycam import fuse_polycam
from tests.export.onnx_text import classifier

SIZE = (16, 12)
STAGES = ("a1", "a2", "a3")
TARGET = 4  # what the model sees in most images
NODES = " ".join(
    f"[s{i}] c{i} = Conv<pads=[1, 1, 1, 1]>({source}, w{i}, b{i})  [r{i}] a{i} = Relu(c{i})  {after}"
    for i, source, after in (
        (1, "x", "[p1] q1 = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(a1)"),
        (2, "q1", "[p2] q2 = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(a2)"),
        (3, "q2", "[pool] g = GlobalAveragePool(a3)  [flat] f = Flatten(g)  [head] y = Gemm(f, w4, b4)"),
    )
)
METHODS: dict[str, dict[str, Any]] = {
    "groupcam": {"groups": 3, "blur_size": 5, "blur_sigma": 2.0},
    "polycam": {},
    "rise": {"n": 40, "s": 3},
    "occlusion": {"patch": 0.25, "stride": 0.125},
}
RUNS = {"groupcam": 4, "polycam": 2 * (4 + 5 + 6), "rise": 40, "occlusion": 7 * 7}


@pytest.fixture(scope="module")
def explainer():
    """Return a model of three stages, with gains that keep its activations alive."""
    weights = {"w1": (4, 3, 3, 3), "w2": (5, 4, 3, 3), "w3": (6, 5, 3, 3), "w4": (6, 5), "b4": (5,)}
    rng = np.random.default_rng(0)
    drawn: dict[str, Any] = {
        name: (rng.normal(size=shape) * 0.4).astype("f4") if len(shape) == 4 else shape
        for name, shape in weights.items()
    }
    drawn |= {f"b{i}": np.full(n, 0.2, "f4") for i, n in ((1, 4), (2, 5), (3, 6))}
    model = classifier(NODES, drawn, x=f"float[N,3,{SIZE[0]},{SIZE[1]}] x")
    return camrt.load(model.SerializeToString(), preprocess="half")


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, 3, *SIZE)).astype("f4")


@pytest.fixture
def rows(explainer, monkeypatch):
    """Return a list of how many images each further run of the model takes."""
    found: list[int] = []
    run = explainer._sessions.run_unchecked

    def counted(kind: str, layers: Any, feeds: Any, *limits: Any) -> Any:
        if kind == "forward":
            found.append(len(feeds["x"]))
        return run(kind, layers, feeds, *limits)

    monkeypatch.setattr(explainer._sessions, "run_unchecked", counted)
    return found


def probability(explainer, image, target):
    """Return a class's probability on one image."""
    logits = explainer.logits(image[None])[0].astype("f8")
    odds = np.exp(logits - logits.max())
    return odds[target] / odds.sum()


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_get_their_own_maps_and_share_the_runs(explainer, x, rows, method):
    result = explainer.explain(x, method=method, target=[1, 4, 2], options=METHODS[method])
    together = sum(rows)
    for place, target in enumerate((1, 4, 2)):
        rows.clear()
        alone = explainer.explain(x, method=method, target=target, options=METHODS[method])
        np.testing.assert_allclose(result.raw[:, place], alone.raw[:, 0], atol=1e-6)
        np.testing.assert_allclose(result.heatmaps[:, place], alone.heatmaps[:, 0], atol=1e-5)
    assert abs(result.raw[:, 0] - result.raw[:, 1]).max() > 1e-4
    if method == "groupcam":  # its masks are the target's own, the blurred image is not
        assert together <= 3 * (3 * RUNS[method] - 2)
    else:
        assert together == sum(rows) <= 3 * RUNS[method]


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_images_one_by_one(explainer, rng, method):
    x = rng.normal(size=(6, 3, *SIZE)).astype("f4")  # two batches
    whole = explainer.explain(x, method=method, target=2, options=METHODS[method])
    for n in range(6):
        alone = explainer.explain(x[[n]], method=method, target=2, options=METHODS[method])
        np.testing.assert_allclose(whole.raw[n], alone.raw[0], atol=1e-5)
        np.testing.assert_allclose(whole.heatmaps[n], alone.heatmaps[0], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_large_budget_gives_the_exact_map_and_a_small_one_stays_within_it(explainer, x, rows, method):
    exact = explainer.explain(x, method=method, target=TARGET, options=METHODS[method])
    rich = explainer.explain(
        x, method=method, target=TARGET, options=METHODS[method], budget=camrt.Budget(forwards=10 * RUNS[method])
    )
    np.testing.assert_allclose(rich.raw, exact.raw, atol=1e-6)
    assert rich.flags["complete"].all()
    rows.clear()
    poor = explainer.explain(
        x, method=method, target=TARGET, options=METHODS[method], budget=camrt.Budget(forwards=RUNS[method] // 2)
    )
    assert not poor.flags["complete"].any()
    assert sum(rows) < 3 * RUNS[method]
    assert np.isfinite(poor.heatmaps).all()
    assert abs(poor.raw - exact.raw).max() > 1e-6


def test_rise_under_a_budget_is_rise_with_fewer_masks(explainer, x):
    short = explainer.explain(
        x, method="rise", target=TARGET, options={"n": 40, "s": 3}, budget=camrt.Budget(forwards=10)
    )
    want = explainer.explain(x, method="rise", target=TARGET, options={"n": 10, "s": 3})
    np.testing.assert_allclose(short.raw, want.raw, atol=1e-6)
    np.testing.assert_allclose(short.flags["standard_error"], want.flags["standard_error"], rtol=1e-5)


def test_groupcam_is_a_loop_over_blended_images(explainer, x):
    acts, grads = (found["a3"].astype("f8") for found in (explainer.activations(x), explainer.gradients(x, TARGET)))
    weighted = grads.mean((2, 3))[:, :, None, None] * acts
    maps = np.maximum(weighted.reshape(3, 3, 2, *acts.shape[2:]).sum(2), 0)
    want = np.zeros_like(maps[:, 0])
    for n, image in enumerate(x):
        blurred = gaussian_blur(image[None], 5, 2.0)[0]
        floor = probability(explainer, blurred, TARGET)
        for small in maps[n]:
            mask, constant = min_max(resize(small[None], SIZE))
            if constant.all():
                continue
            blend = (image * mask[0] + blurred * (1 - mask[0])).astype("f4")
            want[n] += max(probability(explainer, blend, TARGET) - floor, 0) * small
    got = explainer.explain(x, method="groupcam", target=TARGET, options=METHODS["groupcam"])
    assert want.any()
    np.testing.assert_allclose(got.raw[:, 0], want, atol=1e-5 * want.max())


def test_polycam_takes_the_stages_and_refines_the_deepest(explainer, x):
    layers = explainer.activations(x, layer=STAGES)
    raws = []
    for acts in (layers[name].astype("f8") for name in STAGES):
        raw = np.zeros((3, *acts.shape[2:]))
        for n, image in enumerate(x):
            clean = probability(explainer, image, TARGET)
            for act in acts[n]:
                low, high = np.percentile(act, [0.1, 99.9])
                if high <= 0:
                    continue
                mask = resize(np.clip((act - low) / high, 0, 1)[None], SIZE)[0]
                shown, hidden = ((image * part).astype("f4") for part in (mask, 1 - mask))
                weight = probability(explainer, shown, TARGET) + clean - probability(explainer, hidden, TARGET)
                raw[n] += max(weight, 0) * act
        raws.append(raw)
    got = explainer.explain(x, method="polycam", target=TARGET)
    assert got.layers == STAGES
    for name, raw in zip(STAGES, raws, strict=True):
        np.testing.assert_allclose(got.layer_raws[name][:, 0], raw, atol=1e-4 * raw.max())
    want = min_max(resize(fuse_polycam(raws), SIZE))[0]
    np.testing.assert_allclose(got.heatmaps[:, 0], want, atol=1e-3)


def test_polycam_takes_the_layers_it_is_given(explainer, x):
    assert explainer.explain(x, method="polycam", layer="a2").layers == ("a2",)
    assert explainer.explain(x, method="polycam", layer=["a3", "a1"]).layers == ("a1", "a3")


def test_occlusion_is_a_loop_over_patches(explainer, x):
    drops, covers = np.zeros((3, *SIZE)), np.zeros(SIZE)
    for top in (0, 2, 4, 6, 8, 10, 12):
        for left in (0, 2, 3, 4, 6, 8, 9):
            spot = slice(top, top + 4), slice(left, left + 3)
            covers[spot] += 1
            for n, image in enumerate(x):
                hidden = image.copy()
                hidden[:, *spot] = 0
                drops[n, *spot] += probability(explainer, image, TARGET) - probability(explainer, hidden, TARGET)
    got = explainer.explain(x, method="occlusion", target=TARGET, options=METHODS["occlusion"])
    np.testing.assert_allclose(got.raw[:, 0], drops / covers, atol=1e-6)
    losses = explainer.explain(x, method="occlusion", variant="relu", target=TARGET, options=METHODS["occlusion"])
    np.testing.assert_allclose(got.heatmaps[:, 0], min_max(drops / covers)[0], atol=1e-4)
    np.testing.assert_allclose(losses.heatmaps[:, 0], min_max(np.maximum(drops / covers, 0))[0], atol=1e-4)
    assert drops.min() < 0


def test_hidden_pixels_are_black_in_the_raw_mask_space(explainer, x):
    black = -1.0  # what 0 becomes under the preset of 0.5 and 0.5
    halves = {"patch": 0.5, "stride": 0.5}
    got = explainer.explain(x, method="occlusion", target=TARGET, options=halves, mask_space="raw")
    hidden = x[0].copy()
    hidden[:, :8, :6] = black
    want = probability(explainer, x[0], TARGET) - probability(explainer, hidden, TARGET)
    np.testing.assert_allclose(got.raw[0, 0, :8, :6], want, atol=1e-6)


def test_rise_is_the_mean_of_equation_6(explainer, x):
    got = explainer.explain(x[:1], method="rise", target=TARGET, options={"n": 25, "s": 2, "p": 0.4, "seed": 3})
    image = int.from_bytes(hashlib.blake2b(x[0].tobytes(), digest_size=8).digest(), "little")
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((3, image))))
    want = np.zeros(SIZE)
    for _ in range(25):
        cells, place = stream.random(4) < 0.4, stream.random(2)
        wide = resize(cells.reshape(1, 2, 2).astype("f8"), (24, 18))[0]
        top, left = int(place[0] * 8), int(place[1] * 6)
        mask = wide[top : top + SIZE[0], left : left + SIZE[1]]
        want += probability(explainer, (x[0] * mask).astype("f4"), TARGET) * mask / (25 * 0.4)
    np.testing.assert_allclose(got.raw[0, 0], want, atol=1e-5)
