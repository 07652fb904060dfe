"""What is run, and what is not: masked forwards against a plain loop, counted at the session."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import camrt
from camrt.errors import CancelledError, DeadlineError, NumericError
from camrt.evidence import Question, gather
from camrt.forwards import Forwards, Share, SoftmaxParts, score_of
from camrt.kernels import min_max, resize
from camrt.limits import Cancellation, Limits
from camrt.masks import Lazy, Masks, Noise, Scored
from camrt.noise import standard_normal
from camrt.planner import Planner
from camrt.scalars import softmax
from camrt.session import Sessions
from camrt.tails import Heads
from camrt.targets import Contrast, Logit, Probability, Target
from tests import tiny

Array = Any
IDS = np.array([7, 8, 9], np.uint64)


class Counted:
    """A batch, its masked forwards, and how many rows the model was run on."""

    def __init__(self, n: int = 3, chunk: int = 4, *, remember: bool = False, **settings: Any) -> None:
        explainer = camrt.load(tiny.mlp(), preprocess="half")
        self.explainer, self.x, self.rows = explainer, tiny.images(n), 0
        sessions: Sessions = explainer._sessions
        self.question = Question(sessions, ("a2",), self.x, (), settings.pop("limits", Limits()))
        self.acts = explainer.activations(self.x, layer="a2")["a2"]

        def run(buffer: Array, limits: Limits) -> Array:
            self.rows += len(buffer)
            return sessions.run_unchecked("forward", (), {"x": buffer}, limits)["logits"]

        self.forwards = Forwards(
            self.question,
            Planner(run, lambda rows: np.empty((rows, *self.x.shape[1:]), self.x.dtype), chunk),
            ids=lambda: IDS[:n],
            hidden=settings.pop("hidden", None),
            channels_last=False,
            heads=Heads(),
            memory=2**30,
            remember=remember,
            **settings,
        )

    def loop(self, mask_of: Callable[[int, int], Array], count: int, hidden: float = 0.0) -> Array:
        """Run every masked image by itself."""
        found = [
            [self.explainer.logits((row * (m := mask_of(i, j)) + hidden * (1 - m))[None].astype("f4"))[0]]
            for i, row in enumerate(self.x)
            for j in range(count)
        ]
        return np.array(found).reshape(len(self.x), count, -1)


def scaled(acts: Array, i: int, j: int) -> Array:
    """Return Score-CAM's mask of one channel."""
    return min_max(resize(acts[i, j][None], tiny.SIZE))[0][0]


@pytest.mark.parametrize("chunk", [1, 4, 5, 64])
def test_masked_logits_are_those_of_a_plain_loop_whatever_the_chunk(chunk: int) -> None:
    batch = Counted(chunk=chunk)
    scored = batch.forwards.masked(Masks(batch.acts))
    want = batch.loop(lambda i, j: scaled(batch.acts, i, j), tiny.CHANNELS)
    dead = batch.acts.max((2, 3)) == batch.acts.min((2, 3))
    assert_array_equal(scored.live, ~dead)
    assert_allclose(scored.logits[scored.live], want[scored.live], atol=2e-6)
    assert not scored.logits[dead].any()
    assert batch.rows == (~dead).sum()


@pytest.mark.parametrize(
    ("change", "mask_of"),
    [
        ({"gain": 2.5}, lambda a, i, j: 2.5 * scaled(a, i, j)),
        ({"inverted": True}, lambda a, i, j: 1 - scaled(a, i, j)),
        ({"scaling": "none"}, lambda a, i, j: resize(a[i, j][None], tiny.SIZE)[0]),
        (
            {"noise": Noise("mask", 0.3, 5, 2)},
            lambda a, i, j: scaled(a, i, j) + 0.3 * standard_normal(tiny.SIZE, 5, int(IDS[i]), 2),
        ),
    ],
)
def test_masks_are_changed_as_they_say(change: dict[str, Any], mask_of: Callable[..., Array]) -> None:
    batch = Counted()
    scored = batch.forwards.masked(Masks(batch.acts, **change))
    want = batch.loop(lambda i, j: mask_of(batch.acts, i, j), tiny.CHANNELS)
    assert scored.live.any()
    assert_allclose(scored.logits[scored.live], want[scored.live], atol=5e-6)


