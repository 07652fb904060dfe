"""The README's Python runs, its tables equal the code, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from camrt.commands import app
from camrt.methods import METHODS
from camrt.metrics import METRICS

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run_as_printed(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - our own README is the program under test
    assert names
    assert "checkered square" in capsys.readouterr().out


def test_the_table_of_methods_is_the_table_in_the_code() -> None:
    rows = dict(re.findall(r"^\| `([a-z]+)` \| (.*) \|$", README, re.MULTILINE))
    for method in METHODS.values():
        title, family, work, paper, variants = rows[method.id].split(" | ")
        assert (title, family, paper) == (method.title, method.family, method.paper)
        assert float(work) == method.work
        assert [v.strip("* ") for v in variants.split(",")] == list(method.variants)
        assert variants.startswith(f"**{method.variants[0]}**")


def test_the_table_of_metrics_is_the_table_in_the_code() -> None:
    rows = dict(re.findall(r"^\| `([a-z_0-9]+)` \| (.*) \|$", README.partition("## Metrics")[2], re.MULTILINE))
    for metric in METRICS.values():
        title, better, span, needs, paper, variants = rows[metric.id].split(" | ")
        field = metric.fields_of(metric.variants[0])[0]
        assert (title, better, paper) == (metric.title, field.better, metric.paper)
        low, high = (float(end.replace("∞", "inf")) for end in span.split(" to "))
        assert (low, high) == (pytest.approx(field.low, abs=0.01), field.high)
        assert ("forwards" in needs) == ("scores" in metric.needs) and ("boxes" in needs) == ("boxes" in metric.needs)
        assert ("second map" in needs) == ("again" in metric.needs)
        assert [v.strip("* ") for v in variants.split(",")] == list(metric.variants)
        assert variants.startswith(f"**{metric.variants[0]}**")


def test_every_command_in_the_readme_exists() -> None:
    used = set(re.findall(r"\bcamrt ([a-z]+)\b", "\n".join(blocks("bash"))))
    assert used >= {"demo", "explain", "compare", "inspect", "export", "evaluate"}
    for command in used:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
