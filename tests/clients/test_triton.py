"""Triton's own client, unmodified: what it sends is understood, and what it reads is what the engine says."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
pytest.importorskip("tritonclient.http.aio", reason="needs tritonclient[http]")

from tritonclient import http
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

from tests.clients.case import Case

DEFAULTS = {"cam": "FP32", "logits": "FP32", "target": "INT64", "value": "FP32", "degenerate": "BOOL"}


@dataclass(frozen=True)
class Call:
    """One `infer`, and the question to the engine that it stands for."""

    image: str = "prepared"  # prepared, pictures or encoded
    binary_in: bool = True
    targets: object = None  # an input tensor, where given
    outputs: Mapping[str, bool] = field(default_factory=dict)  # name to binary; none: the client's default
    keywords: Mapping[str, Any] = field(default_factory=dict)
    question: Mapping[str, Any] = field(default_factory=dict)

    def inputs(self, case: Case) -> list[http.InferInput]:
        """Make the client's input tensors."""
        array = {"prepared": case.x, "pictures": case.pictures, "encoded": case.encoded()}[self.image]
        kind = {"prepared": "FP32", "pictures": "UINT8", "encoded": "BYTES"}[self.image]
        given = [_input("image", array, kind, binary=self.binary_in)]
        if self.targets is not None:
            given.append(_input("target", np.array(self.targets, np.int64), "INT64", binary=self.binary_in))
        return given

    def arguments(self, case: Case) -> dict[str, Any]:
        """Make the keyword arguments of `infer`, of either client."""
        wanted = [http.InferRequestedOutput(name, binary_data=binary) for name, binary in self.outputs.items()]
        return {"model_name": case.model, "inputs": self.inputs(case), "outputs": wanted or None, **self.keywords}


CALLS = {
    "defaults": Call(),
    "binary output": Call(outputs={"cam": True}),
    "JSON output": Call(outputs={"cam": False, "logits": False}),
    "JSON input": Call(binary_in=False),
    "JSON input and output": Call(binary_in=False, outputs={"cam": False}),
    "one binary, one JSON output": Call(outputs={"logits": False, "cam": True}),
    "gzip request": Call(keywords={"request_compression_algorithm": "gzip"}),
    "deflate request": Call(keywords={"request_compression_algorithm": "deflate"}),
    "gzip JSON request": Call(binary_in=False, keywords={"request_compression_algorithm": "gzip"}),
    "gzip response": Call(keywords={"response_compression_algorithm": "gzip"}),
    "deflate response": Call(keywords={"response_compression_algorithm": "deflate"}),
    "deflate request, gzip response": Call(
        keywords={"request_compression_algorithm": "deflate", "response_compression_algorithm": "gzip"}
    ),
    "gzip request, deflate JSON response": Call(
        outputs={"cam": False},
        keywords={"request_compression_algorithm": "gzip", "response_compression_algorithm": "deflate"},
    ),
    "request id": Call(keywords={"request_id": "picture-7"}),
    "version": Call(keywords={"model_version": "1"}),
    "method and target": Call(
        keywords={"parameters": {"method": "gradcampp", "target": 3}}, question={"method": "gradcampp", "target": 3}
    ),
    "target as text": Call(keywords={"parameters": {"target": "prob:3"}}, question={"target": "prob:3"}),
    "target as label": Call(keywords={"parameters": {"target": "dotted square"}}, question={"target": "dotted square"}),
    "an option": Call(
        keywords={"parameters": {"method": "smoothgradcampp", "n": 3}},
        question={"method": "smoothgradcampp", "options": {"n": 3}},
    ),
    "masked forwards": Call(keywords={"parameters": {"method": "scorecam"}}, question={"method": "scorecam"}),
    "pipeline": Call(keywords={"parameters": {"pipeline": "torchcam"}}, question={"pipeline": "torchcam"}),
    "a target an image": Call(targets=[4, 8], question={"target": np.array([[4], [8]])}),
    "targets an image": Call(targets=[[4, 0, 7], [8, 1, 2]], question={"target": np.array([[4, 0, 7], [8, 1, 2]])}),
    "priority and timeout": Call(keywords={"priority": 1, "timeout": 60_000_000}),
    "a sequence": Call(keywords={"sequence_id": 5, "sequence_start": True, "sequence_end": True}),
    "pictures": Call(image="pictures"),
    "encoded pictures": Call(image="encoded"),
}


def _input(name: str, array: np.ndarray[Any, Any], kind: str, *, binary: bool) -> http.InferInput:
    """Make one of the client's tensors."""
    tensor = http.InferInput(name, list(array.shape), kind)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def ask(address: str, how: str, verb: str, *values: object, **keywords: Any) -> Any:
    """Call a method of the synchronous client or of the asynchronous one."""
    if how == "sync":
        with http.InferenceServerClient(address) as client:
            return getattr(client, verb)(*values, **keywords)

    async def asked() -> Any:
        async with aio.InferenceServerClient(address) as client:
            return await getattr(client, verb)(*values, **keywords)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it does not read the bodies that it has no use for
        try:
            return asyncio.run(asked())
        finally:
            gc.collect()


both = pytest.mark.parametrize("how", ["sync", "aio"])


@both
@pytest.mark.parametrize("name", CALLS)
def test_infer_gives_the_engines_heatmaps(name: str, how: str, address: str, case: Case) -> None:
    call = CALLS[name]
    result = ask(address, how, "infer", **call.arguments(case))
    case.assert_same(result.as_numpy("cam"), **call.question)
    told = result.get_response()
    assert [output["name"] for output in told["outputs"]] == list(call.outputs or DEFAULTS)
    assert told["model_name"] == case.model
    assert told["model_version"] == "1"
    assert told.get("id", "") == call.keywords.get("request_id", "")


