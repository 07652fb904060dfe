"""
What every figure of the suite ``serve`` needs: a repository with two versions of a model, requests, load and rows.

In: a classifier. Out: a `Stage`. The second version has slightly other weights, so that its heatmaps can be told from
the first's.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import camrt
import camrt.export
from camrt.methods import resolve
from camrt.server.asks import Wish
from camrt.server.pricing import work_of

from . import pictures
from .contest import spread
from .report import Goal, Row
from .serve_outcomes import Outcome, counted, goodput
from .serve_process import Server
from .serve_requests import encoded, picture_request, tensor_request
from .wire import Worker, WorkerError

__all__ = ["CLIENTS", "METHOD", "Load", "Stage", "changed", "make_stage", "say"]

CLIENTS = 16
METHOD = "gradcam"
CHANGE = 0.05  # of each weight, at random: other heatmaps, and still a network that says something


@dataclass(frozen=True)
class Load:
    """What a load generator saw: its requests, the processor seconds it took itself, and how long it lasted."""

    outcomes: Sequence[Outcome]
    cpu: float
    seconds: float

    @property
    def throughput(self) -> float:
        """Right answers a second."""
        return goodput(self.outcomes, self.seconds)

    @property
    def failed(self) -> int:
        """How many requests were not answered as they should be."""
        return len(self.outcomes) - counted(self.outcomes)["answered"]


@dataclass(frozen=True)
class Stage:
    """
    Where the figures are measured.

    Attributes
    ----------
    folder : Path
        For requests and bundles.
    model : str
        Its name in the repository, which is ``folder / "repository"`` and holds version 1.
    x : ndarray of float32, shape (`CLIENTS`, ...)
        Prepared inputs.
    load : Worker
        `bench.serve_load`.
    rounds : int
        Turns each contender takes.
    seconds : float
        How long a figure's load lasts; None for the length that belongs to it.
    verbose : bool
        Let the processes write to standard error.
    forwards : float
        What one request costs, in forwards of the model.
    """

    folder: Path
    model: str
    x: npt.NDArray[np.float32]
    load: Worker
    rounds: int
    seconds: float | None = None
    verbose: bool = False
    forwards: float = 1.0

    @property
    def repository(self) -> Path:
        """The folder that is served."""
        return self.folder / "repository"

    def bundle(self, version: int) -> Path:
        """
        Return one of the two bundles.

        Parameters
        ----------
        version : int
            1 or 2; the second lies beside the repository.

        Returns
        -------
        Path
            A folder.
        """
        return self.repository / self.model / "1" if version == 1 else self.folder / "second.bundle"

    def lasting(self, usual: float) -> float:
        """
        Say how long a load lasts.

        Parameters
        ----------
        usual : float
            Seconds, unless others were asked for.

        Returns
        -------
        float
            Seconds.
        """
        return usual if self.seconds is None else self.seconds

    def server(self, **settings: object) -> Server:
        """
        Make a server of the repository; it starts when it is entered.

        Parameters
        ----------
        **settings : object
            By name.

        Returns
        -------
        Server
            A context manager.
        """
        return Server(self.repository, verbose=self.verbose, **settings)

    def tensors(self, server: Server) -> list[str]:
        """
        Write requests of prepared inputs, one a client.

        Parameters
        ----------
        server : Server
            Whom they go to.

        Returns
        -------
        list of str
            Files.
        """
        return self._write(
            "tensor", [tensor_request(server.address, self.model, one[None], method=METHOD) for one in self.x]
        )

    def pictures(self, server: Server, count: int = CLIENTS) -> list[str]:
        """
        Write requests of encoded pictures.

        Parameters
        ----------
        server : Server
            Whom they go to.
        count : int
            How many.

        Returns
        -------
        list of str
            Files.
        """
        files = [picture_request(server.address, self.model, encoded(one), method=METHOD) for one in self.x[:count]]
        return self._write("picture", files)

    def _write(self, name: str, requests: Sequence[bytes]) -> list[str]:
        """Write requests to files."""
        files = [self.folder / f"{name}-{i}.http" for i in range(len(requests))]
        for file, request in zip(files, requests, strict=True):
            file.write_bytes(request)
        return [str(file) for file in files]

    def closed(self, server: Server, requests: Sequence[str], clients: int, seconds: float, **more: object) -> Load:
        """
        Let clients ask again and again; `bench.serve_load.closed`.

        Parameters
        ----------
        server : Server
            Whom to ask.
        requests : sequence of str
            Files.
        clients : int
            How many.
        seconds : float
            How long.
        **more : object
            ``keep``.

        Returns
        -------
        Load
            What was seen.
        """
        asked = {"address": server.address, "requests": requests, "clients": clients, "seconds": seconds, **more}
        return _load(self.load.ask("closed", asked))

    def open(self, server: Server, requests: Sequence[str], rate: float, seconds: float, **more: object) -> Load:
        """
        Send requests when they are due; `bench.serve_load.open_loop`.

        Parameters
        ----------
        server, requests, seconds
            As in `closed`.
        rate : float
            Requests a second.
        **more : object
            ``seed`` and ``expected``.

        Returns
        -------
        Load
            What was seen.
        """
        asked = {"address": server.address, "requests": requests, "rate": rate, "seconds": seconds, **more}
        return _load(self.load.ask("open", asked))

    def peak(self, server: Server, requests: Sequence[str], seconds: float) -> float:
        """
        Measure what a server can do at most: `CLIENTS` clients in a closed loop, after a short one to warm up.

        Parameters
        ----------
        server, requests, seconds
            As in `closed`.

        Returns
        -------
        float
            Right answers a second.

        Raises
        ------
        WorkerError
            If a request fails.
        """
        self.closed(server, requests, CLIENTS, seconds / 4)
        load = self.closed(server, requests, CLIENTS, seconds)
        if load.failed:
            raise WorkerError(f"a server without any overload failed: {counted(load.outcomes)}")
        return load.throughput

    def row(self, figure: str, unit: str, values: Sequence[float] | float, goal: Goal | None = None) -> Row:
        """
        Make a row.

        Parameters
        ----------
        figure, unit, goal
            As in `Row`.
        values : float or sequence of float
            One, or one a round.

        Returns
        -------
        Row
            Of this suite and model.
        """
        return Row("serve", self.model, None, figure, unit, spread([values] if isinstance(values, float) else values), goal)  # fmt: skip


def make_stage(
    folder: Path, onnx: Path, load: Worker, rounds: int, *, seconds: float | None = None, verbose: bool = False
) -> Stage:
    """
    Export a model in two versions and draw inputs.

    Parameters
    ----------
    folder : Path
        Where everything goes.
    onnx : Path
        A classifier of one float picture of a known size.
    load : Worker
        The load generator.
    rounds : int
        Turns.
    seconds : float, optional
        How long a load lasts.
    verbose : bool
        Let the processes write to standard error.

    Returns
    -------
    Stage
        Ready.
    """
    shape: Any = pictures.input_shape(onnx)["shape"]
    x = pictures.batch((CLIENTS, *shape))
    stage = Stage(folder, onnx.stem, x, load, rounds, seconds, verbose)
    shutil.rmtree(stage.repository, ignore_errors=True)
    stage.bundle(1).parent.mkdir(parents=True)
    say(f"{onnx.stem}: exporting two versions")
    camrt.export.export(onnx, stage.bundle(1))
    other = folder / "second.onnx"
    changed(onnx, other)
    camrt.export.export(other, stage.bundle(2), overwrite=True)
    work = work_of(camrt.load(stage.bundle(1)), Wish(METHOD, resolve(METHOD).variants[0]))
    return replace(stage, forwards=work)


def changed(onnx: Path, out: Path, seed: int = 0) -> None:
    """
    Write a model whose weights are a little other.

    Parameters
    ----------
    onnx, out : Path
        The model, and where the changed one goes.
    seed : int
        Of the change.
    """
    import onnx as library

    rng = np.random.default_rng(seed)
    model = library.load(str(onnx))
    for tensor in model.graph.initializer:
        array = library.numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim > 1:
            noisy = array * (1 + CHANGE * rng.standard_normal(array.shape, np.float32))
            tensor.CopyFrom(library.numpy_helper.from_array(noisy.astype(np.float32), tensor.name))
    library.save(model, str(out))


def say(text: str) -> None:
    """
    Tell on standard error what goes on.

    Parameters
    ----------
    text : str
        One line.
    """
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def _load(told: dict[str, Any]) -> Load:
    """Read what the load generator told."""
    return Load([Outcome(*one) for one in told["outcomes"]], told["cpu"], told["seconds"])
