"""
Our metrics against Quantus, captum, pytorch-grad-cam and torch-cam, as installed, on the same maps and noise.

``golden/peer_robustness.npz`` holds linear classifiers, pictures, maps, noise and values; ``golden/make_peer_robustness.py``
made it. Where a library defines a metric otherwise, a test says by how much, and the metric's docstring too.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from camrt.metrics import filling, robustness
from camrt.metrics.adcc import coherency, complexity
from camrt.metrics.arcc import arcc
from camrt.metrics.confidence import average_drop, average_increase
from camrt.metrics.flipping import PIXEL_FLIPPING
from camrt.metrics.plain import judge, judged
from camrt.metrics.pointing import pointing_game
from camrt.metrics.road import ROAD
from camrt.metrics.sparseness import sparseness
from camrt.noise import content_ids

PEERS = dict(np.load(Path(__file__).parent / "golden" / "peer_robustness.npz"))
AGREES = 1e-4
X1, X3 = PEERS["x1"], PEERS["x3"]
CLASSES1, CLASSES3 = PEERS["classes1"], PEERS["classes3"]
SAMPLES = PEERS["noise"].shape[1]
WIDTH = X1.shape[3]


def grey(x):
    """Return what the classifier of one channel says."""
    return x.reshape(len(x), -1) @ PEERS["weight1"].T + PEERS["bias1"]


def colour(x):
    """Return what the classifier of three channels says."""
    return x.reshape(len(x), -1) @ PEERS["weight3"].T + PEERS["bias3"]


def explain(x, classes):
    """Return the maps that the libraries were given: the picture times the class's weights, cut at zero."""
    maps = np.maximum((PEERS["weight3"][classes].reshape(x.shape) * x).sum(1), 0)
    return maps / maps.max((1, 2), keepdims=True)


def close(found, name, least_spread=100 * AGREES):
    """Assert that values are a library's, which differ among themselves by far more than what is allowed."""
    expected = PEERS[name]
    assert np.ptp(expected) > least_spread
    np.testing.assert_allclose(found, expected, rtol=AGREES, atol=AGREES)


@pytest.fixture
def noise(monkeypatch):
    """Let camrt draw the recorded noise."""
    place = {int(number): i for i, number in enumerate(content_ids(X3))}

    def recorded(change, shape, image, x, *, channels_last=False, out=None):
        return PEERS["noise"][place[image], change.sample]

    for module in (filling, robustness):
        monkeypatch.setattr(module, "shift_of", recorded)


@pytest.mark.parametrize("library", ["quantus", "captum"])
@pytest.mark.usefixtures("noise")
def test_max_sensitivity_is_theirs_under_the_same_noise(library):
    found = robustness.max_sensitivity(
        colour, X3, PEERS["maps"], CLASSES3, explain=explain, variant=library, samples=SAMPLES
    )
    close(found, f"{library}/max_sensitivity")


@pytest.mark.parametrize("variant", ["scaled", "unscaled"])
@pytest.mark.usefixtures("noise")
def test_infidelity_is_captums_under_the_same_noise(variant):
    found = robustness.infidelity(colour, X3, PEERS["maps"], CLASSES3, variant=variant, samples=SAMPLES)
    np.testing.assert_allclose(found, PEERS[f"captum/infidelity/{variant}"], rtol=AGREES)


def test_sparseness_of_maps_of_distinct_ranks_differs_from_quantus_by_what_it_adds_to_them():
    maps = PEERS["distinct"]
    np.testing.assert_allclose(sparseness(maps), PEERS["quantus/distinct/sparseness"], atol=1e-6)
    close(sparseness(PEERS["sparse"]), "quantus/sparse/sparseness", 1e-3)
    n, whole = maps[0].size, PEERS["sparse"].sum((1, 2), dtype=np.float64)
    diluted = sparseness(PEERS["sparse"]) * whole / (whole + n * 1e-7)  # the Gini index of a map plus a constant
    np.testing.assert_allclose(diluted, PEERS["quantus/sparse/sparseness"], atol=1e-6)


@pytest.mark.parametrize("maps", ["distinct", "sparse"])
def test_entropy_and_effective_complexity_are_quantus(maps):
    found = judge(["complexity"], None, None, PEERS[maps])
    np.testing.assert_allclose(found["complexity.entropy"], PEERS[f"quantus/{maps}/entropy"], rtol=AGREES)
    np.testing.assert_array_equal(found["complexity.effective"], PEERS[f"quantus/{maps}/effective"])


