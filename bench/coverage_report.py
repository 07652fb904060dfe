"""
Records of the suite ``coverage`` as text: a table to read, markdown for the README.

In: records. Out: text. A model counts as right only if every figure is within the limits of `bench.coverage_figures`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .coverage_cases import ORIGINS
from .coverage_figures import BEST, COSINE, FLOORS, HALF_PARITY, LAYER, PARITY, SLOPE
from .report import aligned

__all__ = ["markdown", "table"]

Record = Mapping[str, Any]
HEAD = (
    "origin",
    "model",
    "opset",
    "nodes",
    "layer",
    "shape",
    "forward",
    "at layer",
    "at image",
    "best",
    "cosine",
    "slope",
    "",
)
FIGURES = ("forward", "layer_error", "image_error", "image_best", "image_cosine", "slope")


def table(records: Sequence[Record]) -> str:
    """
    Lay records out for a terminal.

    Parameters
    ----------
    records : sequence of mapping
        As `bench.coverage.run` gives them.

    Returns
    -------
    str
        One line a model under a head, and a count of each origin.
    """
    lines = [_cells(record) for record in records]
    counts = [f"{origin}: {_right(records, origin)}" for origin in ORIGINS if _of(records, origin)]
    return "\n".join([aligned([HEAD, *lines]), "", *counts])


def markdown(records: Sequence[Record]) -> str:
    """
    Lay records out for the README.

    Parameters
    ----------
    records : sequence of mapping
        As `bench.coverage.load_records` gives them.

    Returns
    -------
    str
        A table by origin with the worst figures of the models that are right, a list of the others with reasons, and the date.
    """
    lines = [
        "| models of | explained | forward | gradient at the layer | at the image, best | cosine |",
        "|---|---|---|---|---|---|",
    ]
    for origin, title in ORIGINS.items():
        if found := _of(records, origin):
            right = [record for record in found if record["status"] == "right"]
            worst = _worst(right)
            lines.append(f"| {title} | {len(right)} of {len(found)} | {' | '.join(worst)} |")
    others = [record for record in records if record["status"] != "right"]
    lines += ["", "The figures are the worst of the models explained. The others:", ""] if others else [""]
    lines += [f"* {record['name']} ({ORIGINS[record['origin']]}): {_why(record)}" for record in others]
    dates = sorted({str(record["date"]) for record in records})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    versions: dict[str, str] = {}
    for record in records:
        versions.update(record.get("versions", {}))
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    limits = (
        f"Explained: logits within {PARITY:.0e} of their largest, the gradient at the default layer within {LAYER:.0e} for every "
        f"picture (where a max pool or ReLUs lie behind the layer: for the best, and a cosine of at least {COSINE} for all), at "
        f"the image within {BEST:.0e} (or {FLOORS:g} times what float32 autograd reaches) for the best picture and "
        f"with a cosine of at least {COSINE} for every picture, all against float64 autograd. Quantised models have no "
        f"derivative of their own: their twins' gradients are within {SLOPE:.0%} of float32 differences. Models in float16 keep "
        f"their logits to {HALF_PARITY:.0e}."
    )
    return "\n".join(
        [*lines, *([""] if others else []), limits, f"Random weights but for the trained models; {named}; {when}."]
    )


def _of(records: Sequence[Record], origin: str) -> list[Record]:
    """Return the records of an origin."""
    return [record for record in records if record["origin"] == origin]


def _right(records: Sequence[Record], origin: str) -> str:
    """Count the models of an origin that are right."""
    found = _of(records, origin)
    return f"{sum(record['status'] == 'right' for record in found)} of {len(found)}"


def _largest(values: Sequence[float], limit: float | None) -> str:
    """Show the largest value within a limit, and how many lie above it."""
    within = [value for value in values if limit is None or value <= limit]
    shown = f"{max(within):.0e}" if within else ""
    return shown if len(within) == len(values) else f"{shown}; {len(values) - len(within)} with kinks behind it"


def _worst(records: Sequence[Record]) -> list[str]:
    """Return the worst forward, layer, best image error and cosine."""
    worst = [_largest(_known(records, "forward"), None), _largest(_known(records, "layer_error"), LAYER)]
    best = _known(records, "image_best")
    within = [value for value in best if value <= BEST]
    above = len(best) - len(within)
    image = f"{max(within):.0e}" if within else ""
    worst.append(f"{image}; {above} by float32 autograd's own" if above else image)
    cosines = _known(records, "image_cosine")
    return [*worst, f"{min(cosines):.5f}" if cosines else ""]


def _known(records: Sequence[Record], name: str) -> list[float]:
    """Return a figure of the records that have it."""
    return [record[name] for record in records if name in record]


def _why(record: Record) -> str:
    """Say why a model is not right."""
    if "reason" in record:
        told = re.sub(r"^camrt failed at '\w+': \w+Error: ", "", str(record["reason"]))
        return f"{record['status']}: {told}"
    return f"{record['status']} ({', '.join(f'{name} {record[name]:.1e}' for name in FIGURES if name in record)})"


def _cells(record: Record) -> tuple[str, ...]:
    """Return a record's texts, in the order of `HEAD`."""
    layer = record.get("layer", {})
    shape = "x".join(str(d) for d in layer.get("shape", ()))
    figures = [_number(record, name) for name in FIGURES]
    verdict = record["status"] if "reason" not in record else f"{record['status']}: {record['reason']}"
    head = (record["origin"], record["name"], str(record.get("opset", "")), str(record.get("nodes", "")))
    return (*head, str(layer.get("name", "")), shape, *figures, verdict)


def _number(record: Record, name: str) -> str:
    """Write a figure; a cosine by what it lacks to 1."""
    if name not in record:
        return ""
    return f"1-{1 - record[name]:.0e}" if name.endswith("cosine") else f"{record[name]:.1e}"
