"""
A stand-in for the part of CuPy that camrt.kernels uses: the ``.cu`` files run on the CPU, through a C++ compiler.

`make` returns a module to be put in ``sys.modules["cupy"]``. Its arrays lie between guards and are born filled with
0xFF bytes, which read as NaN: a kernel that reads what nobody wrote, or past an end, spoils its result; one that
writes past an end fails. Arguments are held against the kernel's declaration.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np

SHIM = Path(__file__).with_name("cuda_on_cpu.h")
GUARD_BYTES = 256
GUARD = -1  # 0xFF as int8, a type that no kernel's array has: it tells the memory of `empty` from a test's own
DECLARATION = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
SCALARS: dict[str, tuple[type, Any]] = {"long long": (int, ctypes.c_longlong), "double": (float, ctypes.c_double)}
ELEMENTS: dict[str, Any] = {"float": np.float32, "double": np.float64, "bool": np.bool_}
ELEMENTS |= {"long long": np.int64, "int": np.int32, "unsigned char": np.uint8}


class Device:
    """A device that is a context manager and has a number."""

    def __init__(self, number: int) -> None:
        """Keep the number."""
        self.id = number

    def __enter__(self) -> Self:
        """Make this device the current one, as CuPy would."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Go back to the device before."""


class Array(np.ndarray):
    """An array of the stand-in; NumPy's own is none."""

    @property
    def device(self) -> Device:  # type: ignore[override]
        """Return the one device there is."""
        return Device(0)


@dataclass
class Compiler:
    """Compiles sources once each and keeps the libraries in `folder`."""

    folder: Path
    libraries: dict[str, ctypes.CDLL] = field(default_factory=dict)

    def library(self, code: str, options: tuple[str, ...]) -> ctypes.CDLL:
        """Return the library of `code`; only the -D and -std options mean anything to a C++ compiler."""
        key = hashlib.sha256(repr((code, options)).encode()).hexdigest()[:16]
        if key not in self.libraries:
            path = self.folder / f"{key}.cpp"
            drivers = "\n".join(_driver(name, parameters) for name, parameters in DECLARATION.findall(code))
            path.write_text(f'#include "{SHIM}"\n{code}\n{drivers}\n', encoding="utf-8")
            flags = [option.replace("--std", "-std") for option in options if option != "--fmad=false"]
            command = ["g++", "-O1", "-Wall", "-Wno-unused-function", "-ffp-contract=off", "-fPIC", "-shared", *flags]
            done = subprocess.run([*command, "-o", f"{path}.so", path], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            self.libraries[key] = ctypes.CDLL(f"{path}.so")
        return self.libraries[key]


@dataclass
class RawModule:
    """A compiled source."""

    compiler: Compiler
    reverse: bool
    code: str
    options: tuple[str, ...]

    def get_function(self, name: str) -> Function:
        """Return the kernel `name`."""
        declarations = dict(DECLARATION.findall(self.code))
        assert name in declarations, f"{name} is not declared in the source"
        library = self.compiler.library(self.code, self.options)
        real = next(option.removeprefix("-DREAL=") for option in self.options if option.startswith("-DREAL="))
        return Function(getattr(library, f"run_{name}"), _parameters(declarations[name], real), self.reverse)


@dataclass
class Function:
    """A kernel, launched with a grid, a block and arguments as CuPy's are."""

    run: Any
    parameters: list[str]
    reverse: bool

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        """Run the kernel to its end."""
        assert len(arguments) == len(self.parameters), f"{len(arguments)} arguments for {self.parameters}"
        width, height = (*block, 1)[:2]
        shape = (ctypes.c_longlong(grid[0]), width, height, int(self.reverse))
        passed = [_pass(a, parameter) for a, parameter in zip(arguments, self.parameters, strict=True)]
        assert self.run(*shape, *passed) == 0, "part of a block missed a barrier"
        for array in arguments:
            if isinstance(array, Array):
                _check_guards(array)


def make(compiler: Compiler, *, reverse: bool) -> Any:
    """Return the stand-in; with `reverse`, the threads of a block run last to first."""

    def ascontiguousarray(array: np.ndarray, dtype: Any = None) -> Array:
        copy = empty(array.shape, dtype or array.dtype)
        copy[...] = array
        return copy

    cupy: Any = ModuleType("cupy")
    cupy.ndarray, cupy.empty, cupy.ascontiguousarray = Array, empty, ascontiguousarray
    cupy.asarray = lambda array: np.asarray(array).view(Array)
    cupy.asnumpy = lambda array: np.array(array)
    cupy.argsort = lambda array, *, axis, kind: ascontiguousarray(np.argsort(array, axis=axis, kind=kind))
    cupy.cuda = ModuleType("cupy.cuda")
    cupy.cuda.Device = Device
    cupy.RawModule = lambda *, code, options: RawModule(compiler, reverse, code, options)
    return cupy


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array of 0xFF bytes between two guards of the same."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole = np.full(n_bytes + 2 * GUARD_BYTES, GUARD, np.int8)
    inside = whole[GUARD_BYTES : GUARD_BYTES + n_bytes]
    array: Array = inside.view(dtype).reshape(shape).view(Array)
    return array


def has_compiler() -> bool:
    """Tell whether g++ is there."""
    return shutil.which("g++") is not None


def _driver(name: str, parameters: str) -> str:
    """Return C++ that calls kernel `name` with the arguments of the launch."""
    names = [parameter.split("*")[-1].split()[-1] for parameter in parameters.split(",")]
    listed = ", ".join(names)
    return (
        f'extern "C" int run_{name}(long long launch_blocks, int launch_x, int launch_y, int reverse, {parameters})\n'
        f"{{\n    auto body = [&] {{ {name}({listed}); }};\n"
        "    return run(launch_blocks, launch_x, launch_y, reverse, [](void *b) { (*(decltype(body) *)b)(); }, &body);\n}\n"
    )


def _parameters(declaration: str, real: str) -> list[str]:
    """Return the parameters' types, such as ``"float *"`` or ``"long long"``, without names and const."""
    words = [re.sub(r"\s*\w+\s*$", "", parameter.strip()) for parameter in declaration.split(",")]
    return [re.sub(r"\bREAL\b", real, word.replace("const ", "")).strip() for word in words]


def _pass(argument: Any, parameter: str) -> Any:
    """Return `argument` as ctypes passes it, once it fits the parameter it meets."""
    if parameter.endswith("*"):
        assert isinstance(argument, Array), f"{parameter} got {type(argument).__name__}"
        assert argument.dtype == ELEMENTS[parameter.rstrip(" *")], f"{parameter} got {argument.dtype}"
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.ctypes.data)
    python_type, c_type = SCALARS[parameter]
    assert type(argument) is python_type, f"{parameter} got {type(argument).__name__}"
    return c_type(argument)


def _check_guards(array: Array) -> None:
    """Fail where a kernel wrote before or behind `array`."""
    whole: Any = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    if whole.dtype == np.int8:
        assert (whole[:GUARD_BYTES] == GUARD).all(), "a kernel wrote before the start of an array"
        assert (whole[-GUARD_BYTES:] == GUARD).all(), "a kernel wrote behind the end of an array"
