"""The documented LitServe server in a process of its own; the oracle is the explainer in this process."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import MissingExtraError
from tests.engine.embedding.examples import examples_of, free_port, installed, post, run, running

INSTALLED = installed("litserve")
needs_stack = pytest.mark.skipif(not INSTALLED, reason="needs litserve")


@pytest.fixture(scope="module")
def port(bundle: Path, pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run the example's server in a folder with a bundle and a picture; return its port."""
    folder = tmp_path_factory.mktemp("litserve")
    (folder / "bundle").symlink_to(bundle)
    port = free_port()
    code = examples_of("litserve")[0].replace("8000", str(port))
    with running(code, folder, f"http://127.0.0.1:{port}/health"):
        yield port


def ask(port: int, body: Any) -> tuple[int, Any]:
    """Ask the server; return status and document."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer, _ = post(f"http://127.0.0.1:{port}/explain", data, Content_Type="application/json")
    return status, json.loads(answer)


def encoded(picture: bytes) -> str:
    """Return a picture as JSON holds it."""
    return base64.b64encode(picture).decode()


@needs_stack
def test_the_client_of_the_example(port: int, pictures: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(pictures[0])
    assert run(examples_of("litserve")[1].replace("8000", str(port)), tmp_path) == "['checkered square']\n"


@needs_stack
def test_a_mixture_gets_the_answers_of_each_by_itself(
    port: int, explainer: camrt.Explainer, pictures: list[bytes]
) -> None:
    """A broken picture, and a method that is none, are among them."""
    names = ("gradcam", "layercam", "ablationcam", "gradcam", "camera", "gradcam")
    asked = [(place % 4, place % 10, names[place % 6]) for place in range(36)]
    bodies: list[Any] = [
        {"instances": [{"image": {"b64": encoded(pictures[one])}, "target": target}], "parameters": {"method": method}}
        for one, target, method in asked
    ]
    broken = range(5, 36, 6)
    for place in broken:
        bodies[place]["instances"] = [{"b64": encoded(pictures[0][:300])}]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda body: ask(port, body), bodies))
    for place, ((one, target, method), (status, document)) in enumerate(zip(asked, answers, strict=True)):
        if method == "camera" or place in broken:
            assert status == 400 and list(document) == ["error"]
            continue
        wanted = explainer.explain(pictures[one], target=target, method=method)
        assert status == 200
        np.testing.assert_allclose(document["predictions"], wanted.logits, atol=1e-5)
        np.testing.assert_allclose(document["explanations"][0]["heatmaps"], wanted.heatmaps[0], atol=1e-5)


@needs_stack
def test_inputs_may_be_prepared(port: int, explainer: camrt.Explainer) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 128, 128)).astype("f4")
    status, document = ask(port, {"instances": x.tolist(), "parameters": {"target": "prob:1"}})
    wanted = explainer.explain(x, target="prob:1")
    assert status == 200
    heatmaps = [one["heatmaps"] for one in document["explanations"]]
    np.testing.assert_allclose(heatmaps, wanted.heatmaps, atol=1e-6)
    assert [one["targets"] for one in document["explanations"]] == wanted.targets.tolist()


@needs_stack
@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b"{", {422}),
        (b"[]", {422}),
        ({}, {400}),
        ({"instances": []}, {400}),
        ({"instances": [{"b64": "?"}]}, {400}),
        ({"instances": [[1, 2], [3]]}, {400}),
        ({"instances": ["cat.png"]}, {400}),
        ({"instances": [{"b64": "aGVsbG8="}], "parameters": [1]}, {400}),
        ({"instances": [{"b64": "aGVsbG8="}], "parameters": {"layer": "nowhere"}}, {404}),
        ({"instances": [{"b64": "aGVsbG8="}], "parameters": {"method": "smoothgradcampp", "n": 65}}, {400}),
        ({"instances": [{"image": {"b64": "aGVsbG8="}, "target": {"a": 1}}]}, {400}),
        ({"instances": [{"b64": "aGVsbG8="}] * 65}, {413}),
    ],
)
def test_what_cannot_be_read_is_the_callers_fault(port: int, body: Any, codes: set[int]) -> None:
    assert ask(port, body)[0] in codes


@pytest.mark.skipif(INSTALLED, reason="litserve is installed")
def test_without_the_stack_it_is_named() -> None:
    with pytest.raises(MissingExtraError, match="litserve is not installed: pip install"):
        importlib.import_module("camrt.embedding.litserve")
