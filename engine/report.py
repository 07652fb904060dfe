"""
A report that is one HTML file.

Sections of text, figures and tables go in; out comes a page with its pictures inside, which opens anywhere, asks
nothing of any network (its content security policy forbids it), reads in light and dark, on a phone and on paper, and
tells a screen reader what each picture shows.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from PIL import Image

from .atomic import write_bytes
from .errors import ShapeError
from .render import png

__all__ = ["Cell", "Drawing", "Figure", "Section", "Table", "Value", "page", "provenance", "write_report"]


@dataclass(frozen=True, eq=False)
class Figure:
    """
    A picture with words.

    Attributes
    ----------
    image : PIL.Image.Image
        Embedded as PNG.
    alt : str
        What the picture shows, for those who do not see it.
    caption : str
        Written under it.
    """

    image: Image.Image
    alt: str
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Drawing:
    """
    A drawing of lines and letters, sharp at any size.

    Attributes
    ----------
    svg : bytes
        The file; it may follow the reader's colour scheme.
    size : tuple of int
        Width and height in pixels at which it is shown where there is room.
    alt : str
        What it shows, for those who do not see it.
    caption : str
        Written under it.
    """

    svg: bytes
    size: tuple[int, int]
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Value:
    """
    A number already written, set at the right.

    Attributes
    ----------
    text : str
        As it stands in the cell.
    best : bool
        Set bold.
    """

    text: str
    best: bool = False


Cell = str | int | float | Value | Figure | None


@dataclass(frozen=True, eq=False)
class Table:
    """
    Rows and columns of text, numbers or figures.

    Attributes
    ----------
    columns : sequence of str
        The head; the first names what the rows are.
    rows : sequence of sequence of str, int, float, Value, Figure or None
        The first cell of each row is its head.
    caption : str
        Written above the table.

    Raises
    ------
    ShapeError
        If a row has more or fewer cells than there are columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def __post_init__(self) -> None:
        """Check the rows."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ShapeError(f"a table of {len(self.columns)} columns has a row of {len(row)} cells")


@dataclass(frozen=True, eq=False)
class Section:
    """
    A part of the report with a heading.

    Attributes
    ----------
    title : str
        The heading.
    text : str
        Paragraphs, an empty line between them.
    figures : sequence of Figure or Drawing
        Set side by side.
    tables : sequence of Table
        One below the other.
    code : str
        Commands or data, letter by letter, below the text.
    """

    title: str
    text: str = ""
    figures: Sequence[Figure | Drawing] = ()
    tables: Sequence[Table] = ()
    code: str = ""


def provenance(values: Mapping[str, Any], caption: str = "") -> Table:
    """
    Lay out nested values as a table of two columns.

    Parameters
    ----------
    values : mapping
        What made a result; nested mappings become dotted names.
    caption : str
        Written above the table.

    Returns
    -------
    Table
        One row a value.

    Examples
    --------
    >>> provenance({"model": {"name": "resnet"}, "runs": 2}).rows
    [('model.name', 'resnet'), ('runs', '2')]
    """
    return Table(("what", "value"), list(_flat(values, "")), caption)


def page(title: str, sections: Iterable[Section], *, subtitle: str = "") -> str:
    """
    Return the report as HTML.

    Parameters
    ----------
    title : str
        The page's heading.
    sections : iterable of Section
        Its parts, in order.
    subtitle : str
        A line under the heading.

    Returns
    -------
    str
        A whole HTML document; every text is escaped.
    """
    parts = list(sections)
    links = "".join(f'<a href="#s{i}">{escape(part.title)}</a>' for i, part in enumerate(parts))
    body = "\n".join(_section(part, i) for i, part in enumerate(parts))
    lead = f'<p class="lead">{escape(subtitle)}</p>' if subtitle else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>{lead}{f"<nav>{links}</nav>" if len(parts) > 1 else ""}</header>
<main>
{body}
</main>
</body>
</html>
"""


def write_report(path: str | os.PathLike[str], title: str, sections: Iterable[Section], *, subtitle: str = "") -> Path:
    """
    Write the report to a file.

    Parameters
    ----------
    path : str or path-like
        The HTML file.
    title : str
        The page's heading.
    sections : iterable of Section
        Its parts, in order.
    subtitle : str
        A line under the heading.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    OutputError
        If the file cannot be written; nothing is left half-written.
    """
    return write_bytes(path, page(title, sections, subtitle=subtitle).encode("utf-8", "replace"))


