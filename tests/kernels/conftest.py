"""The machines that the CUDA kernels are tested on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from camrt.kernels import device
from tests.kernels import cupy_on_cpu


@pytest.fixture
def fake_cupy(cpu_compiler: cupy_on_cpu.Compiler, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the stand-in for CuPy, installed for the length of a test."""
    module = cupy_on_cpu.make(cpu_compiler, reverse=False)
    monkeypatch.setitem(sys.modules, "cupy", module)
    device._function.cache_clear()
    yield module
    device._function.cache_clear()


@pytest.fixture(params=["cpu", "cpu-reverse", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return CuPy, or its stand-in that runs the kernels' threads in one order and in the other."""
    if request.param == "gpu":
        yield _real_cupy()
        return
    compiler = request.getfixturevalue("cpu_compiler")
    module = cupy_on_cpu.make(compiler, reverse=request.param == "cpu-reverse")
    monkeypatch.setitem(sys.modules, "cupy", module)
    device._function.cache_clear()
    yield module
    device._function.cache_clear()


def _real_cupy() -> Any:
    """Return CuPy once it has run a kernel; skip where it cannot."""
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        assert int(module.arange(3).sum()) == 3
    except (RuntimeError, ImportError) as problem:  # CuPy's errors of driver, runtime and compiler
        pytest.skip(f"no usable CUDA device: {problem}")
    return module
