"""The log: one object a line, whoever writes it, without pictures, keys and probes that go well."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import structlog

from camrt.server.logs import open_log
from camrt.server.settings import Settings


@pytest.fixture
def written() -> Iterator[Any]:
    """Return a function that opens the log with some settings and gives what was written since; undo it afterwards."""
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    stream = io.StringIO()

    def lines(settings: Settings | None = None) -> list[dict[str, Any]]:
        if settings is not None:
            open_log(settings, stream)
        got = [json.loads(line) for line in stream.getvalue().splitlines()]
        stream.seek(0)
        stream.truncate()
        return got

    yield lines
    logging.captureWarnings(False)
    root.handlers[:], root.level = kept[0], kept[1]
    for name in ("camrt", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def test_a_request_is_one_object_on_one_line(written) -> None:
    written(Settings())
    structlog.get_logger("camrt.server").info("request", request_id="r1", code=200, queue_ms=0.5, model="m", route="/x")
    (line,) = written()
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "request", "level": "info", "request_id": "r1", "code": 200, "queue_ms": 0.5, "model": "m", "route": "/x",
    }  # fmt: skip


def test_bytes_arrays_and_long_texts_are_not_written(written) -> None:
    written(Settings())
    picture = b"\x89PNG" * 1000
    structlog.get_logger().info("x", body=picture, array=np.zeros(9), of=[picture], text="t" * 9999, n=np.float64(0.5))
    (line,) = written()
    assert (line["body"], line["array"], line["of"]) == ("<bytes>", "<ndarray>", "<list>")
    assert len(line["text"]) < 600
    assert line["n"] == 0.5


def test_what_libraries_and_warnings_say_has_the_same_shape(written) -> None:
    written(Settings())
    logging.getLogger("uvicorn.error").warning("Invalid HTTP\nrequest %s", "received.")
    logging.getLogger("camrt.server").error("model %s", "m")
    logging.getLogger("onnx_ir.passes").info("never")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second, third = written()
    assert (first["logger"], first["event"], first["level"]) == (
        "uvicorn.error",
        "Invalid HTTP request received.",
        "warning",
    )
    assert (second["logger"], second["event"], second["level"]) == ("camrt.server", "model m", "error")
    assert third["logger"] == "py.warnings" and "old" in third["event"]


def test_a_stack_is_one_field(written) -> None:
    written(Settings())
    try:
        raise KeyError("\udcff half a character")
    except KeyError:
        structlog.get_logger().exception("failed", request_id="r2")
        logging.getLogger("asyncio").exception("never retrieved")
    ours, theirs = written()
    assert "Traceback" in ours["exception"] and "half a character" in ours["exception"]
    assert "Traceback" in theirs["exception"] and theirs["logger"] == "asyncio"


def test_probes_are_written_on_demand_or_when_the_server_is_at_fault(written) -> None:
    def probe(code: int) -> None:
        structlog.get_logger().info("request", route="/v2/health/ready", code=code)

    written(Settings())
    probe(200)
    probe(503)
    probe(500)
    assert [line["code"] for line in written()] == [500]
    written(Settings(log_level="debug"))
    probe(200)
    assert [line["code"] for line in written()] == [200]


def test_the_level_is_a_floor_for_everybody(written) -> None:
    written(Settings(log_level="error"))
    structlog.get_logger().info("request", code=200)
    logging.getLogger("uvicorn.error").warning("no")
    logging.getLogger("uvicorn.error").error("yes")
    assert [line["event"] for line in written()] == ["yes"]


def test_text_to_read_by_eye(written) -> None:
    stream = io.StringIO()
    open_log(Settings(log_format="console"), stream)
    structlog.get_logger().info("request", code=200)
    assert "request" in stream.getvalue() and "code=200" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
