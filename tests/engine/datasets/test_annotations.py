"""Box XML: what it says, and what is refused before it is parsed."""

from __future__ import annotations

from pathlib import Path

import pytest

from camrt.datasets.annotations import Marked, read_annotation
from camrt.errors import InputError

TEXT = """<annotation><filename>a.jpg</filename><size><width>8</width><height>6</height><depth>3</depth></size>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3.5</xmax><ymax>4</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>
<object><bndbox><ymax>9</ymax><xmax>8</xmax><ymin>7</ymin><xmin>6</xmin></bndbox><name>dog</name></object></annotation>"""


def test_objects_sizes_and_corners_are_read_and_parts_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(TEXT)
    note = read_annotation(tmp_path / "a.xml")
    assert (note.file, note.size) == ("a.jpg", (6, 8))
    assert note.things == (Marked("cat", (1, 2, 3.5, 4), True), Marked("dog", (6, 7, 8, 9)))


LAUGHS = (
    '<!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + "]>"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{LAUGHS}<annotation><filename>&j;</filename></annotation>".encode(), "declares a document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type"),
        (('<?xml version="1.0" encoding="utf-16"?>' + LAUGHS + "<a/>").encode("utf-16"), "not UTF-8"),
        (('<?xml version="1.0" encoding="utf-16"?>' + LAUGHS + "<a/>").encode("utf-16-le"), "not UTF-8"),
        (b"<annotation>&undeclared;</annotation>", "not XML"),
        (b"<annotation><object>", "not XML"),
        (b"", "not XML"),
        (b"<annotation><object><name>cat</name></object></annotation>", "'cat' has no bndbox"),
        (TEXT.replace("<name>dog</name>", "").encode(), "no name"),
        (TEXT.replace("3.5", "three").encode(), "three"),
        (TEXT.replace("<width>8", "<width>1e999").encode(), "infinity"),
        (TEXT.replace("<width>8", "<width>1e12").encode(), "no picture has 1000000000000 x 6"),
        (b"<annotation>" + b" " * 4_000_001 + b"</annotation>", "longer than"),
    ],
)
def test_hostile_and_broken_files_are_one_input_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_annotation(tmp_path / "a.xml")


def test_deep_nesting_is_only_text(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>")
    assert read_annotation(tmp_path / "a.xml").things == ()
