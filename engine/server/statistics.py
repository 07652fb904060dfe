"""
How much each model has done, in the words of the statistics extension of the Open Inference Protocol.

In: answers, as they are given. Out: the counts and sums of times that ``tritonclient`` reads.

References
----------
Triton Inference Server, statistics extension (docs/protocol/extension_statistics.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tickets import Answer

__all__ = ["Statistics"]


@dataclass
class _Sum:
    """How often, and how long in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def to_dict(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(self.seconds * 1e9)}


@dataclass
class _Row:
    """One version of one model."""

    images: int = 0
    runs: float = 0.0
    last: float = 0.0
    times: dict[str, _Sum] = field(
        default_factory=lambda: {
            name: _Sum() for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        }
    )


class Statistics:
    """
    Counts by model and version; used from the loop alone.

    Parameters
    ----------
    clock : callable
        Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._rows: dict[tuple[str, str], _Row] = {}

    def record(self, answer: Answer, images: int, encoding: float, seconds: float) -> None:
        """
        Count an answer.

        Parameters
        ----------
        answer : Answer
            What the scheduler gave.
        images : int
            How many of its batch's images were this request's.
        encoding : float
            Seconds that writing the answer took.
        seconds : float
            From the request's arrival to its written answer.
        """
        row = self._rows.setdefault((answer.served.name, answer.served.version), _Row())
        row.images += images
        row.runs += images / max(1, answer.batch)  # the shares of a batch's requests add up to one run
        row.last = self._clock()
        spent = {
            "success": seconds,
            "queue": answer.queue_seconds,
            "compute_input": answer.decode_seconds,
            "compute_infer": answer.run_seconds,
            "compute_output": encoding,
        }
        for name, time_spent in spent.items():
            row.times[name].add(time_spent)

    def fail(self, name: str, version: str, seconds: float) -> None:
        """
        Count a request that reached a model and was answered with an error.

        Parameters
        ----------
        name, version : str
            The model.
        seconds : float
            From the request's arrival to the error.
        """
        self._rows.setdefault((name, version), _Row()).times["fail"].add(seconds)

    def to_dict(self, served: list[tuple[str, str]]) -> dict[str, Any]:
        """
        Return the counts of some models.

        Parameters
        ----------
        served : list of (str, str)
            Names and versions; zeros where nothing was asked yet.

        Returns
        -------
        dict
            ``{"model_stats": [...]}``.
        """
        return {"model_stats": [self._described(*key) for key in served]}

    def _described(self, name: str, version: str) -> dict[str, Any]:
        row = self._rows.get((name, version), _Row())
        nothing = _Sum().to_dict()
        times = {key: total.to_dict() for key, total in row.times.items()}
        return {
            "name": name,
            "version": version,
            "last_inference": round(row.last * 1e3),
            "inference_count": row.images,
            "execution_count": round(row.runs),
            "inference_stats": {**times, "cache_hit": nothing, "cache_miss": nothing},
            "batch_stats": [],
            "memory_usage": [],
        }
