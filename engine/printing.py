"""
What commands show: progress and notes on stderr, tables and one JSON object on stdout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from .explanation import Explanation

__all__ = [
    "errors_to",
    "print_agreement",
    "print_inspection",
    "print_json",
    "print_summary",
    "progress_bar",
    "summarise",
]

SHOWN = 32  # lines of a summary
RULE_WORDS = {"gradient": "yes", "no flow": "none flows", "none": "no rule"}


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """Write the rate of late; nothing before there is one."""
        return Text("" if not task.speed else f"{task.speed:.3g}/s")


def errors_to() -> Console:
    """Return the console notes and progress go to."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(title: str, total: int, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Show progress on stderr while a command runs; yields a function that advances it."""
    if quiet or not sys.stderr.isatty():
        yield lambda steps: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=errors_to(), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda steps: progress.advance(task, steps)


def print_json(data: Any) -> None:
    """Put one JSON object on stdout."""
    typer.echo(json.dumps(data, indent=1, default=str))


def summarise(result: Explanation, sources: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row an image and target."""
    probabilities = result.probabilities
    return [
        {
            "image": source,
            "target": int(result.targets[i, t]),
            "label": result.labels[i][t],
            "probability": float(probabilities[i, t]),
            "value": float(result.values[i, t]),
            "degenerate": bool(result.degenerate[i, t]),
            **{name: flag[i, t].item() for name, flag in result.flags.items()},
        }
        for i, source in enumerate(sources)
        for t in range(result.targets.shape[1])
    ]


def print_summary(rows: Sequence[dict[str, Any]], quiet: bool) -> None:
    """Show what was explained, on stderr."""
    if quiet:
        return
    table = Table("image", "target", "label", "probability", "note", box=None)
    for row in rows[:SHOWN]:
        notes = ["constant map"] * row["degenerate"]
        if not row.get("complete", True):
            notes.append(f"{row['forwards']} masked forwards, not all")
        table.add_row(
            Path(row["image"]).name, str(row["target"]), row["label"], f"{row['probability']:.3f}", ", ".join(notes)
        )
    errors_to().print(table)


def print_agreement(figures: dict[str, Any]) -> None:
    """Show on stdout how far two ways of running a model agree, one line a method."""
    console = Console(highlight=False, soft_wrap=True, width=110)  # eleven columns
    first, second = figures["ways"]
    names = list(figures["summary"][0]["mean"])
    table = Table("method", "maps", "same class", *names, box=None)
    for row in figures["summary"]:
        counts = (str(row["maps"]), str(row["same_class"]))
        table.add_row(row["method"], *counts, *(f"{row['mean'][name]:.4f}" for name in names))
        table.add_row("  worst", "", "", *(f"{row['worst'][name]:.4f}" for name in names))
    console.print(table)
    console.print(f"{first} against {second}; insertion and deletion: {second} less {first}, judged by {first}")


def print_inspection(described: dict[str, Any]) -> None:
    """Show a model on stdout as short tables."""
    console = Console(highlight=False, soft_wrap=True)
    model, given = described["model"], described["input"]
    console.print(f"{model['name']}  opset {model['opset']}  {model['producer']}  sha256 {model['sha256'][:12]}")
    batch = "any batch" if described["batch"] is None else f"batch {described['batch']} only"
    console.print(
        f"input {given['name']} {given['shape']} {given['dtype']}, {batch}; {described['classes']} classes, head {described['head']}"
    )
    if model.get("precision", "float32") != "float32":
        console.print(f"the model holds {model['precision']}; programs run its float32 twin, with the same weights")
    if model.get("quantised"):
        console.print(_twin_words(model["quantised"], described["twin"]))
    for name, value in given.get("held", {}).items():
        console.print(f"input {name} is held at {value}")
    console.print(f"preprocessing {described['preprocess']['name']}: {described['preprocess']['reason']}")
    names = (Column(name, overflow="fold") for name in ("layer", "module", "operator"))
    table = Table("", *names, "K", "grid", "why", box=None)
    for layer in described["layers"]:
        mark = "*" if layer["default"] else ""
        grid = f"{layer['grid'][0]}x{layer['grid'][1]}"
        table.add_row(mark, layer["name"], layer["module"], layer["op"], str(layer["channels"]), grid, layer["reason"])
    console.print(table)
    console.print(f"{len(described['layers'])} of {described['layers_in_all']} layers; --all shows every one")
    if described["linear_layers"]:
        console.print(f"GAP + linear head: cam works at {', '.join(described['linear_layers'])}")
    if described["tokens"] is not None:
        console.print(f"tokens at the default layer: {described['tokens']['said']}")
    rows, space = described["masked"]["rows"], _short(described["masked"]["bytes"], "B")
    console.print(f"masked forwards: {rows} a run, which take at most {space} on top of the opened model")
    if "operators" in described:
        console.print(f"attention: {described['attention']['said']}")
        print_operators(console, described["operators"])
        print_work(console, described["work"], described["methods"])


def _twin_words(operators: dict[str, int], twin: dict[str, Any] | None) -> str:
    """Say that a model is quantised, and how well its float twin agrees with it."""
    said = f"quantised ({', '.join(f'{op} {n}' for op, n in operators.items())}): logits are its own, gradients its float twin's"
    if twin is None:
        return said
    figures = [(f"behind {twin['layer']}", twin), ("computed anew from the first layer", twin["whole"])]
    return "\n".join(
        [said]
        + [
            f"the twin's logits {where} differ by {row['mean_rel']:.2%} of their spread, at most {row['max_rel']:.2%}; "
            f"top-1 agrees on {row['top1']:.0%} of {row['images']} noise inputs"
            for where, row in figures
        ]
    )


def print_operators(console: Console, operators: dict[str, Any]) -> None:
    """Show operators with their rules, and what stands in a gradient's way."""
    table = Table("operator", "count", "behind the layer", "gradient", box=None)
    for op, entry in operators.items():
        table.add_row(op, str(entry["count"]), str(entry["behind"]), RULE_WORDS[entry["rule"]])
    console.print(table)
    lacking = {op: entry["behind"] for op, entry in operators.items() if entry["rule"] == "none"}
    console.print(f"without a gradient rule: {', '.join(lacking) or 'none'}")
    if any(lacking.values()):
        console.print("some of those lie behind the default layer: gradient methods need a later layer")


def print_work(console: Console, work: dict[str, Any], methods: dict[str, Any]) -> None:
    """Show what one image costs, and what each method makes of it."""
    console.print(
        f"one image: {_short(work['forward'])} multiply-adds, {_short(work['tail'])} of them behind the layer; "
        f"{_short(work['weights_bytes'], 'B')} of weights, tensors of at most {_short(work['peak_bytes'], 'B')} at a time"
    )
    if work["uncounted"]:
        console.print(f"not in these figures: {', '.join(work['uncounted'])}")
    table = Table("method", "cost", "multiply-adds", "forwards' worth", "memory", box=None)
    for name, entry in methods.items():
        worth = "" if entry["relative"] is None else f"{entry['relative']:.2f}"
        table.add_row(name, entry["cost"], _short(entry["multiply_adds"]), worth, f"{_short(entry['bytes'], 'B')}")
    console.print(table)
    console.print(
        "cost: F forward, T tail, b gradient to the layer, B gradient to the image; memory: tensors of one image"
    )


def _short(number: float, unit: str = "") -> str:
    """Write a number with three digits, a prefix and a unit."""
    for prefix in ("", "k", "M", "G"):
        if number < 1000 or prefix == "G":
            break
        number /= 1000
    return f"{number:.3g} {prefix}{unit}".rstrip()
