"""What stands for a model."""

from __future__ import annotations

import numpy as np
import pytest

import camrt
from camrt.metrics.model import Model, hidden_of, model_of
from camrt.planner import Job
from tests import tiny


@pytest.fixture(scope="module")
def explainer():
    fields = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.4), "size": tiny.SIZE}
    return camrt.load(tiny.gap(), preprocess=fields)


def test_an_explainer_knows_black_and_one_raw_unit(explainer) -> None:
    model = model_of(explainer)
    np.testing.assert_allclose(model.black, [-5, -2, -0.75], rtol=1e-6)
    np.testing.assert_allclose(model.unit, [10, 5, 2.5], rtol=1e-6)
    raw, white = np.zeros((1, *tiny.SIZE, 3), np.uint8), np.full((1, *tiny.SIZE, 3), 255, np.uint8)
    span = explainer.preprocess.apply(white) - explainer.preprocess.apply(raw)
    np.testing.assert_allclose(span[0, :, 0, 0], model.unit, rtol=1e-5)


def run_through(model: Model, x: np.ndarray) -> np.ndarray:
    """Return the logits that the model's stream gives for inputs as they are."""
    parts = {}

    def fill(buffer, start, stop):
        buffer[:] = x[start:stop]

    def take(start, stop, logits):
        parts[start] = logits.copy()

    model.planner(x).run(Job(len(x), fill, take))
    return np.concatenate([parts[start] for start in sorted(parts)])


def test_an_explainer_runs_its_own_stream(explainer) -> None:
    x = tiny.images(5)
    assert model_of(explainer).planner(x) is explainer.planner(x)
    np.testing.assert_allclose(run_through(model_of(explainer), x), explainer.logits(x), atol=1e-6)


def test_a_function_is_run_in_chunks_and_may_keep_what_it_gets() -> None:
    kept = []

    def run(x):
        kept.append(x)
        return x.reshape(len(x), -1)[:, :2]

    x = np.arange(5 * 3 * 4.0).reshape(5, 3, 2, 2)
    np.testing.assert_array_equal(run_through(Model(run, chunk=2), x), x.reshape(5, -1)[:, :2])
    assert [len(part) for part in kept] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(kept), x)  # no buffer is written again


def test_what_a_hidden_pixel_shows() -> None:
    model, x = Model(lambda x: x, black=(-1.0, -2.0, -3.0)), np.zeros((2, 3, 4, 4), np.float32)
    assert not hidden_of(model, "normalised", x).any()
    np.testing.assert_array_equal(hidden_of(model, "raw", x).ravel(), [-1, -2, -3])
    assert hidden_of(model, "raw", x).shape == (1, 3, 1, 1)
    last = Model(lambda x: x, channels_last=True, black=(-1.0, -2.0, -3.0))
    assert hidden_of(last, "raw", np.zeros((2, 4, 4, 3))).shape == (1, 1, 1, 3)