@both
def test_every_default_output_is_the_engines(how: str, address: str, case: Case) -> None:
    targets = np.array([[4, 0], [8, 1]])
    result = ask(address, how, "infer", **Call(targets=targets).arguments(case))
    wanted = case.explain(case.x, target=targets)
    for name, array in {
        "cam": wanted.heatmaps,
        "logits": wanted.logits,
        "target": wanted.targets,
        "value": wanted.values,
        "degenerate": wanted.degenerate,
    }.items():
        given = result.as_numpy(name)
        assert result.get_output(name)["datatype"] == DEFAULTS[name]
        assert given.shape == array.shape
        np.testing.assert_allclose(given, array, rtol=1e-5, atol=1e-5)


@both
def test_scores_alone_and_raw_maps_are_there_for_the_asking(how: str, address: str, case: Case) -> None:
    result = ask(address, how, "infer", **Call(outputs={"logits": True}).arguments(case))
    wanted = case.explain(case.x)
    np.testing.assert_allclose(result.as_numpy("logits"), wanted.logits, rtol=1e-5, atol=1e-5)
    assert result.as_numpy("cam") is None
    result = ask(address, how, "infer", **Call(outputs={"raw": True, "overlay": True}).arguments(case))
    np.testing.assert_allclose(result.as_numpy("raw"), wanted.raw, rtol=1e-5, atol=1e-6)
    assert [file[:8] for file in result.as_numpy("overlay").ravel()] == [b"\x89PNG\r\n\x1a\n"] * 2


@both
@pytest.mark.parametrize(
    ("keywords", "status", "told"),
    [
        ({"model_name": "nobody"}, "404", "nobody"),
        ({"model_version": "99"}, "404", "99"),
        ({"parameters": {"method": "gradcan"}}, "400", "gradcan"),
        ({"parameters": {"target": 10_000}}, "400", "10000"),
        ({"parameters": {"layer": "no.such.layer"}}, "404", "no.such.layer"),
        ({"parameters": {"method": "smoothgradcampp", "n": 100_000}}, "400", "n"),
        ({"parameters": {"colour": "red"}}, "400", "colour"),
        ({"outputs": [http.InferRequestedOutput("map")]}, "400", "map"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_error_reaches_the_client_with_its_text(
    keywords: dict[str, Any], status: str, told: str, how: str, address: str, case: Case
) -> None:
    with pytest.raises(InferenceServerException) as failed:
        ask(address, how, "infer", **{**Call().arguments(case), **keywords})
    assert failed.value.status() == status
    assert told in failed.value.message()


@both
def test_the_server_tells_how_it_is(how: str, address: str, case: Case) -> None:
    assert ask(address, how, "is_server_live") is True
    assert ask(address, how, "is_server_ready") is True
    assert ask(address, how, "is_model_ready", case.model) is True
    assert ask(address, how, "is_model_ready", case.model, "1") is True
    assert ask(address, how, "is_model_ready", case.model, "99") is False
    assert ask(address, how, "is_model_ready", "nobody") is False


@both
def test_the_server_tells_what_it_is(how: str, address: str, case: Case) -> None:
    server = ask(address, how, "get_server_metadata")
    assert server["name"] == "camrt"
    assert "binary_tensor_data" in server["extensions"]
    for version in ("", "1"):
        model = ask(address, how, "get_model_metadata", case.model, version)
        assert (model["name"], model["versions"], model["platform"]) == (case.model, ["1"], "onnx_onnxv1")
        tensors = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in model["inputs"]}
        assert tensors["image"] == ("FP32", [-1, *case.x.shape[1:]])
        assert tensors["target"][0] == "INT64"
        assert {t["name"]: t["datatype"] for t in model["outputs"]}.items() >= DEFAULTS.items()


@both
def test_the_repository_and_its_statistics_are_read(how: str, address: str, case: Case) -> None:
    index = ask(address, how, "get_model_repository_index")
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [(case.model, "1", "READY")]
    ask(address, how, "infer", **Call().arguments(case))
    for arguments in ((), (case.model,), (case.model, "1")):
        told = ask(address, how, "get_inference_statistics", *arguments)
        [entry] = told["model_stats"]
        assert (entry["name"], entry["version"]) == (case.model, "1")
        assert entry["inference_count"] >= entry["execution_count"] >= 1
        assert entry["inference_stats"]["success"]["count"] >= 1


@both
@pytest.mark.parametrize(
    ("verb", "values"),
    [
        ("get_model_config", ("camrt-demo",)),
        ("get_trace_settings", ()),
        ("update_trace_settings", ("camrt-demo", {"trace_level": "OFF"})),
        ("get_log_settings", ()),
        ("update_log_settings", ({"log_info": True},)),
        ("get_system_shared_memory_status", ()),
        ("get_cuda_shared_memory_status", ()),
        ("load_model", ("camrt-demo",)),
        ("unload_model", ("camrt-demo",)),
    ],
)
def test_what_is_not_offered_fails_cleanly(verb: str, values: tuple[Any, ...], how: str, address: str) -> None:
    with pytest.raises(InferenceServerException) as failed:
        ask(address, how, verb, *values)
    assert failed.value.status() in {"400", "401", "403", "404", "405", "501"}
    assert failed.value.message()
    assert "an exception occurred in the client" not in failed.value.message()
