"""
The suite ``evaluation``: whether an evaluation's memory and pace stay what they are over thousands of pictures.

In: a number of pictures, drawn by the demo's script and written as PNG. Out: megabytes that a process of its own grew by
over the last nine tenths of them, how far the pace drifts, and the slowest and fastest tenth against the median one. The
floor is a plain session of the same model that runs a few forwards after every batch: a tenth's time is given in such
forwards, so that a machine that is slow for some seconds slows both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from .contest import spread
from .report import Goal, Row

__all__ = ["PICTURES", "run"]

PICTURES, QUICK = 5000, 300
TENTHS = 10
GROWTH, PACE = Goal(50.0, most=True), Goal(0.05, most=True)
METHODS = ("gradcam",)
FORWARDS, ROWS = 8, 4  # of the floor, after every report of progress
METRICS = ("average_drop", "average_gain", "adcc", "insertion,steps=4", "deletion,steps=4")


def run(folder: Path, pictures: int, *, verbose: bool = False) -> list[Row]:
    """
    Evaluate synthetic pictures in a process of its own.

    Parameters
    ----------
    folder : Path
        Where pictures and rows are written.
    pictures : int
        How many.
    verbose : bool
        Show what the process writes.

    Returns
    -------
    list of Row
        Growth in MB, and how far tenths depart from the median one.
    """
    sys.stderr.write(f"evaluation: {pictures} pictures, {len(METHODS)} method\n")
    asked = json.dumps({"folder": str(folder / "evaluation"), "pictures": pictures})
    done = subprocess.run(
        [sys.executable, "-m", "bench.evaluation", asked],
        stdout=subprocess.PIPE,
        stderr=None if verbose else subprocess.DEVNULL,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    memory, forwards = told["memory"], told["forwards"]
    seconds = [tenth - floor for tenth, floor in zip(told["seconds"], told["floor"], strict=True)]
    paces = [second / floor * runs for second, floor, runs in zip(seconds, told["floor"], forwards, strict=True)]
    made = partial(Row, "evaluation", "demo", None)
    middle, drift = median(paces[1:]), median(paces[-3:]) / median(paces[1:4])  # the first tenth opens sessions
    return [
        made("  pictures", "/s", spread([pictures / TENTHS / second for second in seconds[1:]])),
        made(f"  a tenth, in bare forwards of {ROWS}", "", spread(paces[1:])),
        made("last three tenths against the second to fourth", "share", spread([abs(drift - 1)]), PACE),
        made("slowest tenth above the median one", "share", spread([max(paces[1:]) / middle - 1]), PACE),
        made("fastest tenth below the median one", "share", spread([1 - min(paces[1:]) / middle]), PACE),
        made("  resident after each tenth", "MB", spread(memory)),
        made(f"growth over the last nine tenths of {pictures}", "MB", spread([memory[-1] - memory[0]]), GROWTH),
    ]


def measure(folder: Path, pictures: int) -> dict[str, list[float]]:
    """
    Write pictures, evaluate them, and watch.

    Parameters
    ----------
    folder : Path
        Where to.
    pictures : int
        How many.

    Returns
    -------
    dict of str to list of float
        Of each tenth: seconds, those of the floor's forwards among them, how many these were; resident megabytes after it.
    """
    import numpy as np
    import onnxruntime
    from PIL import Image

    import camrt
    from camrt.demo import CLASSES, MODEL, draw

    folder.mkdir(parents=True)
    lines = ["file,label"]
    for i in range(pictures):
        Image.fromarray(draw(i, [i % len(CLASSES)]).image).save(folder / f"{i:05d}.png", compress_level=1)
        lines.append(f"{i:05d}.png,{i % len(CLASSES)}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    explainer = camrt.load(MODEL)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # it would take the cores from the evaluation
    bare = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
    feeds = {bare.get_inputs()[0].name: np.zeros((ROWS, *explainer.preprocess.shape), np.float32)}
    spent, runs = 0.0, 0
    marks = [(time.perf_counter(), spent, runs, 0.0)]

    def progress(done: int, total: int) -> None:
        nonlocal spent, runs
        start = time.perf_counter()
        for _ in range(FORWARDS):
            bare.run(None, feeds)
        spent, runs = spent + time.perf_counter() - start, runs + FORWARDS
        if done * TENTHS >= total * len(marks):
            marks.append((time.perf_counter(), spent, runs, _resident()))

    camrt.evaluate(explainer, folder / "list.csv", METHODS, METRICS, out=folder / "out", progress=progress)
    seconds, floor, forwards = (
        [float(after[i] - before[i]) for before, after in pairwise(marks)][:TENTHS] for i in range(3)
    )
    memory = [mark[3] for mark in marks[1 : TENTHS + 1]]
    return {"seconds": seconds, "floor": floor, "forwards": forwards, "memory": memory}


def _resident() -> float:
    """Return the megabytes this process holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1]) / 1024
    raise OSError("/proc/self/status says nothing of VmRSS")


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(measure(Path(given["folder"]), given["pictures"])))
