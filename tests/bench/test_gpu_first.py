"""The first run on a GPU, as far as it goes without one: every step is told to be not run, and nothing ends the list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import gpu_first
from bench.gpu_first import FAILED, NOT_RUN, PASSED, main
from bench.gpu_steps import STEPS, NotRun, Settings, Step, absence


def test_without_a_gpu_every_step_is_not_run_and_the_file_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    out = tmp_path / "out.json"
    assert main([str(out)]) == 0
    kept = json.loads(out.read_text("utf-8"))
    assert list(kept["steps"]) == list(STEPS)
    assert {step["verdict"] for step in kept["steps"].values()} == {NOT_RUN}
    assert all(step["says"].startswith("no device: ") for step in kept["steps"].values())
    assert {"versions", "commit", "date", "gpu", "cudnn"} <= set(kept["machine"])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [f"not run  {n}" for n in STEPS]


@pytest.mark.parametrize(
    ("count", "says"), [(lambda: 0, "no device: CuPy finds none"), (lambda: 1 // 0, None), (lambda: 1, "")]
)
def test_a_driver_without_a_device_is_told_from_one_with(
    count: Any, says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = SimpleNamespace(getDeviceCount=count)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    if says is None:
        with pytest.raises(ZeroDivisionError):  # what CuPy does not raise is no absence
            absence(needs_provider=False)
    else:
        assert absence(needs_provider=False) == says


def _wrong(_: Settings) -> Any:
    raise RuntimeError("it\n differs")


def _absent(_: Settings) -> Any:
    raise NotRun("no tool")


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (lambda _: ("fine", {"n": 1}), {"verdict": PASSED, "says": "fine", "figures": {"n": 1}}),
        (_wrong, {"verdict": FAILED, "says": "RuntimeError: it differs"}),
        (_absent, {"verdict": NOT_RUN, "says": "no tool"}),
    ],
)
def test_an_outcome_is_what_the_step_said_or_raised(
    step: Any, outcome: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu_first.STEPS, "provider", Step(step))
    monkeypatch.setattr(gpu_first, "absence", lambda **_: "")
    assert outcome.items() <= gpu_first._outcome("provider", Settings(None)).items()


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        (lambda *_, **__: SimpleNamespace(returncode=-11, stderr="a crash"), "the process ended with -11: a crash"),
        (lambda *_, **__: (_ for _ in ()).throw(subprocess.TimeoutExpired("x", 1)), "it was stopped after 540 s"),
    ],
)
def test_a_step_that_crashes_or_hangs_fails_and_the_next_one_begins(
    ends: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_first, "absence", lambda **_: "")
    monkeypatch.setattr(gpu_first, "machine", dict)
    monkeypatch.setattr(subprocess, "run", ends)
    out = tmp_path / "out.json"
    out.write_text(json.dumps({"steps": {"kernels": {"verdict": PASSED, "says": "earlier"}}}), "utf-8")
    assert main([str(out), "--model", "any.onnx", "--only", "streams", "dlpack"]) == 1
    steps = json.loads(out.read_text("utf-8"))["steps"]
    assert steps["kernels"]["says"] == "earlier"
    assert [(steps[name]["verdict"], steps[name]["says"]) for name in ("streams", "dlpack")] == [(FAILED, says)] * 2
