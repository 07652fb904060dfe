"""The report as a parser sees it: nested well, nothing asked of a network, every text escaped."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camrt.errors import OutputError, ShapeError
from camrt.report import Drawing, Figure, Section, Table, Value, page, provenance, write_report

IMAGE = Image.new("RGB", (6, 4), (1, 2, 3))
HOSTILE = "<script>alert('x')</script> & \"quoted\" </style>"


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def example() -> Reader:
    """Read a page with everything in it, each text hostile."""
    figure = Figure(IMAGE, HOSTILE, HOSTILE)
    table = Table((HOSTILE, "gradcam"), [(HOSTILE, figure), ("cat", 0.123456), ("dog", 3), ("x", None)], HOSTILE)
    sections = [
        Section(HOSTILE, f"{HOSTILE}\n\nsecond", [figure], [table, provenance({HOSTILE: {"a": [1, 2]}})]),
        Section("b"),
    ]
    return Reader(page(HOSTILE, sections, subtitle=HOSTILE))


def test_every_text_is_escaped_and_arrives() -> None:
    read = example()
    assert not read.all("script")
    # title, heading, subtitle, link, section, text, two figures, table, column, row, provenance
    assert read.text.count(HOSTILE) == 12
    assert [image["alt"] for image in read.all("img")] == [HOSTILE, HOSTILE]


def test_nothing_is_asked_of_a_network() -> None:
    read = example()
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in read.all("img"))
    assert all(str(link["href"]).startswith("#") for link in read.all("a"))
    assert not [tag for tag, _ in read.tags if tag in ("link", "script", "iframe", "object", "embed", "base", "form")]
    policies = [meta["content"] for meta in read.all("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    style = page("t", [])
    assert "url(" not in style and "@import" not in style and not re.search(r"https?://", style)


def test_pictures_are_embedded_without_loss() -> None:
    (first, _) = example().all("img")
    assert (first["width"], first["height"]) == ("6", "4")
    with Image.open(io.BytesIO(base64.b64decode(str(first["src"]).partition(",")[2]))) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(IMAGE))


def test_tables_have_heads_for_columns_and_rows() -> None:
    read = example()
    scopes = [head["scope"] for head in read.all("th")]
    assert scopes.count("col") == 4 and scopes.count("row") == 5
    assert "0.1235" in read.text and "3" in read.text


def test_numbers_and_their_heads_stand_at_the_right() -> None:
    rows = [("a", 1, None, "x", 0.5), ("b", np.float32(0.25), np.int64(7), 2.0, True)]
    read = Reader(page("t", [Section("s", tables=[Table(("name", "one", "two", "mixed", "flag"), rows)])]))
    heads = [head["scope"] for head in read.all("th") if head.get("class") == "number"]
    assert heads == ["col", "col"]  # one and two
    assert [cell.get("class") for cell in read.all("td")] == [
        "number",
        None,
        None,
        "number",
        "number",
        "number",
        "number",
        None,
    ]
    assert "0.25" in read.text and "7" in read.text


def test_a_row_that_does_not_fit_its_table_is_refused() -> None:
    with pytest.raises(ShapeError, match="2 columns has a row of 3 cells"):
        Table(("a", "b"), [("x", 1), ("y", 2, 3)])


def test_the_page_declares_language_letters_width_and_both_colour_schemes() -> None:
    html = page("t", [])
    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert '<meta charset="utf-8">' in html and "width=device-width" in html
    assert "color-scheme: light dark" in html and "prefers-color-scheme: dark" in html


def test_drawings_are_embedded_letter_by_letter() -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    read = Reader(page("t", [Section("s", figures=[Drawing(svg, (40, 30), HOSTILE, HOSTILE)])]))
    (image,) = read.all("img")
    assert (image["width"], image["height"], image["alt"]) == ("40", "30", HOSTILE)
    kind, _, data = str(image["src"]).partition(",")
    assert kind == "data:image/svg+xml;base64" and base64.b64decode(data) == svg
    assert read.text.count(HOSTILE) == 1


def test_written_values_stand_at_the_right_and_the_best_is_bold() -> None:
    html = page("t", [Section("s", tables=[Table(("name", "v"), [("a", Value("<1>", True)), ("b", Value("2"))])])])
    assert '<td class="number"><strong>&lt;1&gt;</strong></td>' in html and '<td class="number">2</td>' in html
    assert '<th scope="col" class="number">v</th>' in html


def test_code_keeps_its_lines() -> None:
    assert '<pre tabindex="0"><code>camrt a\n  &lt;b&gt;</code></pre>' in page(
        "t", [Section("s", code="camrt a\n  <b>")]
    )


def test_links_lead_to_sections() -> None:
    read = example()
    assert (
        [link["href"] for link in read.all("a")] == [f"#{part['id']}" for part in read.all("section")] == ["#s0", "#s1"]
    )
    assert not Reader(page("t", [Section("only")])).all("a")


def test_provenance_flattens_nested_values() -> None:
    rows = provenance(
        {"model": {"sha256": "ab", "opset": {"ai.onnx": 17}}, "seeds": (1, 2), "none": None, "empty": {}}
    ).rows
    assert rows == [
        ("model.sha256", "ab"),
        ("model.opset.ai.onnx", "17"),
        ("seeds", "1, 2"),
        ("none", "None"),
        ("empty", "{}"),
    ]


def test_the_file_is_the_page_in_utf_8(tmp_path: Path) -> None:
    path = write_report(tmp_path / "new" / "report.html", "猫 é", [Section("a")], subtitle="s")
    assert path.read_text(encoding="utf-8") == page("猫 é", [Section("a")], subtitle="s")


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_report(tmp_path, "t", [])
