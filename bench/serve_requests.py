"""
HTTP requests as bytes, and answers read back: as little as a client can do, so that it does not eat the server's cores.

In: arrays or pictures. Out: a whole request, ready to be sent again and again; and from an answer its status, its version
and its heatmaps. Standard library and NumPy.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Reply",
    "Splitter",
    "encoded",
    "get",
    "heatmaps_of",
    "picture_request",
    "post",
    "tensor_request",
    "version_of",
]

HEAD_END = b"\r\n\r\n"
JSON_LENGTH = "inference-header-content-length"


@dataclass(frozen=True)
class Reply:
    """An answer: status, headers by lower-case name, and body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Splitter:
    """
    Cuts the bytes of one connection into answers.

    Raises
    ------
    ValueError
        By `add`, if an answer does not say its length: then there is no telling where it ends.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: tuple[int, dict[str, str], int, int] | None = (
            None  # status, headers, where the body begins and ends
        )

    @property
    def begun(self) -> bool:
        """Whether there are bytes of an answer that is not complete."""
        return bool(self._buffer)

    def add(self, data: bytes) -> Reply | None:
        """
        Take what came.

        Parameters
        ----------
        data : bytes
            Any part of an answer.

        Returns
        -------
        Reply or None
            The answer, once it is complete.
        """
        self._buffer += data
        if self._head is None:
            end = self._buffer.find(HEAD_END)
            if end < 0:
                return None
            status, headers = _head(bytes(self._buffer[:end]))
            if "content-length" not in headers:
                raise ValueError(f"an answer of status {status} does not say its length")
            begin = end + len(HEAD_END)
            self._head = status, headers, begin, begin + int(headers["content-length"])
        status, headers, begin, end = self._head
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[begin:end])
        del self._buffer[:end]
        self._head = None
        return Reply(status, headers, body)


def _head(text: bytes) -> tuple[int, dict[str, str]]:
    """Read a status line and headers."""
    first, *lines = text.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def get(address: str, path: str) -> bytes:
    """
    Write a request without a body.

    Parameters
    ----------
    address : str
        ``host:port``.
    path : str
        With its query.

    Returns
    -------
    bytes
        The request.
    """
    return f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()


def post(address: str, path: str, body: bytes, **headers: str) -> bytes:
    """
    Write a request with a body.

    Parameters
    ----------
    address, path : str
        As in `get`.
    body : bytes
        What is sent.
    **headers : str
        By name, with ``_`` for ``-``.

    Returns
    -------
    bytes
        The request.
    """
    lines = [f"POST {path} HTTP/1.1", f"Host: {address}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + HEAD_END + body


def tensor_request(address: str, model: str, x: npt.NDArray[np.float32], **parameters: Any) -> bytes:
    """
    Write a V2 request of a prepared input, binary in and out, for heatmaps alone.

    Parameters
    ----------
    address, model : str
        Whom to ask, and for which model.
    x : ndarray of float32, shape (N, ...)
        In the model's layout.
    **parameters : object
        Scalar parameters: the method and so on.

    Returns
    -------
    bytes
        The request.
    """
    return _infer(address, model, "FP32", list(x.shape), np.ascontiguousarray(x).tobytes(), parameters)


def picture_request(address: str, model: str, picture: bytes, **parameters: Any) -> bytes:
    """
    Write a V2 request of an encoded picture, binary in and out, for heatmaps alone.

    Parameters
    ----------
    address, model
        As in `tensor_request`.
    picture : bytes
        JPEG or PNG.
    **parameters
        As in `tensor_request`.

    Returns
    -------
    bytes
        The request.
    """
    return _infer(address, model, "BYTES", [1], struct.pack("<I", len(picture)) + picture, parameters)


def _infer(address: str, model: str, kind: str, shape: list[int], data: bytes, parameters: dict[str, Any]) -> bytes:
    """Write a V2 request of one binary tensor."""
    image = {"name": "image", "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    outputs = [{"name": "cam", "parameters": {"binary_data": True}}]
    text = json.dumps({"inputs": [image], "outputs": outputs, "parameters": parameters}).encode()
    headers = {"Content_Type": "application/octet-stream", "Inference_Header_Content_Length": str(len(text))}
    return post(address, f"/v2/models/{model}/infer", text + data, **headers)


def heatmaps_of(reply: Reply) -> npt.NDArray[np.float32]:
    """
    Read the heatmaps of a binary V2 answer.

    Parameters
    ----------
    reply : Reply
        An answer to one of the requests above.

    Returns
    -------
    ndarray of float32, shape (N, T, H, W)
        ``cam``.

    Raises
    ------
    ValueError
        If it is not such an answer, or not complete.
    """
    begin = int(reply.headers[JSON_LENGTH])
    [output] = json.loads(reply.body[:begin])["outputs"]
    if output["name"] != "cam" or output["datatype"] != "FP32":
        raise ValueError(f"FP32 heatmaps were asked for; the answer has {output['name']} of {output['datatype']}")
    return np.frombuffer(reply.body, "<f4", offset=begin).reshape(output["shape"])


def version_of(reply: Reply) -> str:
    """
    Read which version of the model gave a binary V2 answer.

    Parameters
    ----------
    reply : Reply
        An answer.

    Returns
    -------
    str
        Its ``model_version``.
    """
    told: dict[str, Any] = json.loads(reply.body[: int(reply.headers[JSON_LENGTH])])
    return str(told["model_version"])


def encoded(x: npt.NDArray[np.float32], kind: str = "JPEG") -> bytes:
    """
    Make a picture of noise that was drawn as an input.

    Parameters
    ----------
    x : ndarray of float32, shape (C, H, W) or (H, W, C)
        About -3 to 3; of one or three channels.
    kind : str
        What pillow calls the format.

    Returns
    -------
    bytes
        A file.
    """
    from PIL import Image

    pixels = x if x.shape[-1] <= 4 else np.moveaxis(x, 0, -1)
    with io.BytesIO() as file:
        shades = np.clip(pixels * 40 + 128, 0, 255).astype(np.uint8)
        Image.fromarray(shades.squeeze()).convert("RGB").save(file, kind)
        return file.getvalue()
