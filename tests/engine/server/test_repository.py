"""What a repository holds, and what does not fit in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.errors import InputError
from camrt.server.faults import NotFoundError
from camrt.server.repository import NAME, Entry, check_name, check_version, find, scan


def lay_out(root: Path, *files: str) -> Path:
    """Make empty files, and the folders they lie in."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_versions_are_listed_as_numbers(tmp_path: Path) -> None:
    lay_out(tmp_path, "b/10/manifest.json", "b/9/manifest.json", "a.b-c_D/1/model.onnx", "both/1/model.onnx")
    lay_out(tmp_path, "both/1/manifest.json")
    entries, misfits = scan(tmp_path)
    assert [(e.name, e.version, e.is_raw) for e in entries] == [
        ("a.b-c_D", 1, True), ("b", 9, False), ("b", 10, False), ("both", 1, False),
    ]  # fmt: skip
    assert misfits == []
    assert find(tmp_path, "b") == Entry("b", 10, tmp_path / "b" / "10")
    assert find(tmp_path, "b", "9").folder == tmp_path / "b" / "9"


def test_what_does_not_fit_is_told_with_its_reason(tmp_path: Path) -> None:
    lay_out(
        tmp_path, "README", ".git/config", "-x/1/manifest.json", "stats/1/manifest.json", "empty/readme", "m/v1/model.onnx",
        "m/01/model.onnx", "m/0/model.onnx", "m/2/weights.bin", "m/3/manifest.json", "m/.4.part/manifest.json",
        "m/1234567890/model.onnx",
    )  # fmt: skip
    (tmp_path / "link").symlink_to(tmp_path / "m")
    (tmp_path / "m" / "5").symlink_to(tmp_path / "m" / "3")
    (tmp_path / "odd\nname").mkdir()
    entries, misfits = scan(tmp_path)
    assert [(e.name, e.version) for e in entries] == [("m", 3)]
    reasons = {(m.name, m.version): (m.reason, m.is_model) for m in misfits}
    assert reasons.keys() == {
        ("README", ""), ("-x", ""), ("stats", ""), ("empty", ""), ("empty", "readme"), ("m", "v1"), ("m", "01"), ("m", "0"),
        ("m", "2"), ("m", "5"), ("m", "1234567890"), ("link", ""), ("odd\\nname", ""),
    } - {("empty", "")}  # fmt: skip
    assert reasons["README", ""] == ("not a folder: the repository holds <model>/<version>/", False)
    assert "symbolic link" in reasons["link", ""][0] and not reasons["link", ""][1]
    assert "symbolic link" in reasons["m", "5"][0] and reasons["m", "5"][1]
    assert "reserved" in reasons["stats", ""][0]
    assert "neither manifest.json nor model.onnx" in reasons["m", "2"][0]


def test_an_empty_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "hollow").mkdir()
    assert [(m.name, m.version, m.is_model) for m in scan(tmp_path)[1]] == [("hollow", "", True)]


def test_finding_says_what_is_wrong(tmp_path: Path) -> None:
    lay_out(tmp_path, "m/2/weights.bin", "m/3/manifest.json", "only/2/weights.bin")
    with pytest.raises(NotFoundError, match="holds no model 'x'"):
        find(tmp_path, "x")
    with pytest.raises(NotFoundError, match="no version 7 of model 'm'"):
        find(tmp_path, "m", "7")
    with pytest.raises(InputError, match=r"neither manifest\.json"):
        find(tmp_path, "m", "2")
    with pytest.raises(InputError, match=r"model 'only' cannot be served: neither manifest\.json"):
        find(tmp_path, "only")


@pytest.mark.parametrize(
    "name", ["..", ".", "../m", "m/1", "/etc", "", "a" * 65, "m\x00", "ä", "m\n", "stats", "index"]
)
def test_no_request_leaves_the_repository(tmp_path: Path, name: str) -> None:
    root = lay_out(tmp_path / "repo", "m/1/manifest.json")
    lay_out(tmp_path, "m/1/manifest.json")
    with pytest.raises(NotFoundError):
        find(root, name)


@pytest.mark.parametrize("version", ["0", "01", "-1", "1.0", "", "1/..", "1234567890", "١", "1\n"])
def test_versions_are_plain_numbers(tmp_path: Path, version: str) -> None:
    lay_out(tmp_path, "m/1/manifest.json")
    with pytest.raises(NotFoundError):
        find(tmp_path, "m", version)


@given(st.text(max_size=70))
def test_a_name_that_passes_is_one_part_of_a_path(name: str) -> None:
    try:
        assert check_name(name) == name
    except NotFoundError as error:
        assert "\n" not in str(error)
    else:
        assert NAME.fullmatch(name) and Path(name).name == name and name.isascii()


def test_a_version_is_read() -> None:
    assert check_version("m", "999999999") == 999_999_999


def test_a_repository_is_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name, reason in (("file", "not a folder"), ("absent", "not a folder"), ("link", "symbolic link")):
        with pytest.raises(InputError, match=reason):
            scan(tmp_path / name)
