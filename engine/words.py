"""
Names as people write them: forgiving in case, hyphens and spaces, and helpful when there is no such name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["match", "normalise", "offer"]


def normalise(name: str) -> str:
    """
    Reduce a name to what matters in it.

    Parameters
    ----------
    name : str
        A name as somebody wrote it.

    Returns
    -------
    str
        Lower case, ``++`` as ``pp``, without hyphens, underscores and spaces.

    Examples
    --------
    >>> normalise("Grad-CAM++")
    'gradcampp'
    """
    lowered = name.lower().replace("++", "pp")
    return "".join(letter for letter in lowered if letter not in "-_ ")


def match(value: object, words: Iterable[str]) -> str:
    """
    Return the word that is meant.

    Parameters
    ----------
    value : object
        What somebody wrote.
    words : iterable of str
        The words there are.

    Returns
    -------
    str
        The one that equals it once both are reduced.

    Raises
    ------
    ValueError
        If none does.
    """
    for word in words:
        if isinstance(value, str) and normalise(value) == normalise(word):
            return word
    raise ValueError(f"{value!r} is none of {', '.join(words)}")


def offer(name: object, words: Iterable[str]) -> str:
    """
    Say which names are near, and which there are.

    Parameters
    ----------
    name : object
        What somebody wrote.
    words : iterable of str
        The words there are.

    Returns
    -------
    str
        The second half of an error message.
    """
    names = list(words)
    near = difflib.get_close_matches(str(name).lower(), names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}choose from {', '.join(names)}"
