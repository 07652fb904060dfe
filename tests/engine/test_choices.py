"""One word for a method or metric, its variant and options."""

from __future__ import annotations

import re

import pytest

from camrt.choices import choose, split
from camrt.errors import MethodError
from camrt.methods import METHODS, resolve, validate


def one(word: str):
    return choose([word], resolve, validate)[0]


def test_defaults_are_not_in_the_name() -> None:
    choice = one("Grad-CAM++:paper")
    assert (choice.name, choice.row.id, choice.variant) == ("gradcampp", "gradcampp", "paper")
    assert one("smoothgradcampp,n=25").name == "smoothgradcampp"


def test_variant_and_options_are_read_and_named() -> None:
    choice = one("smoothgradcampp : torchcam, n=10 , spread=0.2")
    assert choice.variant == "torchcam"
    assert choice.options["n"] == 10 and choice.options["spread"] == 0.2
    assert choice.name == "smoothgradcampp-torchcam-n10-spread0.2"


def test_lists_keep_their_commas() -> None:
    assert one("finercam,ranks=1,2").options["ranks"] == (1, 2)


def test_every_name_is_safe_as_a_folder() -> None:
    for method in METHODS.values():
        for variant in method.variants:
            assert re.fullmatch(r"[A-Za-z0-9._-]+", one(f"{method.id}:{variant}").name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gradcam", "grad-cam"], "chosen twice"),
        ([], "nothing was chosen"),
        (["gradcam,n"], "cannot read 'n'"),
        (["gradcam:nope"], "no variant 'nope'"),
        (["gradcam,n=3"], "no option 'n'"),
        (["gradcamm"], "did you mean"),
        ([3], "one word"),
    ],
)
def test_what_cannot_be_read_is_said(words, said: str) -> None:
    with pytest.raises(MethodError, match=said):
        choose(words, resolve, validate)


def test_a_list_is_cut_between_choices_and_not_before_options() -> None:
    assert split("a,b:c,n=1,d") == ["a", "b:c,n=1", "d"]
    assert split(" a , , b ") == ["a", "b"]
    assert split("") == []
