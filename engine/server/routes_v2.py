"""
The Open Inference Protocol, version 2, with binary tensors: a heatmap is an output like any other.
"""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

import orjson
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from .access import may_infer
from .answering import answered
from .bodies import read_length
from .direct import Direct
from .infer import Wanted, metadata, read_infer, write_infer
from .openapi import BINARY, INFERENCE, JSON, PIXEL, Schema, array, described, mapping, parameter
from .tickets import Answer

__all__ = ["router"]

router = APIRouter(tags=["open inference protocol v2"], dependencies=[Depends(may_infer)], route_class=Direct)

HEADER = "inference-header-content-length"
EXTENSIONS = ("binary_tensor_data", "model_repository", "statistics")
DIGITS = 18
COPIED = 16  # bytes are copied so much faster than numbers are written
DRAWN = 2**20  # an overlay

TEXT, FLAG, WHOLE = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
SCALARS = {
    "type": ["object", "null"],
    "description": "method, variant, layer, target, pipeline, timeout (microseconds), and the method's options by name.",
    "additionalProperties": {"anyOf": [TEXT, {"type": "number"}, FLAG]},
}
TENSOR: dict[str, Schema] = {
    "name": TEXT,
    "datatype": {"enum": ["BOOL", "BYTES", "FP16", "FP32", "FP64", "INT32", "INT64", "UINT8"]},
    "shape": array(WHOLE, maxItems=5),
}
DATA: dict[str, Schema] = {"data": array({}), "parameters": SCALARS}
REQUEST = mapping(
    {"inputs": array(mapping(TENSOR, DATA), minItems=1, maxItems=16)},
    {
        "id": TEXT,
        "outputs": array(mapping({"name": TEXT}, {"parameters": SCALARS}), maxItems=16),
        "parameters": SCALARS,
    },
    examples=[
        {
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [PIXEL]}],
            "outputs": [{"name": "cam"}],
            "parameters": {"method": "gradcam"},
        }
    ],
)
ANSWER = mapping(
    {"model_name": TEXT, "outputs": array(mapping(TENSOR, DATA))},
    {"model_version": TEXT, "id": TEXT, "parameters": {"type": "object"}},
)
SHAPE: dict[str, Schema] = {"name": TEXT, "datatype": TEXT, "shape": array({"type": "integer"})}
METADATA = mapping(
    {"name": TEXT, "platform": TEXT, "inputs": array(mapping(SHAPE)), "outputs": array(mapping(SHAPE))},
    {"versions": array(TEXT)},
)
SPENT = mapping({"count": WHOLE, "ns": WHOLE})
COUNTS: dict[str, Schema] = {
    "name": TEXT,
    "version": TEXT,
    "last_inference": WHOLE,
    "inference_count": WHOLE,
    "execution_count": WHOLE,
    "inference_stats": {"type": "object", "additionalProperties": SPENT},
}
STATISTICS = mapping({"model_stats": array(mapping(COUNTS))})

LENGTH = parameter(
    "Inference-Header-Content-Length",
    "Bytes of JSON at the body's beginning, before its tensors; 0 where the body is one tensor. All of it where absent.",
    {"type": "string", "pattern": f"^[0-9]{{1,{DIGITS}}}$"},
    "header",
)
WITH_VERSION = ("model", "version")


def _json(content: Any, code: int = 200) -> Response:
    """Write a small JSON document."""
    return Response(orjson.dumps(content), code, media_type=JSON)


BODIES = {JSON: REQUEST, BINARY: None}
ANSWERS = {JSON: ANSWER, BINARY: None}


