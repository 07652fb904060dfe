"""Several inputs: the picture goes into one, the others are held, and what is held is what a run with it would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from camrt.errors import ModelError
from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.verify import run
from tests.export.onnx_text import CONV, HEAD, tiny

X = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
IMAGE = "float[N,3,8,8] x"


def scores(data: bytes, **options: Any) -> np.ndarray[Any, Any]:
    """Return what the forward program makes of `X`."""
    program = open_model(data, **options).program("forward").model
    assert isinstance(program, bytes)
    return run(program, {"x": X})[0]


def refusal(data: bytes, **options: Any) -> str:
    """Return the one line with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load(data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


GAIN = tiny(f"{CONV} g = Mul(a, gain) {HEAD.replace('(a)', '(g)')}", x=f"{IMAGE}, float[1] gain")
BOTH = tiny(f"m = Sub(x, other) {CONV.replace('(x,', '(m,')} {HEAD}", x=f"{IMAGE}, float[N,3,8,8] other")
TABLE = tiny(
    f"{CONV} p = GlobalAveragePool(a) f = Flatten(p) q = Concat<axis=1>(f, age) y = Gemm(q, w6, b2)",
    x=f"{IMAGE}, float[N,2] age", weights={"w6": (6, 5)},
)  # fmt: skip
HELD: dict[str, tuple[bytes, dict[str, Any], dict[str, Any]]] = {  # model, what the caller gives, what a run is fed
    "number": (GAIN, {"fixed": {"gain": 2}}, {"gain": np.float32([2])}),
    "follows the batch": (TABLE, {"fixed": {"age": [3, 4]}}, {"age": np.float32([[3, 4]] * 3)}),
    "spread": (TABLE, {"fixed": {"age": 2}}, {"age": np.float32([[2, 2]] * 3)}),
    "image": (BOTH, {"fixed": {"other": X[0]}}, {"other": np.stack([X[0]] * 3)}),
}


@pytest.mark.parametrize("opset", [8, 11, 18])
@pytest.mark.parametrize("case", HELD)
def test_a_held_input_gives_what_a_run_that_is_fed_it_gives(case: str, opset: int) -> None:
    data, given, fed = HELD[case]
    model = onnx.load_from_string(data)
    model.opset_import[0].version = opset
    data = model.SerializeToString()
    np.testing.assert_allclose(scores(data, **given), run(data, {"x": X, **fed})[0], rtol=0, atol=1e-6)


def test_before_expand_came_an_input_that_follows_the_batch_cannot_be_held() -> None:
    model = onnx.load_from_string(TABLE)
    model.opset_import[0].version = 7
    assert "can be held from opset 8 on" in refusal(model.SerializeToString(), fixed={"age": 0})


def test_the_given_model_runs_with_the_image_alone() -> None:
    classifier = load(TABLE, fixed={"age": [3, 4]})
    want = run(TABLE, {"x": X, "age": np.float32([[3, 4]] * 3)})[0]
    np.testing.assert_array_equal(run(classifier.given(), {"x": X})[0], want)
    np.testing.assert_array_equal(classifier.held["age"], [[3, 4]])
    assert open_model(TABLE, fixed={"age": [3, 4]}).manifest.input["held"] == {"age": [[3, 4]]}
    assert "sha256" in open_model(BOTH, fixed={"other": X[0]}).manifest.input["held"]["other"]


def test_the_image_is_chosen_by_name() -> None:
    one, other = (load(BOTH, input=name, fixed={held: X[0]}) for name, held in (("x", "other"), ("other", "x")))
    assert (one.x.name, other.x.name) == ("x", "other")
    want = run(BOTH, {"x": np.stack([X[0]] * 3), "other": X})[0]
    np.testing.assert_allclose(scores(BOTH, input="other", fixed={"x": X[0]}), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("declared", "use", "held"),
    [
        ("bool is_training", "one = Constant<value_float=0.5>() d = Dropout(a, one, is_training)", False),
        ("bool flag", "one = Constant<value_float=0.5>() d = Dropout(a, one, flag)", False),
        ("float ratio", "d = Dropout(a, ratio)", 0.0),
        ("bool[1] bn_learning_phase", "n = Cast<to=1>(bn_learning_phase) s = Add(n, half) d = Mul(a, s)", [False]),
        ("float[1] keep_prob", "s = Mul(keep_prob, half) d = Mul(a, s)", [1.0]),
        ("float[1] dropout_rate", "s = Sub(half, dropout_rate) d = Mul(a, s)", [0.0]),
    ],
)
def test_what_everybody_sets_alike_need_not_be_given(declared: str, use: str, held: Any) -> None:
    body = f"{CONV} {use} {HEAD.replace('(a)', '(d)')}"
    data = tiny(body, x=f"{IMAGE}, {declared}", weights={"half": np.float32([0.5])})
    (name,) = load(data).held
    assert open_model(data).manifest.input["held"] == {name: held}
    fed = np.array(held, bool if "bool" in declared else np.float32)
    np.testing.assert_allclose(scores(data), run(data, {"x": X, name: fed})[0], rtol=0, atol=1e-6)


def test_an_input_that_nothing_reads_is_let_go() -> None:
    classifier = load(tiny(x=f"{IMAGE}, float[N,4] ghost"))
    assert classifier.held == {}
    assert [v.name for v in onnx.load_from_string(classifier.given()).graph.input] == ["x"]


def test_an_input_of_an_output_that_is_not_followed_is_let_go() -> None:
    data = tiny(f"{CONV} {HEAD} z = Mul(y, size)", x=f"{IMAGE}, float[1] size", y="float[N,5] y, float[N,5] z")
    assert load(data, output="y").held == {}
    assert "size [1]" in refusal(data, output="z")


REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "no value": (
        GAIN,
        {},
        "inputs beside the image 'x': gain [1]; hold each at a value, for example fixed={'gain': 0}",
    ),
    "two images": (BOTH, {}, "has 2 inputs: x [N,3,8,8], other [N,3,8,8]; choose the image by input= (--input)"),
    "no such input": (GAIN, {"fixed": {"gian": 1}}, "has no input 'gian'; it has: x [N,3,8,8], gain [1]"),
    "no such image": (GAIN, {"input": "y"}, "has no input 'y'"),
    "shape": (GAIN, {"fixed": {"gain": [1, 2]}}, "gain [1] cannot be held at a value of shape [2]: [1] was wanted"),
    "rows": (TABLE, {"fixed": {"age": np.ones((2, 2))}}, "of shape [2, 2]: [1, 2] was wanted"),
    "words": (GAIN, {"fixed": {"gain": "much"}}, "gain [1] cannot be held at 'much'"),
    "the image": (GAIN, {"fixed": {"x": 0, "gain": 1}}, "choose the image by input= (--input)"),
    "everything": (GAIN, {"input": "gain", "fixed": {"x": X[:1]}}, "rank 4 was wanted"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_clear_is_refused_with_names(case: str) -> None:
    data, options, said = REFUSED[case]
    assert said in refusal(data, **options)
