"""Requests as bytes, and answers cut out of bytes."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from bench.serve_requests import (
    Reply,
    Splitter,
    encoded,
    get,
    heatmaps_of,
    picture_request,
    tensor_request,
    version_of,
)


def split(request: bytes) -> tuple[str, dict[str, str], bytes]:
    """Return a request's first line, headers and body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


def answer(heat: np.ndarray, version: str = "3", name: str = "cam") -> Reply:
    """Return a binary V2 answer."""
    output = {
        "name": name,
        "datatype": "FP32",
        "shape": list(heat.shape),
        "parameters": {"binary_data_size": heat.nbytes},
    }
    text = json.dumps({"model_name": "net", "model_version": version, "outputs": [output]}).encode()
    return Reply(200, {"inference-header-content-length": str(len(text))}, text + heat.tobytes())


def test_a_tensor_is_sent_in_binary_behind_its_description(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 3, 4, 5)).astype(np.float32)
    first, headers, body = split(tensor_request("host:1", "net", x, method="gradcam"))
    assert first == "POST /v2/models/net/infer HTTP/1.1"
    assert headers["host"] == "host:1"
    assert int(headers["content-length"]) == len(body)
    begin = int(headers["inference-header-content-length"])
    told = json.loads(body[:begin])
    assert told["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [1, 3, 4, 5], "parameters": {"binary_data_size": x.nbytes}}
    ]
    assert told["parameters"] == {"method": "gradcam"}
    np.testing.assert_array_equal(np.frombuffer(body[begin:], "<f4").reshape(x.shape), x)


def test_a_picture_is_sent_behind_its_length() -> None:
    first, headers, body = split(picture_request("host:1", "net", b"a picture"))
    assert first.startswith("POST ")
    begin = int(headers["inference-header-content-length"])
    [image] = json.loads(body[:begin])["inputs"]
    assert (image["datatype"], image["shape"]) == ("BYTES", [1])
    assert body[begin:] == struct.pack("<I", 9) + b"a picture"
    assert image["parameters"]["binary_data_size"] == 13


def test_a_request_without_a_body_ends_with_an_empty_line() -> None:
    assert get("host:1", "/metrics") == b"GET /metrics HTTP/1.1\r\nHost: host:1\r\n\r\n"


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_answers_are_cut_out_of_any_pieces(piece: int) -> None:
    one = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 5\r\n\r\nfirst"
    two = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    splitter, replies = Splitter(), []
    for data in (one, two):  # a connection carries one request at a time
        for start in range(0, len(data), piece):
            reply = splitter.add(data[start : start + piece])
            if reply is not None:
                replies.append(reply)
        assert not splitter.begun
    assert replies == [
        Reply(429, {"retry-after": "2", "content-length": "5"}, b"first"),
        Reply(200, {"content-length": "0"}, b""),
    ]


def test_an_answer_of_unknown_length_is_refused() -> None:
    with pytest.raises(ValueError, match="does not say its length"):
        Splitter().add(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_heatmaps_and_version_are_read(rng: np.random.Generator) -> None:
    heat = rng.random((2, 1, 3, 4), np.float32)
    np.testing.assert_array_equal(heatmaps_of(answer(heat)), heat)
    assert version_of(answer(heat, "12")) == "12"


def test_an_answer_that_is_cut_off_or_another_is_no_heatmap(rng: np.random.Generator) -> None:
    whole = answer(rng.random((1, 1, 3, 4), np.float32))
    with pytest.raises(ValueError, match="reshape"):
        heatmaps_of(Reply(200, whole.headers, whole.body[:-4]))
    with pytest.raises(ValueError, match="raw"):
        heatmaps_of(answer(np.zeros((1, 1, 1, 1), np.float32), name="raw"))


@pytest.mark.parametrize("shape", [(3, 20, 30), (20, 30, 3), (1, 20, 30)])
def test_inputs_become_pictures(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.normal(size=shape).astype(np.float32)
    picture = Image.open(io.BytesIO(encoded(x, "PNG")))
    assert (picture.size, picture.mode) == ((30, 20), "RGB")
    shades = x if shape[-1] == 3 else np.moveaxis(x, 0, -1)
    wanted = np.broadcast_to(np.clip(shades * 40 + 128, 0, 255), (20, 30, 3))
    np.testing.assert_allclose(np.asarray(picture), wanted, atol=1)
