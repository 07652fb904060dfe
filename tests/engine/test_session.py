"""Sessions: providers are what was asked for or an error; fixed batches run in chunks; threads do not matter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from camrt.errors import NumericError, ProviderError
from camrt.export.live import open_model
from camrt.providers import parse_providers
from camrt.session import Session, Sessions
from tests import tiny

CPU = parse_providers("cpu")


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "MadeUpExecutionProvider"])
def test_a_provider_that_is_not_there_is_an_error_and_never_the_cpu(name: str) -> None:
    program = open_model(tiny.gap()).program("forward")
    with pytest.raises(ProviderError, match="was asked for"):
        Session(program, parse_providers([name, "cpu"]))


def test_a_session_that_fell_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    with pytest.raises(ProviderError, match="fell back"):
        Session(open_model(tiny.gap()).program("forward"), parse_providers("cuda,cpu"))


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


def test_a_feed_of_the_wrong_shape_is_one_clear_error() -> None:
    with pytest.raises(ProviderError, match="forward program failed") as caught:
        Sessions(open_model(tiny.gap()), CPU).run("forward", (), {"x": np.zeros((1, 3, 5, 5), "f4")})
    assert "\n" not in str(caught.value)
