"""What the commands do with their arguments, apart from the engine's work."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from camrt.commands import app, find_pictures, read_options
from camrt.errors import ImageError, MethodError


def test_options_are_name_value_pairs() -> None:
    assert read_options(["n=10", " spread = 0.1 "]) == {"n": "10", "spread": "0.1"}
    assert read_options(None) == {}
    for bad in ("n", "=3", ""):
        with pytest.raises(MethodError, match="name=value"):
            read_options([bad])


def test_pictures_are_found_once_each_in_order(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "c.txt", "deep/d.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = find_pictures([str(tmp_path), str(tmp_path / "*.jpg"), str(tmp_path / "c.txt")])
    assert [p.name for p in found] == ["a.PNG", "b.jpg", "d.webp", "c.txt"]
    with pytest.raises(ImageError, match="nothing is there"):
        find_pictures([str(tmp_path / "*.gif")])


@pytest.mark.parametrize("command", ["demo", "inspect", "explain", "compare", "export"])
def test_every_command_has_help_that_says_what_it_does(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.split("Options")[0].split()) > 10
