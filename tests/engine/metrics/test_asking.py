"""The model is asked each thing once, and what it says goes to the right place."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import NumericError, TargetError
from camrt.metrics import asking
from camrt.metrics.asking import ask, ask_predicted, scores_of
from camrt.metrics.changes import Clean, Masked, Order, Randomised, Shifted, Substrate, Swapped, Whole
from camrt.metrics.filling import Pictures
from camrt.metrics.model import Model
from camrt.noise import content_ids
from tests.engine.metrics import toy

GREY, BLACK = Substrate("grey"), Substrate("black")
CLASSES = np.array([2, 0, 3])


def counting(chunk=4, of=toy.logits):
    """Return the toy, and a list that grows by the rows of each call."""
    calls = []

    def run(x):
        calls.append(len(x))
        return of(x)

    return Model(run, black=toy.BLACK, unit=toy.UNIT, chunk=chunk), calls


def pictures(model, heats, n=3):
    x = toy.pictures(n)
    return Pictures(x, heats, content_ids(x), model)


def test_every_score_is_that_of_the_picture_changed_by_hand() -> None:
    heats = [toy.maps(seed=1), toy.maps(seed=2)]
    model, _ = counting()
    at = pictures(model, heats)
    wanted = [[Masked(GREY), Swapped(Order(), 0, 9, BLACK), Whole(GREY)], [Whole(BLACK), Swapped(Order(), 0, 4, BLACK)]]
    found = ask(at, CLASSES, wanted)
    for method, changes in enumerate(wanted):
        assert set(found[method]) == set(changes)
        for change in changes:
            x = np.stack([toy.changed(change, *pair) for pair in zip(at.x, heats[method], strict=True)])
            expected = toy.log_softmax(toy.logits(x))
            p = expected[np.arange(3), CLASSES]
            scores = found[method][change]
            np.testing.assert_allclose(scores.log_p, p, atol=1e-10)
            np.testing.assert_allclose(scores.log_rest, np.log1p(-np.exp(p)), atol=1e-9)
            np.testing.assert_array_equal(scores.hit, expected.argmax(1) == CLASSES)
            np.testing.assert_allclose(scores.p, np.exp(p), atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 4, 257])
def test_rows_are_run_once_and_fill_chunks(chunk: int) -> None:
    heats = [toy.maps(seed=1), toy.maps(seed=2)]
    model, calls = counting(chunk)
    at = pictures(model, heats)
    noise = Shifted("gaussian", 0.2)
    both = [Masked(GREY), Whole(GREY), noise, Swapped(Order(), 0, 9, GREY), Whole(Substrate("mean"))]
    told = []
    ask(at, CLASSES, [both, both], tell=told.append)
    rows = 3 * 2 * 2 + 3 * 2 + 1  # masked and swapped by map; noise and mean by picture; grey once
    assert sum(calls) == rows == told[-1]
    assert set(calls[:-1]) <= {chunk}


def test_scores_do_not_depend_on_chunks_and_neighbours() -> None:
    heats = [toy.maps()]
    changes = [Swapped(Order(), 0, k, BLACK) for k in range(1, 30, 3)]
    one = ask(pictures(counting(1)[0], heats), CLASSES, [changes])[0]
    many = ask(pictures(counting(64)[0], heats), CLASSES, [changes[::-1]])[0]
    for change in changes:
        np.testing.assert_allclose(one[change].log_p, many[change].log_p, atol=1e-12)


def test_nothing_wanted_runs_nothing() -> None:
    model, calls = counting()
    assert ask(pictures(model, [toy.maps()]), CLASSES, [[]]) == [{}]
    assert calls == []


def test_nan_is_said_and_never_returned() -> None:
    model, _ = counting(of=lambda x: toy.logits(x) * np.where(np.arange(len(x))[:, None] == 1, np.nan, 1))
    with pytest.raises(NumericError, match="NaN or infinite logits for Masked"):
        ask(pictures(model, [toy.maps()]), CLASSES, [[Masked(GREY)]])
    with pytest.raises(NumericError, match="NaN"):
        scores_of([np.array([[0.0, np.nan]])], np.array([0]))


def test_logits_that_are_there_are_scored_alike() -> None:
    x = toy.pictures()
    expected = toy.log_softmax(toy.logits(x))[np.arange(3), CLASSES]
    first, second = scores_of([toy.logits(x), toy.logits(x)[::-1]], CLASSES)
    np.testing.assert_allclose(first.log_p, expected, atol=1e-12)
    np.testing.assert_allclose(second.log_p, toy.log_softmax(toy.logits(x)[::-1])[np.arange(3), CLASSES], atol=1e-12)


def test_a_randomised_model_has_no_scores() -> None:
    with pytest.raises(TypeError):
        ask(pictures(counting()[0], [toy.maps()]), CLASSES, [[Randomised("cascading", 1, 2)]])


def test_the_clean_picture_may_be_asked_for() -> None:
    at = pictures(counting()[0], [toy.maps()])
    expected = toy.log_softmax(toy.logits(at.x))[np.arange(3), CLASSES]
    np.testing.assert_allclose(ask(at, CLASSES, [[Clean()]])[0][Clean()].log_p, expected, atol=1e-12)


@pytest.mark.parametrize("waiting", [1, 100, 2**20])
@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_predicted_classes_give_the_scores_of_the_same_classes_told(chunk: int, waiting: int, monkeypatch) -> None:
    monkeypatch.setattr(asking, "WAITING", waiting)  # bytes: after every chunk, now and then, at the end
    heats, changes = [toy.maps()], [Swapped(Order(), 0, 7, BLACK), Whole(GREY), Masked(GREY)]
    model, calls = counting(chunk)
    at = pictures(model, heats)
    (found,), classes = ask_predicted(at, [changes])
    np.testing.assert_array_equal(classes, toy.logits(at.x).argmax(1))
    assert sum(calls) == 3 + 3 + 1 + 3 and len(calls) == -(-10 // chunk)  # the clean pictures beside the others
    told = ask(pictures(counting(64)[0], heats), classes, [[Clean(), *changes]])[0]
    assert found.keys() == told.keys()
    for change, scores in found.items():
        np.testing.assert_allclose(scores.log_p, told[change].log_p, atol=1e-12)
        np.testing.assert_allclose(scores.log_rest, told[change].log_rest, atol=1e-12)
        np.testing.assert_array_equal(scores.hit, told[change].hit)


class Backwards(Model):
    """A model whose chunks come back the last first, as those of several lanes may."""

    def planner(self, x):
        class Stream:
            def run(_, job):
                for start in reversed(range(0, job.rows, 2)):
                    stop = min(start + 2, job.rows)
                    buffer = np.empty((stop - start, *x.shape[1:]), x.dtype)
                    job.fill(buffer, start, stop)
                    job.take(start, stop, toy.logits(buffer))

        return Stream()


def test_predicted_classes_are_waited_for_where_the_clean_pictures_come_last(monkeypatch) -> None:
    monkeypatch.setattr(asking, "WAITING", 1)
    changes = [Swapped(Order(), 0, 7, BLACK), Masked(GREY)]
    (found,), classes = ask_predicted(pictures(Backwards(toy.logits, black=toy.BLACK), [toy.maps()]), [changes])
    told = ask(pictures(counting()[0], [toy.maps()]), classes, [changes])[0]
    for change in changes:
        np.testing.assert_allclose(found[change].log_p, told[change].log_p, atol=1e-12)


def test_logits_that_wait_are_not_those_of_a_later_chunk() -> None:
    kept = np.empty((2, len(toy.logits(toy.pictures(1))[0])))

    def run(x):
        kept[: len(x)] = toy.logits(x)
        return kept[: len(x)]  # the same memory every time

    changes = [Swapped(Order(), 0, 7, BLACK), Masked(GREY)]
    found = ask(pictures(counting(2, run)[0], [toy.maps()]), CLASSES, [changes])[0]
    told = ask(pictures(counting()[0], [toy.maps()]), CLASSES, [changes])[0]
    for change in changes:
        np.testing.assert_allclose(found[change].log_p, told[change].log_p, atol=1e-12)


def test_a_class_beyond_those_of_a_function_is_refused() -> None:
    at = pictures(counting()[0], [toy.maps()])
    with pytest.raises(TargetError, match=r"0\.\.\d; got up to 77"):
        ask(at, np.array([0, 77, 1]), [[Masked(GREY)]])


def test_not_a_number_is_told_from_whatever_chunk_it_comes(monkeypatch) -> None:
    def spoiled(x):
        logits = toy.logits(x)
        return np.where((x == 0).all((1, 2, 3))[:, None], np.nan, logits)  # of the grey picture alone

    for waiting in (1, 2**20):
        monkeypatch.setattr(asking, "WAITING", waiting)
        at = pictures(counting(2, spoiled)[0], [toy.maps()])
        with pytest.raises(NumericError, match="Whole"):
            ask(at, CLASSES, [[Masked(BLACK), Whole(GREY)]])
