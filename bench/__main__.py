"""
The one entry point: ``python -m bench [gradient] [backward] [masked] [metrics] [evaluation] [explained] [threads] [memory] [start] [serve]``, and ``python -m bench coverage``.

In: options. Out: a table on standard output, JSON where asked for; progress on standard error. Exit code 1 if libraries
disagree or one fails, 2 for a wrong option; a missed goal is a figure, not a failure. ``coverage`` takes hours and measures
no time: it runs alone, and only when it is named.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import backward, coverage, coverage_report, evaluation, explained, masked, metrics
from .coverage_cases import ORIGINS
from .gradient import FAMILY, MODELS, SIDE, Settings, run, run_given, write_images
from .machine import facts, physical_cores
from .report import Agreement, Row, agreements, load_rows, markdown, plain, table
from .wire import WorkerError

SUITES = ("gradient", "backward", "masked", "metrics", "evaluation", "explained", "threads", "memory", "start", "serve")
COVERAGE = "coverage"
ROUNDS, QUICK = 15, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line, measure, and report."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        if options.readme is not None and options.readme.suffix == ".jsonl":
            records = list(coverage.load_records(options.readme).values())
            sys.stdout.write(coverage_report.markdown(records) + "\n")
            return 0
        if options.readme is not None:
            data = json.loads(options.readme.read_text("utf-8"))
            sys.stdout.write(markdown(data["machine"], load_rows(data)) + "\n")
            return 0
        unknown = [name for name in options.suites if name not in (*SUITES, COVERAGE)]
        if unknown:
            parser.error(f"no suite is called {unknown[0]!r}; choose from {', '.join((*SUITES, COVERAGE))}")
        if COVERAGE in options.suites:
            return _cover(options, parser)
        return _measure(options, parser)
    except (OSError, ValueError, KeyError, TypeError, WorkerError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure camrt beside the bare forward and its peers, as ratios within one run.",
    )
    add = parser.add_argument
    add(
        "suites", nargs="*", metavar="SUITE", help=f"any of {', '.join(SUITES)} (all of them by default), or {COVERAGE}"
    )
    add(
        "--peers",
        type=Path,
        metavar="FOLDER",
        help="the environment that bench/make_peers.py made; for suites that compare with peers",
    )
    add("--model", type=Path, metavar="FILE", help="an .onnx of your own: gradient then goes without peers")
    add("--models", nargs="+", default=list(MODELS), choices=MODELS, help="torchvision architectures for gradient")
    add("--methods", nargs="+", default=list(FAMILY), choices=FAMILY, help="methods for gradient")
    add("--batches", nargs="+", type=int, default=[1, 16], metavar="N", help="images a call for gradient (1 16)")
    add("--rounds", type=int, metavar="N", help=f"turns of each contender ({ROUNDS})")
    add("--sittings", type=int, default=1, metavar="N", help="start every process of gradient anew N times (1)")
    add(
        "--seconds",
        type=float,
        metavar="S",
        help="how long each load of serve lasts, in place of the figure's own length",
    )
    add("--threads", type=int, metavar="N", help="threads within a call, for all libraries (the physical cores)")
    add(
        "--quick",
        action="store_true",
        help=f"{QUICK} rounds and a tenth of the calls; figures to look at, not to quote",
    )
    add("--json", type=Path, metavar="FILE", help="write figures and facts about the machine")
    add(
        "--readme",
        type=Path,
        metavar="FILE",
        help="print the markdown table of a run kept with --json, or of coverage's .jsonl, and stop",
    )
    add("--folder", type=Path, metavar="FOLDER", help="keep exported models there; a temporary folder by default")
    cover = parser.add_argument_group(COVERAGE)
    add = cover.add_argument
    add("--origins", nargs="+", default=list(ORIGINS), choices=ORIGINS, help="where models come from; all by default")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="try these again, whether there is a record or not; with serve: figures to measure",
    )
    add("--files", type=Path, metavar="FOLDER", help="the .onnx files of the origin files")
    add("--results", type=Path, metavar="FILE.jsonl", help="records, one a line; a run goes on where it stopped")
    add("--fresh", action="store_true", help="forget the records of these origins first")
    add = parser.add_argument
    add("--verbose", action="store_true", help="show what the libraries write")
    return parser


def _cover(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run the suite coverage and report."""
    if len(options.suites) > 1:
        parser.error(f"{COVERAGE} runs alone: give the other suites to a run of their own")
    if options.results is None or options.results.suffix != ".jsonl":
        parser.error(f"{COVERAGE} writes its records to a file: give --results FILE.jsonl")
    needs_peers = [name for name in options.origins if name not in ("light", "files")]
    if needs_peers and options.peers is None:
        parser.error(
            f"{needs_peers[0]} needs torch and its models: run `python bench/make_peers.py FOLDER` once and give "
            "--peers FOLDER, or choose --origins light files"
        )
    if "files" in options.origins and (options.files is None or not options.files.is_dir()):
        parser.error("the origin files needs --files FOLDER, which holds .onnx files")
    peers = _interpreter(options.peers) if needs_peers else ""
    settings = coverage.Settings(
        options.origins, peers, options.results, options.only, options.files, options.folder, options.verbose
    )
    if options.fresh:
        coverage.forget(settings.results, settings.origins)
    sys.stdout.write(coverage_report.table(coverage.run(settings)) + "\n")
    return 0


