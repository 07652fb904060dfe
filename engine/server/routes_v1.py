"""
KServe's protocol, version 1: the only one with a verb for explanations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from .access import may_infer
from .answering import answered
from .asks import Ask
from .direct import Direct
from .documents import read_json, write_json
from .instances import read_instances, write_explanations, write_predictions
from .openapi import INFERENCE, JSON, PIXEL, array, described, mapping

if TYPE_CHECKING:
    from .served import Served
    from .tickets import Answer

__all__ = ["router"]

router = APIRouter(tags=["kserve v1"], dependencies=[Depends(may_infer)], route_class=Direct)

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
ROWS = array(array(NUMBER))
B64 = mapping({"b64": {**TEXT, "contentEncoding": "base64", "description": "A JPEG, PNG or WebP file."}})
TARGET = {"description": "A class index, a label, a text such as prob:3, or an array of those."}
INSTANCE = {
    "anyOf": [
        array({}, description="A prepared input, nested."),
        B64,
        mapping({"image": {"anyOf": [B64, array({})]}}, {"target": TARGET}),
    ]
}
INSTANCES = array(INSTANCE, minItems=1)
PARAMETERS = {
    "type": ["object", "null"],
    "description": "method, variant, layer, pipeline, timeout (seconds), and the method's options by name.",
}
BODY = {
    "anyOf": [
        mapping({"instances": INSTANCES}, {"parameters": PARAMETERS}),
        mapping({"inputs": INSTANCES}, {"parameters": PARAMETERS}),
    ],
    "examples": [{"instances": [{"b64": PIXEL}], "parameters": {"method": "gradcam"}}],
}
PREDICTIONS = mapping({"predictions": ROWS})
EXPLANATION = mapping(
    {
        "targets": array({"type": "integer"}),
        "labels": array(TEXT),
        "values": array(NUMBER),
        "degenerate": array({"type": "boolean"}),
        "heatmaps": array(ROWS),
    }
)
EXPLANATIONS = mapping({"predictions": ROWS, "explanations": array(EXPLANATION)})


# The verbs stand before the model itself, whose address would take them in.


@router.post(
    "/v1/models/{model}:predict",
    **described("Score pictures", {JSON: PREDICTIONS}, path=("model",), body={JSON: BODY}, errors=INFERENCE),
)
async def _predict(request: Request) -> Response:
    """Give the logits of every instance."""
    return await _answered(request, False, write_predictions)


@router.post(
    "/v1/models/{model}:explain",
    **described("Explain pictures", {JSON: EXPLANATIONS}, path=("model",), body={JSON: BODY}, errors=INFERENCE),
)
async def _explain(request: Request) -> Response:
    """Give the logits and the heatmaps of every instance."""
    return await _answered(request, True, write_explanations)


@router.get("/v1/models", **described("Models", {JSON: mapping({"models": array(TEXT)})}))
async def _models(request: Request) -> Response:
    """List every model that answers."""
    return Response(orjson.dumps({"models": request.app.state.registry.names()}), media_type=JSON)


@router.get(
    "/v1/models/{model}",
    **described(
        "Whether a model is ready",
        {JSON: mapping({"name": TEXT, "ready": {"type": "boolean"}})},
        path=("model",),
        errors=(404, 503),
    ),
)
async def _model(request: Request) -> Response:
    """Answer 200 where the model takes requests, 503 where it does not yet."""
    name = request.path_params["model"]
    request.app.state.registry.lease(name).release()  # refuses as an explanation would be
    return Response(orjson.dumps({"name": name, "ready": True}), media_type=JSON)


async def _answered(request: Request, explain: bool, write: Callable[[Answer], dict[str, Any]]) -> Response:
    """Take a request of either verb to its answer."""

    def read(body: bytes, served: Served) -> tuple[Ask, None]:
        return read_instances(read_json(body), served, request.app.state.settings, explain=explain), None

    return await answered(
        request,
        request.path_params["model"],
        None,
        read,
        lambda answer, _: Response(write_json(write(answer)), media_type=JSON),
        written=lambda answer, _: (
            answer.logits.nbytes if answer.explanation is None else answer.explanation.heatmaps.nbytes
        ),
    )
