"""A running server for foreign clients, and the engine in this process to compare with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import camrt
from camrt.demo import HELD_OUT, MODEL, draw
from camrt.image import prepare
from tests.clients.case import Case
from tests.engine.server.running import outside


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Return ``host:port`` of a server in a process of its own, which serves the embedded model."""
    with outside() as server:
        yield server.host


@pytest.fixture(scope="session")
def case() -> Case:
    """Return what is asked and the engine to compare with."""
    explainer = camrt.load(MODEL)
    pictures = np.stack([draw(HELD_OUT + i, [i]).image for i in range(2)])
    x = prepare(pictures, explainer.preprocess).x
    return Case("camrt-demo", pictures, x, explainer.explain)
