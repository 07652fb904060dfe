"""Version 1 over HTTP: KServe's words and the engine's numbers."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

import camrt
from tests.engine.server.checking import Client
from tests.engine.server.conftest import NAME


def ask(client: Client, verb: str, document: Any) -> Any:
    return client.post(f"/v1/models/{NAME}:{verb}", json=document)


def test_a_picture_gets_the_engines_own_numbers(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    want = explainer.explain(photo, method="gradcampp", target=[4, 0])
    instance = {"image": {"b64": base64.b64encode(photo).decode()}, "target": [4, 0]}
    answer = ask(client, "explain", {"instances": [instance], "parameters": {"method": "gradcampp"}})
    assert answer.status_code == 200
    told = answer.json()
    (one,) = told["explanations"]
    np.testing.assert_allclose(told["predictions"], want.logits, atol=1e-6)
    np.testing.assert_allclose(one["heatmaps"], want.heatmaps[0], atol=1e-6)
    np.testing.assert_allclose(one["values"], want.values[0], atol=1e-6)
    assert one["targets"] == [4, 0] and one["labels"] == ["striped triangle", "striped disc"]
    assert one["degenerate"] == [False, False]


def test_scores_come_without_explanations(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    instance = {"b64": base64.b64encode(photo).decode()}
    told = ask(client, "predict", {"instances": [instance, instance], "parameters": {"method": "scorecam"}}).json()
    assert list(told) == ["predictions"]
    np.testing.assert_allclose(told["predictions"], np.repeat(explainer.logits(photo), 2, 0), atol=1e-6)


def test_a_prepared_input_is_a_nested_list(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    x = camrt.image.prepare(photo, explainer.preprocess).x
    told = ask(client, "predict", {"inputs": x.tolist()}).json()
    np.testing.assert_allclose(told["predictions"], explainer.logits(photo), atol=1e-6)


@pytest.mark.parametrize(
    "document",
    [[], {}, None, 3, {"instances": []}, {"instances": {}}, {"instances": [3]}, {"instances": [{"b64": "!"}]}],
)
def test_what_is_no_request_is_refused(client: Client, document: Any) -> None:
    for verb in ("explain", "predict"):
        assert ask(client, verb, document).status_code == 400


def test_models(client: Client) -> None:
    assert client.get("/v1/models").json() == {"models": [NAME]}
    assert client.get(f"/v1/models/{NAME}").json() == {"name": NAME, "ready": True}
    assert client.get("/v1/models/nothing").status_code == 404
    assert client.post("/v1/models/nothing:explain", json={}).status_code == 404