def test_hidden_pixels_show_the_mask_space_or_what_the_masks_say() -> None:
    batch = Counted(hidden=np.full((1, 3, 1, 1), -1.5, "f4"))
    want = batch.loop(lambda i, j: scaled(batch.acts, i, j), tiny.CHANNELS, hidden=-1.5)
    scored = batch.forwards.masked(Masks(batch.acts))
    assert_allclose(scored.logits[scored.live], want[scored.live], atol=5e-6)
    own = batch.forwards.masked(Masks(batch.acts, hidden=np.zeros((1, 3, 1, 1), "f4")))
    want = batch.loop(lambda i, j: scaled(batch.acts, i, j), tiny.CHANNELS)
    assert_allclose(own.logits[own.live], want[own.live], atol=5e-6)


def test_equal_masks_of_an_image_are_run_once_and_those_of_another_image_are_not_mixed_up() -> None:
    batch = Counted()
    maps = batch.acts[:, [0, 0, 0]].copy()
    maps[1:] = maps[:1]  # all images share the maps, not the forwards
    scored = batch.forwards.masked(Masks(maps))
    assert batch.rows == 3
    assert_array_equal(scored.logits[:, 0], scored.logits[:, 2])
    assert np.ptp(scored.logits[:, 0], axis=0).min() > 0


def test_constant_masks_are_skipped_or_count_as_one_mask_of_zeros() -> None:
    batch = Counted()
    maps = np.broadcast_to(np.arange(1.0, 5.0, dtype="f4")[None, :, None, None], (3, 4, 2, 2))
    skipped = batch.forwards.masked(Masks(maps))
    assert not skipped.live.any()
    assert batch.rows == 0
    kept = batch.forwards.masked(Masks(maps, constant="keep"))
    assert kept.live.all()
    assert batch.rows == 3
    blank = batch.explainer.logits(np.zeros_like(batch.x[:1]))
    assert_allclose(kept.logits, np.broadcast_to(blank, kept.logits.shape), atol=1e-6)


def test_what_was_run_is_remembered_where_that_was_asked_for() -> None:
    for remember, rows in ((True, 1), (False, 2)):
        batch = Counted(remember=remember)
        first = batch.forwards.masked(Masks(batch.acts))
        once = batch.rows
        second = batch.forwards.masked(Masks(batch.acts[:, ::-1]))  # in another order
        assert batch.rows == rows * once
        assert_allclose(second.logits[:, ::-1], first.logits, atol=2e-6)
        other = batch.forwards.masked(Masks(batch.acts, gain=0.5))  # another mask altogether
        assert batch.rows == (rows + 1) * once
        assert np.abs(other.logits - first.logits).max() > 1e-3


def test_lazy_masks_are_made_when_they_are_run_and_named_ones_are_remembered() -> None:
    def make(image: int, rows: Array) -> Array:
        made = np.stack([np.random.default_rng((image, int(row))).random(tiny.SIZE) for row in rows])
        return made.astype("f4")

    batch = Counted(remember=True)
    for key, rows in ((None, 30), (None, 60), ("mine", 90), ("mine", 90)):
        scored = batch.forwards.masked(Masks(Lazy(10, make, key), scaling="none"))
        assert batch.rows == rows
        want = batch.loop(lambda i, j: make(i, np.array([j]))[0], 10)
        assert_allclose(scored.logits, want, atol=2e-6)


def test_only_what_is_wanted_is_run() -> None:
    batch = Counted()
    only = np.zeros(batch.acts.shape[:2], bool)
    only[1, 2] = only[2, 0] = True
    scored = batch.forwards.masked(Masks(batch.acts, scaling="none", only=only))
    assert batch.rows == 2
    assert_array_equal(scored.live, only)


