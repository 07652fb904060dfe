"""Version 2 of the protocol: requests written by hand and by tritonclient, answers read by both, and thousands of bad ones."""

from __future__ import annotations

import base64
import io
import json
import struct
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camrt.errors import InputError, LayerError, MethodError, NumericError, TargetError
from camrt.render import png
from camrt.server.asks import Wish
from camrt.server.documents import write_json
from camrt.server.faults import TooLargeError
from camrt.server.infer import OUTPUTS, UNASKED, Wanted, metadata, read_infer, write_infer
from camrt.server.served import Served
from camrt.server.settings import Settings
from camrt.targets import Logit, Probability
from tests import tiny
from tests.engine.server.mutants import infer, mutants, outcome
from tests.engine.server.small import of_pixels, served

SETTINGS = Settings()
X = tiny.images(2)
ALL = [{"name": name} for name in OUTPUTS]


def tensor(array: np.ndarray[Any, Any], datatype: str, name: str = "image") -> dict[str, Any]:
    """Return an input whose bytes follow."""
    return {
        "name": name, "shape": list(array.shape), "datatype": datatype, "parameters": {"binary_data_size": array.nbytes},
    }  # fmt: skip


def read(
    document: Any, tail: bytes = b"", model: Served | None = None, settings: Settings = SETTINGS
) -> tuple[Any, Wanted]:
    """Read a request."""
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_infer(head + tail, len(head), model or served(), settings)


def request(*more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a request for the explanation of X."""
    return {"inputs": [tensor(X, "FP32"), *more], **fields}


def answer(target: Any = None, **options: Any) -> Any:
    """Return what the scheduler would answer for X."""
    made = served().explainer.explain(X, target=target, **options)
    return SimpleNamespace(explanation=made, logits=made.logits, served=served())


def split(body: bytes, headers: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a response, by the specification and not by our own decoder."""
    kinds = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}
    length = int(headers.get("Inference-Header-Content-Length", len(body)))
    document, rest = json.loads(body[:length]), body[length:]
    found: dict[str, Any] = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if output["datatype"] == "BYTES":
            values: list[bytes] = [] if size is not None else [base64.b64decode(text) for text in output["data"]]
            part, rest = (rest[:size], rest[size:]) if size is not None else (b"", rest)
            while part:
                (n,) = struct.unpack("<I", part[:4])
                values.append(part[4 : 4 + n])
                part = part[4 + n :]
            assert len(values) == np.prod(output["shape"])
            found[output["name"]] = values
        elif size is None:
            found[output["name"]] = np.array(output["data"], kinds[output["datatype"]]).reshape(output["shape"])
        else:
            found[output["name"]] = np.frombuffer(rest[:size], kinds[output["datatype"]]).reshape(output["shape"])
            rest = rest[size:]
    assert not rest
    return document, found


# requests --------------------------------------------------------------------------------------------------------


def test_a_binary_request_is_read_without_a_copy() -> None:
    head = json.dumps(
        request(id="a-7", parameters={"method": "Grad-CAM++", "target": "prob:owl", "timeout": 250_000})
    ).encode()
    body = head + X.tobytes()
    ask, wanted = read_infer(body, len(head), served(), SETTINGS)
    assert np.array_equal(ask.images, X) and np.shares_memory(ask.images, np.frombuffer(body, np.uint8))
    assert (ask.wish.method, ask.timeout, ask.targets) == ("gradcampp", 0.25, [[Probability(3)], [Probability(3)]])
    assert wanted == Wanted("a-7", tuple((name, False) for name in UNASKED))


@pytest.mark.parametrize("nested", [False, True])
def test_a_request_in_json_is_the_same_request(nested: bool) -> None:
    data = (X if nested else X.ravel()).tolist()
    document = {"inputs": [{"name": "image", "shape": list(X.shape), "datatype": "FP32", "data": data}]}
    body = json.dumps(document).encode()
    ask, _ = read_infer(body, None, served(), SETTINGS)
    assert np.array_equal(ask.images, X) and ask.wish.key == read(request(), X.tobytes())[0].wish.key


