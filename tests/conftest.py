"""Fixtures every test may use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.kernels import cupy_on_cpu

ROOT = Path(__file__).parents[1]


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Return the folder of real models and photographs; skip where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "models.json").is_file():
        pytest.skip("the folder of real models and photographs is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def cpu_compiler(tmp_path_factory: pytest.TempPathFactory) -> cupy_on_cpu.Compiler:
    """Return the compiler of the stand-ins for CuPy; each source is compiled once a session."""
    if not cupy_on_cpu.has_compiler():
        pytest.skip("g++ is not installed, so the CUDA kernels cannot run on the CPU")
    return cupy_on_cpu.Compiler(tmp_path_factory.mktemp("kernels"))
