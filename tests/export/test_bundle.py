"""Bundles on disk: read back as they were written, refused when anything is missing, altered or foreign."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from camrt.errors import BundleError, LayerError, OutputError
from camrt.export.bundle import SCHEMA, Bundle, read, write
from camrt.export.manifest import Layer, Manifest, Program

LAYERS = (
    Layer("c", "stem", "Conv", "stem.conv", ("N", 4, 8, 8), "nchw", 4, (8, 8), reason="because"),
    Layer("t", "norm", "LayerNormalization", "", ("N", 17, 6), "tokens", 6, (4, 4), 1, True, "default: so"),
)
MANIFEST = Manifest(
    model={"name": "tiny", "sha256": "0" * 64, "producer": "hand", "opset": 18},
    input={"name": "x", "shape": ["N", 3, 8, 8], "dtype": "float32"},
    output="y",
    head="softmax",
    classes=2,
    batch=None,
    labels=("cat", "dög"),
    preprocess={"name": "imagenet", "size": [8, 8]},
    layers=LAYERS,
    row_bytes=4096,
    linear_layers=("c",),
    verification={"parity": {"max_rel": 1e-7}},
)
PROGRAMS = (
    Program("forward", (), ("x",), ("logits",), b"forward graph"),
    Program("gradient", ("t",), ("x", "target"), ("logits", "explained", "gradients.0"), b"gradient graph"),
    Program("gradient", ("t", "c"), ("x", "target"), ("logits",), b"joint graph"),
)
WEIGHTS = bytes(range(256)) * 16


def make(folder: Path, **options: Any) -> Bundle:
    """Write the bundle of this file."""
    return write(folder, MANIFEST, PROGRAMS, WEIGHTS, "1.2.3", **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a bundle on disk."""
    return make(tmp_path / "tiny.camrt").folder


def test_a_bundle_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = make(tmp_path / "tiny.camrt")
    found = read(str(tmp_path / "tiny.camrt"))
    assert found == written
    assert found.manifest == MANIFEST
    assert [(p.kind, p.layers, p.inputs, p.outputs) for p in found.programs] == [
        (p.kind, p.layers, p.inputs, p.outputs) for p in PROGRAMS
    ]
    for program, given in zip(found.programs, PROGRAMS, strict=True):
        assert isinstance(program.model, Path)
        assert program.model.read_bytes() == given.model
    assert (found.folder / "weights.bin").read_bytes() == WEIGHTS
    assert found.version == "1.2.3"


def test_a_moved_bundle_still_reads(folder: Path, tmp_path: Path) -> None:
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert read(moved).program("forward").model == tmp_path / "elsewhere" / "forward-0.onnx"


def test_programs_are_found_by_kind_and_layers_in_order(folder: Path) -> None:
    bundle = read(folder)
    assert bundle.program("gradient", ["t"]) is bundle.programs[1]
    assert bundle.program("gradient", ("t", "c")) is bundle.programs[2]
    for kind, layers in (("gradient", ["c"]), ("gradient", ["c", "t"]), ("tail", ["t"]), ("input_gradient", [])):
        with pytest.raises(BundleError, match=rf"holds no {kind} program .* exported for layers 'c', 't'"):
            bundle.program(kind, layers)


def test_layers_are_found_by_any_of_their_names_and_one_is_the_default(folder: Path) -> None:
    bundle = read(folder)
    assert bundle.manifest.default_layer == LAYERS[1]
    assert {bundle.resolve(name) for name in ("c", "stem", "stem.conv")} == {LAYERS[0]}
    with pytest.raises(LayerError, match="no layer 'sten'"):
        bundle.resolve("sten")


