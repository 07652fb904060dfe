"""Requests and replies, on streams in memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from bench import wire
from bench.wire import Worker, WorkerError, answer


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


def test_a_worker_that_takes_too_long_is_ended_and_told_from_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(command: object, quiet: bool) -> subprocess.Popen[str]:
        code = "import sys, time; sys.stdin.readline(); time.sleep(600)"
        return subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    monkeypatch.setattr(wire, "_start", start)
    with Worker("it", sys.executable, "none") as worker, pytest.raises(WorkerError, match="took too long at 'wait'"):
        worker.ask("wait", seconds=0.2)
    with Worker("it", sys.executable, "none") as worker:
        worker._process.kill()
        with pytest.raises(WorkerError, match="exit code"):
            worker.ask("wait", seconds=60)
