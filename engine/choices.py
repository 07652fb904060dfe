"""
What somebody chose from a table, written as one word: a method or a metric, its variant and its options.

    scorecam                                  the defaults
    scorecam:pytorch-grad-cam                 a variant
    smoothgradcampp,n=10                      options
    insertion:polycam,steps=28                both

The same word is accepted by Python and the command line. From it a `Choice` is made, complete and checked, with a name
that is safe as a folder and a column: only what departs from the defaults is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from .errors import MethodError

__all__ = ["Choice", "choose", "split"]


class _Row(Protocol):
    """A row of a table: what `Choice` needs of it."""

    @property
    def id(self) -> str: ...
    @property
    def variants(self) -> tuple[str, ...]: ...


Row = TypeVar("Row", bound=_Row)


@dataclass(frozen=True)
class Choice(Generic[Row]):
    """
    A row of a table with everything settled.

    Attributes
    ----------
    name : str
        What it is called in result files: the id, then variant and options where they are not the defaults.
    row : Method or Metric
        The row.
    variant : str
        One of its variants.
    options : mapping of str to object
        Every option.
    """

    name: str
    row: Row
    variant: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that says what was chosen."""
        options = {name: list(v) if isinstance(v, tuple) else v for name, v in self.options.items()}
        return {"name": self.name, "id": self.row.id, "variant": self.variant, "options": options}


def choose(
    words: Iterable[str],
    resolve: Callable[[str], Row],
    validate: Callable[[Row, str | None, Mapping[str, object]], tuple[str, dict[str, object]]],
) -> list[Choice[Row]]:
    """
    Read what was chosen.

    Parameters
    ----------
    words : iterable of str
        ``id[:variant][,name=value...]`` each.
    resolve, validate : callable
        Of the table that is chosen from.

    Returns
    -------
    list of Choice
        In the order given.

    Raises
    ------
    MethodError
        If a word cannot be read, a name, variant or option does not exist, a choice comes twice, or there is none.

    Examples
    --------
    >>> from camrt.methods import resolve, validate
    >>> [c.name for c in choose(["Grad-CAM", "smoothgradcampp:torchcam,n=10"], resolve, validate)]
    ['gradcam', 'smoothgradcampp-torchcam-n10']
    """
    chosen = [_read(word, resolve, validate) for word in words]
    if not chosen:
        raise MethodError("nothing was chosen; give at least one name")
    names = [choice.name for choice in chosen]
    for name in names:
        if names.count(name) > 1:
            raise MethodError(f"{name!r} was chosen twice; give each choice once")
    return chosen


def split(text: str) -> list[str]:
    """
    Cut a list of choices into words.

    Parameters
    ----------
    text : str
        Choices separated by commas, which also stand between a choice and its options.

    Returns
    -------
    list of str
        One word a choice.

    Examples
    --------
    >>> split("gradcam, finercam,ranks=1,2,alpha=0.5,layercam")
    ['gradcam', 'finercam,ranks=1,2,alpha=0.5', 'layercam']
    """
    words: list[str] = []
    for part in text.split(","):
        if words and ("=" in part or re.fullmatch(r"\s*-?\d+\s*", part)):
            words[-1] += "," + part.strip()
        elif part.strip():
            words.append(part.strip())
    return words


def _read(
    word: str,
    resolve: Callable[[str], Row],
    validate: Callable[[Row, str | None, Mapping[str, object]], tuple[str, dict[str, object]]],
) -> Choice[Row]:
    """Read one word."""
    if not isinstance(word, str):
        raise MethodError(f"a choice is one word such as 'scorecam:torchcam,n=3'; got {type(word).__name__}")
    head, *rest = word.split(",")
    name, _, variant = head.partition(":")
    options: dict[str, object] = {}
    for part in _values(rest, word):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise MethodError(f"cannot read {part!r} in {word!r}; write id:variant,name=value")
        options[key.strip()] = value.strip()
    row = resolve(name.strip())
    chosen, full = validate(row, variant.strip() or None, options)
    _, defaults = validate(row, chosen, {})
    parts = [row.id, *([chosen] if chosen != row.variants[0] else [])]
    parts += [f"{key}{_plain(value)}" for key, value in full.items() if value != defaults[key]]
    return Choice("-".join(parts), row, chosen, full)


def _values(parts: list[str], word: str) -> list[str]:
    """Join parts that belong to one value: ``ranks=1,2,3``."""
    joined: list[str] = []
    for part in parts:
        if "=" not in part and joined and re.fullmatch(r"\s*-?\d+\s*", part):
            joined[-1] += "," + part
        else:
            joined.append(part)
    return joined


def _plain(value: object) -> str:
    """Write a value with letters that every file system and shell takes."""
    text = ".".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
    return re.sub(r"[^A-Za-z0-9._]+", "_", text)
