"""Fake-CAM: ones everywhere but one corner."""

from __future__ import annotations

import numpy as np

from camrt.pipeline import pipeline
from tests.engine.methods.heads import SIZE, make_acts, run


def test_one_pixel_of_a_finished_heatmap_is_zero(rng):
    result = run("fakecam", {"acts": make_acts(rng), "size": SIZE})
    expected = np.ones((3, *SIZE))
    expected[:, 0, 0] = 0
    np.testing.assert_array_equal(result.array, expected)
    assert result.gives == "heatmap"


def test_the_cell_variant_goes_through_the_pipeline(rng):
    result = run("fakecam", {"acts": make_acts(rng), "size": SIZE}, "cell")
    heat, degenerate = pipeline("camrt")(result.array, SIZE)
    assert not degenerate.any()
    assert (heat[:, 0, 0] == 0).all()
    assert (heat[:, :, 10:] == 1).all()
    assert (heat[:, 1, 1] > 0).sum() == 0  # the whole of the cell's corner is flat: the border repeats
