"""Maps of several layers, brought to one size."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import ShapeError
from camrt.methods.layers import to_largest


def test_every_map_takes_the_largest_height_and_width():
    made = to_largest([np.ones((2, 4, 3)), np.ones((2, 2, 6)), np.ones((2, 1, 1))])
    assert [array.shape for array in made] == [(2, 4, 6)] * 3
    np.testing.assert_allclose(made, 1)


def test_a_map_that_has_the_size_is_left_alone(rng):
    large = rng.normal(size=(1, 4, 4))
    assert to_largest([large, np.ones((1, 2, 2))])[0] is large


def test_no_maps_or_unequal_batches_are_refused():
    with pytest.raises(ShapeError, match=r"got this many images: \[\]"):
        to_largest([])
    with pytest.raises(ShapeError, match=r"got this many images: \[1, 2\]"):
        to_largest([np.ones((1, 2, 2)), np.ones((2, 2, 2))])
