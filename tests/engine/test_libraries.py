"""
Libraries of providers: found in NVIDIA's wheels, read out of a provider's own library, named where they are missing.

The provider's library is linked by the compiler here against libraries that are taken away again, so that nothing of
ONNX Runtime's GPU build is needed. The order and the names are what that build, 1.31.1, is linked with.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from camrt.libraries import FILES, library_folders, missing_libraries, needed_libraries, preload, refusal
from camrt.providers import CPU, CUDA, TENSORRT

NEEDED = {
    CUDA: ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcuda.so.1"],
    TENSORRT: ["libcublas.so.13", "libnvinfer.so.10", "libnvonnxparser.so.10", "libcudart.so.13", "libcudnn.so.9"],
}
PREFIX = "libcamrt_no_such_"  # before each name: a machine that has the real ones must say the same

needs_linker = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None, reason="g++ is not installed, so nothing can be linked"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return an ``onnxruntime`` whose providers are linked with libraries that are not there."""
    package, stubs = tmp_path_factory.mktemp("onnxruntime"), tmp_path_factory.mktemp("stubs")
    (package / "capi").mkdir()
    source = stubs / "nothing.cpp"
    source.write_text("int nothing;")
    link = ["g++", "-shared", "-fPIC", "-nostdlib", str(source)]
    for provider, names in NEEDED.items():
        for name in names:
            subprocess.run([*link, f"-Wl,-soname,{PREFIX}{name}", "-o", str(stubs / name)], check=True)
        with_all = ["-Wl,--no-as-needed", *(str(stubs / name) for name in names)]
        subprocess.run([*link, *with_all, "-o", str(package / "capi" / FILES[provider])], check=True)
    shutil.rmtree(stubs)
    return SimpleNamespace(__file__=str(package / "__init__.py"))


@needs_linker
@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_what_a_provider_is_linked_with_is_read_and_what_is_not_there_is_named(
    provider: str, installed: SimpleNamespace
) -> None:
    want = [PREFIX + name for name in NEEDED[provider]]
    assert needed_libraries(Path(installed.__file__).parent / "capi" / FILES[provider]) == want
    assert missing_libraries(installed, provider) == want
    assert missing_libraries(installed, CPU) == []


@needs_linker
def test_libraries_that_load_are_not_missing(tmp_path: Path) -> None:
    """The C++ library and the C library, that every program of the compiler's has."""
    (tmp_path / "capi").mkdir()
    source, made = tmp_path / "code.cpp", tmp_path / "capi" / FILES[CUDA]
    source.write_text("int nothing;")
    subprocess.run(["g++", "-shared", "-fPIC", "-Wl,--no-as-needed", str(source), "-o", str(made)], check=True)
    assert any(name.startswith("libstdc++.so") for name in needed_libraries(made))
    assert missing_libraries(SimpleNamespace(__file__=str(tmp_path / "__init__.py")), CUDA) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names are those of Linux")
def test_a_provider_whose_own_library_was_overwritten_is_said_to_be_so(tmp_path: Path) -> None:
    missing = missing_libraries(SimpleNamespace(__file__=str(tmp_path / "__init__.py")), CUDA)
    assert missing == [FILES[CUDA]]
    assert "onnxruntime overwrites it" in refusal(CUDA, missing)


def test_a_file_of_another_kind_is_linked_with_nothing(tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    other.write_bytes(b"MZ" + bytes(100))
    assert needed_libraries(other) == []


def test_the_refusal_is_one_line_that_names_libraries_and_who_brings_them() -> None:
    """Where no CUDA is installed at all."""
    assert refusal(TENSORRT, NEEDED[TENSORRT]) == (
        "TensorrtExecutionProvider was asked for and does not load here: libcublas.so.13, libcudart.so.13, libcudnn.so.9 "
        "(pip install 'camrt[gpu]'), libnvinfer.so.10, libnvonnxparser.so.10 (TensorRT 10 for CUDA 13, its folder in "
        "LD_LIBRARY_PATH) are missing; install them, or ask for cuda or cpu"
    )
    assert refusal(CUDA, NEEDED[CUDA][-1:]) == (
        "CUDAExecutionProvider was asked for and does not load here: libcuda.so.1 (NVIDIA's driver) is missing; install it, "
        "or ask for cpu"
    )


def test_libraries_are_looked_for_in_every_folder_of_the_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, files in {"cu13": ["libcudart.so.13"], "cudnn": ["libcudnn.so.9"], "docs": ["readme.txt"]}.items():
        (tmp_path / "nvidia" / name / "lib").mkdir(parents=True)
        for file in files:
            (tmp_path / "nvidia" / name / "lib" / file).write_bytes(b"")
    want = [tmp_path / "nvidia" / name / "lib" for name in ("cu13", "cudnn")]
    assert library_folders([str(tmp_path / "nvidia")]) == want
    asked: list[str] = []

    def preload_dlls(*, directory: str) -> None:
        print("Failed to load something")
        asked.append(directory)

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    preload(SimpleNamespace(preload_dlls=preload_dlls))
    assert asked[:2] == list(map(str, want))
    assert capsys.readouterr().out == ""
    preload(SimpleNamespace())  # an older ONNX Runtime
