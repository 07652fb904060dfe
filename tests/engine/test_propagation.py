"""The other ways through a model, as methods ask them: on small classifiers, against their programs and each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import BundleError, MethodError, MissingRuleError
from camrt.evidence import Question, gather
from camrt.export.write import export
from camrt.kernels import resize
from camrt.propagation import ways
from camrt.targets import Contrast, Logit
from tests import tiny
from tests.export import onnx_text


def halved() -> bytes:
    """Return a tiny classifier whose weights, input and scores are float16."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 5), "b2": (5,)}
    weights = {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    return onnx_text.tiny(x="float16[N,3,8,8] x", y="float16[N,5] y", weights=weights)


def asked(layers: tuple[str, ...] = ("a2",), index: int = 0, *, gradients: bool = False, target: Any = None) -> Any:
    """Return an explainer of a tiny model, its evidence for one target, and the ways through it."""
    explainer = camrt.load(tiny.mlp(), preprocess="half")
    question = Question(explainer._sessions, layers, tiny.images(3))
    (evidence,) = gather(question, [[target or Logit(2)] * 3], gradients=gradients)
    return explainer, evidence, ways(question, evidence, index)


@pytest.mark.parametrize(("layers", "index"), [(("a2",), 0), (("a1", "a2"), 0), (("a1", "a2"), 1)])
@pytest.mark.parametrize("gradients", [False, True])
def test_the_tail_repeats_the_model_at_its_own_activations(layers: Any, index: int, gradients: bool) -> None:
    explainer, evidence, found = asked(layers, index, gradients=gradients)
    acts = evidence.acts[index]
    np.testing.assert_allclose(found["logits_from"](acts), evidence.logits, atol=1e-5)
    want = explainer.gradients(tiny.images(3), 2, layer=layers[index])[layers[index]]
    np.testing.assert_allclose(found["gradients_from"](acts, found["seed"]()), want, atol=1e-6)
    assert abs(found["logits_from"](acts * 2) - evidence.logits).max() > 1e-2


def test_the_tail_runs_the_model_once_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, evidence, found = asked(gradients=True)
    kinds, run = [], explainer._sessions.run

    def counted(kind: str, *rest: Any) -> Any:
        kinds.append(kind)
        return run(kind, *rest)

    monkeypatch.setattr(explainer._sessions, "run", counted)
    for _ in range(3):
        found["logits_from"](evidence.acts[0])
    assert kinds == ["features", "tail", "tail", "tail"]


def test_the_seed_is_the_targets() -> None:
    _, _, found = asked(target=Contrast(2, 4))
    want = np.zeros((3, tiny.CLASSES))
    want[:, 2], want[:, 4] = 1, -1
    np.testing.assert_allclose(found["seed"](), want, atol=1e-6)


def test_contributions_sum_to_the_change_and_the_full_gradient_to_the_logit() -> None:
    _, evidence, found = asked()
    seed = found["seed"]()
    change = (evidence.logits - found["logits_from"](evidence.acts[0] * 0))[:, 2]
    np.testing.assert_allclose(found["lift_of"](seed).sum((1, 2, 3)), change, rtol=1e-4, atol=1e-4)
    gradient, terms = found["full_of"](seed, True)
    whole = (gradient * tiny.images(3)).sum((1, 2, 3)) + sum(term.reshape(3, -1).sum(1) for term in terms)
    np.testing.assert_allclose(whole, evidence.logits[:, 2], rtol=1e-4, atol=1e-4)
    assert [term.shape[1:] for term in terms] == [(4, 6, 5), (6, 6, 5), (16,), (5,)]


def test_guided_gradients_and_relevance_are_for_this_input() -> None:
    explainer, _, found = asked()
    seed = found["seed"]()
    guided, plain = found["guided_of"](seed), explainer.input_gradient(tiny.images(3), 2)
    assert guided.shape == plain.shape
    assert abs(guided - plain).max() > 1e-3
    biased, free = (found["relevance_of"](seed, flag) for flag in (True, False))
    np.testing.assert_array_equal(biased, free)  # no convolution lies behind the layer
    kept = free.sum((1, 2, 3))
    assert (kept <= 1 + 1e-5).all()
    assert (kept > 0.9).all()


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("fullgrad", "bias_terms"),
        ("guidedgradcam", "guided_gradient"),
        ("relevancecam", "relevance"),
        ("liftcam", "lift"),
    ],
)
def test_a_bundle_without_the_program_says_which_to_export(tmp_path: Any, method: str, kind: str) -> None:
    export(tiny.mlp(), tmp_path / "bundle", layers=["a2"])
    opened = camrt.load(tmp_path / "bundle", preprocess="half")
    with pytest.raises(BundleError, match=f"no {kind} program.*also=.'{kind}'"):
        opened.explain(tiny.images(1), method=method)


