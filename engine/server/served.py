"""
A model that answers, and the right to use it.

`registry.py` hands out leases, the scheduler gives them back; everybody in between only reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ..explainer import Explainer

__all__ = ["Lease", "Served"]


@dataclass(frozen=True, eq=False)
class Served:
    """
    One version of one model, ready to answer.

    Attributes
    ----------
    name : str
        The model's name in the repository.
    version : str
        A whole number.
    explainer : Explainer
        Opened and warmed up.
    load_seconds : float
        From the request to load it until it was ready.
    rate : float
        Forwards a second in full runs, measured when it was warmed up.
    """

    name: str
    version: str
    explainer: Explainer
    load_seconds: float
    rate: float


class Lease:
    """
    The right to use one version until it is released; also a context manager.

    Parameters
    ----------
    served : Served
        What is used. Its sessions stay open as long as anybody holds a lease.
    """

    def __init__(self, served: Served) -> None:
        self._served: Served | None = served

    @property
    def served(self) -> Served:
        """The version; a released lease has none."""
        if self._served is None:
            raise RuntimeError("the lease was released")
        return self._served

    def release(self) -> None:
        """End the lease; more than once is as good as once."""
        self._served = None

    def __enter__(self) -> Self:
        """Return the lease."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the lease."""
        self.release()
