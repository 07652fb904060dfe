"""How much goes into one run: never more than fits, and one stream of masked forwards for all who ask for the same."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import camrt
from camrt.errors import MemoryBoundError
from camrt.planner import Job
from camrt.runs import ARENA, CPU_BATCH, DEVICE_CHUNK, Runs, parts
from tests import tiny


def runs(row: int = 1000, memory: int = 10**6, *, batch: int | None = None, first: str = "CPU", lanes: int = 1) -> Runs:
    """Return the runs of a model that keeps so many bytes of tensors for one image."""
    manifest = SimpleNamespace(batch=batch, row_bytes=row)
    providers = [SimpleNamespace(name=f"{name}ExecutionProvider") for name in (first, "CPU")]
    sessions: Any = SimpleNamespace(source=SimpleNamespace(manifest=manifest), providers=providers, lanes=lanes)
    return Runs(sessions, memory)


@pytest.mark.parametrize(
    ("first", "batch", "images", "gradients"),
    [("CPU", None, 4, 2), ("CUDA", None, 32, 32), ("CPU", 7, 7, 7), ("CUDA", 1, 1, 1)],
)
def test_the_first_provider_decides_the_batch_unless_the_file_does(
    first: str, batch: int | None, images: int, gradients: int
) -> None:
    found = runs(first=first, batch=batch)
    assert (found.batch, found.gradient_batch) == (images, gradients)


@given(
    row=st.integers(1, 5000),
    memory=st.integers(1, 10**6),
    batch=st.one_of(st.none(), st.integers(1, 40)),
    lanes=st.integers(1, 16),
    first=st.sampled_from(["CPU", "CUDA"]),
)
def test_chunks_that_run_at_the_same_time_fit_the_memory_and_are_as_large_as_do(
    row: int, memory: int, batch: int | None, lanes: int, first: str
) -> None:
    found, least = runs(row, memory, batch=batch, lanes=lanes, first=first), (batch or 1) * ARENA * row
    if least > memory:
        with pytest.raises(MemoryBoundError):
            _ = found.chunk
        return
    assert found.chunk_memory == found.lanes * found.chunk * ARENA * row <= memory
    assert found.lanes == min(lanes, memory // least)  # a lane more would not fit, or keeps no core busy
    if batch is not None:
        assert found.chunk == batch  # filled up, so that a part of it takes as much
    else:
        wanted = CPU_BATCH if first == "CPU" else DEVICE_CHUNK
        assert found.chunk == wanted or found.lanes * (found.chunk + 1) * ARENA * row > memory


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 1000])
def test_the_planner_has_the_chunk_and_the_lanes_that_fit(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = camrt.load(tiny.mlp(), preprocess="half")
    row = explainer.chunk_memory // explainer.chunk
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    narrow = camrt.load(tiny.mlp(), preprocess="half", threads=1, memory=rows * row)
    planner = narrow.planner(tiny.images(1))
    assert planner.chunk * planner._lanes * row == narrow.chunk_memory <= rows * row
    assert planner._lanes == min(8, rows)


def test_everybody_gets_the_same_stream_and_another_kind_of_input_another() -> None:
    found, x = Runs(camrt.load(tiny.mlp(), preprocess="half").sessions), tiny.images(5)
    with ThreadPoolExecutor(16) as pool:
        assert len({id(planner) for planner in pool.map(lambda n: found.planner(x[: 1 + n % 5]), range(64))}) == 1
    others = [x.astype("f8"), x[:, :, :6], x[:, :1]]
    assert len({id(found.planner(kind)) for kind in [x, *others]}) == 4
    assert found.planner(x) is found.planner(x[:2])


def logits_by(planner: Any, x: Any) -> Any:
    """Run rows through a stream."""
    found = np.zeros((len(x), tiny.CLASSES), np.float32)

    def fill(buffer: Any, start: int, stop: int) -> None:
        assert (buffer.shape, buffer.dtype) == ((stop - start, *x.shape[1:]), x.dtype)
        buffer[:] = x[start:stop]

    def take(start: int, stop: int, logits: Any) -> None:
        found[start:stop] = logits

    planner.run(Job(len(x), fill, take))
    return found


def test_a_stream_gives_the_models_own_logits() -> None:
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(11)
    np.testing.assert_allclose(logits_by(explainer.planner(x), x), explainer.logits(x), rtol=1e-5, atol=1e-6)


def test_a_stream_that_somebody_keeps_does_not_keep_the_model() -> None:
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(3)
    explainer.explain(x, method="scorecam")
    kept = explainer.planner(x)
    logits_by(kept, x)
    model = [weakref.ref(explainer), weakref.ref(explainer.sessions), weakref.ref(explainer.source)]
    gc.collect()  # what building the programs left
    gc.disable()
    try:
        del explainer
        assert [known() for known in model] == [None, None, None]  # without a collection: nothing holds itself
    finally:
        gc.enable()


@pytest.mark.parametrize(("images", "size", "lengths"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (0, 4, [])])
def test_parts_are_the_whole_in_order(images: int, size: int, lengths: list[int]) -> None:
    x = tiny.images(images)
    found = list(parts(x, size))
    assert [len(part) for _, part in found] == lengths
    for start, part in found:
        assert_array_equal(part, x[start : start + len(part)])
    assert sum(lengths) == images
