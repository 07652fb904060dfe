"""What commands show."""

from __future__ import annotations

import io
import json
import sys
import time

import pytest
from rich.console import Console

from camrt import printing
from camrt.printing import _short, print_json, progress_bar


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0"), (999, "999"), (1500, "1.5 k"), (3.145e8, "314 M"), (7e12, "7e+03 G")]
)
def test_numbers_are_short(number: float, said: str) -> None:
    assert _short(number) == said


def test_numbers_have_their_unit() -> None:
    assert _short(2e6, "B") == "2 MB"


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1, 2]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, 2]}


@pytest.mark.parametrize("quiet", [True, False])
def test_progress_is_silent_without_a_terminal(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert not sys.stderr.isatty()
    with progress_bar("working", 3, quiet) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_progress_has_its_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(printing, "errors_to", lambda: Console(file=file, force_terminal=True, width=100))
    with progress_bar("evaluating", 40, False) as advance:
        for _ in range(3):
            time.sleep(0.01)
            advance(10)
    shown = file.getvalue()
    assert "30/40" in shown and "/s" in shown and ":" in shown
