"""
Where and with what a figure was measured; a figure without it means little.

In: nothing. Out: plain values for the JSON.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["facts", "physical_cores"]

ROOT = Path(__file__).parents[1]


def facts() -> dict[str, Any]:
    """
    Describe this machine and this interpreter.

    Returns
    -------
    dict
        CPU, cores, load, system, versions, commit and date.
    """
    return {
        "cpu": _cpu(),
        "cores": physical_cores(),
        "logical": _allowed(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "versions": {
            "python": platform.python_version(),
            **{
                name: found
                for name in ("camrt", "numpy", "onnxruntime", "onnx", "onnx-ir")
                if (found := _version(name))
            },
        },
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def physical_cores() -> int:
    """
    Count the physical cores this process may use: ONNX Runtime's own number of threads.

    Returns
    -------
    int
        At least 1; logical cores where the system does not tell.
    """
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return _allowed()
    pairs = re.findall(r"^physical id\s*: (\d+)$.*?^core id\s*: (\d+)$", text, re.MULTILINE | re.DOTALL)
    return max(1, min(_allowed(), len(set(pairs)) or _allowed()))


def _allowed() -> int:
    """Return how many logical cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    """Return the processor's name."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    """Return an installed package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the checkout's commit, with a plus sign if files were changed since."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
