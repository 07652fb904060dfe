"""Rows of the graph's table against the table of methods."""

from __future__ import annotations

from camrt.export.maps import MAPS
from camrt.methods import METHODS
from camrt.methods.gradcam import gradcam
from camrt.methods.gradcampp import gradcampp


def test_every_row_says_of_its_method_what_the_table_of_methods_says() -> None:
    for method, row in MAPS.items():
        known = METHODS[method]
        assert row.variant == known.variants[0]
        assert row.relu == known.relu_of(row.variant)
        assert row.fuse == known.fuse_of(row.variant)
        assert row.linear_head == ("head" in known.needs)
        assert (row.target == "against_all") == (row.way == "relevance") == ("relevance_of" in known.needs)
        assert row.at_image == ("full" in row.needs) == ("full_of" in known.needs)
        assert (row.way == "lift") == ("lift_of" in known.needs)
        assert ("attention" in row.needs) == ("attention_of" in known.needs)
        is_derived = method == "refinecam"  # its base says so
        assert row.assumes_positive == (known.nonnegative or is_derived)
        if row.direct:
            assert known.needs == row.needs == ("acts", "grads")
            assert not known.options  # a program knows their defaults alone
    assert METHODS["finercam"].options["base"].default == gradcam.__name__
    assert METHODS["refinecam"].options["base"].default == gradcampp.__name__
