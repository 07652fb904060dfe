"""KServe's own model server in a process of its own, asked by KServe's own client; the oracle is the explainer here."""

from __future__ import annotations

import asyncio
import base64
import importlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import MissingExtraError
from tests.engine.embedding.examples import examples_of, free_port, installed, run, running

INSTALLED = installed("kserve")
needs_stack = pytest.mark.skipif(not INSTALLED, reason="needs kserve")
pytestmark = pytest.mark.filterwarnings("ignore")  # KServe's own


@pytest.fixture(scope="module")
def ports(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Run the example's server on a bundle; return its ports of HTTP and gRPC."""
    folder = tmp_path_factory.mktemp("kserve")
    http, grpc = free_port(), free_port()
    flags = {"bundle": bundle, "model_name": "demo", "http_port": http, "grpc_port": grpc}
    arguments = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    with running(examples_of("kserve")[0], folder, f"http://127.0.0.1:{http}/v1/models/demo", *arguments):
        yield http, grpc


@asynccontextmanager
async def client(protocol: str) -> AsyncIterator[Any]:
    """Open KServe's client, and close it."""
    from kserve import InferenceRESTClient, RESTConfig

    opened = InferenceRESTClient(RESTConfig(protocol=protocol, retries=0))
    try:
        yield opened
    finally:
        await opened.close()


def ask(protocol: str, verb: str, port: int, data: Any) -> Any:
    """Send one request."""

    async def send() -> Any:
        async with client(protocol) as opened:
            return await getattr(opened, verb)(f"http://127.0.0.1:{port}/", model_name="demo", data=data)

    return asyncio.run(send())


def encoded(picture: bytes) -> str:
    """Return a picture as JSON holds it."""
    return base64.b64encode(picture).decode()


@needs_stack
def test_the_client_of_the_example(ports: tuple[int, int], pictures: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(pictures[0])
    code = examples_of("kserve")[1].replace("8080", str(ports[0]))
    assert run(code, tmp_path).splitlines()[-1] == "['checkered square']"


@needs_stack
def test_v1_explains_and_predicts(ports: tuple[int, int], explainer: camrt.Explainer, pictures: list[bytes]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 128, 128)).astype("f4")
    documents: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
        ({"instances": [{"b64": encoded(one)} for one in pictures]}, pictures, {}),
        ({"instances": x.tolist(), "parameters": {"target": "prob:1"}}, x, {"target": "prob:1"}),
        (
            {
                "instances": [{"image": {"b64": encoded(pictures[1])}, "target": 2}],
                "parameters": {"method": "scorecam"},
            },
            pictures[1],
            {"target": 2, "method": "scorecam"},
        ),
    ]

    for document, images, arguments in documents:
        explained, predicted = (ask("v1", verb, ports[0], document) for verb in ("explain", "infer"))
        wanted = explainer.explain(images, **arguments)
        heatmaps = [one["heatmaps"] for one in explained["explanations"]]
        np.testing.assert_allclose(heatmaps, wanted.heatmaps, atol=1e-6)
        assert [one["targets"] for one in explained["explanations"]] == wanted.targets.tolist()
        assert [one["labels"] for one in explained["explanations"]] == [list(row) for row in wanted.labels]
        for answer in (explained, predicted):
            np.testing.assert_allclose(answer["predictions"], wanted.logits, atol=1e-5)


@needs_stack
@pytest.mark.parametrize("binary", [True, False])
def test_v2_gives_the_heatmap_as_a_tensor(ports: tuple[int, int], explainer: camrt.Explainer, binary: bool) -> None:
    from kserve import InferInput, InferRequest

    x = np.random.default_rng(1).normal(size=(2, 3, 128, 128)).astype("f4")
    image = InferInput("image", [2, 3, 128, 128], "FP32")
    image.set_data_from_numpy(x, binary_data=binary)
    target = InferInput("target", [2, 2], "INT64")
    target.set_data_from_numpy(np.array([[1, 2], [3, -1]]), binary_data=binary)
    parameters = {"method": "layercam", "binary_data_output": binary, "timeout": 20_000_000}
    request = InferRequest("demo", [image, target], request_id="a1", parameters=parameters)
    answer = ask("v2", "infer", ports[0], request)
    wanted = explainer.explain(x, target=[[1, 2], [3, None]], method="layercam")
    found = {output.name: output.as_numpy() for output in answer.outputs}
    assert answer.id == "a1" and list(found) == ["cam", "logits", "target", "value", "degenerate"]
    np.testing.assert_allclose(found["cam"], wanted.heatmaps, atol=1e-6)
    np.testing.assert_allclose(found["logits"], wanted.logits, atol=1e-5)
    np.testing.assert_array_equal(found["target"], wanted.targets)


@needs_stack
def test_v2_takes_pictures_as_text_and_over_grpc_as_they_are(
    ports: tuple[int, int], explainer: camrt.Explainer, pictures: list[bytes]
) -> None:
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    def request(*values: bytes) -> Any:
        image = InferInput("image", [len(values)], "BYTES")
        image.set_data_from_numpy(np.array(values, object), binary_data=True)
        return InferRequest("demo", [image], parameters={"method": "layercam"})

    async def over_grpc() -> Any:
        grpc = InferenceGRPCClient(f"127.0.0.1:{ports[1]}")
        try:
            return await grpc.infer(request(*pictures))
        finally:
            await grpc.close()

    wanted = explainer.explain(pictures, method="layercam").heatmaps
    text = request(*(encoded(picture).encode() for picture in pictures))
    for answer in (ask("v2", "infer", ports[0], text), asyncio.run(over_grpc())):
        cam = next(output for output in answer.outputs if output.name == "cam")
        np.testing.assert_allclose(cam.as_numpy(), wanted, atol=1e-5)


@needs_stack
def test_v2_metadata(ports: tuple[int, int]) -> None:
    import json
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/v2/models/demo", timeout=30) as response:
        document = json.load(response)
    assert [(one["name"], one["datatype"], one["shape"]) for one in document["inputs"]] == [
        ("image", "FP32", [-1, 3, 128, 128]),
        ("target", "INT64", [-1, -1]),
    ]
    assert {one["name"]: one["shape"] for one in document["outputs"]}["cam"] == [-1, -1, 128, 128]


@needs_stack
@pytest.mark.parametrize(
    "document",
    [
        {},
        {"instances": []},
        {"instances": [{"b64": "?"}]},
        {"instances": [{"b64": "aGVsbG8="}]},
        {"instances": [{"b64": "aGVsbG8="}], "parameters": {"method": "camera"}},
        {"instances": ["cat.png"]},
    ],
)
def test_what_cannot_be_read_is_the_callers_fault(ports: tuple[int, int], document: Any) -> None:
    import httpx

    with pytest.raises(httpx.HTTPStatusError) as caught:
        ask("v1", "explain", ports[0], document)
    assert caught.value.response.status_code == 400
    assert list(caught.value.response.json()) == ["error"]


@pytest.mark.skipif(INSTALLED, reason="kserve is installed")
def test_without_the_stack_it_is_named() -> None:
    with pytest.raises(MissingExtraError, match="kserve is not installed: pip install"):
        importlib.import_module("camrt.embedding.kserve")