def test_a_bundle_is_read_without_onnx_torch_or_onnx_runtime(folder: Path) -> None:
    code = (
        "import sys; from camrt.export.bundle import read; b = read(sys.argv[1]); b.resolve('stem'); "
        "print(sorted({'onnx', 'onnx_ir', 'torch', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# reading what is not whole -----------------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return what changes the manifest of a bundle."""

    def edit(folder: Path) -> None:
        data = json.loads((folder / "manifest.json").read_text("utf-8"))
        change(data)
        (folder / "manifest.json").write_text(json.dumps(data), "utf-8")

    return edit


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights altered": (lambda f: _flip(f / "weights.bin"), "'weights.bin' .* was altered"),
    "graph altered": (lambda f: _flip(f / "gradient-1.onnx"), "'gradient-1.onnx' .* was altered"),
    "weights cut": (lambda f: (f / "weights.bin").write_bytes(WEIGHTS[:-1]), "'weights.bin' .* was altered"),
    "graph missing": (lambda f: (f / "forward-0.onnx").unlink(), "lacks 'forward-0.onnx'"),
    "weights missing": (lambda f: (f / "weights.bin").unlink(), "lacks 'weights.bin'"),
    "manifest missing": (lambda f: (f / "manifest.json").unlink(), "is not a bundle: it holds no manifest.json"),
    "manifest cut": (lambda f: (f / "manifest.json").write_text('{"schema":'), "cannot be read"),
    "manifest binary": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    "manifest a list": (lambda f: (f / "manifest.json").write_text("[]"), f"schema {SCHEMA} was wanted, .* has list"),
    "other schema": (_edit(lambda d: d.update(schema=SCHEMA + 1)), f"schema {SCHEMA} was wanted, .* has {SCHEMA + 1}"),
    "no schema": (_edit(lambda d: d.pop("schema")), "has None"),
    "no layers": (_edit(lambda d: d.pop("layers")), "lacks or misspells 'layers'"),
    "no classes": (_edit(lambda d: d.pop("classes")), "lacks or misspells 'classes'"),
    "strange layer": (_edit(lambda d: d["layers"][0].update(colour="red")), "lacks or misspells"),
    "layer a number": (_edit(lambda d: d.update(layers=[3])), "lacks or misspells"),
    "other labels": (_edit(lambda d: d.update(labels=["dog", "cat"])), "'manifest.json' .* was altered"),
    "no hash": (_edit(lambda d: d.pop("sha256")), "'manifest.json' .* was altered"),
    "no programs": (_edit(lambda d: d.pop("programs")), "lacks 'programs'"),
    "no files": (_edit(lambda d: d.pop("files")), "lacks 'files'"),
    "files a list": (_edit(lambda d: d.update(files=["weights.bin"])), "files"),
    "labels a number": (_edit(lambda d: d.update(labels=3)), "lacks or misspells"),
    "program without inputs": (_edit(lambda d: d["programs"][0].pop("inputs")), "lacks 'inputs'"),
    "program outside": (_edit(lambda d: d["programs"][0].update(file="../forward.onnx")), "have no hash"),
    "file outside": (_edit(lambda d: d["files"].update({"../../etc/passwd": "0"})), "outside the bundle"),
    "file absolute": (_edit(lambda d: d["files"].update({"/etc/passwd": "0"})), "outside the bundle"),
    "two defaults": (_edit(lambda d: d["layers"][0].update(default=True)), "default"),
    "no default": (_edit(lambda d: d["layers"][1].update(default=False)), "default"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_bundle_is_refused(folder: Path, damage: str) -> None:
    change, said = DAMAGE[damage]
    change(folder)
    with pytest.raises(BundleError, match=said) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_no_bundles(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        read(tmp_path / "none")
    (tmp_path / "file").write_text("text")
    with pytest.raises(BundleError, match=r"cannot be read|is not a bundle"):
        read(tmp_path / "file")


# writing whole or not at all ---------------------------------------------------------------------------------------


def test_what_is_there_is_never_written_over_unasked(folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(OutputError, match="is already there: give another folder or overwrite=True"):
        make(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_bundle_is_replaced_where_that_is_asked_for(folder: Path) -> None:
    found = write(folder, replace(MANIFEST, output="z"), PROGRAMS[:1], b"other", "1.2.4", overwrite=True)
    assert found.manifest.output == "z"
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "weights.bin", "forward-0.onnx"}
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("is_file", [True, False])
def test_anything_but_a_bundle_is_never_replaced(tmp_path: Path, is_file: bool) -> None:
    place = tmp_path / "mine"
    if is_file:
        place.write_text("precious")
    else:
        place.mkdir()
        (place / "precious").write_text("precious")
    with pytest.raises(OutputError, match=r"is already there: give another folder$"):
        make(place, overwrite=True)
    assert (place if is_file else place / "precious").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_whose_parent_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        make(tmp_path / "none" / "tiny.camrt")
    with pytest.raises(OutputError, match="cannot be written: embedded null byte"):
        make(tmp_path / "null\0byte")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if call == "fsync" else Path, call, full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        make(tmp_path / "tiny.camrt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", [0, 1, 2000, 5000, 5300])
def test_a_disk_that_fills_up_midway_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """A disk of `room` bytes: each write takes what still fits, as the kernel does, and fails on the rest."""
    left, real = [room], Path.open

    def open_on_full(self: Path, *args: Any, **kwargs: Any) -> Any:
        file = real(self, *args, **kwargs)
        if "w" not in (args[0] if args else kwargs.get("mode", "r")):
            return file
        write = file.write

        def partly(data: Any) -> int:
            fits = data[: left[0]]
            left[0] -= len(fits)
            write(fits)
            if len(fits) < len(data):
                raise OSError(28, "No space left on device")
            return len(fits)

        return _Writer(file, partly)

    monkeypatch.setattr(Path, "open", open_on_full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        make(tmp_path / "tiny.camrt")
    assert left[0] == 0
    assert not list(tmp_path.iterdir())


class _Writer:
    """An open file with another write."""

    def __init__(self, file: Any, write: Callable[[Any], int]) -> None:
        self._file = file
        self.write = write

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_leaves_the_old_bundle_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    rename, calls = Path.rename, []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(OutputError, match="No space left on device"):
        make(folder, overwrite=True)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "tiny.camrt")
    assert not list(tmp_path.iterdir())


def test_a_program_that_is_not_in_memory_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="given as bytes"):
        write(tmp_path / "b", MANIFEST, [replace(PROGRAMS[0], model=tmp_path / "x.onnx")], WEIGHTS, "1")
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_as_readable_as_any_other_output(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o755
