"""
Heatmaps to look at: overlays, single maps, and grids that compare them.

Pictures (uint8) and heatmaps (in [0, 1]) go in, PIL images come out, drawn with NumPy and Pillow alone. Defaults are
what users of CAM expect (jet, half transparent); a colour bar says what the colours mean, and a map that was constant
says so, because its colours mean nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .colormap import COLORMAPS, colorize
from .errors import MethodError, ShapeError
from .lettering import font, shorten, wrap

__all__ = ["blend", "grid", "heatmap", "overlay", "png"]

Picture = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.floating]

PAPER, INK, FAINT = "#ffffff", "#1f2328", "#59636e"
SIDE = 448  # shorter side of a picture beside text: twice the usual 224, so that a label fits in letters of 22 pixels
MARGIN = 16
NOTES = ("constant map", "constant", "flat")  # the longest that fits is drawn


def blend(picture: Picture, heat: Heat, *, colormap: str = "jet", alpha: float = 0.5) -> Picture:
    """
    Lay a heatmap's colours over a picture.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3)
        RGB.
    heat : ndarray of float, shape (H, W)
        Values in [0, 1].
    colormap : {"jet", "viridis"}, default "jet"
        The colours.
    alpha : float, default 0.5
        Their share, in [0, 1]; the picture has the rest.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        ``(1 - alpha) * picture + alpha * colour``, rounded.

    Raises
    ------
    ShapeError
        If picture and heatmap do not fit each other, or the heatmap holds NaN.
    MethodError
        If the colormap does not exist or `alpha` is out of range.
    """
    _check(picture, heat, alpha)
    mixed = (1 - alpha) * picture.astype(np.float32) + alpha * colorize(heat, colormap).astype(np.float32)
    return np.rint(mixed).astype(np.uint8)


def overlay(
    picture: Picture,
    heat: Heat,
    *,
    colormap: str = "jet",
    alpha: float = 0.5,
    colorbar: bool = True,
    title: str | None = None,
    side: int | None = None,
) -> Image.Image:
    """
    Draw a heatmap over its picture.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3)
        RGB, as the network sees it.
    heat : ndarray of float, shape (H, W)
        Values in [0, 1].
    colormap : {"jet", "viridis"}, default "jet"
        The colours.
    alpha : float, default 0.5
        Their share, in [0, 1].
    colorbar : bool, default True
        Draw the colours from 0 to 1 at the right.
    title : str, optional
        Written above; the first line large, further lines small and grey.
    side : int, optional
        Shorter side of the drawn picture in pixels. Without it a bare picture keeps its size, and one with colour bar
        or title is enlarged to at least 448.

    Returns
    -------
    PIL.Image.Image
        RGB. Without colour bar, title and `side`, exactly `blend`; a constant map has the note "constant map".

    Raises
    ------
    ShapeError
        If picture and heatmap do not fit each other, or the heatmap holds NaN.
    MethodError
        If the colormap does not exist, or `alpha` or `side` is out of range.
    """
    _check(picture, heat, alpha)
    if side is None and (colorbar or title):
        side = max(SIDE, min(picture.shape[:2]))
    shown, warm = (picture, heat) if side is None else _resized(picture, heat, side)
    image = Image.fromarray(blend(shown, warm, colormap=colormap, alpha=alpha))
    if _is_constant(heat):
        _note(image)
    return _framed(image, colormap if colorbar else None, title)


def heatmap(
    heat: Heat, *, colormap: str = "jet", colorbar: bool = False, title: str | None = None, side: int | None = None
) -> Image.Image:
    """
    Draw a heatmap alone.

    Parameters
    ----------
    heat : ndarray of float, shape (H, W)
        Values in [0, 1].
    colormap : {"jet", "viridis"}, default "jet"
        The colours.
    colorbar : bool, default False
        Draw the colours from 0 to 1 at the right.
    title : str, optional
        Written above, as in `overlay`.
    side : int, optional
        Shorter side of the drawn map in pixels, as in `overlay`.

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    ShapeError
        If the heatmap is not of rank 2 or holds NaN.
    MethodError
        If the colormap does not exist or `side` is out of range.
    """
    if heat.ndim != 2:
        raise ShapeError(f"want a heatmap of shape (H, W); got {heat.shape}")
    nothing = np.zeros((*heat.shape, 3), np.uint8)
    return overlay(nothing, heat, colormap=colormap, alpha=1, colorbar=colorbar, title=title, side=side)


def grid(
    cells: Sequence[Sequence[Image.Image | None]],
    *,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
    colormap: str | None = None,
    cell: int = 224,
) -> Image.Image:
    """
    Set images side by side, in rows and columns with titles.

    Parameters
    ----------
    cells : sequence of sequence of PIL.Image.Image or None
        Rows of equal length; None leaves a place empty. Give bare overlays (no colour bar, no title).
    row_titles, column_titles : sequence of str, optional
        Written at the left of each row and above each column.
    captions : sequence of sequence of str, optional
        A line under each cell.
    title : str, optional
        Written above all; further lines small and grey.
    colormap : {"jet", "viridis"}, optional
        Draws one colour bar for all cells at the right.
    cell : int, default 224
        Width and height of a cell in pixels; images are fitted into it.

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    ShapeError
        If the rows differ in length, or titles and captions do not fit them.
    MethodError
        If the colormap does not exist or `cell` is out of range.
    """
    columns = _check_grid(cells, row_titles, column_titles, captions)
    if not 32 <= cell <= 4096:
        raise MethodError(f"cell must be from 32 to 4096 pixels; got {cell}")
    gap, small, wide = 10, font(15), font(17)
    left = 0 if row_titles is None else 12 + min(180, max(_row_width(name) for name in row_titles))
    top = 0 if column_titles is None else 30
    under = 0 if captions is None else 26
    size = (left + columns * (cell + gap) - gap, top + len(cells) * (cell + under + gap) - gap)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for j, name in enumerate(column_titles or ()):
        place = (left + j * (cell + gap) + cell // 2, top - 10)
        draw.text(place, shorten(name, cell, wide), INK, wide, anchor="ms")
    for i, row in enumerate(cells):
        y = top + i * (cell + under + gap)
        if row_titles is not None:
            lines = wrap(row_titles[i], left - 12, wide, 4)
            for k, line in enumerate(lines):
                draw.text((left - 14, y + cell // 2 + 22 * k - 11 * (len(lines) - 1)), line, INK, wide, anchor="rm")
        for j, image in enumerate(row):
            x = left + j * (cell + gap)
            _place(sheet, image, x, y, cell)
            if captions is not None:
                draw.text(
                    (x + cell // 2, y + cell + 18), shorten(captions[i][j], cell, small), FAINT, small, anchor="ms"
                )
    return _framed(sheet, colormap, title, inset=(top, under))


def png(image: Image.Image) -> bytes:
    """
    Return an image as a PNG file.

    Parameters
    ----------
    image : PIL.Image.Image
        The image.

    Returns
    -------
    bytes
        The file's content; the same image always gives the same bytes.
    """
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=4)  # a photograph: 1 % larger than at Pillow's 6, in 2/5 of the time
    return file.getvalue()


def _check(picture: Picture, heat: Heat, alpha: float) -> None:
    """Refuse a picture and a heatmap that do not fit each other."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ShapeError(f"want a picture of uint8 (H, W, 3); got {picture.dtype} {picture.shape}")
    if heat.shape != picture.shape[:2] or heat.size == 0:
        raise ShapeError(f"want a heatmap of the picture's size {picture.shape[:2]}, with pixels; got {heat.shape}")
    if not 0 <= alpha <= 1:
        raise MethodError(f"alpha must be from 0 (picture alone) to 1 (colours alone); got {alpha}")


