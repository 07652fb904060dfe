"""Say at the end of a run how many of onnx's own node tests were gradient checks."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of cases, checked and not, with the reasons."""
    from tests.export.vjp.backend import SUMMARY

    for outcomes in SUMMARY:
        counts = Counter(outcome.partition(":")[0] for outcome in outcomes.values())
        terminalreporter.section("gradients of onnx's own node tests")
        shown = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
        terminalreporter.write_line(f"{sum(counts.values())} cases: {shown}")
        for reason, number in Counter(o for o in outcomes.values() if o != "checked").most_common():
            terminalreporter.write_line(f"{number:5} {reason}")
