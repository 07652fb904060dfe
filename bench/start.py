"""
The suite ``start``: what a fresh process waits for.

In: a model. Out: rows: `import camrt` beside an empty interpreter, and the way from nothing to the first heatmap of a
prepared bundle.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

import camrt.export

from . import pictures
from .contest import contest, spread
from .report import Goal, Row
from .wire import WorkerError

__all__ = ["run"]

IMPORT = """
from time import perf_counter
start = perf_counter()
import camrt
import sys
print(perf_counter() - start, "onnxruntime" in sys.modules)
"""
FIRST_MAP = """
import json, sys
from time import perf_counter
marks = [perf_counter()]
import camrt
explainer = camrt.load(sys.argv[1])
marks.append(perf_counter())
import numpy
x = numpy.load(sys.argv[2])
explainer.explain(x)
marks.append(perf_counter())
explainer.explain(x)
marks.append(perf_counter())
foreign = [name for name in ("onnx", "onnx_ir", "torch") if name in sys.modules]
print(json.dumps({"load": marks[1] - marks[0], "first": marks[2] - marks[1], "next": marks[3] - marks[2], "foreign": foreign}))
"""


def run(folder: Path, onnx: Path, rounds: int) -> list[Row]:
    """
    Start fresh processes in turn.

    Parameters
    ----------
    folder : Path
        Where the bundle and the input go; the processes run there, away from the sources.
    onnx : Path
        A classifier.
    rounds : int
        How often each is started.

    Returns
    -------
    list of Row
        Milliseconds.

    Raises
    ------
    WorkerError
        If a process fails, `import camrt` loads ONNX Runtime, or a bundle needs onnx or torch.
    """
    bundle, file = folder / f"{onnx.stem}.bundle", folder / "first.npy"
    camrt.export.export(onnx, bundle, overwrite=True)
    shape = pictures.input_shape(onnx)["shape"]
    assert isinstance(shape, list)
    np.save(file, pictures.batch((1, *shape)))
    imports: list[float] = []
    steps: dict[str, list[float]] = {"load": [], "first": [], "next": []}

    def python(code: str, *arguments: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorkerError(f"a fresh process failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return done.stdout

    def importing() -> float:
        start = perf_counter()
        seconds, runtime = python(IMPORT).split()
        whole = perf_counter() - start
        if runtime == "True":
            raise WorkerError("import camrt loads onnxruntime, which should wait for the first session")
        imports.append(float(seconds))
        return whole

    def explaining() -> float:
        start = perf_counter()
        found = json.loads(python(FIRST_MAP, str(bundle), str(file)))
        whole = perf_counter() - start
        if found["foreign"]:
            raise WorkerError(f"an explanation from a bundle imports {', '.join(found['foreign'])}")
        for name, seconds in steps.items():
            seconds.append(found[name])
        return whole

    turns: dict[str, Callable[[], float]] = {
        "empty": partial(_timed, partial(python, "pass")),
        "import": importing,
        "bundle": explaining,
    }
    contest(turns, 1)  # the file cache is warm from here on
    imports.clear()
    for seconds in steps.values():
        seconds.clear()
    times = contest(turns, rounds)
    named = {
        "python -c pass, the whole process": times["empty"],
        'python -c "import camrt", the whole process': times["import"],
        "bundle to first heatmap, the whole process": times["bundle"],
        "  import and load": steps["load"],
        "  first explanation": steps["first"],
        "  next explanation": steps["next"],
    }
    goal = Goal(150.0, most=True)
    rows = [Row("start", "", None, "import camrt", "ms", spread([1e3 * s for s in imports]), goal)]
    return rows + [
        Row("start", onnx.stem, None, what, "ms", spread([1e3 * s for s in found])) for what, found in named.items()
    ]


def _timed(call: partial[str]) -> float:
    """Return the seconds of one call."""
    start = perf_counter()
    call()
    return perf_counter() - start