def _section(part: Section, number: int) -> str:
    """Return one section."""
    text = "".join(f"<p>{escape(block.strip())}</p>" for block in part.text.split("\n\n") if block.strip())
    figures = "".join(_figure(figure) for figure in part.figures)
    tables = "".join(_table(table) for table in part.tables)
    code = f'<pre tabindex="0"><code>{escape(part.code)}</code></pre>' if part.code else ""
    row = f'<div class="figures">{figures}</div>' if figures else ""
    return f'<section id="s{number}"><h2>{escape(part.title)}</h2>{text}{code}{row}{tables}</section>'


def _figure(figure: Figure | Drawing) -> str:
    """Return one picture, with its caption."""
    if isinstance(figure, Drawing):
        kind, content, (width, height) = "svg+xml", figure.svg, figure.size
    else:
        kind, content, (width, height) = "png", png(figure.image), figure.image.size
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    image = f'<img src="{source}" width="{width}" height="{height}" alt="{escape(figure.alt)}">'
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    return f"<figure>{image}{caption}</figure>"


def _table(table: Table) -> str:
    """Return one table; its first column heads the rows."""
    bodies = [{_is_number(row[i]) for row in table.rows if row[i] is not None} for i in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{_NUMBER if body == {True} else ""}>{escape(column)}</th>'
        for column, body in zip(table.columns, bodies, strict=True)
    )
    rows = "".join(
        "<tr>" + "".join(_cell(cell, is_head=i == 0) for i, cell in enumerate(row)) + "</tr>" for row in table.rows
    )
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    table_html = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.caption or "table")}">{table_html}</div>'


def _cell(cell: Cell, *, is_head: bool) -> str:
    """Return one cell."""
    if isinstance(cell, Figure):
        inside, kind = _figure(cell), ' class="picture"'
    elif isinstance(cell, Value):
        inside, kind = f"<strong>{escape(cell.text)}</strong>" if cell.best else escape(cell.text), _NUMBER
    elif _is_number(cell):
        inside, kind = str(cell) if isinstance(cell, Integral) else f"{cell:.4g}", _NUMBER
    else:
        inside, kind = "" if cell is None else escape(str(cell)), ""
    return f'<th scope="row"{kind}>{inside}</th>' if is_head else f"<td{kind}>{inside}</td>"


def _is_number(cell: Cell) -> bool:
    """Tell whether a cell is set as a number, at the right."""
    return isinstance(cell, Real | Value) and not isinstance(cell, bool)


def _flat(values: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    """Yield dotted names and values as text."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{key}", str(value)


_NUMBER = ' class="number"'

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f8fa; --ink: #1f2328; --faint: #59636e;
  --line: #d1d9e0; --accent: #0969da; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --card: #151b23; --ink: #f0f6fc; --faint: #9198a1; --line: #3d444d; --accent: #4493f8; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; font-weight: 650; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-bottom: .35rem; border-bottom: 1px solid var(--line);
  font-weight: 600; }
p { margin: .6rem 0; max-width: 75ch; }
.lead { color: var(--faint); margin: 0; }
nav { display: flex; flex-wrap: wrap; gap: .35rem 1.1rem; margin-top: 1rem; }
a { color: var(--accent); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; }
figcaption { color: var(--faint); font-size: .85rem; line-height: 1.4; margin-top: .4rem; overflow-wrap: anywhere; }
pre { overflow-x: auto; margin: 1rem 0; padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; font-size: .88rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1.25rem; align-items: flex-start; margin: 1rem 0; }
.figures figure { max-width: min(100%, 1200px); }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .7rem .8rem; color: var(--faint); }
th, td { padding: .5rem .8rem; text-align: left; vertical-align: middle; border-top: 1px solid var(--line); }
thead th { background: var(--card); font-weight: 600; border-top: 0; white-space: nowrap; }
thead th.number { white-space: normal; vertical-align: bottom; }
caption + thead th { border-top: 1px solid var(--line); }
tbody th { font-weight: 500; min-width: 9rem; overflow-wrap: anywhere; }
td { overflow-wrap: anywhere; }
.picture { padding: .6rem .8rem; min-width: 150px; vertical-align: top; }
td.picture img { width: 100%; max-width: 260px; }
th.number, td.number { text-align: right; }
td.number { white-space: nowrap; }
@media print { body { max-width: none; padding: 0; } section { break-inside: avoid-page; } nav { display: none; } }
"""
