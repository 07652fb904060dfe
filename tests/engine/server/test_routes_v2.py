"""Version 2 over HTTP: the numbers of the engine, the protocol's words, and its refusals."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

import camrt
from tests.engine.server.checking import Client
from tests.engine.server.conftest import NAME

INFER = f"/v2/models/{NAME}/infer"
HEADER = "inference-header-content-length"


def request_of(
    photo: bytes, *, outputs: tuple[str, ...] = (), targets: Any = None, **parameters: Any
) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of a request with one picture in bytes, whose outputs come in bytes."""
    payload = struct.pack("<I", len(photo)) + photo
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(payload)}}]
    if targets is not None:
        inputs.append({"name": "target", "datatype": "INT64", "shape": list(np.shape(targets)), "data": targets})
    document = {"inputs": inputs, "parameters": {"binary_data_output": True, **parameters}, "id": "a 1"}
    if outputs:
        document["outputs"] = [{"name": name} for name in outputs]
    head = orjson.dumps(document)
    return head + payload, {HEADER: str(len(head))}


def tensors(answer: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Read an answer's outputs, in bytes or in JSON."""
    length = int(answer.headers.get(HEADER, len(answer.content)))
    head, rest = orjson.loads(answer.content[:length]), answer.content[length:]
    kinds = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}
    found = {}
    for output in head["outputs"]:
        dtype = np.dtype(kinds[output["datatype"]])
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = np.array(output["data"], dtype).reshape(output["shape"])
        else:
            found[output["name"]] = np.frombuffer(rest[:size], dtype).reshape(output["shape"])
            rest = rest[size:]
    assert not rest
    return found


def test_a_picture_gets_the_engines_own_numbers(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    want = explainer.explain(photo, method="layercam", target=[0, 4])
    body, headers = request_of(photo, targets=[[0, 4]], method="layercam")
    answer = client.post(INFER, content=body, headers=headers)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/octet-stream"
    got = tensors(answer)
    assert list(got) == ["cam", "logits", "target", "value", "degenerate"]
    for name, array in (("cam", want.heatmaps), ("logits", want.logits), ("value", want.values)):
        np.testing.assert_allclose(got[name], array, atol=1e-6)
    assert got["target"].tolist() == [[0, 4]] and got["degenerate"].tolist() == want.degenerate.tolist()


def test_json_and_bytes_say_the_same(client: Client, photo: bytes) -> None:
    body, headers = request_of(photo, outputs=("cam", "raw"))
    in_bytes = tensors(client.post(INFER, content=body, headers=headers))
    body, headers = request_of(photo, outputs=("cam", "raw"), binary_data_output=False)
    answer = client.post(INFER, content=body, headers=headers)
    assert answer.headers["content-type"] == "application/json" and HEADER not in answer.headers
    in_json = tensors(answer)
    assert list(in_json) == ["cam", "raw"]
    for name, array in in_bytes.items():
        np.testing.assert_array_equal(in_json[name], array)
    document = answer.json()
    assert (document["model_name"], document["model_version"], document["id"]) == (NAME, "1", "a 1")


def test_a_version_may_be_named(client: Client, photo: bytes) -> None:
    body, headers = request_of(photo, outputs=("logits",))
    assert client.post(f"/v2/models/{NAME}/versions/1/infer", content=body, headers=headers).status_code == 200
    for version in ("2", "0", "one", "-1", "9" * 40):
        answer = client.post(f"/v2/models/{NAME}/versions/{version}/infer", content=body, headers=headers)
        assert answer.status_code == 404


def test_scores_alone_are_not_explained(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    body, headers = request_of(photo, outputs=("logits",), method="scorecam")
    got = tensors(client.post(INFER, content=body, headers=headers))
    np.testing.assert_allclose(got["logits"], explainer.logits(photo), atol=1e-6)


def test_a_body_without_json_is_one_image(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    x = camrt.image.prepare(photo, explainer.preprocess).x
    want = explainer.explain(photo).heatmaps
    for body in (x.tobytes(), photo):
        got = tensors(client.post(INFER, content=body, headers={HEADER: "0"}))
        np.testing.assert_allclose(got["cam"], want, atol=1e-6)


@pytest.mark.parametrize("header", ["-1", "+5", "5_0", "0x10", "1e3", "", "9" * 19, "5, 5", "99999999"])
def test_a_header_length_that_is_none_is_refused(client: Client, photo: bytes, header: str) -> None:
    body, _ = request_of(photo)
    assert client.post(INFER, content=body, headers={HEADER: header}).status_code == 400


def test_an_overlay_is_a_png(client: Client, photo: bytes) -> None:
    body, headers = request_of(photo, outputs=("overlay",))
    answer = client.post(INFER, content=body, headers=headers)
    assert answer.content[int(answer.headers[HEADER]) + 4 :].startswith(b"\x89PNG")


def test_the_server_names_what_it_has(client: Client) -> None:
    said = client.get("/v2").json()
    assert said["name"] == "camrt" and said["extensions"] == ["binary_tensor_data", "model_repository", "statistics"]


def test_a_model_is_described(client: Client) -> None:
    said = client.get(f"/v2/models/{NAME}").json()
    assert said == client.get(f"/v2/models/{NAME}/versions/1").json()
    assert said["versions"] == ["1"] and said["platform"] == "onnx_onnxv1"
    assert said["inputs"][0] == {"name": "image", "datatype": "FP32", "shape": [-1, 3, 128, 128]}
    assert [output["name"] for output in said["outputs"]][:2] == ["cam", "logits"]


@pytest.mark.parametrize("name", ["nothing", "stats", "%2e%2e", "a b", "x" * 100])
def test_a_model_that_is_not_there_is_not_found(client: Client, name: str) -> None:
    for path in ("", "/ready", "/stats", "/versions/1", "/versions/1/ready"):
        if name + path != "stats":
            assert client.get(f"/v2/models/{name}{path}").status_code == 404
    assert client.post(f"/v2/models/{name}/infer", content=b"{}").status_code == 404


def test_readiness(client: Client) -> None:
    for path in (f"/v2/models/{NAME}/ready", f"/v2/models/{NAME}/versions/1/ready"):
        answer = client.get(path)
        assert answer.status_code == 200 and answer.json() == {"name": NAME, "ready": True}


def test_statistics_count_what_was_answered(client_of: Callable[..., Client], photo: bytes) -> None:
    client = client_of()
    body, headers = request_of(photo)
    for _ in range(3):
        client.post(INFER, content=body, headers=headers)
    client.post(INFER, content=b"{}")
    (row,) = client.get("/v2/models/stats").json()["model_stats"]
    assert client.get(f"/v2/models/{NAME}/stats").json()["model_stats"] == [row]
    assert client.get(f"/v2/models/{NAME}/versions/1/stats").json()["model_stats"] == [row]
    assert (row["inference_count"], row["execution_count"]) == (3, 3)
    spent = row["inference_stats"]
    assert spent["success"]["count"] == spent["compute_infer"]["count"] == 3 and spent["fail"]["count"] == 1
    assert 0 < spent["compute_infer"]["ns"] < spent["success"]["ns"]
