"""Rows as text and back."""

from __future__ import annotations

import json

import pytest

from bench.contest import spread
from bench.report import Agreement, Goal, Row, agreements, load_rows, markdown, plain, table

MACHINE = {
    "cpu": "A CPU",
    "cores": 2,
    "versions": {"python": "3.11"},
    "commit": "abc1234",
    "date": "2026-01-02 03:04 UTC",
}
ROWS = [
    Row("gradient", "net", 16, "gradcam / forward", "x", spread([1.0, 1.04, 1.2]), Goal(1.1, most=True)),
    Row("gradient", "net", 16, "peer / camrt, gradcam", "x", spread([2.5]), Goal(3.0, most=False)),
    Row("start", "", None, "import camrt", "ms", spread([140.0, 130.0])),
]


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal(1.1, most=True), 1.1, True),
        (Goal(1.1, most=True), 1.11, False),
        (Goal(3.0, most=False), 3.0, True),
        (Goal(3.0, most=False), 2.9, False),
    ],
)
def test_a_goal_holds_on_its_limit_and_on_one_side_of_it(goal: Goal, value: float, met: bool) -> None:
    assert goal.met(value) is met


def test_the_verdict_is_the_medians_and_not_the_best_runs() -> None:
    assert [row.verdict for row in ROWS] == ["met", "MISSED", ""]
    assert Row("s", "m", 1, "f", "x", spread([1.0, 1.2, 1.3]), Goal(1.1, most=True)).verdict == "MISSED"


def test_the_table_lines_up_and_shows_the_spread() -> None:
    lines = table(ROWS).splitlines()
    assert len(lines) == 1 + len(ROWS)
    assert lines[1].split("  ")[0] == "gradient"
    for text in ("1.04x", "1.00x", "1.02x .. 1.12x", "<= 1.10x", "met"):
        assert text in lines[1]
    assert ">= 3.00x" in lines[2] and ".." not in lines[2]  # one run has no spread
    assert "135 ms" in lines[3]
    assert len({line.index(word) for line, word in zip(lines[:3], ("figure", "gradcam /", "peer /"), strict=True)}) == 1


def test_json_gives_the_same_rows_back() -> None:
    agreed = [Agreement("net", "gradcam", "peer", 0.99999, 3e-5, 0, 16)]
    kept = json.loads(json.dumps(plain(MACHINE, {"rounds": 3}, ROWS, agreed)))
    assert load_rows(kept) == ROWS
    assert kept["machine"] == MACHINE
    assert kept["agreement"][0]["difference"] == 3e-5


@pytest.mark.parametrize("data", [{}, {"rows": [{}]}, {"rows": 1}, {"rows": [{"spread": {}}]}])
def test_json_of_something_else_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the JSON of a bench run was wanted"):
        load_rows(data)


def test_the_readme_shows_what_has_a_goal_and_says_where_it_was_measured() -> None:
    lines = markdown(MACHINE, ROWS).splitlines()
    assert lines[2] == "| net | 16 | gradcam / forward | **1.04x** | 1.02x .. 1.12x | <= 1.10x |"
    assert lines[3] == "| net | 16 | peer / camrt, gradcam | 2.50x (missed) |  | >= 3.00x |"
    assert lines[-1] == "Measured on A CPU, 2 cores; python 3.11; commit abc1234; 2026-01-02 03:04 UTC."
    assert len(lines) == 6


def test_agreements_are_one_line_each() -> None:
    text = agreements([Agreement("net", "gradcam", "peer", 0.9999996, 3e-5, 1, 16)])
    assert text.splitlines()[1].split() == ["net", "gradcam", "peer", "0.9999996", "3.0e-05", "16", "1"]
