"""Verification: right programs pass with figures, wrong ones are caught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from camrt.errors import ModelError, NumericError
from camrt.export import open_model
from camrt.export.live import Live
from camrt.export.manifest import Layer, Manifest, Program
from camrt.export.verify import check_agreement, check_gradient, check_parity, run, sample, verify
from tests.export.integers import HEAD as INTEGER_HEAD
from tests.export.integers import STEM, WEIGHTS, quantised
from tests.export.onnx_text import CONV, HEAD, TINY, tiny, tokens

HEADS = {
    "none": HEAD,
    "softmax": f"{HEAD.replace('y =', 'z =')} y = Softmax(z)",
    "log_softmax": f"{HEAD.replace('y =', 'z =')} y = LogSoftmax(z)",
    "sigmoid": f"{HEAD.replace('y =', 'z =')} y = Sigmoid(z)",
}


@dataclass(frozen=True)
class Mixed:
    """A source of programs of which one kind comes from another model: a defect to be found."""

    right: Live
    wrong: Live
    kind: str

    @property
    def manifest(self) -> Manifest:
        """Return that of the right model."""
        return self.right.manifest

    def program(self, kind: str, layers: Sequence[str] = ()) -> Program:
        """Return a program, of the wrong model where that is the kind."""
        return (self.wrong if kind == self.kind else self.right).program(kind, layers)

    def resolve(self, name: str) -> Layer:
        """Return a layer."""
        return self.right.resolve(name)


def other(scale: float = 1.01) -> Live:
    """Return the tiny classifier with its head's weights scaled."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in TINY.items()}
    return open_model(tiny(weights={"w2": weights["w2"] * np.float32(scale)}))


