"""
Bundles: a model's programs, their one shared weights file and a manifest, in one folder.

This module knows the file format and nothing of ONNX, so that the engine reads a prepared bundle with the standard
library alone. Writing goes to a temporary folder beside the target, which is renamed when it is complete.

::

    bundle/
      manifest.json      what the model is, its layers and programs, how it was verified; hashes of every other file
      weights.bin        every weight once, whichever program uses it
      forward.onnx ...   one graph a purpose
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camrt.errors import BundleError, OutputError

from .manifest import Layer, Manifest, Program

__all__ = ["SCHEMA", "Bundle", "check_free", "read", "write"]

SCHEMA = 1  # raised when a reader of the old format would misunderstand the new one
MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, and the version of camrt that wrote it; the weights of all programs lie in one more file."""

    folder: Path
    manifest: Manifest
    programs: tuple[Program, ...]
    version: str

    def program(self, kind: str, layers: Sequence[str] = ()) -> Program:
        """
        Return the program of one kind for some layers.

        Parameters
        ----------
        kind : str
            As in `Program`.
        layers : sequence of str
            Layer names, in order.

        Returns
        -------
        Program
            The one the bundle was exported with.

        Raises
        ------
        BundleError
            If the bundle was exported without it.
        """
        for program in self.programs:
            if program.kind == kind and program.layers == tuple(layers):
                return program
        held = sorted({name for p in self.programs for name in p.layers})
        is_held = any(p.kind == kind for p in self.programs)
        wanted = f"layers={list(layers)!r}" if is_held else f"also=[{kind!r}] (--method, on the command line)"
        raise BundleError(
            f"this bundle holds no {kind} program for {', '.join(map(repr, layers)) or 'the model'}; it was exported for "
            f"layers {', '.join(map(repr, held)) or 'none'}: export it again with {wanted}"
        )

    def offers(self, kind: str, layers: Sequence[str] = ()) -> bool:
        """
        Tell whether the bundle was exported with a program.

        Parameters
        ----------
        kind : str
            As in `Program`.
        layers : sequence of str
            Layer names, in order.

        Returns
        -------
        bool
            True where `program` gives one.
        """
        return any(program.kind == kind and program.layers == tuple(layers) for program in self.programs)

    def resolve(self, name: str) -> Layer:
        """
        Return the layer of a name.

        Parameters
        ----------
        name : str
            A tensor, a node or a module path.

        Returns
        -------
        Layer
            The candidate of that name.

        Raises
        ------
        LayerError
            If there is none; near names are offered.
        """
        from .names import pick

        return pick(name, self.manifest.layers)

    def weight_layers(self) -> tuple[str, ...]:
        """
        Refuse to name layers of weights.

        Returns
        -------
        tuple of str
            Never.

        Raises
        ------
        BundleError
            Always: its programs hold the weights many times over, transposed and folded.
        """
        raise BundleError(
            "a bundle holds programs, not the model whose weights would be drawn anew: open the .onnx file it was made of"
        )

    def randomised(self, layers: Sequence[str], seed: int = 0) -> Bundle:
        """
        Refuse to draw weights anew.

        Parameters
        ----------
        layers : sequence of str
            Any.
        seed : int, default 0
            Any.

        Returns
        -------
        Bundle
            Never.

        Raises
        ------
        BundleError
            Always, as `weight_layers`.
        """
        self.weight_layers()
        raise AssertionError("refused above")


def read(folder: str | Path) -> Bundle:
    """
    Open a bundle and check that it is whole and unaltered.

    Parameters
    ----------
    folder : str or Path
        A folder that `write` made.

    Returns
    -------
    Bundle
        Its manifest and programs; graphs are not loaded yet.

    Raises
    ------
    BundleError
        If a file is missing, altered, or of another schema.

    Notes
    -----
    Cost: hashes every file once.
    """
    folder = Path(folder)
    try:
        data = json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{str(folder)!r} is not a bundle: it holds no {MANIFEST}; make one with `camrt export`"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"the manifest of {str(folder)!r} cannot be read ({error}): export the bundle again"
        ) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise BundleError(f"bundle schema {SCHEMA} was wanted, {str(folder)!r} has {found}: export the bundle again")
    files = data.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"the manifest of {str(folder)!r} lacks 'files': export the bundle again")
    for name, digest in files.items():
        _check_file(folder, name, digest)
    manifest = Manifest.from_dict(data)
    try:
        programs = tuple(
            Program(p["kind"], tuple(p["layers"]), tuple(p["inputs"]), tuple(p["outputs"]), folder / p["file"])
            for p in data["programs"]
        )
        unlisted = {p["file"] for p in data["programs"]} - set(files)
    except (KeyError, TypeError) as error:
        raise BundleError(f"the manifest of {str(folder)!r} lacks {error}: export the bundle again") from error
    if unlisted:
        raise BundleError(
            f"programs {sorted(unlisted)} of {str(folder)!r} have no hash in the manifest: export the bundle again"
        )
    if data.get("sha256") != _digest(data):
        raise BundleError(
            f"{MANIFEST!r} in the bundle {str(folder)!r} was altered since it was written: export it again, and give "
            "labels, preprocessing or a layer to `camrt.load`"
        )
    return Bundle(folder, manifest, programs, str(data.get("camrt")))


