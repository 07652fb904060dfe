"""Sessions: providers are what was asked for or an error; fixed batches run in chunks; threads do not matter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from camrt.errors import InputError, NumericError, ProviderError
from camrt.export.live import open_model
from camrt.libraries import FILES
from camrt.providers import CUDA, TENSORRT, parse_providers
from camrt.session import Session, Sessions
from camrt.tensorrt import NOTE
from tests import tiny

CPU = parse_providers("cpu")


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "MadeUpExecutionProvider"])
def test_a_provider_that_is_not_there_is_an_error_and_never_the_cpu(name: str) -> None:
    program = open_model(tiny.gap()).program("forward")
    with pytest.raises(ProviderError, match="was asked for"):
        Session(program, parse_providers([name, "cpu"]))


# What ONNX Runtime's GPU build 1.31.1 raises without a GPU and without CUDA's and TensorRT's libraries, to the letter.
NO_TENSORRT = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void "
    "onnxruntime::python::RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) "
    "Please install TensorRT libraries as mentioned in the GPU requirements page, make sure they're in the PATH or "
    "LD_LIBRARY_PATH, and that your GPU is supported.\n"
)
NO_FALLBACK = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU EP, but "
    "fallback to CPU EP has been explicitly disabled by the user."
)


def gpu_build(folder: Path) -> SimpleNamespace:
    """
    Return a stand-in for that build, which does as it did: TensorRT raises, CUDA alone raises where it must not fall back.

    Its version, its providers and its exceptions are the real ones; CUDA beside the CPU falls back without a word.
    """
    (folder / "capi").mkdir()
    for provider in FILES.values():
        (folder / "capi" / provider).write_bytes(b"")

    def session(_: Any, options: Any, *, providers: list[str], provider_options: Any, enable_fallback: int) -> Any:
        assert enable_fallback == 0
        if "TensorrtExecutionProvider" in providers:
            raise RuntimeError(NO_TENSORRT)
        if "CPUExecutionProvider" not in providers:
            assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
            raise Fail(NO_FALLBACK)
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    return SimpleNamespace(
        __version__="1.31.1",
        __file__=str(folder / "__init__.py"),
        get_available_providers=lambda: [TENSORRT, CUDA, "CPUExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=session,
    )


@pytest.mark.parametrize(
    ("asked", "lacks", "says"),
    [
        ("cuda", [CUDA], "CUDAExecutionProvider was asked for and does not load here: libcublasLt.so.13 (pip install"),
        (
            "cuda,cpu",
            [CUDA],
            "CUDAExecutionProvider was asked for and does not load here: libcublasLt.so.13 (pip install",
        ),
        (
            "tensorrt",
            [TENSORRT],
            "TensorrtExecutionProvider was asked for and does not load here: libnvinfer.so.10 (Tens",
        ),
        (
            "tensorrt,cuda",
            [CUDA, TENSORRT],
            "TensorrtExecutionProvider was asked for and does not load here: libnvinfer",
        ),
        (
            "tensorrt,cpu",
            [CUDA],
            "TensorrtExecutionProvider, CPUExecutionProvider cannot run the forward program: /onnx",
        ),
        ("cuda", [], "Ask for cpu behind it to let those nodes run there"),
        (
            "cuda,cpu",
            [],
            "CUDAExecutionProvider was asked for, ONNX Runtime fell back to CPUExecutionProvider and says",
        ),
    ],
)
def test_a_provider_that_does_not_load_is_an_error_that_names_the_library(
    asked: str, lacks: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = {FILES[CUDA]: "libcublasLt.so.13", FILES[TENSORRT]: "libnvinfer.so.10"}
    there = [linked[file] for provider, file in FILES.items() if provider not in lacks]
    monkeypatch.setattr("camrt.session.runtime", lambda: gpu_build(tmp_path))
    monkeypatch.setattr("camrt.libraries.needed_libraries", lambda file: [linked[file.name]])
    monkeypatch.setattr("camrt.libraries._loads", lambda name: name in there)
    with pytest.raises(ProviderError) as caught:
        Session(open_model(tiny.gap()).program("forward"), parse_providers(asked))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asked", ["tensorrt", "tensorrt,cuda", "tensorrt,cuda,cpu"])
def test_tensorrt_without_its_libraries_is_refused_with_their_names_and_its_label(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camrt.session.runtime", lambda: gpu_build(tmp_path))
    monkeypatch.setattr("camrt.libraries.needed_libraries", lambda _: ["libnvinfer.so.10", "libnvonnxparser.so.10"])
    monkeypatch.setattr("camrt.libraries._loads", lambda _: False)
    sessions = Sessions(open_model(tiny.gap()), parse_providers(asked))
    with pytest.raises(ProviderError, match=rf"{NOTE}.*libnvinfer\.so\.10, libnvonnxparser\.so\.10 \(TensorRT 10"):
        sessions.run("forward", (), {"x": tiny.images(1)})


def test_the_cpu_is_used_without_a_word_where_the_gpu_build_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its libraries are then none of ours: nothing is loaded, looked for or read."""
    monkeypatch.setattr("camrt.session.preload", lambda _: pytest.fail("libraries of CUDA were looked for"))
    monkeypatch.setattr("camrt.session.missing_libraries", lambda *_: pytest.fail("a provider's library was read"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, "CPUExecutionProvider"])
    logits = Sessions(open_model(tiny.gap()), CPU).run("forward", (), {"x": tiny.images(1)})["logits"]
    assert logits.shape == (1, tiny.CLASSES)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 257])