@router.post(
    "/v2/models/{model}/infer",
    **described(
        "Explain, or score",
        ANSWERS,
        about="Inputs `image` and `target`; outputs `cam`, `logits`, `target`, `value`, `degenerate`, `raw`, `overlay`.",
        path=("model",),
        parameters=(LENGTH,),
        body=BODIES,
        errors=INFERENCE,
    ),
)
@router.post(
    "/v2/models/{model}/versions/{version}/infer",
    **described(
        "Explain, or score, with one version",
        ANSWERS,
        path=WITH_VERSION,
        parameters=(LENGTH,),
        body=BODIES,
        errors=INFERENCE,
    ),
)
async def _infer(request: Request) -> Response:
    """Explain pictures, or score them where nothing but logits is asked for."""
    length = read_length(request.headers.get(HEADER), HEADER)
    return await answered(
        request,
        request.path_params["model"],
        request.path_params.get("version"),
        lambda body, served: read_infer(body, length, served, request.app.state.settings),
        _written,
        parsed=lambda body: len(body) if length is None else min(length, len(body)),
        written=_weight,
    )


@router.get(
    "/v2",
    **described("The server", {JSON: mapping({"name": TEXT, "version": TEXT, "extensions": array(TEXT)})}),
)
async def _server(request: Request) -> Response:
    """Name the server and the extensions it has."""
    return _json({"name": "camrt", "version": version_of("camrt"), "extensions": EXTENSIONS})


@router.get("/v2/models/stats", **described("Statistics of every model", {JSON: STATISTICS}))
@router.get(
    "/v2/models/{model}/stats",
    **described("Statistics of a model", {JSON: STATISTICS}, path=("model",), errors=(404, 503)),
)
@router.get(
    "/v2/models/{model}/versions/{version}/stats",
    **described("Statistics of a version", {JSON: STATISTICS}, path=WITH_VERSION, errors=(404, 503)),
)
async def _statistics(request: Request) -> Response:
    """Give counts and times."""
    name, version = request.path_params.get("model"), request.path_params.get("version")
    registry = request.app.state.registry
    if name is not None:
        registry.lease(name, version).release()  # refuses as an inference would be
    names = registry.names() if name is None else [name]
    rows = [(one, number) for one in names for number in registry.versions(one) if version in (None, number)]
    return _json(request.app.state.statistics.to_dict(rows))


@router.get("/v2/models/{model}", **described("A model", {JSON: METADATA}, path=("model",), errors=(404, 503)))
@router.get(
    "/v2/models/{model}/versions/{version}",
    **described("A version of a model", {JSON: METADATA}, path=WITH_VERSION, errors=(404, 503)),
)
async def _model(request: Request) -> Response:
    """Give a model's inputs and outputs."""
    name, version = request.path_params["model"], request.path_params.get("version")
    registry = request.app.state.registry
    with registry.lease(name, version) as lease:
        return _json(metadata(lease.served, registry.versions(name)))


READY = mapping({"name": TEXT, "ready": FLAG})


@router.get(
    "/v2/models/{model}/ready",
    **described("Whether a model is ready", {JSON: READY}, path=("model",), errors=(404,), also=(503,)),
)
@router.get(
    "/v2/models/{model}/versions/{version}/ready",
    **described("Whether a version is ready", {JSON: READY}, path=WITH_VERSION, errors=(404,), also=(503,)),
)
async def _model_ready(request: Request) -> Response:
    """Answer 200 where the model takes requests, 503 where it does not yet, 404 where there is none."""
    name, version = request.path_params["model"], request.path_params.get("version")
    is_ready = request.app.state.registry.is_ready(name, version)
    return _json({"name": name, "ready": is_ready}, 200 if is_ready else 503)


def _written(answer: Answer, wanted: Wanted) -> Response:
    """Write an answer."""
    body, headers = write_infer(answer, wanted)
    return Response(body, headers=headers)


def _weight(answer: Answer, wanted: Wanted) -> int:
    """Say how many bytes of text it comes to; bytes that are only copied count little."""
    made = answer.explanation
    if made is None:
        return answer.logits.nbytes
    sizes = {"cam": made.heatmaps.nbytes, "raw": made.raw.nbytes, "overlay": COPIED * DRAWN}
    return sum(sizes.get(name, 0) // (COPIED if binary else 1) for name, binary in wanted.outputs)