def test_a_share_takes_the_most_varied_maps_and_grows_without_running_anything_twice() -> None:
    batch = Counted(remember=True)
    full = Counted().forwards.masked(Masks(batch.acts, scaling="none"))
    order = np.argsort(-batch.acts.reshape(3, tiny.CHANNELS, -1).std(2), 1, kind="stable")
    for part, rows in ((1 / 3, 2), (1 / 2, 3), (1.0, tiny.CHANNELS)):
        batch.forwards.share, batch.forwards.complete = Share(part), True
        scored = batch.forwards.masked(Masks(batch.acts, scaling="none"))
        assert batch.forwards.complete == (part == 1)
        for i in range(3):
            assert set(np.flatnonzero(scored.live[i])) == set(order[i, :rows])
        assert_allclose(scored.logits[scored.live], full.logits[scored.live], atol=2e-6)
        assert batch.rows == 3 * rows
    assert batch.rows == 3 * tiny.CHANNELS


def test_nan_scores_are_counted_and_named() -> None:
    batch = Counted()
    maps = batch.acts.copy()
    maps[1, 4, 0, 0] = maps[2, 1, 0, 0] = np.nan
    with pytest.raises(NumericError, match=r"2 of 18 masked forwards .* mask \(channel\) 4 of image 1"):
        batch.forwards.masked(Masks(maps, scaling="none"))


def test_other_inputs_and_their_gradients_are_run_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Counted(chunk=4)
    sessions, sizes = batch.question.sessions, list[int]()
    run = sessions.run_unchecked

    def counting(kind: str, layers: Any, feeds: dict[str, Any], limits: Any) -> Any:
        if kind == "input_gradient":
            sizes.append(len(feeds["x"]))
        return run(kind, layers, feeds, limits)

    monkeypatch.setattr(sessions, "run_unchecked", counting)
    inputs = np.concatenate([batch.x, 0.5 * batch.x])[:5]
    assert_allclose(batch.forwards.logits_at(inputs), batch.explainer.logits(inputs), atol=2e-6)
    seed = np.eye(tiny.CLASSES, dtype="f4")
    logits, gradient = batch.forwards.image_gradient(inputs, seed, np.arange(5) % 3)
    assert sizes == [2, 2, 1]  # half a chunk: a gradient holds twice the tensors
    assert_allclose(logits, batch.explainer.logits(inputs), atol=2e-6)
    want = batch.explainer.input_gradient(inputs, [[c] for c in range(5)])
    assert_allclose(gradient, want, atol=2e-6)


def test_edits_of_activations_are_made_once_for_all_targets() -> None:
    batch = Counted()
    layer = next(item for item in batch.explainer.layers if item.name == "a2")
    offered = batch.forwards.offered(layer, {})
    values = np.zeros(batch.acts.shape[:2], "f4")
    first: Scored = offered["ablated_of"](values)
    assert offered["ablated_of"](values) is first
    assert offered["cells_of"](False) is offered["cells_of"](False)
    assert offered["cells_of"](True) is not offered["cells_of"](False)
    assert offered["ablated_of"](values + 1) is not first


def test_a_request_that_is_over_runs_nothing() -> None:
    switch = Cancellation()
    with Limits(None, switch) as limits:
        batch = Counted(limits=limits)
        switch.cancel()
        with pytest.raises(CancelledError):
            batch.forwards.masked(Masks(batch.acts))
    assert batch.rows == 0


def test_scores_are_the_targets_own() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 7, 5))
    plain: list[Target] = [Logit(1), Logit(3)]
    found = score_of(plain, SoftmaxParts(), logits, "probability")
    assert_allclose(found[0], softmax(logits[0])[:, 1], atol=1e-12)
    assert_allclose(found[1], softmax(logits[1])[:, 3], atol=1e-12)
    assert_array_equal(score_of(plain, SoftmaxParts(), logits, "logit")[1], logits[1, :, 3])
    other = score_of([Contrast(1, (2,)), Probability(4)], SoftmaxParts(), logits, "logit")
    assert_allclose(other[0], logits[0, :, 1] - logits[0, :, 2], atol=1e-6)
    assert_allclose(other[1], softmax(logits[1])[:, 4], atol=1e-6)


def test_what_softmaxes_share_belongs_to_the_logits_asked_about() -> None:
    rng, shared = np.random.default_rng(0), SoftmaxParts()
    one, two = rng.normal(size=(2, 1, 7, 5)).astype("f4")
    for logits in (one, two, two, one):
        for index in range(5):
            found = score_of([Logit(index)], shared, logits, "probability")
            assert_allclose(found[0], softmax(logits[0].astype("f8"))[:, index], rtol=1e-12)
    assert shared.of(one) is shared.of(one)
    assert shared.of(one) is not shared.of(one.copy())


