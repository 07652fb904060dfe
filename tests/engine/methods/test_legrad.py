"""LeGrad: sums of its blocks' maps, torch-cam's maps of a torchvision model, and the same map by every way to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import BundleError, LayerError, MethodError
from camrt.export.write import export
from camrt.methods import resolve
from camrt.propagation import programs_of
from tests import tiny
from tests.engine.methods.heads import raw
from tests.export.onnx_text import tokens

MODEL = tokens(3, heads=2)


def pictures(n: int = 2) -> Any:
    """Return seeded images."""
    return np.random.default_rng(0).normal(size=(n, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def golden() -> dict[str, Any]:
    """Return a network and torch-cam's maps of it; ``golden/make_legrad_maps.py`` made them."""
    return dict(np.load(Path(__file__).parent / "golden" / "legrad.npz"))


def test_official_adds_the_maps_of_the_last_two_blocks_and_torchcam_takes_their_mean(rng):
    maps, asked = rng.random((3, 2, 4, 5)), []

    def attention_of(seed, blocks):
        asked.append((seed, blocks))
        return maps

    given = {"seed": lambda: "seed", "attention_of": attention_of}
    np.testing.assert_allclose(raw("legrad", given), maps.sum(1), atol=1e-12)
    np.testing.assert_allclose(raw("le-grad", given, "torchcam"), maps.mean(1), atol=1e-12)
    raw("legrad", given, blocks="none")
    assert asked == [("seed", (-2, -1)), ("seed", (-2, -1)), ("seed", None)]


@pytest.mark.parametrize(
    ("recorded", "blocks"), [("last_two", (-2, -1)), ("last_two", (1, 2)), ("every", None), ("first", 0)]
)
def test_maps_agree_with_torchcam_on_a_transformer_of_torchvision(golden, recorded, blocks):
    explainer = camrt.load(golden["model"].tobytes(), preprocess="half")
    options = {"blocks": [blocks] if isinstance(blocks, int) else blocks}
    target = [[int(c)] for c in golden["target"]]
    made = explainer.explain(golden["x"], method="legrad", variant="torchcam", options=options, target=target)
    want = golden[recorded]
    assert (want.max((1, 2)) > 2 * want.min((1, 2))).all()
    np.testing.assert_allclose(made.raw[:, 0], want, rtol=0, atol=1e-4 * want.max())


def test_the_map_of_the_graph_is_that_of_the_method():
    explainer = camrt.load(MODEL, preprocess="half")
    direct = explainer.explain(pictures(), method="legrad", target=3)
    stepwise = explainer.explain(pictures(), method="legrad", target=[3, 1])
    np.testing.assert_allclose(direct.raw[:, 0], stepwise.raw[:, 0], rtol=0, atol=1e-6 * direct.raw.max())
    np.testing.assert_allclose(direct.heatmaps[:, 0], stepwise.heatmaps[:, 0], rtol=0, atol=1e-5)
    parts = [
        explainer.explain(pictures(), method="legrad", target=3, options={"blocks": [block]}).raw for block in (1, -1)
    ]
    np.testing.assert_allclose(sum(parts), direct.raw, rtol=0, atol=1e-6 * direct.raw.max())
    assert abs(parts[0] - parts[1]).max() > 0.1 * direct.raw.max()


def test_the_predicted_class_is_explained_and_classes_differ():
    explainer = camrt.load(MODEL, preprocess="half")
    result = explainer.explain(pictures(), method="legrad")
    best = explainer.logits(pictures()).argmax(1)
    np.testing.assert_array_equal(result.targets[:, 0], best)
    each = explainer.explain(pictures(), method="legrad", target=list(range(5))).raw
    for image, target in enumerate(best):
        np.testing.assert_allclose(result.raw[image, 0], each[image, target], rtol=0, atol=1e-6 * each.max())
    assert (abs(each[:, 0] - each[:, 1]).max((1, 2)) > 0.05 * each.max((1, 2, 3))).all()


def test_a_batch_gives_what_its_images_give_alone_and_the_layer_does_not_matter():
    explainer = camrt.load(MODEL, preprocess="half")
    whole = explainer.explain(pictures(3), method="legrad", target=1)
    for image in range(3):
        alone = explainer.explain(pictures(3)[image : image + 1], method="legrad", target=1, layer="n0")
        np.testing.assert_allclose(alone.raw[0], whole.raw[image], rtol=0, atol=1e-6 * whole.raw.max())


@pytest.mark.parametrize("blocks", [[3], [-4], "0,7"])
def test_blocks_that_are_not_there_are_named(blocks):
    explainer = camrt.load(MODEL, preprocess="half")
    with pytest.raises(MethodError, match=r"the model has 3 blocks .* option blocks asks for (3|-4|7)$"):
        explainer.explain(pictures(), method="legrad", options={"blocks": blocks})


def test_a_model_of_one_block_has_no_last_but_one():
    explainer = camrt.load(tokens(1), preprocess="half")
    for target in (0, [0, 1]):
        with pytest.raises(MethodError, match="the model has 1 block with"):
            explainer.explain(pictures(), method="legrad", target=target)
    found = explainer.explain(pictures(), method="legrad", target=[0, 1], options={"blocks": "-1"})
    assert found.raw.shape == (2, 2, 4, 4)


def test_a_network_without_attention_is_refused():
    with pytest.raises(LayerError, match=r"legrad needs attention .* this model has none: use .* gradcam"):
        camrt.load(tiny.gap(), preprocess="half").explain(tiny.images(1), method="legrad")


def test_a_bundle_holds_what_it_was_exported_for(tmp_path):
    export(MODEL, tmp_path / "without")
    with pytest.raises(BundleError, match=r"no attention program.*also=.'attention'"):
        camrt.load(tmp_path / "without", preprocess="half").explain(pictures(), method="legrad")
    export(MODEL, tmp_path / "with", also=programs_of(resolve("legrad")))
    bundle, live = camrt.load(tmp_path / "with", preprocess="half"), camrt.load(MODEL, preprocess="half")
    for request in ({"target": 2}, {"target": [2, 0]}, {"target": 2, "options": {"blocks": None}}):
        one, two = (e.explain(pictures(), method="legrad", **request).raw for e in (bundle, live))
        np.testing.assert_array_equal(one, two)


@pytest.mark.realdata
def test_a_trained_transformer_says_where_the_class_is(realdata):
    """Hiding the half of a picture that is marked costs the class more than hiding the other; a random map does not do it."""
    settings = {"preset": "cifar10", "resize": "squash"}
    explainer = camrt.load(realdata / "models" / "vit_cifar10_ts_op17.onnx", preprocess=settings)
    photographs = sorted((realdata / "images" / "cifar10").glob("*.jpg"))
    x = camrt.image.prepare([str(path) for path in photographs], explainer.preprocess).x
    result = explainer.explain(x, method="legrad")
    assert not result.degenerate.any()
    target, rows = result.targets[:, 0], np.arange(len(x))
    order = result.heatmaps[:, 0].reshape(len(x), -1).argsort(1).argsort(1).reshape(len(x), 1, 32, 32)
    scores = [explainer.logits(np.where(part, 0, x))[rows, target] for part in (order >= 512, order < 512)]
    assert (scores[1] - scores[0]).mean() > 0.7  # of logits whose spread is some 3
    other = explainer.explain(x, method="legrad", target=[[int(c)] for c in (target + 1) % 10]).heatmaps
    assert np.median(abs(other - result.heatmaps).max((1, 2, 3))) > 0.1
