"""
NVIDIA's runtime compiler through ctypes: CUDA source in, device code out, without a GPU or a driver.

The library comes with the package ``nvidia-cuda-nvrtc`` of the ``test`` extra.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path


class NvrtcError(Exception):
    """A source that does not compile; the message is the compiler's log."""


@lru_cache(maxsize=1)
def load() -> ctypes.CDLL | None:
    """Return the library, or None where the package is not installed."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        libraries = Path(folder) / "cu13" / "lib"
        if (libraries / "libnvrtc.so.13").is_file():
            for builtins in libraries.glob("libnvrtc-builtins.so.13*"):  # NVRTC asks for it by its bare name
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(libraries / "libnvrtc.so.13"))
    return None


def compile_cubin(source: str, architecture: str, options: Sequence[str]) -> bytes:
    """Return the cubin of `source` for `architecture`, such as ``"sm_90"``."""
    library = load()
    assert library is not None, "ask load() first"
    program = ctypes.c_void_p()
    created = library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    assert created == 0, f"nvrtcCreateProgram failed with {created}"
    try:
        words = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in options)]
        if library.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words)) != 0:
            raise NvrtcError(_read(library, program, "ProgramLog").decode(errors="replace"))
        return _read(library, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def has_kernel(cubin: bytes, name: str) -> bool:
    """Tell whether `cubin` holds the code of a kernel of that very name, unmangled: each has its own text section."""
    return f"\0.text.{name}\0".encode() in cubin


def _read(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    """Return one of the program's results, which NVRTC hands out as a size and a copy."""
    size = ctypes.c_size_t()
    assert getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(library, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.raw