def test_a_fixed_batch_runs_in_filled_chunks_with_the_same_numbers(n: int) -> None:
    x = tiny.images(n)
    fixed, free = (Sessions(open_model(_fixed(b)), CPU) for b in (4, "batch"))
    assert fixed.source.manifest.batch == 4
    assert free.source.manifest.batch is None
    got, want = (s.run("forward", (), {"x": x})["logits"] for s in (fixed, free))
    assert got.shape == (n, tiny.CLASSES)
    np.testing.assert_allclose(got, want, atol=1e-5)


def _fixed(batch: int | str) -> bytes:
    """Return a model whose Reshape ties it to one batch."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(tiny.gap(batch))
    if isinstance(batch, int):
        model.graph.node[5].CopyFrom(helper.make_node("Reshape", ["pooled", "shape"], ["flat"], "/Reshape"))
        model.graph.initializer.append(numpy_helper.from_array(np.array([batch, tiny.CHANNELS], np.int64), "shape"))
    return bytes(model.SerializeToString())


def test_logits_that_are_not_finite_name_the_image() -> None:
    x = tiny.images(3)
    x[1] = np.inf
    with pytest.raises(NumericError, match="image 1"):
        Sessions(open_model(tiny.gap()), CPU).run("forward", (), {"x": x})


def test_threads_opening_one_program_at_once_share_one_session() -> None:
    sessions = Sessions(open_model(tiny.gap()), CPU)
    x = tiny.images(2)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: sessions.run("forward", (), {"x": x})["logits"], range(64)))
    assert all(np.array_equal(answers[0], answer) for answer in answers)
    assert len(sessions._open) == 1


def threads_of(session: Session) -> tuple[int, str]:
    """Return how many threads a run has, and whether they spin."""
    options = session._session.get_session_options()
    return options.intra_op_num_threads, options.get_session_config_entry("session.intra_op.allow_spinning")


def test_a_run_beside_another_leaves_it_its_cores_and_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, other_model = (Sessions(open_model(tiny.gap()), CPU, 3, threads_beside=2) for _ in range(2))
    feeds = {"x": tiny.images(5)}
    want = sessions.run("forward", (), feeds)["logits"]
    ((alone,), (beside,)) = (tuple(opened.values()) for opened in (sessions._open, sessions._open_beside))
    assert (threads_of(alone), threads_of(beside)) == ((3, "1"), (2, "0"))
    used = []
    for session in (alone, beside):
        monkeypatch.setattr(
            session, "run", partial(lambda which, run, *asked: used.append(which) or run(*asked), session, session.run)
        )
    sessions.run("forward", (), feeds)
    with other_model.under_way() as others:
        assert not others
        got = sessions.run("forward", (), feeds)["logits"]
    sessions.run("forward", (), feeds)
    assert used == [alone, beside, alone]
    assert np.array_equal(got, want)


def test_a_run_that_fails_is_under_way_no_more() -> None:
    sessions = Sessions(open_model(tiny.gap()), CPU, 2, threads_beside=1)
    with pytest.raises(ProviderError):
        sessions.run("forward", (), {"x": np.zeros((1, 3, 5, 5), "f4")})
    with sessions.under_way() as others, sessions.under_way() as more:
        assert (others, more) == (False, True)


def test_every_run_is_like_any_other_unless_told() -> None:
    sessions = Sessions(open_model(tiny.gap()), CPU, 2)
    with sessions.under_way(), sessions.under_way() as others:
        assert not others
        sessions.run("forward", (), {"x": tiny.images(1)})
    assert not sessions._open_beside
    assert [threads_of(session) for session in sessions._open.values()] == [(2, "0")]


@pytest.mark.parametrize("beside", [None, 1])
def test_another_model_is_run_in_the_same_way(beside: int | None) -> None:
    sessions = Sessions(open_model(tiny.gap()), CPU, 2, threads_beside=beside)
    other = sessions.of(open_model(tiny.gap()))
    other.run("forward", (), {"x": tiny.images(1)})
    assert [threads_of(session)[0] for session in other._open.values()] == [2]
    assert [threads_of(session)[0] for session in other._open_beside.values()] == [beside] * (beside is not None)


def test_runs_on_a_device_do_not_share_cores() -> None:
    sessions = Sessions(open_model(tiny.gap()), parse_providers(["cuda", "cpu"]), threads_beside=1)
    with sessions.under_way(), sessions.under_way() as others:
        assert not others


@pytest.mark.parametrize("name", ["threads", "threads_beside"])
def test_a_run_has_a_thread(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        Sessions(open_model(tiny.gap()), CPU, **{name: 0})


def test_a_feed_of_the_wrong_shape_is_one_clear_error() -> None:
    with pytest.raises(ProviderError, match="forward program failed") as caught:
        Sessions(open_model(tiny.gap()), CPU).run("forward", (), {"x": np.zeros((1, 3, 5, 5), "f4")})
    assert "\n" not in str(caught.value)