def test_encoded_pictures_come_as_bytes_or_as_base64() -> None:
    files = (b"\xff\xd8\xff one", b"\x89PNG\r\n\x1a\n two")
    tail = b"".join(struct.pack("<I", len(file)) + file for file in files)
    binary = {"name": "image", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    text = {
        "name": "image",
        "shape": [2, 1],
        "datatype": "BYTES",
        "data": [base64.b64encode(f).decode() for f in files],
    }
    assert read({"inputs": [binary]}, tail)[0].images == read({"inputs": [text]})[0].images == files


def test_pictures_come_as_pixels() -> None:
    pixels = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3)
    assert np.array_equal(read({"inputs": [tensor(pixels, "UINT8")]}, pixels.tobytes())[0].images, pixels)


@pytest.mark.parametrize(("datatype", "dtype"), [("FP16", "<f2"), ("FP64", "<f8")])
def test_prepared_inputs_may_be_of_another_precision(datatype: str, dtype: str) -> None:
    other = X.astype(dtype)
    assert np.array_equal(read({"inputs": [tensor(other, datatype)]}, other.tobytes())[0].images, other)


def test_the_models_own_name_stands_for_image() -> None:
    pixels = np.zeros((1, 3, *tiny.SIZE), np.uint8)
    for name in ("image", "pixels"):
        assert (
            read({"inputs": [tensor(pixels, "UINT8", name)]}, pixels.tobytes(), of_pixels())[0].images.shape
            == pixels.shape
        )
    with pytest.raises(InputError, match="'image' and 'pixels' are the same one"):
        read(
            {"inputs": [tensor(pixels, "UINT8"), tensor(pixels, "UINT8", "pixels")]}, pixels.tobytes() * 2, of_pixels()
        )


@pytest.mark.parametrize(
    ("array", "datatype", "expected"),
    [
        (np.array([1, -1]), "INT64", [[Logit(1)], [Logit(None)]]),
        (np.array([[1, 2], [3, 4]], np.int32), "INT32", [[Logit(1), Logit(2)], [Logit(3), Logit(4)]]),
        (np.array([-1, -1]), "INT64", None),
    ],
)
def test_targets_are_an_input(array: np.ndarray[Any, Any], datatype: str, expected: Any) -> None:
    tail = X.tobytes() + array.tobytes()
    assert read(request(tensor(array, datatype, "target")), tail)[0].targets == expected


def test_targets_may_be_words() -> None:
    words = {"name": "target", "shape": [2, 2], "datatype": "BYTES", "data": ["owl", "prob:dog", "tabby", "predicted"]}
    assert read(request(words), X.tobytes())[0].targets == [[Logit(3), Probability(4)], [Logit(1), Logit(None)]]


def test_only_scores_make_no_explanation() -> None:
    ask, wanted = read(request(outputs=[{"name": "logits"}], parameters={"method": "no such thing"}), X.tobytes())
    assert ask.wish is None and not wanted.explains


@pytest.mark.parametrize("every", [False, True])
def test_binary_is_asked_for_of_all_outputs_or_of_one(every: bool) -> None:
    outputs = [{"name": "cam", "parameters": {"binary_data": not every}}, {"name": "value"}]
    _, wanted = read(request(outputs=outputs, parameters={"binary_data_output": every}), X.tobytes())
    assert wanted.outputs == (("cam", not every), ("value", every))


@pytest.mark.parametrize("count", [1, 3])
def test_a_body_without_json_is_prepared_inputs(count: int) -> None:
    x = tiny.images(count)
    ask, wanted = read_infer(x.tobytes(), 0, served(), SETTINGS)
    assert np.array_equal(ask.images, x) and ask.wish.key == Wish("gradcam", "paper").key
    assert wanted.outputs == tuple((name, True) for name in UNASKED)


