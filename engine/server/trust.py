"""
Which bundles may be served: those that hold what `camrt.export` writes, and nothing else.

ONNX Runtime and onnx parse a file with a large amount of C++ before they find anything wrong with it, and accept more
than a server should: weights in other files (ONNX Runtime follows hard links), sparse tensors, operators of any
library, settings inside the model, compiled code. So a bundle is looked at first, with a reader of our own (`wire.py`)
that allocates nothing by what a file claims and leaves no field unknown.

::

    folder    real folders from the repository down; regular files of one link each, all in the manifest, none too large
    manifest  sha256 of every file (`camrt.export.bundle.read`), every field of its type
    programs  operators of ONNX and ONNX Runtime; weights inside, or in the one weights file of the bundle, within it

What was looked at is remembered by inode and time of change, and compared again when a program is opened, which may be
long afterwards: `Sealed`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camrt.export.bundle import MANIFEST, WEIGHTS, Bundle, read
from camrt.export.manifest import Program

from ..errors import BundleError, ModelError
from .faults import UnreadyError
from .wire import BYTES, FIXED32, FIXED64, VARINT, fields

__all__ = ["DOMAINS", "Sealed", "check_bundle", "check_folder", "check_program", "without_paths"]

MAX_FILE = 2**31 - 1  # protobuf's own limit of a message, and more weights than an exporter takes in
MAX_PROGRAM = 2**28  # a program's large tensors lie in the weights file; this much is read into memory
MAX_MANIFEST = 2**26
MAX_FIELDS = 2_000_000  # of a program; a vision transformer's have some 50,000
MAX_DEPTH = 64  # messages within each other; a body within a body takes three
DOMAINS = (b"", b"ai.onnx", b"com.microsoft")  # what the exporter knows
_CODE = (b"EPContext", b"Snpe")  # operators that are compiled code
_SETTINGS = "ort"  # what the keys begin with by which a model sets ONNX Runtime
_PROGRAM = re.compile(r"[a-z0-9_]{1,64}-[0-9]{1,4}\.onnx")  # by another ending ONNX Runtime takes another format
_NUMBER = re.compile(rb"[0-9]{1,12}")
_EXTERNAL = 1  # TensorProto.EXTERNAL

Stamp = tuple[int, ...]
Said = dict[int, list[Any]]  # a message's numbers and short texts, by field

# The messages of onnx.proto: each field's number, and what it holds. A field that is not here is refused.
INT, FLOAT, DOUBLE, TEXT, SKIP = "int", "float", "double", "text", "skip"  # skip: bytes in which no tensor can be
_KINDS = {INT: VARINT, FLOAT: FIXED32, DOUBLE: FIXED64}
MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {
        1: INT, 2: SKIP, 3: SKIP, 4: SKIP, 5: INT, 6: SKIP, 7: "graph", 8: SKIP, 14: "setting", 25: "function",
    },
    "graph": {
        1: "node", 2: SKIP, 5: "weight", 10: SKIP, 11: SKIP, 12: SKIP, 13: SKIP, 14: SKIP, 15: "sparse", 16: SKIP,
    },
    "function": {
        1: SKIP, 4: SKIP, 5: SKIP, 6: SKIP, 7: "node", 8: SKIP, 9: SKIP, 10: TEXT, 11: "attribute", 12: SKIP, 13: SKIP,
        14: SKIP,
    },
    "node": {1: SKIP, 2: SKIP, 3: SKIP, 4: TEXT, 5: "attribute", 6: SKIP, 7: TEXT, 8: SKIP, 9: SKIP},
    "attribute": {
        1: SKIP, 2: FLOAT, 3: INT, 4: SKIP, 5: "tensor", 6: "graph", 7: FLOAT, 8: INT, 9: SKIP, 10: "tensor",
        11: "graph", 13: SKIP, 14: SKIP, 15: SKIP, 20: INT, 21: SKIP, 22: "sparse", 23: "sparse",
    },
    "tensor": {
        1: INT, 2: INT, 4: FLOAT, 5: INT, 6: SKIP, 7: INT, 8: TEXT, 9: SKIP, 10: DOUBLE, 11: INT, 12: SKIP,
        13: "place", 14: INT, 16: SKIP,
    },
    "place": {1: TEXT, 2: TEXT},
    "setting": {1: TEXT, 2: SKIP},
}  # fmt: skip
_SAME = {"weight": "tensor"}  # a tensor where the exporter puts weights; the only one that may lie outside


@dataclass(frozen=True)
class Sealed(Bundle):
    """
    A bundle whose files must stay what they were when it was checked.

    Attributes
    ----------
    stamps : mapping of str to tuple
        Of every file: device, inode, links, size, times of change.
    """

    stamps: Mapping[str, Stamp] = field(default_factory=dict, repr=False)

    def program(self, kind: str, layers: Any = ()) -> Program:
        """
        Return a program, as long as its file and the weights are those that were checked.

        Parameters
        ----------
        kind : str
            As in `camrt.export.bundle.Bundle.program`.
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
        UnreadyError
            If a file was replaced: a program would meet weights of another model.
        """
        program = super().program(kind, layers)
        for name in (Path(str(program.model)).name, WEIGHTS):
            if _stamp(self.folder / name) != self.stamps.get(name):
                raise UnreadyError("the model's files were replaced after it was loaded: it must be loaded again", 30)
        return program


def check_bundle(folder: Path, root: Path) -> Sealed:
    """
    Read a bundle that somebody put into a repository, and refuse it unless it is one that may be served.

    Parameters
    ----------
    folder : Path
        The bundle's folder.
    root : Path
        The repository, or the folder of prepared bundles, that it must lie in.

    Returns
    -------
    Sealed
        Verified.

    Raises
    ------
    BundleError, ModelError
        If it may not be served; one line without paths.

    Notes
    -----
    Cost: hashes every file once, and walks through the programs, some 100 ms for a large model's.
    """
    try:
        return _checked(folder, root)
    except OSError as error:
        raise BundleError(f"its files cannot be read: {error.strerror}") from None


def _checked(folder: Path, root: Path) -> Sealed:
    """Do as `check_bundle` says, but for files that cannot be read."""
    stamps = check_folder(folder, root)
    for name, limit in ((MANIFEST, MAX_MANIFEST), *((name, MAX_FILE) for name in stamps)):
        if stamps.get(name, (0,) * 4)[3] > limit:
            raise BundleError(f"{_short(name)} has more than {limit} bytes")
    try:
        bundle = read(folder)
    except BundleError as error:
        raise BundleError(without_paths(str(error).replace(str(folder), "/".join(folder.parts[-2:])))) from None
    _check_manifest(bundle)
    listed = {Path(str(program.model)).name for program in bundle.programs}
    unlisted = sorted(stamps.keys() - listed - {MANIFEST, WEIGHTS})
    if unlisted:
        raise BundleError(f"{_short(unlisted[0])} is in the bundle and not in its manifest: export the bundle again")
    if WEIGHTS not in stamps:
        raise BundleError(f"the bundle lacks {WEIGHTS!r}: export it again")
    for name in sorted(listed):
        _check_file(folder, name, stamps)
    if any(_stamp(folder / name) != stamp for name, stamp in stamps.items()):
        raise BundleError("the bundle's files change while they are read: copy it elsewhere and rename it into place")
    return Sealed(bundle.folder, bundle.manifest, bundle.programs, bundle.version, stamps)


def check_folder(folder: Path, root: Path, most: int = 10_000) -> dict[str, Stamp]:
    """
    Refuse a folder that is reached by a link, or holds anything but regular files of one name each.

    Parameters
    ----------
    folder : Path
        What is to be read.
    root : Path
        What it must lie in.
    most : int, default 10,000
        Files at most.

    Returns
    -------
    dict of str to tuple
        Each file's stamp.

    Raises
    ------
    BundleError
        If it may not be read.
    """
    if ".." in folder.parts or root not in folder.parents:
        raise BundleError("the folder is outside the repository")
    for part in (*reversed(folder.relative_to(root).parents), folder.relative_to(root)):
        if not stat.S_ISDIR(_mode(root / part)):
            raise BundleError(
                f"{_short((root / part).name)} is not a folder of its own (a symbolic link is not followed)"
            )
    if not folder.resolve().is_relative_to(root.resolve()):
        raise BundleError("the folder is outside the repository")
    stamps = {path.name: _stamp(path) for path, _ in zip(folder.iterdir(), range(most + 1), strict=False)}
    if len(stamps) > most:
        raise BundleError(f"the folder holds more than {most} files")
    for name, stamp in stamps.items():
        if not stamp or not stat.S_ISREG(_mode(folder / name)):
            raise BundleError(f"{_short(name)} is not a regular file: copy real files into the repository")
        if stamp[2] != 1:
            raise BundleError(f"{_short(name)} has a second name (a hard link): copy real files into the repository")
    return stamps


def _mode(path: Path) -> int:
    """Return what kind of thing a path is, links not followed; 0 where there is nothing."""
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _stamp(path: Path) -> Stamp:
    """Return what changes when a file does; nothing where it is not there."""
    try:
        found = path.lstat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_nlink, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _check_file(folder: Path, name: str, stamps: Mapping[str, Stamp]) -> None:
    """Check one program."""
    if not _PROGRAM.fullmatch(name):
        raise BundleError(f"{_short(name)} is no name of a program: export the bundle again")
    if stamps[name][3] > MAX_PROGRAM:
        raise BundleError(f"{name!r} has more than {MAX_PROGRAM} bytes: a program's weights belong into {WEIGHTS!r}")
    try:
        check_program((folder / name).read_bytes(), weights=stamps[WEIGHTS][3])
    except ModelError as error:
        raise ModelError(f"{name!r}: {error}") from None


def check_program(data: bytes, *, weights: int | None = None) -> None:
    """
    Refuse a serialised model that holds more than a program of a bundle does.

    Parameters
    ----------
    data : bytes
        The file's content.
    weights : int, optional
        Bytes of the weights file beside it; where None, all weights must be inside.

    Raises
    ------
    ModelError
        If it is not ONNX, holds external data other than in the weights file, sparse tensors, operators or functions of
        unknown domains, compiled code or settings of the runtime, or a field that is not known here.

    Notes
    -----
    Cost: about a second for a million fields; nothing is copied.
    """
    walk = _Walk(weights)
    walk.message("model", memoryview(data), 0)
    if not walk.has_nodes:
        raise ModelError("it holds no graph")


class _Walk:
    """One walk through a model, which ends at the first thing that is not allowed."""

    def __init__(self, weights: int | None) -> None:
        self._weights = weights
        self._fields = 0
        self.has_nodes = False
        self._checks: dict[str, Callable[[Said], None]] = {
            "node": self._check_node,
            "function": self._check_function,
            "setting": _check_setting,
            "tensor": _check_inside,
            "weight": self._check_weight,
        }

    def message(self, kind: str, data: memoryview, depth: int) -> Said:
        """Check a message and all within it; return its numbers and short texts."""
        if depth > MAX_DEPTH:
            raise ModelError(f"graphs lie more than {MAX_DEPTH} messages deep within each other")
        known, said = MESSAGES[_SAME.get(kind, kind)], Said()
        for number, wire, value in fields(data):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise ModelError(f"it holds more than {MAX_FIELDS} fields")
            inner = known.get(number, "")
            if inner == "sparse":
                raise ModelError("it holds a sparse tensor")
            if not inner or not _fits(inner, wire):
                raise ModelError(
                    f"a {_SAME.get(kind, kind)} holds field {number} of wire type {wire}, which is not known here"
                )
            if inner in MESSAGES or inner in _SAME:
                assert isinstance(value, memoryview)
                found: Any = self.message(inner, value, depth + 1)
                if inner == "place":
                    said.setdefault(number, []).append(found)
            elif inner == TEXT or (inner == INT and (kind, number) in {("tensor", 14), ("weight", 14)}):
                said.setdefault(number, []).append(value)
        if kind in self._checks:
            self._checks[kind](said)
        return said

    def _check_node(self, node: Said) -> None:
        """Refuse operators of other libraries, and those that are code."""
        self.has_nodes = True
        for op in node.get(4, ()):
            if bytes(op[:64]) in _CODE:
                raise ModelError(f"operator {_text(op)} is compiled code")
        for domain in node.get(7, ()):
            _check_domain(domain, f"operator {_text(node.get(4, [b''])[-1])}")

    def _check_function(self, function: Said) -> None:
        """Refuse functions of other libraries."""
        for domain in function.get(10, [b""]):
            _check_domain(domain, "a function")

    def _check_weight(self, tensor: Said) -> None:
        """Let a weight lie inside, or within the weights file."""
        if _is_inside(tensor):
            return
        name = _text(tensor.get(8, [b""])[-1])
        if self._weights is None:
            raise ModelError(f"tensor {name} lies outside the model")
        places: dict[bytes, bytes] = {}
        for place in tensor.get(13, ()):
            key, value = (bytes(place.get(part, [b""])[-1][:64]) for part in (1, 2))
            if key in places or len(place.get(1, ())) != 1 or len(place.get(2, ())) != 1:
                raise ModelError(f"tensor {name} says twice where it lies")
            places[key] = value
        if places.keys() != {b"location", b"offset", b"length"} or tensor.get(14) != [_EXTERNAL]:
            raise ModelError(f"tensor {name} does not say where it lies in the way the exporter does")
        if places[b"location"] != WEIGHTS.encode():
            raise ModelError(f"tensor {name} lies in another file than {WEIGHTS!r}")
        numbers = places[b"offset"], places[b"length"]
        if not all(map(_NUMBER.fullmatch, numbers)) or sum(map(int, numbers)) > self._weights:
            raise ModelError(f"tensor {name} lies beyond the end of {WEIGHTS!r}")


def _fits(kind: str, wire: int) -> bool:
    """Tell whether a field that holds `kind` may be written so; repeated numbers may be packed."""
    return wire == BYTES or wire == _KINDS.get(kind)


def _is_inside(tensor: Said) -> bool:
    """Tell whether nothing says that a tensor lies outside."""
    return not tensor.get(13) and not any(tensor.get(14, ()))


def _check_inside(tensor: Said) -> None:
    """Refuse a constant that lies outside; the exporter writes none."""
    if not _is_inside(tensor):
        raise ModelError(f"tensor {_text(tensor.get(8, [b''])[-1])} is a constant that lies outside the model")


def _check_setting(setting: Said) -> None:
    """Refuse metadata by which a model sets the runtime."""
    for key in setting.get(1, ()):
        if bytes(key[:64]).lower().startswith(_SETTINGS.encode()):
            raise ModelError(f"its metadata {_text(key)} would set the runtime")


def _check_domain(domain: memoryview, title: str) -> None:
    """Refuse what the exporter does not know."""
    if bytes(domain[:64]) not in DOMAINS:
        raise ModelError(f"{title} is of the domain {_text(domain)}, which is not served")


def _text(data: memoryview | bytes) -> str:
    """Quote a name out of a model."""
    return repr(bytes(data[:60]).decode("utf-8", "replace"))


def _short(name: str) -> str:
    """Quote a file's name."""
    return repr(name[:64])


