"""
What the scheduler tells whoever watches it; `gauges.py` makes Prometheus metrics of it.
"""

from __future__ import annotations

__all__ = ["Observer"]


class Observer:
    """Hears of everything and keeps nothing; a subclass keeps what it likes. Called from any thread; must be quick."""

    def work(self, held: float) -> None:
        """Hear how many forward-equivalents wait or run now."""

    def waited(self, seconds: float) -> None:
        """Hear how long a request waited for its run."""

    def ran(self, images: int, model: str, method: str, seconds: float) -> None:
        """Hear of one batch: its images, and how long it took."""

    def stage(self, stage: str, seconds: float) -> None:
        """Hear how long one step of a request took: ``decode``, ``run`` or ``encode``."""

    def rejected(self, reason: str) -> None:
        """Hear of a request that was not taken: ``full``, ``deadline`` or ``too_large``."""

    def cancelled(self, where: str) -> None:
        """Hear of a request whose client left: in the ``queue``, or during its ``run``."""
