"""What commands show."""

from __future__ import annotations

import json
import sys

import pytest

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
