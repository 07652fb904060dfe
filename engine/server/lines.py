"""
What is ready and waits for a run: requests in order, found by their likes.

Whoever waits longest is first, and takes along those that can share its run. Not safe for threads by itself: the scheduler
holds its lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

__all__ = ["Line"]


class _Waiting(Protocol):
    """What can wait in a line."""

    @property
    def key(self) -> Hashable: ...
    @property
    def count(self) -> int: ...


T = TypeVar("T", bound=_Waiting)


class Line(Generic[T]):
    """Items with a ``key``, which says which of them may run together, and a ``count`` of images."""

    def __init__(self) -> None:
        self._order: OrderedDict[T, None] = OrderedDict()
        self._alike: dict[Hashable, OrderedDict[T, None]] = {}
        self._images: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._order)

    @property
    def first(self) -> T:
        """The item that waits longest."""
        return next(iter(self._order))

    def company(self, item: T) -> int:
        """
        Count images that can share an item's run.

        Parameters
        ----------
        item : object
            One that waits.

        Returns
        -------
        int
            Its own images included.
        """
        return self._images[item.key]

    def put(self, item: T) -> None:
        """
        Let an item wait behind all others.

        Parameters
        ----------
        item : object
            Not waiting yet.
        """
        self._order[item] = None
        self._alike.setdefault(item.key, OrderedDict())[item] = None
        self._images[item.key] = self._images.get(item.key, 0) + item.count

    def discard(self, item: T) -> None:
        """
        Let an item wait no longer, if it does.

        Parameters
        ----------
        item : object
            Any.
        """
        if item not in self._order:
            return
        del self._order[item]
        del self._alike[item.key][item]
        self._images[item.key] -= item.count
        if not self._alike[item.key]:
            del self._alike[item.key], self._images[item.key]

    def take(self, most: int) -> list[T]:
        """
        Remove the item that waits longest, and those like it, in order, as long as they fit.

        Parameters
        ----------
        most : int
            Images in all; the first item is taken whatever it has.

        Returns
        -------
        list
            At least one item.
        """
        first = self.first
        taken, images = [first], first.count
        for item in list(self._alike[first.key])[1:]:
            if images + item.count > most:
                break
            taken.append(item)
            images += item.count
        for item in taken:
            self.discard(item)
        return taken
