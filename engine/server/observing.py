"""
What the scheduler tells whoever watches it; `gauges.py` makes Prometheus metrics of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["Observer", "safely"]

log = logging.getLogger("camrt.server")


class Observer:
    """Hears of everything and keeps nothing; a subclass keeps what it likes. Called from any thread; must be quick."""

    def work(self, held: float) -> None:
        """
        Hear how many forward-equivalents wait or run now.

        Parameters
        ----------
        held : float
            Forward-equivalents.
        """

    def waited(self, seconds: float) -> None:
        """
        Hear how long a request waited for its run.

        Parameters
        ----------
        seconds : float
            From its admission on.
        """

    def ran(self, images: int, model: str, method: str, seconds: float) -> None:
        """
        Hear of one batch: its images, and how long it took.

        Parameters
        ----------
        images : int
            How many it took.
        model, method : str
            Whose.
        seconds : float
            How long it took.
        """

    def stage(self, stage: str, seconds: float) -> None:
        """
        Hear how long one step of a request took.

        Parameters
        ----------
        stage : str
            ``decode``, ``run`` or ``encode``.
        seconds : float
            How long it took.
        """

    def rejected(self, reason: str) -> None:
        """
        Hear of a request that was not taken.

        Parameters
        ----------
        reason : str
            ``full``, ``deadline`` or ``too_large``.
        """

    def cancelled(self, where: str) -> None:
        """
        Hear of a request whose client left.

        Parameters
        ----------
        where : str
            ``queue`` or ``run``.
        """


def safely(call: Callable[..., None], *arguments: object) -> None:
    """
    Call somebody else's function, which must not stop what is under way here.

    Parameters
    ----------
    call : callable
        Whatever it raises is logged.
    *arguments : object
        What it is called with.
    """
    try:
        call(*arguments)
    except Exception:
        log.exception("a callback of a request failed")
