"""
The shared libraries of ONNX Runtime's providers: loaded from NVIDIA's wheels, and named where they are missing.

In: the module ``onnxruntime`` and a provider's name. Out: libraries loaded, or the names of those that do not load. ONNX
Runtime itself says in its log alone which library it missed, and for CUDA goes on silently on the CPU.

A provider's own library is only read here, never loaded: ONNX Runtime must be the first to do that, or the library has
no host and crashes when it is used.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import struct
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from .providers import CUDA, TENSORRT

__all__ = ["library_folders", "missing_libraries", "needed_libraries", "preload", "refusal"]

FILES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
LOAD, DYNAMIC = 1, 2  # types of an ELF segment
END, NEEDED, STRINGS = 0, 1, 5  # tags of an entry of the dynamic segment
BRINGERS = {
    "libcuda.": "NVIDIA's driver",
    "libnvinfer.": "TensorRT 10 for CUDA 13, its folder in LD_LIBRARY_PATH",
    "libnvonnxparser.": "TensorRT 10 for CUDA 13, its folder in LD_LIBRARY_PATH",
    "libonnxruntime_": "onnxruntime-gpu, installed alone: onnxruntime overwrites it",
    "": "pip install 'camrt[gpu]'",
}  # by the beginning of a library's name


def library_folders(search: Sequence[str]) -> list[Path]:
    """
    Find the folders of CUDA libraries that NVIDIA's wheels install.

    Parameters
    ----------
    search : sequence of str
        Folders of the package ``nvidia``.

    Returns
    -------
    list of Path
        Those that hold shared libraries, in order.
    """
    found = (folder for base in search for folder in sorted(Path(base).glob("*/lib")))
    return [folder for folder in found if any(folder.glob("*.so*"))]


def preload(ort: Any) -> None:
    """
    Load CUDA's libraries from NVIDIA's wheels before ONNX Runtime looks for them.

    Parameters
    ----------
    ort : module
        ``onnxruntime``. Its own search looks beside itself alone; every folder of the wheels is named to it, so that they
        may lie in another place of the path.
    """
    if not hasattr(ort, "preload_dlls"):
        return
    spec = importlib.util.find_spec("nvidia")
    with redirect_stdout(StringIO()):  # it prints what is not in the folder at hand
        for folder in library_folders(list(spec.submodule_search_locations or ()) if spec is not None else ()):
            ort.preload_dlls(directory=str(folder))


def needed_libraries(file: str | Path) -> list[str]:
    """
    Read which shared libraries a shared library is linked with.

    Parameters
    ----------
    file : str or Path
        A 64-bit little-endian ELF file.

    Returns
    -------
    list of str
        Their names, in the file's order; none where the file is of another kind, as on other systems than Linux.

    Notes
    -----
    The layout is that of the System V ABI, chapters "Program Header" and "Dynamic Section". Cost: a few pages are read.
    """
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":
            return []
        (table,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
        segments = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
        start, length = next(((at, n) for kind, _, at, _, _, n in segments if kind == DYNAMIC), (0, 0))
        entries = list(struct.iter_unpack("<QQ", data[start : start + length]))
        entries = entries[: next((i for i, (tag, _) in enumerate(entries) if tag == END), len(entries))]
        address = next((value for tag, value in entries if tag == STRINGS), 0)
        strings = next(
            (
                address - base + at
                for kind, _, at, base, _, n in segments
                if kind == LOAD and base <= address < base + n
            ),
            0,
        )
        starts = [strings + value for tag, value in entries if tag == NEEDED]
        return [data[at : data.find(b"\0", at)].decode() for at in starts]


def missing_libraries(ort: Any, provider: str) -> list[str]:
    """
    Name the shared libraries for want of which a provider does not load.

    Parameters
    ----------
    ort : module
        ``onnxruntime``.
    provider : str
        Its full name.

    Returns
    -------
    list of str
        Those that its own library is linked with and that do not load, or its own where it is not there; none for other
        providers than CUDA and TensorRT, and on other systems than Linux.
    """
    if provider not in FILES or sys.platform != "linux":
        return []
    file = Path(ort.__file__).parent / "capi" / FILES[provider]
    if not file.is_file():
        return [file.name]
    return [name for name in needed_libraries(file) if not _loads(name)]


def refusal(provider: str, missing: Sequence[str]) -> str:
    """
    Say that a provider does not load, for want of what, and what brings it.

    Parameters
    ----------
    provider : str
        Its full name.
    missing : sequence of str
        Libraries, at least one.

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> refusal("CUDAExecutionProvider", ["libcuda.so.1"]).split(": ")[1]
    "libcuda.so.1 (NVIDIA's driver) is missing; install it, or ask for cpu"
    """
    brought: dict[str, list[str]] = {}
    for name in missing:
        source = next(bringer for start, bringer in BRINGERS.items() if name.startswith(start))
        brought.setdefault(source, []).append(name)
    alone = len(missing) == 1
    what = ", ".join(f"{', '.join(names)} ({source})" for source, names in brought.items())
    return (
        f"{provider} was asked for and does not load here: {what} {'is' if alone else 'are'} missing; install "
        f"{'it' if alone else 'them'}, or ask for {'cuda or cpu' if provider == TENSORRT else 'cpu'}"
    )


def _loads(name: str) -> bool:
    """Tell whether a shared library is there."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