def _measure(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run the suites and report."""
    suites = list(dict.fromkeys(options.suites)) or list(SUITES)
    rounds = (QUICK if options.quick else ROUNDS) if options.rounds is None else options.rounds
    if min(rounds, options.sittings, *options.batches) < 1 or (options.threads is not None and options.threads < 1):
        parser.error("rounds, sittings, batches and threads are at least 1")
    eager = [name for name in ("backward", "masked", "metrics") if name in options.suites]
    if eager and options.peers is None:
        parser.error(
            f"{eager[0]} compares with eager PyTorch: run `python bench/make_peers.py FOLDER` once and give --peers FOLDER"
        )
    if {"gradient", "explained", "serve"} & set(suites) and options.model is None and options.peers is None:
        parser.error(
            "gradient compares with the peers, explained and serve take their models: run `python bench/make_peers.py FOLDER` once and give --peers FOLDER, "
            "or give --model FILE to compare a model of your own with its bare forward"
        )
    if "serve" in suites:
        from .serve import FIGURES

        unknown = [name for name in options.only if name not in FIGURES]
        if unknown:
            parser.error(f"serve has no figure {unknown[0]!r}; choose from {', '.join(FIGURES)}")
    if options.seconds is not None and options.seconds <= 0:
        parser.error("a load lasts for more than 0 seconds")
    machine = facts()
    with tempfile.TemporaryDirectory(prefix="camrt-bench-") as scratch:
        folder = Path(scratch) if options.folder is None else options.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rows, agreed = _suites(suites, options, folder, rounds, machine["versions"])
    if agreed:
        sys.stdout.write(agreements(agreed) + "\n\n")
    sys.stdout.write(table(rows) + "\n")
    if options.json is not None:
        settings = {
            "suites": suites, "rounds": rounds, "sittings": options.sittings, "quick": options.quick, "threads": options.threads,
            "model": None if options.model is None else options.model.name,
        }  # fmt: skip
        options.json.write_text(json.dumps(plain(machine, settings, rows, agreed), indent=1) + "\n", "utf-8")
    wrong = [row for row in rows if row.suite == "threads" and row.verdict == "MISSED"]
    return 1 if wrong else 0


def _suites(
    suites: Sequence[str], options: argparse.Namespace, folder: Path, rounds: int, versions: dict[str, str]
) -> tuple[list[Row], list[Agreement]]:
    """Run each suite that was asked for."""
    rows: list[Row] = []
    agreed: list[Agreement] = []
    settings = Settings(
        folder,
        options.models,
        options.methods,
        options.batches,
        rounds,
        options.threads,
        physical_cores(),
        options.verbose,
        options.sittings,
    )
    if "gradient" in suites:
        if options.model is not None:
            rows += run_given(settings, options.model)
        else:
            found, agreed = run(settings, _interpreter(options.peers))
            rows += found
        versions.update(settings.versions)
    if "backward" in suites and options.peers is not None:
        found, near = backward.run(settings, _interpreter(options.peers))
        rows, agreed = rows + found, agreed + near
        versions.update(settings.versions)
    if "masked" in suites and options.peers is not None:
        rows += masked.run(settings, _interpreter(options.peers))
        for name in masked.MODELS:
            rows += masked.growth(settings, folder / f"{name}.onnx") + masked.memory(settings, folder / f"{name}.onnx")
        versions.update(settings.versions)
    if "metrics" in suites and options.peers is not None:
        found, near = metrics.run(settings, _interpreter(options.peers))
        rows, agreed = rows + found, agreed + near
        versions.update(settings.versions)
    if "evaluation" in suites:
        count = evaluation.QUICK if options.quick else evaluation.PICTURES
        rows += evaluation.run(folder, count, verbose=options.verbose)
    if "explained" in suites:
        if options.model is not None:
            found, near = explained.run_given(settings, options.model)
        else:
            found, near = explained.run(settings, _interpreter(options.peers))
        rows, agreed = rows + found, agreed + near
    model = options.model or _embedded()
    if "threads" in suites or "memory" in suites:
        from . import sharing

        for name, suite in (("threads", sharing.threads), ("memory", sharing.memory)):
            if name in suites:
                rows += suite(folder, model, within=options.threads, quick=options.quick, verbose=options.verbose)
    if "start" in suites:
        from . import start

        rows += start.run(folder, model, rounds)
    if "serve" in suites:
        from . import serve

        onnx = options.model
        if onnx is None:
            images = write_images(folder, (max(options.batches), 3, SIDE, SIDE))
            onnx = explained.exported(settings, _interpreter(options.peers), serve.MODEL, images)
        rows += serve.run(folder, onnx, options.only, rounds, seconds=options.seconds, verbose=options.verbose)
    return rows, agreed


def _embedded() -> Path:
    """Return the model that camrt brings along."""
    from camrt.demo import MODEL

    return Path(MODEL)


def _interpreter(folder: Path) -> str:
    """Return the peers' Python."""
    for name in ("bin/python", "Scripts/python.exe"):
        if (folder / name).exists():
            return str((folder / name).absolute())
    raise WorkerError(f"{folder} holds no Python; make it with: python bench/make_peers.py {folder}")


if __name__ == "__main__":
    raise SystemExit(main())
