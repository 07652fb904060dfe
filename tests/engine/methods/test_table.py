"""The table of methods: names, rows, options."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from camrt.errors import MethodError
from camrt.fuse import HEAT_FUSIONS, RAW_FUSIONS
from camrt.methods import EVIDENCE, METHODS, Method, Option, register, resolve, validate
from camrt.methods.table import Family

GRADIENT = {"gradcam", "gradcampp", "smoothgradcampp", "xgradcam", "layercam", "hirescam", "elementwisecam"}
PROJECTED = {"eigencam", "eigengradcam", "kpcacam"}
OTHER = {"cam", "fem", "lafam", "finercam", "refinecam", "randomcam", "fakecam"}


def test_the_table_holds_every_method_of_the_family():
    assert set(METHODS) >= GRADIENT | PROJECTED | OTHER


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Grad-CAM++", "gradcampp"),
        ("grad_cam_pp", "gradcampp"),
        ("GradCAM", "gradcam"),
        ("Smooth Grad-CAM++", "smoothgradcampp"),
        ("smoothgradcam++", "smoothgradcampp"),
        ("gradcam-elementwise", "elementwisecam"),
        ("Mean Activation", "lafam"),
        ("KPCA_CAM", "kpcacam"),
        ("Fake-CAM", "fakecam"),
        ("eigen-grad-cam", "eigengradcam"),
    ],
)
def test_names_are_found_whatever_their_spelling(name, found):
    assert resolve(name).id == found


@pytest.mark.parametrize("name", sorted(METHODS))
def test_title_and_aliases_find_their_own_method(name):
    method = METHODS[name]
    assert all(resolve(known).id == name for known in (name, name.upper(), *method.aliases))


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(MethodError, match=r"no method is called 'gradcan'; did you mean gradcam"):
        resolve("gradcan")
    with pytest.raises(MethodError, match=r"choose from .*hirescam"):
        resolve("")
    with pytest.raises(MethodError, match="given by its name"):
        resolve(3)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_rows_are_complete_and_consistent(method):
    assert method.id == re.sub("[^a-z]", "", method.id)
    assert set(method.needs) <= set(EVIDENCE)
    by_itself = method.id in ("fullgrad", "legrad") or method.family == "black-box"  # reads no single layer's values
    assert by_itself or "acts" in method.needs
    assert method.gives in ("weights", "map", "heatmap")
    assert method.family in get_args(Family)
    assert method.work >= 1
    assert method.paper and method.title
    assert len(set(method.variants)) == len(method.variants) > 0
    assert not set(method.options) & set(method.fusion_options)
    for variant in method.variants:
        assert method.relu_of(variant) in (True, False)
        assert method.fuse_of(variant) in {*HEAT_FUSIONS, *RAW_FUSIONS}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_default_passes_its_own_check(method):
    for variant in method.variants:
        chosen, full = validate(method, variant)
        again, repeated = validate(method, variant, full)
        assert (chosen, full) == (again, repeated)
        assert list(full) == [*method.options, *method.fusion_options]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_values_out_of_range_are_refused_with_the_range(method):
    for name, option in {**method.options, **method.fusion_options}.items():
        truth = () if option.kind == "flag" else (True,)
        for bad in [object(), "nonsense", float("nan"), option.low - 1, *truth, [], 10**400]:
            with pytest.raises(
                MethodError, match=re.escape(f"option {name!r} of {method.id} must be {option.allowed}")
            ):
                validate(method, None, {name: bad})


def test_variants_and_options_that_do_not_exist_are_refused():
    with pytest.raises(MethodError, match=r"gradcampp has no variant 'oficial'; did you mean official"):
        validate(resolve("gradcampp"), "oficial")
    with pytest.raises(MethodError, match=r"layercam has no option 'gama'; did you mean gamma"):
        validate(resolve("layercam"), None, {"gama": 1})
    with pytest.raises(MethodError, match="gradcam has no option 'n'; it has none"):
        validate(resolve("gradcam"), None, {"n": 1})


def test_variants_are_matched_as_forgivingly_as_names():
    assert validate(resolve("gradcampp"), "PyTorch Grad-CAM")[0] == "pytorch-grad-cam"


def test_variants_have_their_own_defaults():
    smooth = resolve("smoothgradcampp")
    assert validate(smooth)[1] == {"n": 25, "spread": 0.15, "seed": 0}
    assert validate(smooth, "torchcam")[1] == {"n": 4, "spread": 0.3, "seed": 0}
    assert validate(resolve("finercam"))[1]["alpha"] == 1.0
    assert validate(resolve("finercam"), "torchcam")[1]["alpha"] == 0.6
    assert validate(resolve("layercam"), "torchcam")[1] == {"gamma": 2.0, "scale_layers": "all"}


def test_texts_are_read_in_the_option_s_own_kind():
    finer, full = validate(
        resolve("finercam"), None, {"ranks": "1,3", "alpha": "0.5", "base": "Grad-CAM++", "base_variant": "none"}
    )
    assert finer == "official"
    assert full == {"base": "gradcampp", "base_variant": None, "alpha": 0.5, "ranks": (1, 3)}
    assert validate(resolve("randomcam"), None, {"seed": "7"})[1] == {"seed": 7}
    assert validate(resolve("randomcam"), None, {"seed": np.int64(7)})[1] == {"seed": 7}


@pytest.mark.parametrize(
    ("given", "read"),
    [(True, True), (False, False), ("yes", True), ("No", False), ("true", True), ("FALSE", False)],
)
def test_a_flag_is_read_from_words(given, read):
    assert Option(False, "flag", "").read("sscam", "allow_slow", given) is read


@pytest.mark.parametrize("bad", [1, 0, "1", "", "maybe", None])
def test_a_flag_is_nothing_but_yes_or_no(bad):
    with pytest.raises(MethodError, match=r"option 'allow_slow' of sscam must be yes or no; got"):
        Option(False, "flag", "").read("sscam", "allow_slow", bad)


def test_allowed_values_are_said_in_words():
    assert Option(1, "integer", "", low=1, high=9).allowed == "an integer of at least 1 and at most 9"
    assert Option(1, "number", "", high=9, optional=True).allowed == "a number of at most 9, or none"
    assert Option("a", "choice", "", choices=("a", "b")).allowed == "one of a, b"
    assert Option((1,), "integers", "", low=1).allowed == "integers of at least 1"


def test_a_row_that_clashes_or_is_inconsistent_is_a_programming_error():
    row = METHODS["gradcam"]
    with pytest.raises(ValueError, match="already belongs to gradcam"):
        register(row)
    with pytest.raises(ValueError, match="already belongs to gradcam"):
        register(replace(row, id="newcam", aliases=("Grad-CAM",)))
    with pytest.raises(ValueError, match="unknown evidence"):
        register(replace(row, id="newcam", needs=("acts", "magic")))
    assert "newcam" not in METHODS


def test_relu_and_fusion_may_differ_by_variant():
    method = Method(
        "x",
        np.mean,
        ("acts",),
        "map",
        "gradient",
        1.0,
        "",
        "",
        ("a", "b"),
        relu={"a": True, "b": False},
        fuse={"a": "max", "b": "mean"},
    )
    assert (method.relu_of("a"), method.relu_of("b"), method.fuse_of("a"), method.fuse_of("b")) == (
        True,
        False,
        "max",
        "mean",
    )
