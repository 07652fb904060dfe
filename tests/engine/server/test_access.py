"""What every request passes: ids, counts, log lines, the last fence."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import structlog

from camrt.errors import CancelledError, NumericError
from camrt.server.access import Access, refusal
from camrt.server.app import create_app
from camrt.server.faults import BusyError, KeyMissingError
from camrt.server.settings import Settings


def roomy() -> None:
    """Find room."""


def passed(
    app: Any,
    headers: tuple[tuple[str, str], ...] = (),
    *,
    verb: str = "POST",
    path: str = "/",
    check_room: Callable[[], None] = roomy,
) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    """Send one request through, and return what was sent and counted."""
    sent: list[dict[str, Any]] = []
    counted: list[tuple[Any, ...]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    def count(*told: Any) -> None:
        counted.append(told)

    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": verb, "path": path, "headers": raw}
    asyncio.run(Access(app, count, check_room)(scope, receive, send))
    return sent, counted


async def good(scope: Any, receive: Any, send: Any) -> None:
    scope["state"]["told"].update(model="m", version="3", method="gradcam", batch=2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"{}"})


@pytest.mark.parametrize("name", ["a", "7f-AB_c.d:e/f+g=", "x" * 128])
def test_an_id_is_given_back(name: str) -> None:
    sent, _ = passed(good, (("x-request-id", name),))
    assert (b"x-request-id", name.encode()) in sent[0]["headers"] and (b"a", b"b") in sent[0]["headers"]


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 129, "a\nb", '"', "<b>", "é", "-a"])
def test_an_id_that_could_break_a_log_is_replaced(name: str) -> None:
    sent, _ = passed(good, (("x-request-id", name),))
    (given,) = (value for key, value in sent[0]["headers"] if key == b"x-request-id")
    assert re.fullmatch(rb"[0-9a-f]{32}", given)


def test_a_request_is_counted_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with structlog.testing.capture_logs() as lines:
        _, ((model, method, code, seconds),) = passed(good)
    assert (model, method, code) == ("m", "gradcam", 200) and seconds > 0
    (line,) = lines
    assert line["event"] == "request" and line["code"] == 200 and line["verb"] == "POST"
    assert (line["model"], line["version"], line["method"], line["batch"]) == ("m", "3", "gradcam", 2)
    assert "request_id" in line and line["ms"] == round(seconds * 1e3, 3)


def test_a_surprise_becomes_a_sentence() -> None:
    async def bad(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("secret")

    with structlog.testing.capture_logs() as lines:
        sent, ((_, _, code, _),) = passed(bad)
    assert sent[0]["status"] == code == 500 and b"secret" not in sent[1]["body"]
    assert "secret" in lines[0]["exception"] and "Traceback" in lines[0]["exception"]
    assert lines[0]["request_id"] == lines[1]["request_id"]


def test_an_answer_that_was_begun_is_not_begun_again() -> None:
    async def bad(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("secret")

    sent, ((_, _, code, _),) = passed(bad)
    assert [message["type"] for message in sent] == ["http.response.start"] and code == 200


def test_a_client_that_left_is_counted_as_such() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    _, ((_, _, code, _),) = passed(silent)
    assert code == 499


def test_other_scopes_pass_untouched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    scope = {"type": "lifespan"}
    asyncio.run(Access(app, lambda *told: None, roomy)(scope, None, None))  # type: ignore[arg-type]
    assert seen == [scope] and scope == {"type": "lifespan"}


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (BusyError("the queue is full", 0.2), 429, ("retry-after", "1")),
        (KeyMissingError("a key"), 401, ("www-authenticate", "Bearer")),
        (NumericError("NaN"), 400, ("content-type", "application/json")),
        (CancelledError("gone"), 499, ("content-type", "application/json")),
    ],
)
def test_an_error_becomes_an_answer(error: Exception, status: int, header: tuple[str, str]) -> None:
    answer = refusal(error)
    assert answer.status_code == status and answer.headers[header[0]] == header[1]
    assert orjson.loads(answer.body) == {"error": str(error)}


def test_every_path_that_brings_work_is_refused_before_its_route_where_there_is_no_room() -> None:
    """And no other: probes, pages and the repository go on being answered."""
    paths: dict[str, Any] = create_app(Settings()).openapi()["paths"]
    found = {True: set(), False: set()}  # type: ignore[var-annotated]

    def full() -> None:
        raise BusyError("the queue is full", 2.5)

    for path, verbs in paths.items():
        for verb in verbs:
            reached: list[str] = []

            async def app(scope: Any, receive: Any, send: Any, reached: list[str] = reached) -> None:
                reached.append(scope["path"])
                await good(scope, receive, send)

            real = path.replace("{model}", "m.x").replace("{version}", "3")
            sent, counted = passed(app, verb=verb.upper(), path=real, check_room=full)
            assert sent[0]["status"] == counted[0][2] == (200 if reached else 429)
            if not reached:
                assert (b"retry-after", b"3") in sent[0]["headers"]
                assert orjson.loads(sent[1]["body"]) == {"error": "the queue is full"}
            found[not reached].add((verb, path))
    assert found[True] == {
        ("post", path)
        for path in paths
        if path.endswith(("/infer", ":predict", ":explain", "/explain", "/invocations"))
    }
    assert len(found[True]) == 6
    sent, _ = passed(good, verb="GET", path="/explain", check_room=full)
    assert sent[0]["status"] == 200  # brings no work: the router says what is wrong with it
