"""Every way to write a target, what it settles to, and the line that refuses what cannot be one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from camrt.errors import NumericError, TargetError
from camrt.targets import (
    Contrast,
    Logit,
    LogProbability,
    Probability,
    Rest,
    Target,
    Vector,
    class_indices,
    class_name,
    describe,
    parse,
    pin,
    seeds,
    softmax,
    values,
)

LABELS = ["tabby, tabby cat", "tiger cat", "four-poster", "iPod", "four"]
LOGITS = np.array([[0.0, 3.0, 1.0, 2.0, -1.0], [5.0, 1.0, 4.0, 0.0, 0.0]], np.float32)


def read(target: Any, n_images: int = 1) -> list[list[Target]]:
    """Parse for the five classes above."""
    return parse(target, n_images=n_images, n_classes=5, labels=LABELS)


FORMS: list[tuple[Any, Target]] = [
    (None, Logit(None)),
    ("predicted", Logit(None)),
    (" Predicted ", Logit(None)),
    (3, Logit(3)),
    (np.int64(3), Logit(3)),
    (np.array(3), Logit(3)),
    ("3", Logit(3)),
    ("tiger cat", Logit(1)),
    ("Tabby_Cat", Logit(0)),
    ("logit:tabby", Logit(0)),
    ("prob:1", Probability(1)),
    ("prob:predicted", Probability(None)),
    ("PROB: tiger cat", Probability(1)),
    ("logprob:tabby", LogProbability(0)),
    ("rest:iPod", Rest(3)),
    ("margin:2", Contrast(2, None)),
    ("contrast:0-1", Contrast(0, (1,))),
    ("contrast:predicted-1", Contrast(None, (1,))),
    ("contrast:1-predicted", Contrast(1, None)),  # the best other class: what is predicted, where that is not class 1
    ("contrast:tabby-tiger cat", Contrast(0, (1,))),
    ("contrast:four-poster-iPod", Contrast(2, (3,))),
    (Probability("tabby"), Probability(0)),
    (Contrast("tabby", ["iPod", 1]), Contrast(0, (3, 1))),
    (Contrast(0), Contrast(0, None)),
    (Rest(), Rest(None)),
]


@pytest.mark.parametrize(("written", "target"), FORMS, ids=lambda value: repr(value)[:40])
def test_one_target_serves_every_image(written: Any, target: Target) -> None:
    assert read(written, n_images=2) == [[target], [target]]


def test_a_list_is_several_targets_for_every_image() -> None:
    want = [[Logit(1), Logit(0), Logit(None)]] * 2
    assert read([1, "tabby", None], n_images=2) == want
    assert read(np.array([1, 0]), n_images=2) == [[Logit(1), Logit(0)]] * 2
    assert read(("prob:1",), n_images=1) == [[Probability(1)]]


def test_an_array_of_rank_two_or_nested_lists_give_each_image_its_own() -> None:
    want = [[Logit(1), Logit(2)], [Logit(3), Logit(4)]]
    assert read(np.array([[1, 2], [3, 4]]), n_images=2) == want
    assert read([[1, 2], (3, "4")], n_images=2) == want
    assert read([np.array([1, 2]), [3, 4]], n_images=2) == want


def test_the_lists_of_images_are_their_own() -> None:
    first, second = read(1, n_images=2)
    first.append(Logit(2))
    assert second == [Logit(1)]


def test_a_label_that_looks_like_a_kind_is_a_label() -> None:
    assert parse("prob:1", n_images=1, n_classes=2, labels=["x", "prob:1"]) == [[Logit(1)]]


def test_a_label_that_is_a_number_wins_over_the_index() -> None:
    assert parse("1", n_images=1, n_classes=2, labels=["1", "2"]) == [[Logit(0)]]


def test_a_vector_passes_through() -> None:
    vector = Vector(np.arange(5.0))
    assert read([vector])[0][0] is vector


REFUSED: list[tuple[Any, str]] = [
    (5, "class 5 is out of range; the model has 5 classes, 0 to 4"),
    (-1, "class -1 is out of range"),
    ("5", "class 5 is out of range"),
    (10**30, "out of range"),
    (True, "got bool"),
    (1.0, "got float"),
    (b"cat", "got bytes"),
    ({"a": 1}, "got dict"),
    (np.array([1.5]), "must hold class indices"),
    (np.array([True]), "must hold class indices"),
    (np.zeros((1, 1, 1), int), "must hold class indices"),
    ([], "list of targets is empty"),
    ([[]], "at least one"),
    ([[1], 2], "want one list of targets for each"),
    ([[1], [2]], "want one list of targets for each of 1 images"),
    ("tigre cat", "near are 1 'tiger cat'"),
    ("zzzzzz", "the first is 'tabby, tabby cat'"),
    ("prob:zzzzzz", "no class is called 'zzzzzz'"),
    ("contrast:1", "want 'contrast:A-B'"),
    ("contrast:1-9", "out of range"),
    ("contrast:1-1", "cannot be contrasted with itself"),
    (Contrast(1, []), "at least one other class"),
    (Contrast(1, [1, 2]), "cannot be contrasted with itself"),
    (Contrast(1, [None]), "against given classes"),  # type: ignore[list-item]
    (Vector([1.0, 2.0]), "needs 5 numbers, one a class; got 2"),
]


@pytest.mark.parametrize(("written", "message"), REFUSED, ids=lambda value: repr(value)[:40])
def test_what_cannot_be_a_target_is_refused_in_one_line(written: Any, message: str) -> None:
    with pytest.raises(TargetError) as caught:
        read(written)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_images_with_different_numbers_of_targets_are_refused() -> None:
    with pytest.raises(TargetError, match="same number of targets"):
        read([[1], [1, 2]], n_images=2)


def test_hyphens_that_allow_two_readings_are_refused() -> None:
    with pytest.raises(TargetError, match="more than one hyphen"):
        parse("contrast:a-b-c", n_images=1, n_classes=4, labels=["a", "b-c", "a-b", "c"])


def test_a_label_without_labels_is_refused() -> None:
    for labels in (None, ()):
        with pytest.raises(TargetError, match=r"no labels; give a class index, 0 to 4, or labels="):
            parse("cat", n_images=1, n_classes=5, labels=labels)


def test_an_unknown_contrast_is_searched_for_once_however_many_hyphens_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []

    def near(wanted: str, labels: object) -> str:
        searched.append(wanted)
        return "nothing is near"

    monkeypatch.setattr("camrt.labels._near", near)
    with pytest.raises(TargetError, match="no class is called 'x-x-x'; nothing is near"):
        parse("contrast:x-x-x-cat", n_images=1, n_classes=2, labels=["dog", "cat"])
    assert searched == ["x-x-x"]


def test_a_contrast_needs_two_classes() -> None:
    with pytest.raises(TargetError, match="second class"):
        parse("margin:0", n_images=1, n_classes=1)
    with pytest.raises(TargetError, match="second class"):
        pin([Contrast(0)], [[1.0]])


def test_predicted_classes_are_the_best_and_the_first_of_equals() -> None:
    assert class_indices([Logit(), Probability()], LOGITS).tolist() == [1, 0]
    assert class_indices([Logit()], [[2.0, 2.0]]).tolist() == [0]
    indices = class_indices([Contrast(2), Vector([0.0] * 5)], LOGITS)
    assert indices.tolist() == [2, -1] and indices.dtype == np.int64


def test_pin_settles_predicted_classes_and_best_others() -> None:
    assert pin([Contrast(), Contrast(0)], LOGITS) == [Contrast(1, (3,)), Contrast(0, (2,))]
    assert pin([Rest(), LogProbability(3)], LOGITS) == [Rest(1), LogProbability(3)]
    pinned = pin([Contrast(), Logit()], LOGITS)
    assert pin(pinned, LOGITS[::-1]) == pinned  # other scores change nothing any more


def test_a_predicted_class_that_meets_itself_gives_zero() -> None:
    column = [Contrast(None, (1,)), Contrast(None, (1,))]
    assert values(column, LOGITS).tolist() == [0.0, 4.0]
    assert not seeds(column, LOGITS)[0].any()


def test_values_and_seeds_follow_each_images_own_target() -> None:
    column: list[Target] = [Logit(3), Probability(0)]
    p = np.exp(LOGITS[1].astype(np.float64)) / np.exp(LOGITS[1].astype(np.float64)).sum()
    np.testing.assert_allclose(values(column, LOGITS), [2.0, p[0]], rtol=1e-6)
    want = np.stack([np.eye(5)[3], p[0] * (np.eye(5)[0] - p)])
    got = seeds(column, LOGITS)
    np.testing.assert_allclose(got, want, atol=1e-7)
    assert got.dtype == np.float32 and values(column, LOGITS).dtype == np.float32


def test_a_batch_gives_what_its_images_give_alone() -> None:
    column: list[Target] = [Rest(), Contrast()]
    for i in range(2):
        np.testing.assert_array_equal(seeds(column, LOGITS)[i : i + 1], seeds(column[i : i + 1], LOGITS[i : i + 1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_an_error(bad: float) -> None:
    logits = LOGITS.copy()
    logits[1, 2] = bad
    for function in (pin, class_indices, values, seeds):
        with pytest.raises(NumericError, match="image 1"):
            function([Logit(0), Logit(0)], logits)


def test_a_column_must_fit_the_scores() -> None:
    with pytest.raises(TargetError, match=r"shape \(N, C\) for 1 targets"):
        seeds([Logit(0)], LOGITS)
    with pytest.raises(TargetError, match="out of range"):
        seeds([Logit(7)], LOGITS[:1])
    with pytest.raises(TargetError, match="out of range"):
        seeds([Contrast(0, 7)], LOGITS[:1])
    with pytest.raises(TargetError, match="needs 5 numbers"):
        seeds([Vector([1.0])], LOGITS[:1])


def test_targets_are_described_in_words() -> None:
    def words(target: Target, labels: list[str] | None = LABELS) -> str:
        return describe([target], LOGITS[:1], labels)[0]

    assert words(Logit()) == "tiger cat"
    assert words(Logit(), None) == "class 1"
    assert words(Probability(3)) == "p(iPod)"
    assert words(LogProbability(3)) == "log p(iPod)"
    assert words(Rest(3)) == "iPod and the rest"
    assert words(Contrast()) == "tiger cat vs. iPod"
    assert words(Contrast(0, (1, 2))) == "tabby, tabby cat vs. 2 classes"
    assert words(Vector([1.0] * 5)) == "vector"


def test_a_class_is_called_by_its_label_or_its_number() -> None:
    assert [class_name(1, LABELS), class_name(1, None), class_name(7, ())] == ["tiger cat", "class 1", "class 7"]


def test_softmax_is_offered_here_too() -> None:
    np.testing.assert_allclose(softmax([0.0, 0.0]), [0.5, 0.5])
