"""
Requests and pictures with something wrong in them, thousands from one seed.

``python -m tests.engine.server.mutants 50000`` runs so many of each through the decoders and says what came of them.
"""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from PIL import Image

from camrt.errors import InputError
from camrt.server.asks import Ask
from camrt.server.bodies import read_length
from camrt.server.documents import read_json
from camrt.server.infer import read_infer
from camrt.server.instances import read_instances
from camrt.server.pictures import decode_picture
from camrt.server.settings import Settings
from tests import tiny
from tests.engine.server.small import served

SETTINGS = Settings()
PRIVATE = ("Traceback", "/site-packages", "/engine/", "/usr/", 'File "', ".py:", " 0x", "object at")
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63), 1e308, -0.0, 0.5, "", "NaN", "image", "a" * 4000, "\0", "💥" * 50,
    [], {}, [[]], [[[[[[1]]]]]], [1] * 100, {"": 0}, {"b64": "AAAA"}, "../../etc/passwd", "prob:1", "contrast:1-2-3-4", "-" * 300,
]  # fmt: skip
WORDS = ["gradcam", "scorecam", "rise", "finercam", "opticam", "paper", "a1", "a1,a2", "predicted", "camrt", "cam", "logits", "overlay",
         "FP32", "FP16", "BF16", "INT64", "BYTES", "UINT8", "BOOL"]  # fmt: skip
NAMES = ["name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "id", "binary_data_size", "binary_data",
         "binary_data_output", "method", "variant", "layer", "target", "timeout", "n", "s", "iters", "fuse", "tta", "max_forwards",
         "stability", "image", "classification", "shared_memory_region"]  # fmt: skip