def _is_count(value: object, least: int = 1, most: int = 10**9) -> bool:
    """Tell whether a value is a whole number within bounds."""
    return type(value) is int and least <= value <= most


def _is_name(value: object) -> bool:
    """Tell whether a value is a text of a bearable length."""
    return isinstance(value, str) and len(value) <= 4096


def _check_manifest(bundle: Bundle) -> None:
    """Refuse a manifest whose fields are of other types than the exporter writes."""
    said = bundle.manifest
    layers = [
        all(map(_is_name, (layer.name, layer.node, layer.op, layer.module, layer.layout, layer.reason)))
        and _is_count(layer.channels)
        and len(layer.grid) == 2
        and all(map(_is_count, layer.grid))
        and _is_count(layer.prefix, 0)
        for layer in said.layers
    ]
    shape = said.input.get("shape") if isinstance(said.input, dict) else None
    right = {
        "layers": all(layers),
        "classes": _is_count(said.classes, 1, 10**6),
        "batch": said.batch is None or _is_count(said.batch, 1, 4096),
        "labels": len(said.labels) in (0, said.classes) and all(map(_is_name, said.labels)),
        "model": isinstance(said.model, dict) and all(_is_name(said.model.get(key)) for key in ("name", "sha256")),
        "input": isinstance(shape, list) and len(shape) == 4 and all(_is_count(side, 1, 2**16) for side in shape[1:]),
        "output": _is_name(said.output) and _is_name(said.head),
        "preprocess": said.preprocess is None or isinstance(said.preprocess, dict),
        "linear_layers": all(map(_is_name, said.linear_layers)),
        "row_bytes": _is_count(said.row_bytes, 0, 2**50),
        "programs": all(
            _is_name(program.kind) and all(map(_is_name, (*program.layers, *program.inputs, *program.outputs)))
            for program in bundle.programs
        ),
    }
    wrong = [name for name, is_right in right.items() if not is_right]
    if wrong:
        raise BundleError(f"the manifest's {wrong[0]!r} is not what the exporter writes: export the bundle again")


def without_paths(text: str) -> str:
    """
    Make one line of a message, and of each absolute path in it the last name, so that a stranger may read it.

    Parameters
    ----------
    text : str
        Any.

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> without_paths("'/srv/models/resnet50/1' lacks 'weights.bin'")
    "'1' lacks 'weights.bin'"
    """
    return " ".join(re.sub(r"(?<![^\s'\"(=\[])(?:/[^\s/'\":,;()]+)*/([^\s/'\":,;()]*)", r"\1", text).split())