@pytest.mark.parametrize("start", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"])
def test_a_body_without_json_may_be_a_picture_of_any_size(start: bytes) -> None:
    for length in (100, X[:1].nbytes):
        body = start + bytes(length - len(start))
        assert read_infer(body, 0, served(), SETTINGS)[0].images == (body,)


def test_of_a_model_of_pixels_the_size_decides() -> None:
    body = b"\xff\xd8\xff" + bytes(3 * 12 * 10 - 3)
    assert read_infer(body, 0, of_pixels(), SETTINGS)[0].images.shape == (1, 3, 12, 10)
    assert read_infer(body + b"\0", 0, of_pixels(), SETTINGS)[0].images == (body + b"\0",)


# what is refused -------------------------------------------------------------------------------------------------

RAW: dict[str, tuple[bytes, int | None, str]] = {
    "nothing": (b"", None, "body is empty"),
    "nothing raw": (b"", 0, "got 0 bytes of something else"),
    "raw of another size": (bytes(1441), 0, "prepared tensor of 1440 bytes"),
    "header beyond the body": (b"{}", 3, "is 3, but the body has 2 bytes"),
    "header of a terabyte": (b"{}", 10**12, "is 1000000000000"),
    "header within the JSON": (b'{"inputs": []}', 5, "not a JSON document"),
    "header behind the JSON": (b'{"inputs": []}\0\0', 16, "not a JSON document"),
    "a list": (b"[]", None, "JSON object with inputs"),
    "a number": (b"1", None, "JSON object with inputs"),
    "no inputs": (b"{}", None, "inputs must be a list"),
    "sixteen megabytes of brackets": (b"[" * 2**24, None, "more values than are read at once"),
    "ten thousand levels": (b'{"a":' * 10**4, None, "deeper than 32"),
}


@pytest.mark.parametrize("case", sorted(RAW))
def test_a_body_that_is_no_request_is_refused(case: str) -> None:
    body, length, message = RAW[case]
    with pytest.raises(InputError, match=message):
        read_infer(body, length, served(), SETTINGS)


BYTES = X.tobytes()
BAD: dict[str, tuple[dict[str, Any], bytes, type[InputError], str]] = {
    "no image": ({"inputs": [tensor(X, "FP32", "target")]}, BYTES, InputError, "got no image"),
    "another input": (request(tensor(X, "FP32", "extra")), BYTES * 2, InputError, "got 'extra'"),
    "id of a number": (request(id=7), BYTES, InputError, "id must be a text"),
    "id of a megabyte": (request(id="x" * 10**6), BYTES, InputError, "id must be a text of at most 256"),
    "parameters of a list": (request(parameters=[1]), BYTES, InputError, "parameters must be an object"),
    "a parameter of a list": (request(parameters={"target": [1, 2]}), BYTES, TargetError, r"'target' must be a class index or a text; got \[1, 2\]"),
    "an option of a list": (request(parameters={"n": [1]}), BYTES, InputError, "'n' must be a text"),
    "no such method": (request(parameters={"method": "gradcat"}), BYTES, MethodError, "did you mean gradcam"),
    "no such layer": (request(parameters={"layer": "x"}), BYTES, LayerError, "'x'"),
    "timeout below zero": (request(parameters={"timeout": -5}), BYTES, InputError, "not negative"),
    "timeout of an hour": (request(parameters={"timeout": 3_600_000_000}), BYTES, InputError, "at most 300 seconds"),
    "timeout in words": (request(parameters={"timeout": "1s"}), BYTES, InputError, "number of microseconds"),
    "timeout that is true": (request(parameters={"timeout": True}), BYTES, InputError, "number of microseconds"),
    "binary perhaps": (request(parameters={"binary_data_output": 1}), BYTES, InputError, "must be true or false"),
    "outputs of an object": (request(outputs={"name": "cam"}), BYTES, InputError, "outputs must be a list"),
    "an output of a text": (request(outputs=["cam"]), BYTES, InputError, "an output is an object"),
    "no such output": (request(outputs=[{"name": "heat"}]), BYTES, InputError, "one of cam, logits"),
    "an output twice": (request(outputs=[{"name": "cam"}] * 2), BYTES, InputError, "'cam' was asked for twice"),
    "seventeen outputs": (request(outputs=[{"name": "cam"}] * 17), BYTES, TooLargeError, "17 outputs"),
    "the top classes": (
        request(outputs=[{"name": "logits", "parameters": {"classification": 5}}]), BYTES, InputError, "not offered",
    ),
    "target twice": (
        request(tensor(np.zeros(2, np.int64), "INT64", "target"), parameters={"target": 1}), BYTES + bytes(16), InputError,
        "as an input and as a parameter",
    ),
    "target of floats": (request(tensor(np.zeros(2), "FP64", "target")), BYTES + bytes(16), InputError, "INT64, INT32 or BYTES"),
    "target of three axes": (
        request(tensor(np.zeros((2, 1, 1), np.int64), "INT64", "target")), BYTES + bytes(16), InputError, r"shape \[N\] or",
    ),
    "target of no bytes": (
        request(tensor(np.zeros((2, 0), np.int64), "INT64", "target")), BYTES, TargetError, "at least one; got",
    ),
    "target for one image of two": (
        request(tensor(np.zeros(1, np.int64), "INT64", "target")), BYTES + bytes(8), TargetError, "each of 2 images; got 1",
    ),
    "target that is no text": (
        request({"name": "target", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 10}}),
        BYTES + (struct.pack("<I", 1) + b"\xff") * 2, InputError, "text in UTF-8",
    ),
    "image of integers": ({"inputs": [tensor(X.astype("<i4"), "INT32")]}, BYTES, InputError, "an image is BYTES"),
    "image of three axes": ({"inputs": [tensor(X[0], "FP32")]}, X[0].tobytes(), InputError, "of four axes"),
    "image of another size": ({"inputs": [tensor(X[:, :, :9], "FP32")]}, X[:, :, :9].tobytes(), InputError, "Nx3x12x10"),
    "no image at all": ({"inputs": [tensor(X[:0], "FP32")]}, b"", InputError, "there is no image"),
    "words in two axes": (
        {"inputs": [{"name": "image", "shape": [1, 2], "datatype": "BYTES", "data": ["QQ==", "QQ=="]}]}, b"", InputError,
        r"shape \[N\] or \[N, 1\]",
    ),
    "words that are no base64": (
        {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["https://example.com/cat.jpg"]}]}, b"",
        InputError, "must be base64",
    ),
    "sixty-five pictures": (
        {"inputs": [{"name": "image", "shape": [65], "datatype": "BYTES", "data": ["QQ=="] * 65}]}, b"", TooLargeError,
        "65 images were sent; 64 are allowed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD))
def test_what_the_protocol_or_the_model_does_not_have_is_refused(case: str) -> None:
    document, tail, kind, message = BAD[case]
    with pytest.raises(kind, match=message) as caught:
        read(document, tail)
    assert len(str(caught.value)) < 600


def test_an_answer_too_large_for_json_may_go_as_bytes() -> None:
    """Two images of three targets, 12 x 10 pixels: 2880 bytes as float32, counted three times as text."""
    few, three = Settings(max_answer=8639), tensor(np.zeros((2, 3), np.int64), "INT64", "target")
    tail = X.tobytes() + bytes(48)
    with pytest.raises(TooLargeError, match="2 x 3 heatmaps of 12 x 10 are too many for JSON"):
        read(request(three), tail, settings=few)
    assert read(request(three), tail, settings=Settings(max_answer=8640))[0].width == 3
    assert read(request(three, parameters={"binary_data_output": True}), tail, settings=few)[0].width == 3


def test_overlays_are_counted() -> None:
    outputs = [{"name": "overlay", "parameters": {"binary_data": True}}]
    for width in (32, 33):
        wide = np.zeros((2, width), np.int64)
        document = request(tensor(wide, "INT64", "target"), outputs=outputs)
        if width == 32:
            assert read(document, X.tobytes() + wide.tobytes())[0].width == 32
            continue
        with pytest.raises(TooLargeError, match="2 x 33 overlays were asked for; 64 are drawn"):
            read(document, X.tobytes() + wide.tobytes(), settings=Settings(max_targets=33))


@pytest.mark.parametrize("seed", [0, 1])
def test_mutants_are_read_or_refused(seed: int) -> None:
    ends = {outcome(partial(infer, length, body)) for length, body in mutants(1500, seed)}
    assert {"read", "InputError", "TooLargeError", "MethodError", "TargetError"} <= ends


# answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
def test_an_answer_holds_the_explanation_bit_by_bit(binary: bool) -> None:
    made = answer([1, "prob:owl"])
    want = made.explanation
    document, found = split(*write_infer(made, Wanted("id-1", tuple((name, binary) for name in OUTPUTS))))
    assert (document["model_name"], document["model_version"], document["id"]) == ("tiny", "3", "id-1")
    assert [output["name"] for output in document["outputs"]] == list(OUTPUTS)
    arrays = {
        "cam": want.heatmaps, "logits": want.logits, "target": want.targets, "value": want.values,
        "degenerate": want.degenerate, "raw": want.raw,
    }  # fmt: skip
    for name, array in arrays.items():
        assert found[name].shape == array.shape and np.array_equal(found[name], array), name
    assert found["overlay"] == [png(want.overlay(image, target)) for image in range(2) for target in range(2)]
    assert Image.open(io.BytesIO(found["overlay"][0])).format == "PNG"


def test_outputs_come_in_the_order_asked_for_some_as_bytes() -> None:
    body, headers = write_infer(answer(), Wanted("", (("value", True), ("cam", False), ("logits", True))))
    document, _ = split(body, headers)
    assert [(o["name"], "data" in o) for o in document["outputs"]] == [
        ("value", False),
        ("cam", True),
        ("logits", False),
    ]
    assert "id" not in document and headers["Content-Type"] == "application/octet-stream"
    assert write_infer(answer(), Wanted())[1] == {"Content-Type": "application/json"}


def test_scores_that_are_not_finite_are_not_sent() -> None:
    made = answer()
    made.logits = np.array([[np.nan] * 5] * 2, np.float32)
    with pytest.raises(NumericError, match="NaN or infinity"):
        write_infer(made, Wanted("", (("logits", True),)))


def test_metadata_says_what_is_taken_and_what_an_answer_has() -> None:
    said = metadata(served(), ["3", "2"])
    assert (said["name"], said["versions"], said["platform"]) == ("tiny", ["3", "2"], "onnx_onnxv1")
    assert said["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 3, 12, 10]},
        {"name": "target", "datatype": "INT64", "shape": [-1, -1]},
    ]
    assert metadata(of_pixels(), ["1"])["inputs"][0]["datatype"] == "UINT8"
    document, _ = split(*write_infer(answer([1, 2]), Wanted("", tuple((name, True) for name in OUTPUTS))))
    promised = {output["name"]: output for output in said["outputs"]}
    for output in document["outputs"]:
        promise = promised.pop(output["name"])
        assert promise["datatype"] == output["datatype"] and len(promise["shape"]) == len(output["shape"])
        assert all(wanted in (-1, got) for wanted, got in zip(promise["shape"], output["shape"], strict=True))
    assert not promised and json.loads(write_json(said)) == said


# a client's own encoder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [None, False, True])
def test_tritonclient_writes_what_is_read_and_reads_what_is_written(binary_in: bool, binary_out: bool | None) -> None:
    client = pytest.importorskip("tritonclient.http")
    image, target = client.InferInput("image", list(X.shape), "FP32"), client.InferInput("target", [2], "BYTES")
    image.set_data_from_numpy(X, binary_data=binary_in)
    target.set_data_from_numpy(np.array([b"owl", b"prob:dog"], np.object_), binary_data=binary_in)
    outputs = (
        None
        if binary_out is None
        else [client.InferRequestedOutput(n, binary_data=binary_out) for n in ("cam", "value")]
    )
    body, length = client.InferenceServerClient.generate_request_body(
        [image, target], outputs=outputs, request_id="r", timeout=2_000_000, parameters={"method": "hirescam"}
    )
    ask, wanted = read_infer(body, length, served(), SETTINGS)
    assert np.array_equal(ask.images, X) and ask.targets == [[Logit(3)], [Probability(4)]]
    assert (ask.wish.method, ask.timeout, wanted.id) == ("hirescam", 2.0, "r")
    made = answer([[Logit(3)], [Probability(4)]], method="hirescam")
    written, headers = write_infer(made, wanted)
    length = headers.get("Inference-Header-Content-Length")
    result = client.InferenceServerClient.parse_response_body(written, header_length=length and int(length))
    assert np.array_equal(result.as_numpy("cam"), made.explanation.heatmaps)
    assert np.array_equal(result.as_numpy("value"), made.explanation.values)
    assert result.get_response()["id"] == "r"
