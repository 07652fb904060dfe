"""
The suite ``serve``: the server as its clients see it, over loopback.

In: a classifier. Out: rows. Figures are a table: each by its name, and each can be measured alone. Server, clients and,
where it is compared, the in-process engine are processes of their own, and share the machine's cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import serve_speed, serve_strain
from .report import Row
from .serve_stage import Stage, make_stage
from .wire import Worker

__all__ = ["FIGURES", "MODEL", "run"]

MODEL = "mobilenet_v2"  # quick, so that what the server adds is seen best

FIGURES: Mapping[str, Callable[[Stage], list[Row]]] = {
    "overhead": serve_speed.overhead,
    "batching": serve_speed.batching,
    "latency": serve_speed.fixed_latency,
    "start": serve_speed.start,
    "overload": serve_strain.overload,
    "reload": serve_strain.reload,
    "disconnects": serve_strain.disconnects,
    "soak": serve_strain.soak,
}


def run(
    folder: Path, onnx: Path, names: Sequence[str], rounds: int, *, seconds: float | None = None, verbose: bool = False
) -> list[Row]:
    """
    Measure a server of one model.

    Parameters
    ----------
    folder : Path
        Where bundles and requests go.
    onnx : Path
        A classifier of one float picture of a known size.
    names : sequence of str
        Of `FIGURES`; all of them where empty.
    rounds : int
        Turns of each contender, where there are several.
    seconds : float, optional
        How long each load lasts, in place of the figure's own length.
    verbose : bool
        Show what the processes write.

    Returns
    -------
    list of Row
        The figures.

    Raises
    ------
    WorkerError
        If the server or a worker fails.
    """
    place = folder / "serve"
    place.mkdir(parents=True, exist_ok=True)
    with Worker("the load generator", sys.executable, "serve_load", quiet=not verbose) as load:
        stage = make_stage(place, onnx, load, rounds, seconds=seconds, verbose=verbose)
        return [row for name in names or FIGURES for row in FIGURES[name](stage)]
