"""
The first run on a machine with a GPU: ``python -m bench.gpu_first OUT.json [--model FILE] [--only STEP ...]``.

In: nothing but the checkout, ONNX Runtime's GPU build and CuPy. Out: a verdict a step on the screen, and all of it with its
figures in OUT.json, which is written after every step. Each step (`bench.gpu_steps`) runs in a process of its own, because
what is asked here may end one: a step that fails, crashes or hangs is said to, and the next one begins. Steps of an
earlier run with the same file stay unless they are run again, so that a long list can be cut into pieces.

Nothing here is a benchmark to quote by itself: the machine, its versions and the commit stand in the file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from .gpu_steps import STEPS, NotRun, Settings, absence, machine
from .residual import resnet50

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
LONGEST = 540  # seconds a step; what takes longer hangs
PASSED, FAILED, NOT_RUN = "passed", "FAILED", "not run"


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the steps.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line; that of the process where it is absent.

    Returns
    -------
    int
        1 where a step failed, else 0.
    """
    options = _parser().parse_args(arguments)
    if options.child is not None:
        _write(options.out, _outcome(options.child, Settings(options.model, options.quick)))
        return 0
    names = options.only or list(STEPS)
    why = absence(needs_provider=False)
    found = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {"steps": {}}
    found |= {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="camrt-gpu-") as scratch:
        model = options.model
        if model is None and not why:
            model = Path(scratch) / "resnet50.onnx"
            model.write_bytes(resnet50())
        for name in names:
            outcome = {"verdict": NOT_RUN, "says": why} if why else _alone(name, model, options, Path(scratch))
            found["steps"][name] = outcome
            _write(options.out, found)
            sys.stdout.write(f"{outcome['verdict']:8} {name}: {outcome['says']}\n")
            sys.stdout.flush()
    return int(any(found["steps"][name]["verdict"] == FAILED for name in names))


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_first", description="Try everything a GPU is asked for.")
    add = parser.add_argument
    add("out", type=Path, metavar="OUT.json", help="where verdicts and figures go")
    add("--model", type=Path, metavar="FILE", help="an .onnx classifier; a ResNet-50 with random weights by default")
    add("--only", nargs="+", choices=list(STEPS), metavar="STEP", help=f"some of {', '.join(STEPS)}")
    add("--quick", action="store_true", help="fewer repetitions and batch sizes, to see that it goes")
    add("--child", choices=list(STEPS), help=argparse.SUPPRESS)
    return parser


def _alone(name: str, model: Path, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run a step in a process of its own and return its outcome, whatever becomes of the process."""
    file = scratch / f"{name}.json"
    command = [sys.executable, "-m", "bench.gpu_first", str(file), "--child", name, "--model", str(model.resolve())]
    start = perf_counter()
    try:
        ended = subprocess.run(
            command + ["--quick"] * options.quick,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        says = f"the process ended with {ended.returncode}: {ended.stderr.strip()[-2000:]}"
    except subprocess.TimeoutExpired:
        says = f"it was stopped after {LONGEST} s"
    outcome = json.loads(file.read_text("utf-8")) if file.exists() else {"verdict": FAILED, "says": says}
    return {**outcome, "seconds": round(perf_counter() - start, 1)}


def _outcome(name: str, settings: Settings) -> dict[str, Any]:
    """Run a step in this process."""
    step = STEPS[name]
    try:
        if why := absence(needs_provider=step.needs_provider):
            raise NotRun(why)
        says, figures = step.run(settings)
    except NotRun as reason:
        return {"verdict": NOT_RUN, "says": str(reason)}
    except Exception as problem:  # noqa: BLE001 - whatever it is, the next step is to be run
        says = " ".join(f"{type(problem).__name__}: {problem}".split())[:500]
        return {"verdict": FAILED, "says": says, "traceback": traceback.format_exc()}
    return {"verdict": PASSED, "says": says, "figures": figures}


def _write(file: Path, value: Any) -> None:
    """Write JSON."""
    file.write_text(json.dumps(value, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