def test_evidence_knows_the_classes_that_scores_settle() -> None:
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(2)
    question = Question(explainer._sessions, ("a2",), x)
    best = explainer.logits(x).argmax(1)
    plain, mixed = gather(question, [[Logit(), Logit(3)], [Probability(), Contrast(1)]], gradients=False)
    assert plain.pinned == [Logit(int(best[0])), Logit(3)]
    rivals = np.where(np.arange(tiny.CLASSES) == 1, -np.inf, explainer.logits(x)[1])
    assert mixed.pinned == [Probability(int(best[0])), Contrast(1, (int(rivals.argmax()),))]


def test_a_deadline_ends_a_call_and_leaves_the_explainer_usable() -> None:
    explainer = camrt.load(tiny.mlp(), preprocess="half")
    x = tiny.images(3)
    want = explainer.explain(x, method="rise", options={"n": 64})
    with pytest.raises(DeadlineError, match=r"longer than the 0\.05 s it was allowed"):
        explainer.explain(x, method="rise", options={"n": 1_000_000}, timeout=0.05)
    again = explainer.explain(x, method="rise", options={"n": 64})
    assert_array_equal(again.heatmaps, want.heatmaps)


def test_cancelling_ends_a_call_within_one_chunk_and_leaves_the_explainer_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    explainer, x, switch = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(1), Cancellation()
    want = explainer.explain(x, method="rise", options={"n": 64})
    rows = 0
    run = explainer._sessions.run_unchecked

    def counting(kind: str, layers: Any, feeds: dict[str, Any], limits: Any) -> Any:
        nonlocal rows
        rows += len(feeds["x"])
        if rows > 20:
            switch.cancel()
        return run(kind, layers, feeds, limits)

    monkeypatch.setattr(explainer._sessions, "run_unchecked", counting)
    with pytest.raises(CancelledError):
        explainer.explain(x, method="rise", options={"n": 4000}, cancel=switch)
    assert rows <= 20 + 2 * explainer.chunk
    again = explainer.explain(x, method="rise", options={"n": 64})
    assert_array_equal(again.heatmaps, want.heatmaps)


def test_threads_that_ask_different_methods_get_what_each_gets_alone() -> None:
    explainer = camrt.load(tiny.mlp(), preprocess="half")
    x = tiny.images(4)
    methods = ("scorecam", "fasterscorecam", "groupcam", "iscam", "ablationcam", "reciprocam", "polycam", "occlusion")
    asked = [(method, i, [None, (i + 1) % tiny.CLASSES]) for method in methods for i in range(4)]

    def ask(case: tuple[str, int, Any]) -> Array:
        method, image, target = case
        return explainer.explain(x[image][None], method=method, target=target).raw

    alone = [ask(case) for case in asked]
    with ThreadPoolExecutor(16) as pool:
        for want, got in zip(alone * 3, pool.map(ask, asked * 3), strict=True):
            assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "reciprocam", "rise", "occlusion", "polycam"])
def test_five_targets_run_the_model_as_often_as_one(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(2)
    rows: list[int] = []
    run = explainer._sessions.run_unchecked

    def counting(kind: str, layers: Any, feeds: dict[str, Any], limits: Any) -> Any:
        rows[-1] += len(feeds["x" if "x" in feeds else "activations.0"])
        return run(kind, layers, feeds, limits)

    monkeypatch.setattr(explainer._sessions, "run_unchecked", counting)
    options = {"n": 50} if method == "rise" else None
    rows.append(0)
    explainer.explain(x, method=method, target=2, options=options)
    rows.append(0)
    together = explainer.explain(x, method=method, target=[0, 1, 2, 3, 4], options=options)
    assert rows[0] == rows[1]
    for target in range(5):
        single = explainer.explain(x, method=method, target=target, options=options)
        assert_allclose(single.raw[:, 0], together.raw[:, target], rtol=1e-5, atol=1e-6)
