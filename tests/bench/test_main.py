"""The command line, as far as it measures nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.contest import spread
from bench.report import Goal, Row, plain


def test_a_kept_run_is_printed_as_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = {"cpu": "A CPU", "cores": 2, "versions": {}, "commit": None, "date": "today"}
    row = Row("memory", "net", None, "growth", "MB", spread([0.5]), Goal(20.0, most=True))
    file = tmp_path / "run.json"
    file.write_text(json.dumps(plain(machine, {}, [row], [])), "utf-8")
    assert main(["--readme", str(file)]) == 0
    assert "| net |  | growth | **0.50 MB** |  | <= 20.00 MB |" in capsys.readouterr().out


def test_a_file_that_is_no_run_is_one_line_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    file.write_text("[]", "utf-8")
    assert main(["--readme", str(file)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["speed"],
            "no suite is called 'speed'; choose from gradient, backward, masked, metrics, evaluation, explained, threads, memory, start, serve, coverage",
        ),
        (["gradient"], "make_peers.py"),
        (["backward", "--model", "a.onnx"], "compares with eager PyTorch"),
        (["metrics"], "make_peers.py"),
        (["explained"], "make_peers.py"),
        (["serve"], "make_peers.py"),
        (
            ["serve", "--model", "a.onnx", "--only", "speed"],
            "serve has no figure 'speed'; choose from overhead, batching, latency, start, overload, reload, disconnects, soak",
        ),
        (["serve", "--model", "a.onnx", "--seconds", "0"], "more than 0 seconds"),
        (["memory", "--rounds", "0"], "at least 1"),
        (["gradient", "--sittings", "0"], "at least 1"),
        (["memory", "--threads", "0"], "at least 1"),
    ],
)
def test_a_wrong_option_is_told_with_what_to_do(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