@pytest.mark.parametrize("method", ["relevancecam", "liftcam", "guidedgradcam"])
def test_a_transformer_is_refused_by_methods_without_a_rule_for_it(method: str) -> None:
    opened = camrt.load(onnx_text.tokens(), preprocess="half")
    with pytest.raises(MissingRuleError):
        opened.explain(np.zeros((1, 3, 8, 8), np.float32), method=method, layer="n0")


def test_methods_know_whether_the_tail_is_piecewise_linear() -> None:
    curved = onnx_text.tiny(f"{onnx_text.CONV} k = Tanh(a) {onnx_text.HEAD.replace('(a)', '(k)')}")
    opened, x = camrt.load(curved, preprocess="half"), np.ones((1, 3, 8, 8), np.float32)
    with pytest.raises(MethodError, match="piecewise linear"):
        opened.explain(x, method="liftcam", variant="lrp", layer="a")
    assert opened.explain(x, method="liftcam", variant="lrp", layer="k").raw.shape == (1, 1, 8, 8)


def test_a_fixed_batch_is_filled() -> None:
    fixed, free = (camrt.load(tiny.mlp(batch), preprocess="half") for batch in (2, "batch"))
    for method in ("fullgrad", "guidedgradcam", "relevancecam", "liftcam", "shapleycam"):
        got, want = (e.explain(tiny.images(5), method=method, target=[1, 3]).raw for e in (fixed, free))
        np.testing.assert_allclose(got, want, atol=2e-5 * abs(want).max())


def test_a_model_in_half_precision_is_asked_in_half_precision() -> None:
    opened = camrt.load(halved(), preprocess="half")
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float16)
    for method in ("fullgrad", "guidedgradcam", "relevancecam", "liftcam", "shapleycam", "integratedgradcam"):
        result = opened.explain(x, method=method, target=[1, 3])
        assert np.isfinite(result.heatmaps).all()
        assert not result.degenerate.all()


def test_guided_gradcam_gives_one_signed_plane_a_channel_of_the_image() -> None:
    explainer, _, found = asked()
    result = explainer.explain(tiny.images(3), method="guidedgradcam", target=[2, 4])
    assert result.raw_input.shape == (3, 2, 3, *tiny.SIZE)
    np.testing.assert_allclose(abs(result.raw_input).sum(2), result.raw, atol=1e-6)
    coarse = resize(np.maximum(explainer.explain(tiny.images(3), target=2).raw[:, 0], 0), tiny.SIZE)
    want = coarse[:, None] * found["guided_of"](found["seed"]())
    np.testing.assert_allclose(result.raw_input[:, 0], want, atol=1e-5)
    assert explainer.explain(tiny.images(1)).raw_input is None


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mnist_cntk_op8", "winml_cifar10_classifier_op10", "resnet20_cifar10_dynamo_op18"])
def test_identities_hold_on_trained_networks(realdata: Path, name: str) -> None:
    explainer = camrt.load(realdata / "models" / f"{name}.onnx", preprocess="half")
    x = np.random.default_rng(0).normal(size=(2, *explainer.manifest.input["shape"][1:])).astype(np.float32)
    layer = next(item for item in explainer.layers if item.default)
    question = Question(explainer._sessions, (layer.name,), x)
    (evidence,) = gather(question, [[Logit(1)] * 2], gradients=False)
    found = ways(question, evidence, 0)
    seed, logit = found["seed"](), evidence.logits[:, 1].astype(np.float64)
    gradient, terms = found["full_of"](seed, True)
    whole = (gradient.astype(np.float64) * x).sum((1, 2, 3)) + sum(t.reshape(2, -1).sum(1, dtype=float) for t in terms)
    np.testing.assert_allclose(whole, logit, rtol=1e-4)
    change = logit - found["logits_from"](evidence.acts[0] * 0)[:, 1]
    np.testing.assert_allclose(found["lift_of"](seed).sum((1, 2, 3), dtype=float), change, rtol=1e-4)
    np.testing.assert_allclose(found["relevance_of"](seed, False).sum((1, 2, 3), dtype=float), 1, rtol=1e-5)
    assert layer.piecewise
    maps = [
        explainer.explain(x, method=m, variant=v, target=1).raw for m, v in (("gradcam", None), ("shapleycam", "logit"))
    ]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-5 * abs(maps[0]).max())
