"""Calls of every kind at one desk; the oracle is the explainer, asked for each call by itself."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import CamrtError, CancelledError, DeadlineError, ImageError, InputError, MissingExtraError

pytest.importorskip("pydantic_settings")

from camrt.embedding.desk import TENSORS, Desk, stack, tensors_of
from camrt.server.faults import BusyError
from camrt.server.infer import OUTPUTS, UNASKED
from camrt.server.tickets import Answer


@pytest.fixture(scope="module")
def desk(bundle: Path) -> Iterator[Desk]:
    """Open the bundle."""
    dear = {"ceilings": {"iters": 100_000}, "max_timeout": 3600, "max_work": 1e6, "queue_work": 1e6}
    desk = Desk(bundle, {"threads": "1", **dear})
    yield desk
    desk.close()


@pytest.mark.parametrize(("told", "beside"), [({}, 2), ({"threads": "4"}, None)])
def test_a_desk_shares_the_cores_as_a_server_does(
    told: dict[str, str], beside: int | None, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    desk = Desk(bundle, told)
    desk.close()
    opened = desk.explainer.sessions._open_beside.values()
    assert {s._session.get_session_options().intra_op_num_threads for s in opened} == ({beside} if beside else set())


def test_a_mixture_is_answered_as_each_call_by_itself(
    desk: Desk, explainer: camrt.Explainer, pictures: list[bytes]
) -> None:
    prepared = np.random.default_rng(0).normal(size=(3, 3, 128, 128)).astype("f4")
    drawn = np.random.default_rng(1).integers(0, 256, (2, 90, 100, 3), np.uint8)
    calls: list[tuple[Any, Any, dict[str, Any]]] = [
        (pictures[0], None, {}),
        (pictures[1:3], 3, {}),
        (prepared, np.array([1, -1, 2]), {}),
        (drawn, [[0, 1], [2, 3]], {"method": "layercam"}),
        (pictures[3], "striped disc", {"method": "ablationcam", "layer": "stage4"}),
        (pictures[0], None, {"method": "reciprocam"}),
        (prepared[0], "prob:4", {}),
        (pictures[2], 5, {"method": "smoothgradcampp", "n": "3", "eigen_smooth": "yes"}),
    ]
    answers = desk.answer([desk.read(*call) for call in calls])
    wanted = [
        explainer.explain(pictures[0]),
        explainer.explain(pictures[1:3], target=3),
        explainer.explain(prepared, target=[[1], [None], [2]]),
        explainer.explain(drawn, target=[[0, 1], [2, 3]], method="layercam"),
        explainer.explain(pictures[3], target="striped disc", method="ablationcam", layer="stage4"),
        explainer.explain(pictures[0], method="reciprocam"),
        explainer.explain(prepared[0], target="prob:4"),
        explainer.explain(pictures[2], target=5, method="smoothgradcampp", options={"n": 3}, eigen_smooth=True),
    ]
    for answer, explanation in zip(answers, wanted, strict=True):
        assert isinstance(answer, Answer)
        tensors = tensors_of(answer)
        np.testing.assert_allclose(tensors["cam"], explanation.heatmaps, atol=1e-5)
        np.testing.assert_allclose(tensors["logits"], explanation.logits, atol=1e-5)
        np.testing.assert_allclose(tensors["value"], explanation.values, atol=1e-5)
        np.testing.assert_array_equal(tensors["target"], explanation.targets)
        np.testing.assert_array_equal(tensors["degenerate"], explanation.degenerate)


def test_a_call_at_fault_does_not_spoil_the_others(
    desk: Desk, explainer: camrt.Explainer, pictures: list[bytes]
) -> None:
    good, broken = desk.read(pictures[0]), desk.read(pictures[1][:500])
    unread, late = ImageError("no picture"), desk.read(pictures[0], parameters={"method": "opticam", "timeout": 1e-3})
    first, second, third, fourth, fifth = desk.answer([good, broken, unread, late, good])
    assert isinstance(second, ImageError) and third is unread and isinstance(fourth, DeadlineError)
    for answer in (first, fifth):
        assert isinstance(answer, Answer)
        np.testing.assert_allclose(tensors_of(answer)["cam"], explainer.explain(pictures[0]).heatmaps, atol=1e-5)


def test_scores_alone_need_no_explanation(desk: Desk, explainer: camrt.Explainer, pictures: list[bytes]) -> None:
    [answer] = desk.answer([desk.read(pictures, explain=False)])
    assert isinstance(answer, Answer) and answer.explanation is None
    assert list(tensors_of(answer)) == ["logits"]
    np.testing.assert_allclose(tensors_of(answer)["logits"], explainer.logits(pictures), atol=1e-5)


def test_a_call_whose_task_is_cancelled_ends(desk: Desk, explainer: camrt.Explainer, pictures: list[bytes]) -> None:
    """The dear one would take minutes; the desk could not be closed before it has ended."""

    async def both() -> Answer:
        dear = desk.read(pictures[0], parameters={"method": "opticam", "iters": 100_000, "timeout": 3600})
        task = asyncio.create_task(desk.wait(dear))
        answer = await desk.wait(desk.read(pictures[1]))
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return answer

    answer = asyncio.run(both())
    np.testing.assert_allclose(tensors_of(answer)["cam"], explainer.explain(pictures[1]).heatmaps, atol=1e-5)


def test_a_closed_desk_refuses(bundle: Path, pictures: list[bytes]) -> None:
    desk = Desk(bundle)
    desk.close()
    [refused] = desk.answer([desk.read(pictures[0])])
    assert isinstance(refused, BusyError)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ("cat.png", "got str"),
        (["cat.png"], "got list"),
        (Path("cat.png"), "Path"),
        (np.zeros((4, 4), "u1"), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3), "i8"), "int64"),
        (np.array(["cat.png"]), "U7"),
    ],
)
def test_a_path_is_never_opened(desk: Desk, images: Any, text: str) -> None:
    with pytest.raises(ImageError, match=text) as caught:
        desk.read(images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "parameters"),
    [(10, {}), ([1, 2], {}), (None, {"method": "camera"}), (None, {"n": 4}), (None, {"layer": "nowhere"})],
)
def test_what_does_not_fit_is_refused_before_anything_runs(desk: Desk, target: Any, parameters: Any) -> None:
    with pytest.raises(InputError):
        desk.read(b"x", target, parameters)


def test_a_wrong_setting_is_named(bundle: Path) -> None:
    with pytest.raises(InputError, match="gpu"):
        Desk(bundle, {"gpu": 1})


def test_tensors_are_those_of_the_server() -> None:
    assert {name: OUTPUTS[name] for name in UNASKED} == TENSORS


@pytest.mark.parametrize("error", [BusyError("full", 2.5), CancelledError("gone"), ImageError("none")])
def test_errors_travel_between_processes(error: CamrtError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)


def test_an_explanation_travels_between_processes(explainer: camrt.Explainer, pictures: list[bytes]) -> None:
    explanation = explainer.explain(pictures[0], target=[1, "prob:2"])
    again = pickle.loads(pickle.dumps(explanation))
    np.testing.assert_array_equal(again.heatmaps, explanation.heatmaps)
    assert again.overlay(0, 1).tobytes() == explanation.overlay(0, 1).tobytes()


def test_a_missing_stack_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match="no_such_stack is not installed: pip install it"):
        stack("no_such_stack", "pip install it")