def _whole(dice: random.Random) -> tuple[dict[str, Any], bytes]:
    """Return a request that is right: its JSON, and the tensors behind it."""
    count = dice.choice([1, 1, 1, 2, 3])
    x = tiny.images(count, dice.randrange(4))
    tail = b""
    kind = dice.randrange(5)
    if kind == 0:
        image = {"shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    elif kind == 1:
        image = {"shape": list(x.shape), "datatype": "FP64", "data": x.tolist()}
    elif kind == 2:
        words = [dice.randbytes(dice.randrange(1, 40)) for _ in range(count)]
        tail = b"".join(struct.pack("<I", len(word)) + word for word in words)
        image = {"shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    elif kind == 3:
        tail = bytes(count * 8 * 9 * 3)
        image = {"shape": [count, 8, 9, 3], "datatype": "UINT8", "parameters": {"binary_data_size": len(tail)}}
    else:
        tail = x.tobytes()
        image = {"shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": len(tail)}}
    document: dict[str, Any] = {"inputs": [{"name": "image"} | image]}
    if dice.random() < 0.5:
        document["id"] = "17"
    if dice.random() < 0.5:
        document["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in ("cam", "logits", "raw")]
    if dice.random() < 0.6:
        document["parameters"] = {"method": dice.choice(WORDS[:5]), "timeout": 1_000_000, "target": 1}
    elif dice.random() < 0.5:
        more = struct.pack(f"<{count}q", *range(count))
        document["inputs"].append(
            {"name": "target", "shape": [count], "datatype": "INT64", "parameters": {"binary_data_size": len(more)}}
        )
        tail += more
    return document, tail


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every list or object with a key or place in it, not too many of one list."""
    pairs = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value[:5]))
        if isinstance(value, list)
        else []
    )
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)


def _wrong_value(document: dict[str, Any], dice: random.Random) -> None:
    """Change one place of the document."""
    document.setdefault("id", "")  # so that there is a place
    owner, key = dice.choice(list(_places(document)))
    act = dice.randrange(8)
    odd = copy.deepcopy(dice.choice(ODD if dice.random() < 0.7 else WORDS))
    if act == 0 and owner:
        del owner[key]
    elif act == 1 and isinstance(owner, dict):
        owner[dice.choice(NAMES)] = odd
    elif act == 2 and isinstance(owner, list):
        owner.extend([owner[key]] * dice.choice([1, 2, 20]))
    elif act == 3 and isinstance(owner[key], int) and not isinstance(owner[key], bool):
        owner[key] = dice.choice(
            [owner[key] + dice.choice([-1, 1, 4, -4]), owner[key] * 2**32, -owner[key], float(owner[key])]
        )
    elif act == 4 and isinstance(owner[key], list):
        owner[key] = [owner[key]]
    else:
        owner[key] = odd


def _wrong_bytes(body: bytes, dice: random.Random) -> bytes:
    """Cut, flip, double or insert some bytes."""
    if not body:
        return dice.randbytes(9)
    at, length = dice.randrange(len(body)), dice.choice([1, 1, 2, 8, 64])
    act = dice.randrange(6)
    if act == 0:
        return body[:at]
    if act == 1:
        return body[:at] + bytes([body[at] ^ (1 << dice.randrange(8))]) + body[at + 1 :]
    if act == 2:
        return body[:at] + body[at + length :]
    if act == 3:
        return body[:at] + body[at : at + length] * dice.choice([2, 50]) + body[at:]
    if act == 4:
        return body[:at] + dice.randbytes(length) + body[at:]
    return (
        body[:at]
        + dice.choice([b"[", b"{", b'"', b"]", b"\\", b",", b"NaN", b"1e999", b"[" * 40, b"\xff\xff\xff\xff"])
        + body[at:]
    )


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str | None, bytes]]:
    """Yield the header Inference-Header-Content-Length, or None, and a body."""
    dice = random.Random(seed)
    for _ in range(count):
        document, tail = _whole(dice)
        for _ in range(dice.choice([0, 1, 1, 1, 2, 3])):
            _wrong_value(document, dice)
        head = json.dumps(document).encode()
        body = head + tail
        if dice.random() < 0.4:
            body = _wrong_bytes(body, dice)
        length: str | None = str(len(head))
        if dice.random() < 0.25:
            length = dice.choice(
                [None, "0", str(len(body)), str(len(head) - 1), str(len(body) + 1), "-1", "1e3", "٣", "9" * 30, ""]
            )
        yield length, body


def documents(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield bodies of version 1."""
    dice = random.Random(seed)
    for _ in range(count):
        images: list[Any] = [
            {"b64": "AAAA"} if dice.random() < 0.5 else tiny.images(1, dice.randrange(4))[0].tolist()
        ] * dice.choice([1, 1, 2, 5])
        if dice.random() < 0.5:
            images = [{"image": image, "target": dice.choice([1, "predicted", [1, 2]])} for image in images]
        document: dict[str, Any] = {
            "instances": copy.deepcopy(images),
            "parameters": {"method": dice.choice(WORDS[:5])},
        }
        for _ in range(dice.choice([0, 1, 1, 2, 3])):
            _wrong_value(document, dice)
        body = json.dumps(document).encode()
        yield body if dice.random() < 0.7 else _wrong_bytes(body, dice)


def pictures(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield files that are, or nearly are, a JPEG, PNG or WebP."""
    dice = random.Random(seed)
    pixels = Image.effect_noise((40, 30), 60).convert("RGB")
    whole = []
    for kind in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        pixels.save(file, kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
        whole.append(file.getvalue())
    for _ in range(count):
        content = dice.choice(whole)
        for _ in range(dice.choice([1, 1, 2, 4])):
            start, end = (0, len(content)) if dice.random() < 0.5 else (0, min(len(content), 80))
            content = content[:start] + _wrong_bytes(content[start:end], dice) + content[end:]
        yield content


def outcome(read: Callable[[], object]) -> str:
    """Return the name of the error that something is refused with, ``read`` where it is not; fail for anything else."""
    try:
        read()
    except InputError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 1500 and not any(word in text for word in PRIVATE), text
        return type(error).__name__
    return "read"


def infer(length: str | None, body: bytes) -> Ask:
    """Read a request of version 2."""
    return _held(read_infer(body, read_length(length, "inference-header-content-length"), served(), SETTINGS)[0])


def instances(body: bytes) -> Ask:
    """Read a request of version 1."""
    return _held(read_instances(read_json(body), served(), SETTINGS))


def picture(content: bytes) -> object:
    """Decode a picture."""
    return decode_picture(content, SETTINGS)


def _held(ask: Ask) -> Ask:
    """Check that what was read is within its limits."""
    assert (
        0 < ask.count <= SETTINGS.max_images
        and ask.width <= SETTINGS.max_targets
        and 0 < ask.timeout <= SETTINGS.max_timeout
    )
    return ask


def main(count: int, seed: int) -> None:
    """Run many, and say how they ended and how long the slowest took."""
    outcome(partial(infer, None, b"{}"))  # opens the model
    families: dict[str, Iterator[tuple[int, Callable[[], object]]]] = {
        "version 2": ((len(body), partial(infer, length, body)) for length, body in mutants(count, seed)),
        "version 1": ((len(body), partial(instances, body)) for body in documents(count, seed)),
        "pictures": ((len(content), partial(picture, content)) for content in pictures(count, seed)),
    }
    for family, cases in families.items():
        counts: Counter[str] = Counter()
        slowest = (0.0, 0, 0)
        for number, (size, read) in enumerate(cases):
            begun = time.thread_time()
            counts[outcome(read)] += 1
            slowest = max(slowest, (time.thread_time() - begun, number, size))
        seconds, number, size = slowest
        print(
            f"{family}: {dict(counts.most_common())}; slowest {seconds * 1e3:.2f} ms, number {number} of {size} bytes"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
