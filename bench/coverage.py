"""
The suite ``coverage``: which real models camrt explains, and how right their gradients are.

In: origins of models. Out: one record a model, appended to a file of JSON lines as soon as it is known, so that a run
that was cut short goes on where it stopped. `bench.coverage_trial` tries one model.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .coverage_cases import Case, of_names
from .coverage_trial import Trial, attempt
from .wire import Worker

__all__ = ["Settings", "forget", "load_records", "run"]


@dataclass(frozen=True)
class Settings:
    """
    What to try.

    Attributes
    ----------
    origins : sequence of str
        Keys of `bench.coverage_cases.ORIGINS`.
    peers : str
        The interpreter that has torch, torchvision and timm; empty where no origin needs it.
    results : Path
        The file of JSON lines.
    only : sequence of str
        Names to try, whether there is a record of them or not; all without a record when empty.
    files : Path or None
        The folder of ``.onnx`` files for the origin ``files``.
    folder : Path or None
        Where to keep what is exported and what autograd says, which is then not made again; None to keep nothing.
    verbose : bool
        Let the workers write to standard error.
    """

    origins: Sequence[str]
    peers: str
    results: Path
    only: Sequence[str] = field(default=())
    files: Path | None = None
    folder: Path | None = None
    verbose: bool = False


def run(settings: Settings) -> list[dict[str, Any]]:
    """
    Try every case that has no record yet.

    Parameters
    ----------
    settings : Settings
        What to try.

    Returns
    -------
    list of dict
        The last record of each model, old ones included.
    """
    known = load_records(settings.results)
    for origin in settings.origins:
        for case in _cases(settings, origin):
            if case.name not in settings.only if settings.only else case.key in known:
                continue
            record = _try(settings, case)
            known[case.key] = record
            with settings.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            sys.stderr.write(f"  {case.key}: {record['status']} {record.get('reason', '')}\n")
            sys.stderr.flush()
    return [record for record in known.values() if record["origin"] in settings.origins]


def load_records(file: Path) -> dict[str, dict[str, Any]]:
    """
    Read what is known already.

    Parameters
    ----------
    file : Path
        JSON lines; a later record of a model replaces an earlier one.

    Returns
    -------
    dict
        Records by ``origin/name``; empty where there is no file.
    """
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    records = [json.loads(line) for line in lines if line.strip()]
    return {f"{record['origin']}/{record['name']}": record for record in records}


def forget(file: Path, origins: Sequence[str]) -> None:
    """
    Drop the records of some origins.

    Parameters
    ----------
    file : Path
        JSON lines; nothing happens where there is none.
    origins : sequence of str
        Whose records go.
    """
    kept = [record for record in load_records(file).values() if record["origin"] not in origins]
    if file.exists():
        file.write_text("".join(json.dumps(record) + "\n" for record in kept), "utf-8")


def _cases(settings: Settings, origin: str) -> list[Case]:
    """List the cases of an origin."""
    names: list[str] = []
    if origin == "torchvision":
        with Worker("torch", settings.peers, "coverage_torch", quiet=not settings.verbose) as source:
            names = source.ask("names")
    elif origin == "files" and settings.files is not None:
        names = sorted(path.stem for path in settings.files.glob("*.onnx"))
    return of_names(origin, names)


def _try(settings: Settings, case: Case) -> dict[str, Any]:
    """Try one model in a folder of its own."""
    interpreter = settings.peers if case.exporter else sys.executable
    file = None if settings.files is None else (settings.files / f"{case.name}.onnx").resolve()
    with tempfile.TemporaryDirectory(prefix="camrt-coverage-") as scratch:
        folder = Path(scratch) if settings.folder is None else settings.folder.resolve() / case.origin / case.name
        folder.mkdir(parents=True, exist_ok=True)
        return attempt(Trial(case, folder, interpreter, file, quiet=not settings.verbose))
