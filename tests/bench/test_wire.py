"""Requests and replies, on streams in memory."""

from __future__ import annotations

import io
import json

import pytest

from bench.wire import answer


def divide(above: float, below: float) -> float:
    return above / below


def ask(*requests: object) -> list[dict[str, object]]:
    """Return the replies to some requests."""
    replies = io.StringIO()
    answer({"divide": divide}, io.StringIO("".join(f"{json.dumps(r)}\n" for r in requests)), replies)
    return [json.loads(line) for line in replies.getvalue().splitlines()]


def test_every_request_gets_one_line_with_its_result() -> None:
    one, two = {"above": 6, "below": 3}, {"above": 1, "below": 4}
    assert ask({"do": "divide", "with": one}, {"do": "divide", "with": two}) == [{"result": 2.0}, {"result": 0.25}]


def test_a_failure_is_one_line_and_the_worker_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = ask(
        {"do": "divide", "with": {"above": 1, "below": 0}},
        {"do": "multiply", "with": {}},
        {"do": "divide", "with": {"above": 1, "below": 1}},
    )
    assert first == {"error": "ZeroDivisionError: division by zero"}
    assert str(second["error"]).startswith("KeyError")
    assert third == {"result": 1.0}
    assert "ZeroDivisionError" in capsys.readouterr().err
