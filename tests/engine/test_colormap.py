"""Colours against the formula of jet worked out by hand, and against matplotlib's viridis."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.colormap import COLORMAPS, colorize
from camrt.errors import MethodError, ShapeError


def test_jet_runs_from_dark_blue_through_cyan_green_and_yellow_to_dark_red() -> None:
    levels = np.array([0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1])  # the corners of the three trapezoids
    want = [[0, 0, 127.5], [0, 0, 255], [0, 255, 255], [255, 255, 0], [255, 0, 0], [127.5, 0, 0]]
    np.testing.assert_allclose(colorize(levels).astype(float), want, atol=2)  # corners lie between two of 256 colours


def test_jet_is_symmetric_under_exchange_of_red_and_blue() -> None:
    jet = COLORMAPS["jet"].astype(int)
    np.testing.assert_allclose(jet[::-1, ::-1], jet, atol=1)  # halves round to even


def test_viridis_is_within_one_of_matplotlibs() -> None:
    colormaps = pytest.importorskip("matplotlib").colormaps
    want = 255 * colormaps["viridis"](np.arange(256))[:, :3]
    np.testing.assert_allclose(COLORMAPS["viridis"].astype(float), want, atol=1.5)  # knots and result both rounded
    np.testing.assert_array_equal(COLORMAPS["viridis"][[0, 255]], [[68, 1, 84], [253, 231, 37]])


def test_viridis_grows_lighter_with_every_step() -> None:
    lightness = COLORMAPS["viridis"].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -1).all() and lightness[-1] - lightness[0] > 180


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_each_of_256_levels_has_its_colour_and_what_lies_beyond_is_clipped(colormap: str) -> None:
    np.testing.assert_array_equal(colorize(np.arange(256) / 255, colormap), COLORMAPS[colormap])
    np.testing.assert_array_equal(colorize(np.array([-5.0, 7.0]), colormap), COLORMAPS[colormap][[0, 255]])
    assert colorize(np.zeros((2, 3, 4), np.float16), colormap).shape == (2, 3, 4, 3)


def test_unknown_colormaps_and_nan_are_refused() -> None:
    with pytest.raises(MethodError, match="there are jet, viridis"):
        colorize(np.zeros(1), "hot")
    with pytest.raises(ShapeError, match="holds NaN"):
        colorize(np.array([np.nan]))
