"""The CUDA sources compile for every device we name, and are loaded, cached and launched as CuPy wants it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

from camrt import kernels
from camrt.kernels.device import Gpu, Kernel, compiler_options, read_source
from tests.kernels import nvrtc

ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_120"]  # Turing, Ampere, Hopper, Blackwell
MODULES = [importlib.import_module(f"camrt.kernels.{m.name}") for m in pkgutil.iter_modules(kernels.__path__)]
LAUNCHED = sorted(
    {value for module in MODULES for value in vars(module).values() if isinstance(value, Kernel)},
    key=lambda kernel: (kernel.source, kernel.name),
)
SOURCES = sorted(entry.name.removesuffix(".cu") for entry in files(kernels).iterdir() if entry.name.endswith(".cu"))

needs_nvrtc = pytest.mark.skipif(nvrtc.load() is None, reason="nvidia-cuda-nvrtc is not installed (the extra 'test')")


def test_every_kernel_that_is_launched_is_declared_and_every_declared_one_is_launched() -> None:
    declared = {
        (source, name) for source in SOURCES for name in re.findall(r"__global__ void (\w+)\(", read_source(source))
    }
    assert declared == {(kernel.source, kernel.name) for kernel in LAUNCHED}
    assert len(LAUNCHED) >= 7


@needs_nvrtc
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES)
def test_a_source_compiles_and_holds_the_kernels_that_are_launched(source: str, architecture: str, dtype: str) -> None:
    cubin = nvrtc.compile_cubin(read_source(source), architecture, compiler_options(np.dtype(dtype)))
    assert [k.name for k in LAUNCHED if k.source == source and not nvrtc.has_kernel(cubin, k.name)] == []


@needs_nvrtc
def test_a_broken_source_does_not_compile_and_the_log_says_where() -> None:
    broken = read_source("scaling").replace("const REAL span = high - low;", "const REAL span = high - lwo;")
    with pytest.raises(nvrtc.NvrtcError, match=r"kernel\.cu\(\d+\): error: identifier \"lwo\" is undefined"):
        nvrtc.compile_cubin(broken, "sm_90", compiler_options(np.dtype("f4")))


@needs_nvrtc
def test_a_kernel_of_another_name_is_noticed_in_the_cubin() -> None:
    source = read_source("scaling")
    mangled = nvrtc.compile_cubin(source.replace('extern "C" ', ""), "sm_90", compiler_options(np.dtype("f4")))
    assert not nvrtc.has_kernel(mangled, "min_max")
    renamed = nvrtc.compile_cubin(source.replace("min_max(", "min_max2("), "sm_90", compiler_options(np.dtype("f4")))
    assert not nvrtc.has_kernel(renamed, "min_max")
    assert nvrtc.has_kernel(renamed, "min_max2")


def test_sources_are_read_as_package_data() -> None:
    assert read_source("weighting").startswith("// weighted_sum: ")


def test_the_floating_type_is_chosen_on_the_command_line() -> None:
    assert "-DREAL=float" in compiler_options(np.dtype("f4"))
    assert "-DREAL=double" in compiler_options(np.dtype("f8"))


def test_a_kernel_is_compiled_once_for_each_floating_type(fake_cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    raw_module = fake_cupy.RawModule

    def recorded(*, code: str, options: tuple[str, ...]) -> Any:
        compiled.append(options[-1])
        return raw_module(code=code, options=options)

    monkeypatch.setattr(fake_cupy, "RawModule", recorded)
    for dtype in ("f4", "f4", "f8", "f4"):
        kernels.min_max(fake_cupy.asarray(np.zeros((2, 3, 3), dtype)))
    assert compiled == ["-DREAL=float", "-DREAL=double"]


def test_work_is_queued_on_the_device_that_holds_the_array(fake_cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []

    class Recorded:
        def __init__(self, number: int) -> None:
            self.id = number

        def __enter__(self) -> None:
            entered.append(self.id)

        def __exit__(self, *exception: object) -> None:
            pass

    monkeypatch.setattr(fake_cupy.cuda, "Device", Recorded)
    monkeypatch.setattr(fake_cupy.ndarray, "device", Recorded(3))
    kernels.min_max(fake_cupy.asarray(np.zeros((1, 2, 2), np.float32)))
    assert set(entered) == {3}
    assert len(entered) == 4  # two new arrays, a contiguous input, one launch


def test_an_empty_row_of_blocks_starts_nothing(fake_cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fake_cupy, "RawModule")
    Gpu(0).launch(Kernel("scaling", "min_max", (512,)), np.dtype("f4"), 0, ())