def _digest(data: Mapping[str, Any]) -> str:
    """Return the sha256 of a manifest's content, its own hash left out."""
    content = json.dumps({name: value for name, value in data.items() if name != "sha256"}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _check_file(folder: Path, name: str, digest: str) -> None:
    """Compare one file with its hash; names stay inside the folder."""
    if Path(name).name != name:
        raise BundleError(f"the manifest names a file outside the bundle ({name!r}): refused")
    path = folder / name
    if not path.is_file():
        raise BundleError(f"the bundle {str(folder)!r} lacks {name!r}: export it again")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise BundleError(
                f"{name!r} in the bundle {str(folder)!r} was altered since it was written: export it again"
            )


def check_free(folder: str | Path, *, overwrite: bool = False) -> None:
    """
    Refuse a place where a bundle may not be written.

    Parameters
    ----------
    folder : str or Path
        Where a bundle is to be written.
    overwrite : bool, default False
        Whether a bundle that is there may be replaced.

    Raises
    ------
    OutputError
        If something is there.
    """
    folder = Path(folder)
    if folder.exists() and not (overwrite and (folder / MANIFEST).is_file()):
        hint = "give another folder or overwrite=True" if (folder / MANIFEST).is_file() else "give another folder"
        raise OutputError(f"{str(folder)!r} is already there: {hint}")


def write(
    folder: str | Path,
    manifest: Manifest,
    programs: Iterable[Program],
    weights: bytes | bytearray | memoryview,
    version: str,
    *,
    overwrite: bool = False,
) -> Bundle:
    """
    Write a bundle, whole or not at all.

    Parameters
    ----------
    folder : str or Path
        Where to; its parent must exist.
    manifest : Manifest
        What the model is.
    programs : iterable of Program
        Serialised graphs whose large weights refer to ``weights.bin``.
    weights : bytes
        The content of ``weights.bin``.
    version : str
        The version of camrt that writes.
    overwrite : bool, default False
        Replace a bundle that is there. Anything else that is there is never touched.

    Returns
    -------
    Bundle
        The bundle as read back.

    Raises
    ------
    OutputError
        If the folder exists, or the disk is full or not writable; nothing is left behind then.
    """
    folder = Path(folder)
    check_free(folder, overwrite=overwrite)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{str(folder)!r} cannot be written: {reason}") from error
    try:
        _fill(scratch, manifest, programs, weights, version)
        scratch.chmod(0o755)  # mkdtemp makes it private; a bundle is as readable as any other output
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            _exchange(folder, scratch, old / "old")
            shutil.rmtree(old)
        else:
            scratch.rename(folder)
    except OSError as error:
        raise OutputError(f"{str(folder)!r} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return read(folder)


def _exchange(folder: Path, new: Path, aside: Path) -> None:
    """Put `new` in the place of `folder`, or leave `folder` where it was."""
    try:
        folder.rename(aside)
        new.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        aside.parent.rmdir()
        raise


def _fill(
    scratch: Path,
    manifest: Manifest,
    programs: Iterable[Program],
    weights: bytes | bytearray | memoryview,
    version: str,
) -> None:
    """Write every file of a bundle into an empty folder."""
    files: dict[str, str] = {}

    def put(name: str, data: bytes | bytearray | memoryview) -> None:
        with (scratch / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        files[name] = hashlib.sha256(data).hexdigest()

    put(WEIGHTS, weights)
    listed = []
    for index, program in enumerate(programs):
        if not isinstance(program.model, bytes):
            raise TypeError("a program to be written is given as bytes")
        name = f"{program.kind}-{index}.onnx"
        put(name, program.model)
        entry = {"kind": program.kind, "layers": program.layers, "inputs": program.inputs, "outputs": program.outputs}
        listed.append({**entry, "file": name})
    data = {"schema": SCHEMA, "camrt": version, **manifest.to_dict(), "programs": listed, "files": files}
    data = json.loads(json.dumps(data))  # tuples become what a reader finds
    (scratch / MANIFEST).write_text(json.dumps({**data, "sha256": _digest(data)}, indent=1) + "\n", "utf-8")
