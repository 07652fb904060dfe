"""What a client may ask for: names as the engine resolves them, and every limit at its edge."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.anytime import Budget
from camrt.errors import InputError, LayerError, MethodError, TargetError
from camrt.methods import METHODS, validate
from camrt.server.asking import ceiling_of, make_ask, read_targets, read_timeout, read_wish
from camrt.server.asks import Wish
from camrt.server.faults import TooLargeError, UnsupportedError
from camrt.server.settings import Settings
from camrt.targets import Contrast, Logit, LogProbability, Probability
from tests import tiny
from tests.engine.server.small import of_pixels, served

SETTINGS = Settings()
PICTURE = b"\x89PNG\r\n\x1a\n"
IMAGES = tiny.images(2)


def wish(**parameters: Any) -> Wish:
    """Read a wish."""
    return read_wish(parameters, served(), SETTINGS)


def targets(value: object, count: int = 1) -> Any:
    """Read targets."""
    return read_targets(value, count, served(), SETTINGS)


def ask(images: Any, target: object = None, settings: Settings = SETTINGS, wished: Wish | None = None) -> Any:
    """Put a request together."""
    return make_ask(images, target, wished or Wish(), 1.0, served(), settings)


# how -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"legrad"}))  # which needs attention
def test_nothing_said_is_the_engines_own_defaults(method: str) -> None:
    variant, options = validate(METHODS[method])
    given = wish(method=method)
    assert (given.method, given.variant, dict(given.options), given.layer) == (method, variant, options, None)
    assert given.arguments() == dataclasses.replace(Wish(method, variant, tuple(sorted(options.items())))).arguments()


def test_every_parameter_arrives() -> None:
    given = wish(
        method="score-cam", variant="TorchCAM", weighting="softmax_logit", layer="a1", pipeline="torchcam", fuse="max",
        eigen_smooth=True, tta="yes", mask_space="raw", max_forwards=3, max_seconds=0.5, stability="0.9",
    )  # fmt: skip
    assert dataclasses.asdict(given) == {
        "method": "scorecam", "variant": "torchcam", "options": (("weighting", "softmax_logit"),), "layer": ("a1",),
        "pipeline": "torchcam", "fuse": "max", "eigen_smooth": True, "tta": True, "mask_space": "raw",
        "budget": {"forwards": 3, "seconds": 0.5, "stability": 0.9},
    }  # fmt: skip
    assert given.budget == Budget(3, 0.5, 0.9)


def test_equal_wishes_have_equal_keys_however_they_are_written() -> None:
    plain = wish().key
    same = [
        wish(method="Grad-CAM", variant="PAPER", layer="a2"),
        wish(method="g-r-a-d cam", layer=" a2 ,", eigen_smooth="no", tta=False, pipeline="camrt"),
        wish(target=3, timeout=5, priority=1, sequence_id="x", binary_data_output=True, headers="y"),
    ]
    assert all(one.key == plain for one in same)
    other = [wish(method="hirescam"), wish(layer="a1"), wish(layer="a1,a2"), wish(tta=True), wish(fuse="max")]
    assert len({one.key for one in other} | {plain}) == len(other) + 1


def test_layers_are_named_in_any_way_and_kept_in_order() -> None:
    assert wish(layer="a2, /stage1/relu/Relu").layer == ("a1", "a2")
    assert wish(method="cam", layer="a2").layer == ("a2",)


def test_options_may_be_texts() -> None:
    assert dict(wish(method="finercam", ranks="1,2", alpha="0.5").options)["ranks"] == (1, 2)
    assert wish(method="iscam", n="7", accumulate="yes").key == wish(method="iscam", n=7.0, accumulate=True).key


BAD: list[tuple[dict[str, Any], type[InputError], str]] = [
    ({"method": "gradcan"}, MethodError, "did you mean gradcam"),
    ({"method": 7}, InputError, "method must be a text"),
    ({"method": ["gradcam"]}, InputError, "must be a text, a number or a truth value"),
    ({"variant": "huge"}, MethodError, "no variant 'huge'"),
    ({"n": 3}, MethodError, "gradcam has no option 'n'"),
    ({"method": "iscam", "n": {"x": 1}}, InputError, "'n' must be a text, a number or a truth value"),
    ({"method": "iscam", "n": None}, InputError, "'n' must be a text, a number or a truth value"),
    ({"method": "iscam", "n": True}, MethodError, "must be an integer"),
    ({"method": "iscam", "n": float("nan")}, MethodError, "must be an integer"),
    ({"method": "iscam", "n": 1.5}, MethodError, "must be an integer"),
    ({"method": "iscam", "n": 65}, MethodError, "at most 64 on this server"),
    ({"method": "iscam", "n": "65"}, MethodError, "at most 64 on this server"),
    ({"method": "rise", "n": 8001}, MethodError, "at most 8000 on this server"),
    ({"method": "rise", "s": 33}, MethodError, "at most 32 on this server"),
    ({"method": "rise", "seed": 2**53 + 1}, MethodError, "at most 9007199254740992 on this server"),
    ({"method": "occlusion", "stride": 0.002}, MethodError, "would hide 160801 parts of the picture; 8000 are allowed"),
    ({"method": "opticam", "iters": 201}, MethodError, "at most 200 on this server"),
    ({"method": "groupcam", "blur_size": 257}, MethodError, "at most 255 on this server"),
    ({"method": "finercam", "ranks": "1,9007199254740993"}, MethodError, "at most 9007199254740992"),
    ({"layer": "a9"}, LayerError, "a9"),
    ({"layer": ",".join(["a1"] * 17)}, InputError, "17 layers were given; 16 are allowed"),
    ({"layer": "x" * 513}, InputError, "at most 512 letters"),
    ({"layer": 3}, InputError, "layer must be a text"),
    ({"method": "cam", "layer": "a1"}, LayerError, "global average pooling"),
    ({"pipeline": "mine"}, InputError, "pipeline must be one of camrt"),
    ({"fuse": "sum"}, InputError, "fuse must be one of mean"),
    ({"mask_space": "blue"}, InputError, "mask_space must be one of"),
    ({"tta": "perhaps"}, InputError, "tta must be true or false"),
    ({"tta": 2}, InputError, "tta must be true or false"),
    ({"eigen_smooth": 0.5}, InputError, "eigen_smooth must be true or false"),
    ({"max_forwards": 9}, MethodError, "a budget is for methods of many masked forwards"),
    ({"method": "rise", "max_forwards": True}, InputError, "max_forwards must be a number"),
    ({"method": "rise", "max_forwards": "many"}, InputError, "max_forwards must be a number"),
    ({"method": "rise", "max_seconds": float("inf")}, InputError, "max_seconds must be a number"),
    ({"method": "rise", "max_seconds": -1}, InputError, "seconds of a budget"),
    ({"method": "rise", "stability": 1.5}, InputError, "stability of a budget"),
    ({"x" * 600: 1}, InputError, "a parameter's name has at most 512 letters"),
    ({f"x{i}": 1 for i in range(65)}, InputError, "65 parameters were sent; 64 are allowed"),
]


@pytest.mark.parametrize(("parameters", "kind", "message"), BAD)
def test_what_cannot_be_wished_is_refused(parameters: dict[str, Any], kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message):
        wish(**parameters)


@pytest.mark.parametrize(
    "name", ["method", "variant", "layer", "pipeline", "fuse", "mask_space", "tta", "max_seconds", "n", "x"]
)
def test_a_megabyte_of_text_is_not_sent_back(name: str) -> None:
    with pytest.raises(InputError) as caught:
        wish(method="iscam", **{name: "a, " * 350_000}) if name != "method" else wish(method="a " * 500_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("iscam", {"n": 64}),
        ("rise", {"n": 8000, "s": 32}),
        ("opticam", {"iters": 200}),
        ("groupcam", {"blur_size": 255}),
    ],
)
def test_a_ceiling_itself_is_allowed(method: str, options: dict[str, Any]) -> None:
    assert dict(wish(method=method, **options).options).items() >= options.items()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_ceiling_is_below_a_default(method: str) -> None:
    row = METHODS[method]
    for name, option in {**row.options, **row.fusion_options}.items():
        for value in (option.default, *option.by_variant.values()):
            assert not isinstance(value, int) or value <= ceiling_of(row, name, SETTINGS)


def test_layers_of_more_channels_than_allowed_are_not_hidden_one_by_one() -> None:
    few = Settings(ceilings={"channels": tiny.CHANNELS - 1})
    for method in ("scorecam", "ablationcam"):
        with pytest.raises(UnsupportedError, match="'a2' has 6 channels"):
            read_wish({"method": method}, served(), few)
        assert read_wish({"method": method, "layer": "a1"}, served(), few).layer == ("a1",)  # 4 channels
    for method in ("gradcam", "rise", "reciprocam"):
        assert read_wish({"method": method}, served(), few).method == method


# what ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "count", "expected"),
    [
        (3, 2, [[Logit(3)], [Logit(3)]]),
        ("owl", 1, [[Logit(3)]]),
        ("tabby", 1, [[Logit(1)]]),
        ("prob:owl", 1, [[Probability(3)]]),
        ("contrast:great-tit-owl", 1, [[Contrast(2, (3,))]]),
        ([1, "logprob:2"], 2, [[Logit(1)], [LogProbability(2)]]),
        ([[1, 2], [3, -1]], 2, [[Logit(1), Logit(2)], [Logit(3), Logit(None)]]),
        (np.array([[4], [0]]), 2, [[Logit(4)], [Logit(0)]]),
        (np.array([4, -1], np.int32), 2, [[Logit(4)], [Logit(None)]]),
        ([None, 1], 2, [[Logit(None)], [Logit(1)]]),
    ],
)
def test_targets_come_in_many_forms(value: object, count: int, expected: list[list[Any]]) -> None:
    assert targets(value, count) == expected


@pytest.mark.parametrize("value", [None, -1, "-1", "predicted", [-1, -1], [["predicted"], [None]], np.array([-1, -1])])
def test_the_predicted_class_alone_is_nothing_said(value: object) -> None:
    assert targets(value, 2) is None


@pytest.mark.parametrize(
    ("value", "count", "message"),
    [
        (5, 1, "class 5 is out of range"),
        (-2, 1, "class -2 is out of range"),
        (2**70, 1, "out of range"),
        ("walrus", 1, "no class is called 'walrus'"),
        (1.0, 1, "class index or a text; got 1.0"),
        (True, 1, "class index or a text; got True"),
        ({"class": 1}, 1, "class index or a text"),
        ([[[1]]], 1, "class index or a text"),
        ([1, 2], 1, "for each of 1 images; got 2"),
        ([], 1, "for each of 1 images; got 0"),
        ([[1], [1, 2]], 2, r"the same number of targets, at least one; got \[1, 2\]"),
        ([[], []], 2, "at least one; got"),
        ("x" * 10**6, 1, "at most 512 letters"),
        ("contrast:" + "-" * 100, 1, "16 hyphens"),
    ],
)
def test_what_is_no_target_is_refused(value: object, count: int, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        targets(value, count)
    assert len(str(caught.value)) < 300


def test_as_many_targets_as_allowed_and_no_more() -> None:
    assert len(targets([[1] * 32])[0]) == 32
    with pytest.raises(TooLargeError, match="33 targets; 32 are allowed"):
        targets([[1] * 33])


@given(st.lists(st.lists(st.integers(-1, 4), min_size=3, max_size=3), min_size=1, max_size=5))
def test_an_array_of_classes_is_the_lists_of_them(rows: list[list[int]]) -> None:
    found = targets(np.array(rows), len(rows))
    assert [[-1 if target.index is None else target.index for target in row] for row in found] == rows


# how long --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "seconds"), [(None, 30.0), (0, 30.0), (2, 2.0), (0.001, 0.001), ("2.5", 2.5), (300, 300.0)]
)
def test_a_timeout_is_in_seconds_and_has_a_default(given_: object, seconds: float) -> None:
    assert read_timeout(given_, SETTINGS) == seconds


@pytest.mark.parametrize("value", [-1, 301, 1e300, float("inf"), float("nan"), "soon", True, [1], 10**400, "9" * 10**5])
def test_what_is_no_timeout_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"timeout") as caught:
        read_timeout(value, SETTINGS)
    assert len(str(caught.value)) < 300


# all together ----------------------------------------------------------------------------------------------------


def test_an_ask_holds_what_was_given() -> None:
    made = make_ask(IMAGES, [1, 2], None, 2.0, served(), SETTINGS)
    assert made.images is IMAGES and made.targets == [[Logit(1)], [Logit(2)]]
    assert (made.wish, made.timeout, made.count, made.width) == (None, 2.0, 2, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((), "there is no image"),
        (IMAGES[:0], "there is no image"),
        ((b"x", b""), "a picture is empty"),
        ((b"{}",), "^the bytes: not a picture; give a JPEG, PNG or WebP"),
        ((PICTURE, b"RIFF....AVI "), "^image 1 of 2: the bytes: not a picture"),
        ((PICTURE, b"GIF89a"), "^image 1 of 2: GIF files are not taken"),
        (IMAGES[:, :2], "prepared input has shape Nx3x12x10; got Nx2x12x10"),
        (IMAGES.transpose(0, 2, 3, 1), "got Nx12x10x3"),
        (IMAGES[0], "got Nx12x10"),
        (np.zeros((1, 12, 10), np.uint8), "want pictures as uint8 NxHxWx3"),
        (np.zeros((1, 3, 12, 10), np.uint8), "want pictures as uint8 NxHxWx3"),
        (np.zeros((1, 12, 10, 3), np.int64), "got int64"),
        (np.zeros((1, 0, 10, 3), np.uint8), "10 x 0 pixels is empty"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask(images)


@pytest.mark.parametrize("start", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n....", b"RIFF....WEBPVP8 "])
def test_what_begins_like_a_picture_is_decoded_later(start: bytes) -> None:
    made = make_ask((start, start), None, None, 2.0, served(), SETTINGS)
    assert made.images == (start, start)


def test_a_model_of_pixels_takes_them_prepared_or_as_pictures() -> None:
    for shape in ((2, 3, *tiny.SIZE), (1, 7, 9, 3)):
        images = np.zeros(shape, np.uint8)
        assert make_ask(images, None, None, 1.0, of_pixels(), SETTINGS).images is images


@pytest.mark.parametrize(
    ("images", "target", "limits", "message"),
    [
        (tiny.images(3), None, {"max_images": 2}, "3 images were sent; 2 are allowed"),
        ((PICTURE,) * 3, None, {"max_images": 2}, "3 images were sent; 2 are allowed"),
        (np.zeros((1, 5, 5, 3), np.uint8), None, {"max_pixels": 24}, "5 x 5 pixels; 24,"),
        (np.zeros((1, 1, 9, 3), np.uint8), None, {"max_side": 8}, "9 x 1 pixels"),
        (IMAGES, [[1] * 3] * 2, {"max_targets": 2}, "3 targets; 2 are allowed"),
        (IMAGES, [[1, 2]] * 2, {"max_answer": 4 * 2 * 2 * 120 - 1}, "2 x 2 heatmaps of 12 x 10 are 1920 bytes; 1919"),
    ],
)
def test_every_limit_is_held_at_its_edge(images: Any, target: Any, limits: dict[str, Any], message: str) -> None:
    with pytest.raises(TooLargeError, match=message):
        ask(images, target, Settings(**limits))
    ((name, value),) = limits.items()
    assert ask(images, target, Settings(**{name: value + 1})).count == len(images)


def test_scores_alone_are_no_large_answer() -> None:
    assert make_ask(IMAGES, None, None, 1.0, served(), Settings(max_answer=1)).wish is None