def picture(n: int = 3) -> Any:
    """Return seeded images."""
    return np.random.default_rng(0).normal(size=(n, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("head", HEADS)
def test_right_programs_pass_whatever_the_head(head: str) -> None:
    live = open_model(tiny(f"{CONV} {HEADS[head]}"))
    assert live.manifest.head == head
    figures = verify(live.classifier, live, ["a", "c"])
    assert figures["parity"]["max_rel"] <= 1e-6
    assert figures["parity"]["batch"] == 2
    assert {name: f["rel_error"] <= 1e-2 for name, f in figures["gradient"].items()} == {"a": True, "c": True}


@pytest.mark.parametrize("heads", [1, 2])
def test_right_programs_of_a_transformer_pass(heads: int) -> None:
    live = open_model(tokens(heads=heads))
    figures = verify(live.classifier, live, ["n0", "n1", "e"])
    assert max(f["rel_error"] for f in figures["gradient"].values()) <= 1e-2


@pytest.mark.parametrize("batch", [1, 3])
def test_a_file_that_declares_one_batch_size_is_compared_at_that(batch: int) -> None:
    """Its programs run at any batch; ONNX Runtime refuses the file itself at another than its own."""
    live = open_model(tiny(x=f"float[{batch},3,8,8] x", y=f"float[{batch},5] y"))
    assert live.manifest.batch is None
    assert verify(live.classifier, live, ["a"])["parity"]["max_rel"] <= 1e-6
    assert check_parity(live.classifier, live, picture(7))["batch"] == 7


def test_a_graph_that_onnx_runtime_refuses_is_said_so_in_one_line() -> None:
    for data, feeds, said in (
        (b"no model", {}, "cannot load this model"),
        (tiny(), {"x": picture()[:, :2]}, "cannot run this model"),
        (tiny(), {}, "cannot run this model"),
    ):
        with pytest.raises(ModelError, match=said) as caught:
            run(data, feeds)
        assert "\n" not in str(caught.value)


def test_gradients_are_left_out_where_none_are_wanted() -> None:
    live = open_model(tiny())
    assert set(verify(live.classifier, live, ["a"], gradients=False)) == {"parity"}


def test_a_forward_program_that_computes_something_else_is_caught() -> None:
    right = open_model(tiny())
    source = Mixed(right, other(), "forward")
    with pytest.raises(ModelError, match=r"differs from the model as given by .* please report the model"):
        check_parity(right.classifier, source, picture())


def test_a_model_whose_own_scores_are_no_numbers_is_refused_as_such() -> None:
    live = open_model(tiny(f"{CONV} k = Log(a) {HEAD.replace('(a)', '(k)')}"))  # of zero, wherever a ReLU is off
    with pytest.raises(NumericError, match="the model as given makes NaN or infinity of a plausible input"):
        verify(live.classifier, live, ["a"])


@pytest.mark.parametrize("scale", [-1, 0.9, 1.1])
def test_a_gradient_that_is_off_is_caught(scale: float) -> None:
    source = Mixed(open_model(tiny()), other(scale), "gradient")
    with pytest.raises(ModelError, match="the gradient at layer 'a' differs from finite differences by"):
        check_gradient(source, "a", picture())


def test_a_right_gradient_is_found_right_to_a_thousandth() -> None:
    """From the last layer on the tiny classifier is linear, so only rounding is left."""
    found = check_gradient(open_model(tiny()), "a", picture())
    assert found["rel_error"] <= 1e-3


def test_a_gradient_of_zero_is_said_to_prove_nothing() -> None:
    live = open_model(
        tiny(f"{CONV} k = Mul(a, nought) {HEAD.replace('(a)', '(k)')}", weights={"nought": np.float32(0)})
    )
    assert "zero on the sample" in check_gradient(live, "a", picture())["note"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_a_sample_of_numbers_is_seeded_smooth_and_of_unit_size(dtype: str) -> None:
    description = {"name": "x", "shape": ["N", 3, 16, 16], "dtype": dtype}
    x = sample(description, 4)
    assert (x.shape, x.dtype) == ((4, 3, 16, 16), np.dtype(dtype))
    assert abs(float(x.astype(np.float64).std()) - 1) < 1e-3
    np.testing.assert_array_equal(x, sample(description, 4))
    wide = x.astype(np.float64)
    assert (
        np.abs(np.diff(wide, axis=3)).mean() < 0.8 * np.abs(wide - wide[:, :, :, ::-1]).mean()
    )  # neighbours are alike


def test_a_sample_of_bytes_covers_the_grey_levels() -> None:
    x = sample({"name": "x", "shape": ["N", 8, 8, 3], "dtype": "uint8"}, 8)
    assert (x.shape, x.dtype, x.min() < 5, x.max() > 250) == ((8, 8, 8, 3), np.dtype(np.uint8), True, True)


def test_a_graph_is_run_once_and_outputs_may_be_chosen() -> None:
    data = tiny(y="float[N,5] y, float[N,4,8,8] a")
    scores, acts = run(data, {"x": picture()})
    (alone,) = run(data, {"x": picture()}, ["a"])
    assert (scores.shape, acts.shape) == ((3, 5), (3, 4, 8, 8))
    np.testing.assert_array_equal(alone, acts)


def test_agreement_is_measured_between_the_quantised_model_and_its_twin() -> None:
    """A twin whose head is turned round says the opposite of the model: nothing of the spread is left in common."""
    model = quantised(f"{STEM} r = Identity(q) {INTEGER_HEAD}", {})
    live = open_model(model)
    figures = check_agreement(live.classifier, live)
    assert figures["max_abs"] <= 1e-5
    assert figures["top1"] == figures["whole"]["top1"] == 1
    turned = quantised(f"{STEM} r = Identity(q) {INTEGER_HEAD.replace('wh', 'other')}", {"other": -WEIGHTS["wh"]})
    wrong = Mixed(live, open_model(turned), "tail")
    figures = check_agreement(live.classifier, wrong)
    assert figures["top1"] == 0
    assert figures["max_rel"] > 0.5
    (logits,) = run(model, {"x": sample(live.manifest.input, 8)})
    assert figures["max_abs"] == pytest.approx(2 * np.abs(logits - WEIGHTS["bh"]).max(), rel=1e-4)
    assert figures["max_rel"] == pytest.approx(figures["max_abs"] / np.ptp(logits, axis=1).mean(), rel=1e-4)