def _resized(picture: Picture, heat: Heat, side: int) -> tuple[Picture, Heat]:
    """Bring picture and heatmap to a shorter side of `side` pixels."""
    if not 8 <= side <= 8192:
        raise MethodError(f"side must be from 8 to 8192 pixels; got {side}")
    height, width = picture.shape[:2]
    if min(height, width) == side:
        return picture, heat
    size = (max(1, round(width * side / min(height, width))), max(1, round(height * side / min(height, width))))
    shown = Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BICUBIC)
    warm = Image.fromarray(np.ascontiguousarray(heat, np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(shown), np.asarray(warm)


def _is_constant(heat: Heat) -> bool:
    """Tell whether a heatmap holds one value; after min-max that is the zero map of a degenerate result."""
    return bool(heat.min() == heat.max())


def _note(image: Image.Image) -> None:
    """Write "constant map" on an image, as large as fits."""
    size = max(8, min(18, min(image.size) // 8))
    lettering = font(size)
    text = next((note for note in NOTES if lettering.getlength(note) + 2 * size <= image.width), NOTES[-1])
    draw = ImageDraw.Draw(image, "RGBA")
    box = draw.textbbox((image.width / 2, image.height / 2), text, lettering, anchor="mm")
    pad = size // 2
    draw.rounded_rectangle((box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad), pad, (0, 0, 0, 190))
    draw.text((image.width / 2, image.height / 2), text, "#ffffff", lettering, anchor="mm")


def _framed(
    image: Image.Image, colormap: str | None, title: str | None, inset: tuple[int, int] = (0, 0)
) -> Image.Image:
    """Put an image on paper, with a title above and a colour bar at the right, `inset` from its top and bottom."""
    if colormap is None and not title:
        return image
    head, *rest = (title or "").splitlines() or [""]
    large, small = font(22), font(16)
    above = MARGIN + ((30 if head else 0) + 22 * len(rest) + 6 if title else 0)
    beside = MARGIN if colormap is None else 78
    paper = Image.new("RGB", (MARGIN + image.width + beside, above + image.height + MARGIN), PAPER)
    paper.paste(image, (MARGIN, above))
    draw = ImageDraw.Draw(paper)
    room = paper.width - 2 * MARGIN
    draw.text((MARGIN, MARGIN + 20), shorten(head, room, large), INK, large, anchor="ls")
    for i, line in enumerate(rest):
        draw.text((MARGIN, MARGIN + 46 + 22 * i), shorten(line, room, small), FAINT, small, anchor="ls")
    if colormap is not None:
        x, y = MARGIN + image.width + 14, above + inset[0]
        _bar(paper, colormap, (x, y, x + 16, above + image.height - inset[1]))
    return paper


def _bar(paper: Image.Image, colormap: str, box: tuple[int, int, int, int]) -> None:
    """Draw a colour bar with ticks at 0, 0.5 and 1."""
    if colormap not in COLORMAPS:
        raise MethodError(f"no colormap is called {colormap!r}; there are {', '.join(COLORMAPS)}")
    x0, y0, x1, y1 = box
    ramp = np.linspace(1, 0, y1 - y0)[:, None].repeat(x1 - x0, 1)
    paper.paste(Image.fromarray(colorize(ramp, colormap)), (x0, y0))
    draw, lettering = ImageDraw.Draw(paper), font(15)
    for value, y, anchor in ((1.0, y0, "lt"), (0.5, (y0 + y1 - 1) // 2, "lm"), (0.0, y1 - 1, "lb")):
        draw.line((x1, y, x1 + 4, y), FAINT)
        draw.text((x1 + 8, y), f"{value:g}", FAINT, lettering, anchor=anchor)


def _check_grid(
    cells: Sequence[Sequence[Image.Image | None]],
    row_titles: Sequence[str] | None,
    column_titles: Sequence[str] | None,
    captions: Sequence[Sequence[str]] | None,
) -> int:
    """Return the number of columns, if everything fits."""
    lengths = {len(row) for row in cells}
    if len(lengths) != 1 or 0 in lengths:
        raise ShapeError(f"a grid needs rows of one length, at least one cell each; got lengths {sorted(lengths)}")
    (columns,) = lengths
    if row_titles is not None and len(row_titles) != len(cells):
        raise ShapeError(f"want {len(cells)} row titles, one a row; got {len(row_titles)}")
    if column_titles is not None and len(column_titles) != columns:
        raise ShapeError(f"want {columns} column titles, one a column; got {len(column_titles)}")
    if captions is not None and [len(row) for row in captions] != [columns] * len(cells):
        raise ShapeError(f"want {len(cells)} rows of {columns} captions, one a cell")
    return columns


def _row_width(name: str) -> int:
    """Return the room a row's title wants, in pixels."""
    return round(font(17).getlength(shorten(name, 180, font(17)))) + 4


def _place(sheet: Image.Image, image: Image.Image | None, x: int, y: int, cell: int) -> None:
    """Put an image into a cell, fitted and centred."""
    if image is None:
        return
    factor = cell / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    shown = image.convert("RGB")
    if size != image.size:
        shown = shown.resize(size, Image.Resampling.LANCZOS)
    sheet.paste(shown, (x + (cell - size[0]) // 2, y + (cell - size[1]) // 2))
