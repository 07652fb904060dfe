"""A CUDA machine to test on where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from camrt.kernels import device
from tests.engine import cuda_stand_in
from tests.kernels import cupy_on_cpu


@pytest.fixture
def world(cpu_compiler: cupy_on_cpu.Compiler, monkeypatch: pytest.MonkeyPatch) -> Iterator[cuda_stand_in.World]:
    """Install the stand-ins for CuPy and ONNX Runtime for the length of a test, and return what they count."""
    cupy, ort, world = cuda_stand_in.make(cpu_compiler)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr("camrt.session.runtime", lambda: ort)
    device._function.cache_clear()
    yield world
    device._function.cache_clear()
