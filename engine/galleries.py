"""
The pictures that a method's maps explain best and worst.

A finished run, its model and its data set go in; one sheet a method comes out: the maps of the pictures with the best
values of one metric above those with the worst. Only these few pictures are explained again; rows hold no maps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from .datasets.sample import Dataset
from .errors import ImageError
from .explainer import Explainer
from .render import grid, overlay
from .report import Figure
from .shards import Run
from .summary import Summary
from .tables import Column, columns, method_title, written

__all__ = ["gallery", "judge_of"]

PREFERRED = ("adcc", "average_gain", "average_drop", "insertion", "deletion")  # what says most about one picture
CELL = 150  # pixels: three of them fit a telephone
TAIL = 9  # letters of a picture's name that fit beside the number


def judge_of(summary: Summary) -> Column | None:
    """
    Choose the metric that ranks pictures.

    Parameters
    ----------
    summary : Summary
        What there is.

    Returns
    -------
    Column or None
        ADCC, else average gain, average drop, insertion, deletion, else the first that has a better way; None of none.
    """
    there = [column for column in columns(summary) if column.better != "neither"]
    ranked = [c for name in PREFERRED for c in there if c.metric.partition("-")[0] == name]
    return next(iter([*ranked, *there]), None)


def gallery(run: Run, explainer: Explainer, dataset: Dataset, column: Column, *, count: int = 3) -> list[Figure]:
    """
    Draw the best and the worst maps of every method.

    Parameters
    ----------
    run : Run
        The finished evaluation.
    explainer : Explainer
        Its model.
    dataset : Dataset
        Its pictures.
    column : Column
        What ranks them.
    count : int, default 3
        How many of either end; fewer where there are not so many pictures.

    Returns
    -------
    list of Figure
        One a method that has such a column. A picture that can no longer be read leaves its place empty.

    Notes
    -----
    Cost: ``2 * count`` explanations a method.
    """
    return [
        _sheet(run, explainer, dataset, column, choice, count)
        for choice in run.spec["methods"]
        if column.key in run.schema(choice["name"]).names
    ]


def _sheet(
    run: Run, explainer: Explainer, dataset: Dataset, column: Column, choice: dict[str, Any], count: int
) -> Figure:
    """Draw one method's."""
    table = run.table([column.key, "id", "class"], method=choice["name"])
    rows = [row for row in table.to_pylist() if row[column.key] is not None]
    order = np.argsort([row[column.key] for row in rows], kind="stable")
    if column.better == "higher":
        order = order[::-1]
    count = max(1, min(count, len(rows) // 2))
    sides = (order[:count], order[::-1][:count]) if len(rows) > 1 else (order,)
    ends = [[rows[i] for i in side] for side in sides]
    cells = [[_map(run, explainer, dataset, choice, row) for row in line] for line in ends]
    numbers = [[written(row[column.key], percent=column.percent) for row in line] for line in ends]
    captions = [
        [f"{number} {_tail(row['id'])}" for number, row in zip(*pair, strict=True)]
        for pair in zip(numbers, ends, strict=True)
    ]
    title = method_title(choice["name"])
    told = [
        f"{row['id']} {number}"
        for line, words in zip(ends, numbers, strict=True)
        for row, number in zip(line, words, strict=True)
    ]
    sheet = grid(cells, row_titles=["best", "worst"][: len(ends)], captions=captions, cell=CELL)
    return Figure(sheet, f"Maps of {title}, best and worst by {column.head}: {', '.join(told)}", title)


def _map(
    run: Run, explainer: Explainer, dataset: Dataset, choice: dict[str, Any], row: dict[str, Any]
) -> Image.Image | None:
    """Explain one picture as the run did."""
    setting = run.spec["setting"]
    try:
        result = explainer.explain(
            [dataset[row["index"]].read()],
            method=choice["id"],
            variant=choice["variant"],
            options=choice["options"],
            target=int(row["class"]),
            layer=setting["layer"],
            pipeline=setting["pipeline"],
            mask_space=setting["mask_space"],
        )
    except ImageError:
        return None
    return overlay(result.pictures[0], result.heatmaps[0, 0], colorbar=False)


def _tail(id: str) -> str:
    """Return the end of a picture's name, which tells it from others."""
    name = id.rpartition("/")[2].rpartition(".")[0] or id
    return name if len(name) <= TAIL else f"…{name[-TAIL:]}"
