"""Names as people write them."""

from __future__ import annotations

import pytest

from camrt.words import match, normalise, offer


def test_what_does_not_matter_in_a_name_is_dropped() -> None:
    assert {normalise(name) for name in ("Grad-CAM++", "gradcampp", "grad_cam pp")} == {"gradcampp"}


def test_a_word_is_matched_as_it_is_spelt_in_the_list() -> None:
    assert match("Pytorch grad_cam", ["torchcam", "pytorch-grad-cam"]) == "pytorch-grad-cam"
    with pytest.raises(ValueError, match="none of a, b"):
        match(3, ["a", "b"])


def test_near_names_are_offered_first() -> None:
    assert offer("scorcam", ["gradcam", "scorecam"]).startswith("did you mean scorecam")
    assert offer("zzz", ["gradcam"]) == "choose from gradcam"
