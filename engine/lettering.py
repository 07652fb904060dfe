"""
Text on pictures, with the one font that Pillow carries.

Any text goes in; what the font can write, in a given width, comes out. The font has ASCII and a few signs, so accents
are dropped and other scripts become question marks; HTML reports, which use the reader's fonts, keep the text as it is.
"""

from __future__ import annotations

import unicodedata
from typing import cast

from PIL import ImageFont

__all__ = ["font", "plain", "shorten", "wrap"]

_KEPT = "·…±°"
_SPELLED = str.maketrans(
    {
        "–": "-",
        "—": "-",
        "−": "-",
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "×": "x",
        "→": "->",
        "≤": "<=",
        "≥": ">=",
        "ß": "ss",
        "æ": "ae",
        "Æ": "AE",
        "œ": "oe",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "đ": "d",
        "ı": "i",
    }
)


def font(size: int) -> ImageFont.FreeTypeFont:
    """
    Return the font in a size.

    Parameters
    ----------
    size : int
        Height of the letters' box in pixels.

    Returns
    -------
    PIL.ImageFont.FreeTypeFont
        Aileron, which comes inside Pillow.
    """
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))


def plain(text: str) -> str:
    """
    Return a text in letters the font has.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        One line; accents dropped, dashes and quotes made plain, "?" for each letter of another script.

    Examples
    --------
    >>> plain("Crème brûlée – 90 °C")
    'Creme brulee - 90 °C'
    """
    letters = []
    for letter in " ".join(text.expandtabs(1).splitlines()).translate(_SPELLED):
        if letter in _KEPT or " " <= letter <= "~":
            letters.append(letter)
        elif not unicodedata.combining(letter):
            bare = [part for part in unicodedata.normalize("NFKD", letter) if " " <= part <= "~"]
            letters.append("".join(bare) or "?")
    return "".join(letters)


def shorten(text: str, width: int, lettering: ImageFont.FreeTypeFont) -> str:
    """
    Return as much of a line as fits, with an ellipsis where it was cut.

    Parameters
    ----------
    text : str
        Any text.
    width : int
        Room in pixels.
    lettering : PIL.ImageFont.FreeTypeFont
        The font it will be written in.

    Returns
    -------
    str
        In letters the font has.
    """
    line = plain(text)
    if lettering.getlength(line) <= width:
        return line
    while line and lettering.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip(" ,.-") + "…"


def wrap(text: str, width: int, lettering: ImageFont.FreeTypeFont, lines: int) -> list[str]:
    """
    Break a text at spaces into lines that fit.

    Parameters
    ----------
    text : str
        Any text.
    width : int
        Room in pixels.
    lettering : PIL.ImageFont.FreeTypeFont
        The font it will be written in.
    lines : int
        How many lines there may be; the last is shortened.

    Returns
    -------
    list of str
        At most `lines` lines.
    """
    broken: list[str] = []
    words = plain(text).split(" ")
    while words and len(broken) < lines - 1:
        taken = 1
        while taken < len(words) and lettering.getlength(" ".join(words[: taken + 1])) <= width:
            taken += 1
        broken.append(shorten(" ".join(words[:taken]), width, lettering))
        words = words[taken:]
    return [*broken, shorten(" ".join(words), width, lettering)] if words else broken
