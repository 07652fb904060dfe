"""
Our insertion, deletion and ROAD against torch-cam and pytorch-grad-cam, as installed, on the same maps.

``golden/peer_curves.npz`` holds a linear classifier, pictures, maps and values; ``golden/make_peer_curves.py`` made it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camrt.metrics.curves import deletion, insertion
from camrt.metrics.plain import judged
from camrt.metrics.road import ROAD, road

PEERS = dict(np.load(Path(__file__).parent / "golden" / "peer_curves.npz"))
X, CLASSES = PEERS["x"], PEERS["classes"]
AGREES = 1e-4


def logits(x):
    """Return what the recorded classifier says."""
    return x.reshape(len(x), -1) @ PEERS["weight"].T + PEERS["bias"]


@pytest.mark.parametrize("maps", ["distinct", "tied"])
@pytest.mark.parametrize("steps", [20, 7])
@pytest.mark.parametrize("metric", [insertion, deletion])
def test_areas_are_torch_cams(metric, maps, steps):
    expected = PEERS[f"torchcam/{maps}/{steps}/{metric.__name__}_auc"]
    found = metric(logits, X, PEERS[maps], CLASSES, variant="torchcam", steps=steps)
    assert np.ptp(expected) > 100 * AGREES
    np.testing.assert_allclose(found, expected, atol=AGREES)


def test_twenty_steps_are_torch_cams_default():
    np.testing.assert_array_equal(
        insertion(logits, X, PEERS["tied"], CLASSES, variant="torchcam"),
        insertion(logits, X, PEERS["tied"], CLASSES, variant="torchcam", steps=20),
    )


def test_road_is_pytorch_grad_cams():
    found = judged(ROAD, logits, X, PEERS["distinct"], CLASSES, variant="pytorch-grad-cam", options={"noise": 0})
    for name in ("road", "road.morf", "road.lerf"):
        expected = PEERS[f"pytorch-grad-cam/{name}"]
        assert np.ptp(expected) > 100 * AGREES
        np.testing.assert_allclose(found[name], expected, atol=AGREES)


def test_arccs_levels_of_it_too():
    found = road(logits, X, PEERS["distinct"], CLASSES, variant="pytorch-grad-cam", levels=(20, 40, 60, 80), noise=0)
    np.testing.assert_allclose(found, PEERS["pytorch-grad-cam/arcc"], atol=AGREES)
