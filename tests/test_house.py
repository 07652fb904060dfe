"""The house rules that a reader relies on: packaging, names, pairing of tests, imports, documentation."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import camrt
from camrt.errors import MissingExtraError

ROOT = Path(__file__).parents[1]
FOLDERS = {"camrt": "engine", "camrt.export": "export", "camrt.kernels": "kernels"}
MODULES = ["camrt"] + [m.name for m in pkgutil.walk_packages(camrt.__path__, "camrt.")]
checkout = pytest.mark.skipif(not (ROOT / "engine").is_dir(), reason="needs the source folders, not the wheel alone")


def on_disk() -> set[str]:
    """Return the package names that the folders with an ``__init__.py`` stand for."""
    return {
        ".".join([name, *init.parent.relative_to(ROOT / folder).parts])
        for name, folder in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }


def run(code: str) -> str:
    """Run a line of Python in a fresh process and return what it prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@checkout
def test_the_packages_list_equals_the_folders() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-dir"] == FOLDERS
    assert set(settings["packages"]) == on_disk()


@checkout
def test_nothing_in_engine_takes_the_name_of_a_sibling_folder() -> None:
    assert not {"export", "kernels"} & {p.stem for p in (ROOT / "engine").iterdir()}


def test_bare_folder_names_are_never_imported() -> None:
    names = [name for name in MODULES if name != "camrt.__main__"]
    code = f"""
import contextlib, importlib, sys
from camrt.errors import MissingExtraError
for name in {names!r}:
    with contextlib.suppress(*[MissingExtraError] * name.startswith("camrt.embedding.")):
        importlib.import_module(name)
print(sorted(sys.modules))"""
    loaded = run(code)
    assert {"engine", "export", "kernels"}.isdisjoint(ast.literal_eval(loaded))


@pytest.mark.parametrize("name", [name for name in MODULES if name != "camrt.__main__"])
def test_docstring_examples_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except MissingExtraError as error:
        if not name.startswith("camrt.embedding."):
            raise
        pytest.skip(str(error))  # a stack that camrt is embedded in
    assert doctest.testmod(module).failed == 0


def test_every_folder_is_among_the_modules() -> None:
    assert {"camrt.errors", "camrt.export", "camrt.kernels"} <= set(MODULES)


@checkout
def test_every_module_has_a_test_file_of_its_name() -> None:
    paired = {
        str(path.relative_to(ROOT).with_name(f"test_{path.name.lstrip('_')}"))
        for folder in FOLDERS.values()
        for path in (ROOT / folder).rglob("*.py")
        if not path.name.startswith("__")
    }
    there = {str(path.relative_to(ROOT / "tests")) for path in (ROOT / "tests").rglob("test_*.py")}
    missing = sorted(
        paired - there - set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["camrt"]["paired_elsewhere"])
    )
    assert not missing, f"modules without a test file: {missing}"


def test_public_names_are_exactly_what_all_lists() -> None:
    assert sorted(camrt.__all__) == sorted(name for name in dir(camrt) if name in camrt.__all__)
    for name in camrt.__all__:
        assert getattr(camrt, name) is not None


def test_importing_camrt_loads_no_heavy_library() -> None:
    heavy = "onnxruntime onnx onnx_ir torch cupy matplotlib typer PIL numpy"
    assert run(f"import camrt, sys\nprint([m for m in {heavy.split()!r} if m in sys.modules])") == "[]"


def test_every_message_that_is_raised_fits_one_line() -> None:
    for folder in FOLDERS.values():
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Raise):
                    texts = [
                        n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                    ]
                    assert not any("\n" in text for text in texts), f"{path}:{node.lineno}"


@checkout
def test_the_readme_names_only_commands_and_methods_that_exist() -> None:
    from camrt.methods import METHODS

    readme = (ROOT / "README.md").read_text("utf-8")
    ids = set(re.findall(r"^\| `([a-z]+)` \|", readme, re.MULTILINE))
    assert set(METHODS) <= ids


@checkout
def test_no_machine_path_stands_in_a_tracked_file() -> None:
    pattern = re.compile(r"(?<![A-Za-z0-9_.])/(work|farm|root|tmp)/[a-z]")
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("*.toml"),
        *(p for f in (*FOLDERS.values(), "tests", "bench") for p in (ROOT / f).rglob("*.py")),
    ]:
        if path != Path(__file__):
            assert not pattern.search(path.read_text("utf-8")), path
