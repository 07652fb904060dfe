"""Evidence: the cheapest program gives the same numbers as every dearer way to the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from camrt.evidence import Question, gather
from camrt.export.live import open_model
from camrt.limits import UNLIMITED, Limits
from camrt.providers import parse_providers
from camrt.session import Sessions
from camrt.targets import Logit, LogProbability, pin
from tests import tiny


class Counting(Sessions):
    """Sessions that remember which programs ran."""

    def __init__(self, model: bytes) -> None:
        super().__init__(open_model(model), parse_providers("cpu"))
        self.ran: list[str] = []

    def run(self, kind: str, layers: Sequence[str], feeds: Any, limits: Limits = UNLIMITED) -> Any:
        self.ran.append(kind)
        return super().run(kind, layers, feeds, limits)


@pytest.fixture
def sessions() -> Counting:
    """Open a model whose head depends on the image."""
    return Counting(tiny.mlp())


def test_one_column_of_classes_takes_one_run(sessions: Counting) -> None:
    gather(Question(sessions, ("a2",), tiny.images(3)), [[Logit(1)] * 3], gradients=True)
    assert sessions.ran == ["gradient"]


def test_several_columns_run_the_model_once_and_its_tail_once_each(sessions: Counting) -> None:
    gather(Question(sessions, ("a2",), tiny.images(3)), [[Logit(c)] * 3 for c in range(4)], gradients=True)
    assert sessions.ran == ["features"] + ["tail_gradient"] * 4


def test_methods_without_gradients_run_the_model_once_for_any_number_of_targets(sessions: Counting) -> None:
    gather(Question(sessions, ("a2",), tiny.images(3)), [[Logit(c)] * 3 for c in range(4)], gradients=False)
    assert sessions.ran == ["features"]


def test_the_class_its_logit_and_its_name_are_those_of_the_prediction_or_of_the_asked(sessions: Counting) -> None:
    """Two columns of plain classes go by the features program, which describes them itself."""
    question = Question(sessions, ("a2",), tiny.images(3), ("ant", "bee", "cow", "doe", "elk"))
    predicted, asked = gather(question, [[Logit()] * 3, [Logit(3)] * 3], gradients=False)
    best = predicted.logits.argmax(1)
    assert predicted.target.tolist() == best.tolist()
    assert predicted.values is not None
    assert asked.values is not None
    np.testing.assert_array_equal(predicted.values, predicted.logits.max(1))
    assert predicted.names == tuple(question.labels[c] for c in best)
    assert asked.target.tolist() == [3, 3, 3]
    np.testing.assert_array_equal(asked.values, asked.logits[:, 3])
    assert asked.names == ("doe",) * 3


def test_every_way_to_a_gradient_gives_the_same_one(sessions: Counting) -> None:
    x = tiny.images(3)
    one = Question(sessions, ("a2",), x)
    (direct,) = gather(one, [[Logit(1)] * 3], gradients=True)
    through_tail, _ = gather(one, [[Logit(1)] * 3, [Logit(2)] * 3], gradients=True)
    (joint,) = gather(Question(sessions, ("a1", "a2"), x), [[Logit(1)] * 3], gradients=True)
    seed = np.zeros((3, tiny.CLASSES), "f4")
    seed[:, 1] = 1
    assert direct.grads is not None
    assert through_tail.grads is not None
    assert joint.grads is not None
    for other in (
        through_tail.grads[0],
        joint.grads[1],
        direct.gradients_of(seed, 0),
        through_tail.gradients_of(seed, 0),
    ):
        np.testing.assert_allclose(other, direct.grads[0], rtol=1e-5, atol=1e-6)


def test_asking_again_at_another_input_keeps_the_class_of_the_clean_one(sessions: Counting) -> None:
    x, moved = tiny.images(4, 0), tiny.images(4, 9)
    (clean,) = gather(Question(sessions, ("a2",), x), [[Logit(None)] * 4], gradients=True)
    (other,) = gather(Question(sessions, ("a2",), moved), [[Logit(None)] * 4], gradients=True)
    assert (clean.target != other.target).any(), "the test needs inputs of different classes"
    (want,) = gather(Question(sessions, ("a2",), moved), [pin([Logit(None)] * 4, clean.logits)], gradients=True)
    acts, grads = clean.gradients_at(moved, 0)
    assert want.grads is not None
    np.testing.assert_array_equal(acts, want.acts[0])
    np.testing.assert_array_equal(grads, want.grads[0])


def test_targets_that_depend_on_the_logits_are_seeded_from_them(sessions: Counting) -> None:
    x = tiny.images(2)
    columns = [[LogProbability(1)] * 2, *([[Logit(c)] * 2 for c in range(tiny.CLASSES)])]
    log_p, *each = gather(Question(sessions, ("a2",), x), columns, gradients=True)
    p = np.exp(log_p.logits - log_p.logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    stacked = np.stack([e.grads[0] for e in each if e.grads is not None], axis=1)
    want = stacked[:, 1] - (p[:, :, None, None, None] * stacked).sum(axis=1)
    assert log_p.grads is not None
    np.testing.assert_allclose(log_p.grads[0], want, rtol=1e-4, atol=1e-6)
