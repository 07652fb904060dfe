"""Version 1 of the protocol: documents written by hand, answers against the explanation they hold."""

from __future__ import annotations

import base64
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from camrt.errors import InputError, MethodError, NumericError, TargetError
from camrt.server.documents import write_json
from camrt.server.faults import TooLargeError
from camrt.server.instances import read_instances, write_explanations, write_predictions
from camrt.server.settings import Settings
from camrt.targets import Contrast, Logit, Probability
from tests import tiny
from tests.engine.server.mutants import documents, instances, outcome
from tests.engine.server.small import of_pixels, served

SETTINGS = Settings()
X = tiny.images(2)
LISTS: list[Any] = X.tolist()
FILES = (b"\xff\xd8\xff one", b"\x89PNG\r\n\x1a\n two")
B64 = [{"b64": base64.b64encode(file).decode()} for file in FILES]


def read(document: Any, **more: Any) -> Any:
    """Read a request."""
    return read_instances(document, served(), SETTINGS, **more)


def answer(target: Any = None) -> Any:
    """Return what the scheduler would answer for X."""
    made = served().explainer.explain(X, target=target)
    return SimpleNamespace(explanation=made, logits=made.logits, served=served())


@pytest.mark.parametrize("key", ["instances", "inputs"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_nested_lists_are_prepared_inputs(key: str, wrapped: bool) -> None:
    images = [{"image": rows} for rows in LISTS] if wrapped else LISTS
    ask = read({key: images})
    assert ask.images.dtype == np.float32 and np.array_equal(ask.images, X)
    assert (ask.wish.method, ask.targets, ask.timeout) == ("gradcam", None, 30.0)


@pytest.mark.parametrize("wrapped", [False, True])
def test_base64_is_an_encoded_picture(wrapped: bool) -> None:
    assert read({"instances": [{"image": one} for one in B64] if wrapped else B64}).images == FILES


def test_a_model_of_pixels_takes_integers() -> None:
    pixels = np.arange(360).reshape(1, 3, 12, 10) % 256
    ask = read_instances({"instances": pixels.tolist()}, of_pixels(), SETTINGS)
    assert ask.images.dtype == np.uint8 and np.array_equal(ask.images, pixels)


def test_targets_stand_beside_their_images_or_among_the_parameters() -> None:
    own = [{"image": B64[0], "target": ["owl", 1]}, {"image": B64[1], "target": ["prob:dog", "contrast:owl-cat"]}]
    assert read({"instances": own}).targets == [[Logit(3), Logit(1)], [Probability(4), Contrast(3, (0,))]]
    assert read({"instances": [{"image": B64[0], "target": 2}, B64[1]]}).targets == [[Logit(2)], [Logit(None)]]
    assert read({"instances": B64, "parameters": {"target": "owl"}}).targets == [[Logit(3)], [Logit(3)]]


def test_parameters_are_those_of_version_two_with_seconds() -> None:
    ask = read({"instances": B64, "signature_name": "x", "parameters": {"method": "rise", "n": 9, "timeout": 1.5}})
    assert (ask.wish.method, dict(ask.wish.options)["n"], ask.timeout) == ("rise", 9, 1.5)


def test_predictions_need_no_method() -> None:
    ask = read({"instances": LISTS, "parameters": {"method": "no such thing"}}, explain=False)
    assert ask.wish is None and np.array_equal(ask.images, X)


BAD: dict[str, tuple[Any, type[InputError], str]] = {
    "a list": ([], InputError, "JSON object with instances"),
    "nothing": ({}, InputError, "list of images, at least one; got None"),
    "none": ({"instances": []}, InputError, "at least one"),
    "an object": ({"instances": {"0": B64[0]}}, InputError, "must be a list"),
    "both": ({"instances": B64, "inputs": B64}, InputError, "instances or inputs; got both"),
    "a text": ({"instances": ["QQ=="]}, InputError, "instance 0 must be a nested list"),
    "a number": ({"instances": [B64[0], 1]}, InputError, "instance 1 must be a nested list"),
    "another object": ({"instances": [{"url": "http://example.com/cat.jpg"}]}, InputError, "instance 0 must be"),
    "b64 and more": ({"instances": [{"b64": "QQ==", "x": 1}]}, InputError, "instance 0 must be"),
    "image and more": ({"instances": [{"image": B64[0], "x" * 10**6: 1}]}, InputError, "object of image and target"),
    "an image in an image": ({"instances": [{"image": {"image": B64[0]}}]}, InputError, "instance 0 must be"),
    "no base64": ({"instances": [{"b64": "%"}]}, InputError, "the picture of instance 0 must be base64"),
    "base64 of a list": ({"instances": [{"b64": ["QQ=="]}]}, InputError, "must be base64 text; got list"),
    "base64 of nothing": ({"instances": [{"b64": ""}]}, InputError, "picture of instance 0 is empty"),
    "both kinds": ({"instances": [B64[0], LISTS[0]]}, InputError, "send them in two requests"),
    "another shape": ({"instances": [X[0, :2].tolist()]}, InputError, r"instance 0: data is not nested as shape \[3, 12, 10\]"),
    "ragged": ({"instances": [[*LISTS[0][:2], LISTS[0][2][:-1]]]}, InputError, "not nested as shape"),
    "an empty list": ({"instances": [[]]}, InputError, "instance 0: shape"),
    "words": ({"instances": [["x"] * 360]}, InputError, "FP32 holds 'x'"),
    "parameters of a list": ({"instances": B64, "parameters": []}, InputError, "parameters must be an object"),
    "no such option": ({"instances": B64, "parameters": {"n": 1}}, MethodError, "gradcam has no option 'n'"),
    "no such class": ({"instances": [{"image": B64[0], "target": 5}]}, TargetError, "class 5 is out of range"),
    "target of an object": ({"instances": [{"image": B64[0], "target": {}}]}, TargetError, "class index or a text"),
    "targets of two sizes": (
        {"instances": [{"image": B64[0], "target": [1, 2]}, B64[1]]}, TargetError, "same number of targets",
    ),
    "targets twice": (
        {"instances": [{"image": B64[0], "target": 1}], "parameters": {"target": 1}}, InputError, "give one of them",
    ),
    "timeout in words": ({"instances": B64, "parameters": {"timeout": "soon"}}, InputError, "timeout must be a number"),
    "sixty-five": ({"instances": B64[:1] * 65}, TooLargeError, "65 instances were sent; 64 are allowed"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD))
def test_what_is_no_request_is_refused(case: str) -> None:
    document, kind, message = BAD[case]
    with pytest.raises(kind, match=message) as caught:
        read(document)
    assert len(str(caught.value)) < 400


def test_mutants_are_read_or_refused() -> None:
    ends = {outcome(partial(instances, body)) for body in documents(1000)}
    assert {"read", "InputError", "MethodError", "TargetError"} <= ends


def test_an_answer_too_large_for_json_is_refused_and_scores_are_not() -> None:
    few = Settings(max_answer=12 * 2 * 120 - 1)
    with pytest.raises(TooLargeError, match="too many for JSON"):
        read_instances({"instances": LISTS}, served(), few)
    assert read_instances({"instances": LISTS}, served(), Settings(max_answer=12 * 2 * 120)).count == 2
    assert read_instances({"instances": LISTS}, served(), few, explain=False).count == 2


def test_explanations_hold_the_heatmaps_bit_by_bit() -> None:
    made = answer([1, "prob:owl"])
    want = made.explanation
    document = json.loads(write_json(write_explanations(made)))
    assert np.array_equal(np.array(document["predictions"], np.float32), want.logits)
    assert len(document["explanations"]) == 2
    for i, one in enumerate(document["explanations"]):
        assert one["targets"] == want.targets[i].tolist() == [1, 3]
        assert one["labels"] == list(want.labels[i]) and one["labels"][1] == "p(owl)"
        assert np.array_equal(np.array(one["values"], np.float32), want.values[i])
        assert one["degenerate"] == want.degenerate[i].tolist()
        assert np.array_equal(np.array(one["heatmaps"], np.float32), want.heatmaps[i])


def test_predictions_are_the_logits_alone() -> None:
    made = answer()
    made.explanation = None
    document = json.loads(write_json(write_predictions(made)))
    assert document.keys() == {"predictions"}
    assert np.array_equal(np.array(document["predictions"], np.float32), made.logits)
    with pytest.raises(InputError, match="not asked for"):
        write_explanations(made)


def test_scores_that_are_not_finite_are_not_sent() -> None:
    made = answer()
    made.logits = np.full((2, 5), np.inf, np.float32)
    with pytest.raises(NumericError):
        write_predictions(made)