def test_what_counts_as_used_is_decided_between_two_pixels_next_to_quantus_threshold():
    dropped = PEERS["sparse"].copy()
    dropped[0, 0, 0] = 0
    found = [judge(["complexity"], None, None, maps)["complexity.effective"] for maps in (PEERS["sparse"], dropped)]
    assert (found[0] - found[1]).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("maps", ["distinct", "sparse"])
def test_the_pointing_game_is_quantus(maps):
    found = pointing_game(PEERS[maps], masks=list(PEERS["masks"]), variant="quantus")
    np.testing.assert_array_equal(found, PEERS[f"quantus/{maps}/pointing"])


def test_any_of_two_maxima_may_hit_as_in_quantus():
    assert PEERS["quantus/distinct/pointing"].tolist() == [True, False, False, True]
    assert PEERS["quantus/sparse/pointing"][2]  # the second maximum, which the distinct map has not


def test_pixel_flipping_of_one_channel_is_quantus_area_by_its_steps():
    theirs = PEERS["quantus/distinct/flipping"]
    found = judged(
        PIXEL_FLIPPING, grey, X1, PEERS["distinct"], CLASSES1, variant="quantus", options={"steps": theirs.shape[1]}
    )
    close(found["pixel_flipping.curve"][:, 1:], "quantus/distinct/flipping")
    np.testing.assert_allclose(
        found["pixel_flipping"], np.trapezoid(theirs, axis=1) / (theirs.shape[1] - 1), atol=AGREES
    )


def test_pixel_flipping_of_three_channels_meets_quantus_wherever_whole_pixels_are_flipped():
    theirs = PEERS["quantus/colour/flipping"]  # a width of features a step; three steps are a width of pixels
    steps = X3.shape[2]
    found = judged(PIXEL_FLIPPING, colour, X3, PEERS["distinct"], CLASSES3, variant="quantus", options={"steps": steps})
    assert theirs.shape[1] == 3 * steps
    np.testing.assert_allclose(found["pixel_flipping.curve"][:, 1:], theirs[:, 2::3], atol=AGREES)


def test_road_of_one_channel_is_quantus_accuracy_at_every_level():
    assert PEERS["quantus/distinct/levels"].tolist() == list(ROAD.options["levels"].default_of("quantus"))
    found = judged(ROAD, grey, X1, PEERS["distinct"], CLASSES1, variant="quantus", options={"noise": 0})
    np.testing.assert_array_equal(found["road.hits_morf"].mean(0), PEERS["quantus/distinct/road"])
    assert 0 < PEERS["quantus/distinct/road"].min() < PEERS["quantus/distinct/road"].max()


def test_the_raw_drop_is_pytorch_grad_cams_and_so_is_the_increase():
    close(average_drop(colour, X3, PEERS["distinct"], CLASSES3, variant="raw-drop"), "pytorch-grad-cam/drop")
    close(average_increase(colour, X3, PEERS["distinct"], CLASSES3), "pytorch-grad-cam/increase")


def test_the_papers_drop_and_increase_are_torch_cams():
    drop, rise = (metric(colour, X3, PEERS["distinct"], CLASSES3) for metric in (average_drop, average_increase))
    assert abs(drop.mean() - PEERS["torchcam/avg_drop"]) < AGREES
    assert drop.mean() > 100 * AGREES
    assert rise.mean() == PEERS["torchcam/conf_increase"]


def test_coherency_and_complexity_are_pytorch_grad_cams():
    close(coherency(colour, X3, PEERS["ranked"], CLASSES3, explain=explain), "pytorch-grad-cam/coherency")
    np.testing.assert_allclose(complexity(PEERS["ranked"]), PEERS["pytorch-grad-cam/complexity"], atol=1e-6)


def test_arcc_is_pytorch_grad_cams_without_noise(monkeypatch):
    monkeypatch.setattr(import_module("camrt.metrics.arcc"), "NOISE", 0)
    close(arcc(colour, X3, PEERS["ranked"], CLASSES3, explain=explain), "pytorch-grad-cam/arcc")
