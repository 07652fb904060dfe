"""KServe's own client, unmodified, under both of its protocols."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest

kserve = pytest.importorskip("kserve", reason="needs kserve; an environment of its own is kindest to its pins")

import httpx
from kserve.protocol.infer_type import RequestedOutput

from tests.clients.case import Case


def ask(address: str, protocol: str, verb: str, *values: Any, **keywords: Any) -> Any:
    """Call a method of the client."""

    async def asked() -> Any:
        config = kserve.RESTConfig(protocol=protocol, retries=0)
        async with kserve.InferenceRESTClient(config) as client:
            return await getattr(client, verb)(f"http://{address}", *values, **keywords)

    return asyncio.run(asked())


def infer(address: str, case: Case, request: Any) -> Any:
    """Ask for an inference under V2."""
    return ask(address, "v2", "infer", request, model_name=case.model)


def tensor(name: str, array: np.ndarray[Any, Any], kind: str, *, binary: bool) -> Any:
    """Make one of the client's input tensors."""
    made = kserve.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_the_server_tells_how_it_is(protocol: str, address: str, case: Case) -> None:
    assert ask(address, protocol, "is_server_live") is True
    assert ask(address, protocol, "is_model_ready", case.model) is True
    if protocol == "v2":
        assert ask(address, protocol, "is_server_ready") is True
        assert ask(address, protocol, "is_model_ready", "nobody") is False
    else:
        with pytest.raises(httpx.HTTPStatusError, match="nobody"):
            ask(address, protocol, "is_model_ready", "nobody")


@pytest.mark.parametrize("form", ["nested", "encoded", "named"])
def test_v1_explain_gives_the_engines_heatmaps(form: str, address: str, case: Case) -> None:
    encoded = [{"b64": base64.b64encode(file).decode()} for file in case.encoded()]
    instances = {
        "nested": case.x.tolist(),
        "encoded": encoded,
        "named": [{"image": image, "target": target} for image, target in zip(encoded, (4, 8), strict=True)],
    }[form]
    body = {"instances": instances, "parameters": {"method": "layercam", "timeout": 60}}
    told = ask(address, "v1", "explain", case.model, body)
    target = np.array([[4], [8]]) if form == "named" else None
    heatmaps = np.array([one["heatmaps"] for one in told["explanations"]], np.float32)
    case.assert_same(heatmaps, method="layercam", target=target)
    wanted = case.explain(case.x, target=target)
    assert [one["targets"] for one in told["explanations"]] == wanted.targets.tolist()
    np.testing.assert_allclose(told["predictions"], wanted.logits, rtol=1e-5, atol=1e-5)


def test_v1_predict_gives_the_models_scores(address: str, case: Case) -> None:
    told = ask(address, "v1", "infer", {"instances": case.x.tolist()}, model_name=case.model)
    np.testing.assert_allclose(told["predictions"], case.explain(case.x).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize(
    ("image", "binary_in"),
    [("prepared", True), ("prepared", False), ("encoded", True)],  # this client puts text alone into JSON
)
def test_v2_infer_gives_the_engines_heatmaps(
    image: str, binary_in: bool, binary_out: bool, address: str, case: Case
) -> None:
    array, kind = (case.x, "FP32") if image == "prepared" else (case.encoded(), "BYTES")
    targets = np.array([[4, 0], [8, 1]], np.int64)
    request = kserve.InferRequest(
        case.model,
        [tensor("image", array, kind, binary=binary_in), tensor("target", targets, "INT64", binary=binary_in)],
        request_id="picture-7",
        parameters={"method": "hirescam", "binary_data_output": binary_out},
    )
    told = infer(address, case, request)
    assert told.id == "picture-7"
    assert told.model_name == case.model
    assert [output.name for output in told.outputs] == ["cam", "logits", "target", "value", "degenerate"]
    case.assert_same(told.get_output_by_name("cam").as_numpy(), method="hirescam", target=targets)
    np.testing.assert_array_equal(told.get_output_by_name("target").as_numpy(), targets)


@pytest.mark.parametrize("binary", [True, False])
def test_v2_gives_the_outputs_that_were_asked_for(binary: bool, address: str, case: Case) -> None:
    request = kserve.InferRequest(
        case.model,
        [tensor("image", case.x, "FP32", binary=True)],
        request_outputs=[RequestedOutput("cam", {"binary_data": binary})],
    )
    told = infer(address, case, request)
    assert [output.name for output in told.outputs] == ["cam"]
    case.assert_same(told.get_output_by_name("cam").as_numpy())


def test_an_error_reaches_the_client_with_its_text(address: str, case: Case) -> None:
    image = tensor("image", case.x, "FP32", binary=True)
    with pytest.raises(httpx.HTTPStatusError, match=r"nobody.*404"):
        ask(address, "v2", "infer", kserve.InferRequest("nobody", [image]), model_name="nobody")
    with pytest.raises(httpx.HTTPStatusError, match=r"gradcan.*400"):
        infer(address, case, kserve.InferRequest(case.model, [image], parameters={"method": "gradcan"}))
    with pytest.raises(httpx.HTTPStatusError, match=r"400"):
        ask(address, "v1", "explain", case.model, {"instances": [[1, 2, 3]]})
