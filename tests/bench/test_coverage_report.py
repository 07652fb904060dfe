"""Records as text."""

from __future__ import annotations

from typing import Any

from bench.coverage_report import markdown, table


def record(name: str, **changes: Any) -> dict[str, Any]:
    """Return the record of a model that is right."""
    figures = {"forward": 1e-6, "layer_error": 2e-6, "image_error": 3e-3, "image_best": 4e-7, "image_cosine": 0.99999}
    row = {"origin": "light", "name": name, "status": "right", "date": "2026-01-02", "opset": 9, "nodes": 12}
    return row | figures | {"layer": {"name": "relu", "shape": ["N", 8, 2, 2]}, "versions": {"torch": "1"}} | changes


RECORDS = [
    record("a"),
    record("b", layer_error=9e-6, image_cosine=0.9995, date="2026-01-03"),
    record("c", status="missed: layer", layer_error=0.5),
    {
        "origin": "light",
        "name": "d",
        "status": "refused",
        "reason": "camrt failed at 'open': ModelError: why",
        "date": "2026-01-02",
    },
]


def test_the_markdown_counts_by_origin_and_gives_the_worst_of_the_right_ones() -> None:
    text = markdown(RECORDS)
    assert "| light graphs of the onnx package | 2 of 4 | 1e-06 | 9e-06 | 4e-07 | 0.99950 |" in text
    assert "torchvision," not in text  # an origin without records has no line
    assert "2026-01-02 to 2026-01-03" in text and "torch 1" in text


def test_an_image_error_that_float32_autograd_makes_too_is_counted_beside_the_worst() -> None:
    assert "| 4e-07; 1 by float32 autograd's own |" in markdown([*RECORDS, record("e", image_best=2e-3)])


def test_every_model_that_is_not_right_has_its_line_with_the_reason() -> None:
    lines = [line for line in markdown(RECORDS).splitlines() if line.startswith("*")]
    assert len(lines) == 2
    assert "c" in lines[0] and "5.0e-01" in lines[0]
    assert lines[1].endswith("refused: why")


def test_the_table_has_one_line_a_model_and_a_count() -> None:
    lines = table(RECORDS).splitlines()
    assert len(lines) == 1 + len(RECORDS) + 2
    assert "Nx8x2x2" in lines[1] and lines[1].endswith("right")
    assert lines[-1] == "light: 2 of 4"
