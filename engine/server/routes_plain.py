"""
The plain protocol: a picture as the body, wishes in the query, and what models there are.
"""

from __future__ import annotations

import time

import orjson
from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from ..colormap import COLORMAPS
from ..errors import InputError
from ..pipeline import PIPELINES
from ..plans import MASK_SPACES
from .access import may_infer
from .answering import answered
from .direct import Direct
from .facts import describe
from .faults import UnreadyError
from .openapi import BINARY, INFERENCE, JSON, array, described, mapping, parameter
from .plain import NPY, PNG, Look, accepted, read_plain, write_json_answer, write_npy, write_png
from .tickets import Answer

__all__ = ["router"]

router = APIRouter(tags=["plain"], dependencies=[Depends(may_infer)], route_class=Direct)

SOON = 5.0  # seconds after which a server without a model is asked again
DRAWN = 2**20  # a picture, or base64, is written in a thread whatever its size

TEXT, NUMBER, WHOLE, FLAG = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
MAYBE = {"type": ["number", "null"]}
CLASS = mapping({"class": WHOLE, "label": TEXT, "probability": NUMBER})
EXPLAINED = mapping(
    {
        "class": {"type": ["integer", "null"]},
        "label": TEXT,
        "value": NUMBER,
        "probability": MAYBE,
        "degenerate": FLAG,
        "flags": {"type": "object"},  # what the method reports beside its map
        "heatmap": {"anyOf": [array(array(NUMBER)), TEXT]},
    }
)
TIMING = mapping({"queue_ms": NUMBER, "decode_ms": NUMBER, "run_ms": NUMBER, "total_ms": NUMBER, "batch": WHOLE})
ANSWER = mapping(
    {
        "id": TEXT,
        "model": TEXT,
        "version": TEXT,
        "method": TEXT,
        "variant": TEXT,
        "layers": array(TEXT),
        "size": array(WHOLE),
        "targets": array(EXPLAINED),
        "top": array(CLASS),
        "timing": TIMING,
        "picture": {"type": ["string", "null"]},
    }
)
MODELS = mapping(
    {"models": array(mapping({"name": TEXT, "version": TEXT, "versions": array(TEXT), "ready": FLAG, "default": FLAG}))}
)
METHOD = mapping(
    {
        "id": TEXT,
        "title": TEXT,
        "family": TEXT,
        "paper": TEXT,
        "class_free": FLAG,
        "variants": array(TEXT),
        "options": {"type": "object", "additionalProperties": {"type": "object"}},
        "work": NUMBER,
        "default": FLAG,
    }
)
LAYER = mapping(
    {"name": TEXT, "module": TEXT, "channels": WHOLE, "grid": array(WHOLE), "default": FLAG, "reason": TEXT}
)
FACTS = mapping(
    {
        "name": TEXT,
        "version": TEXT,
        "size": array(WHOLE),
        "classes": WHOLE,
        "labels": array(TEXT),
        "layers": array(LAYER),
        "methods": array(METHOD),
    }
)

WHICH = parameter("version", "One of the model's versions; the highest that is loaded where absent.")
WISHES = (
    parameter("model", "The model; may be absent where one is served."),
    WHICH,
    parameter("method", "A method's id, such as gradcam or scorecam."),
    parameter("variant", "One of its variants."),
    parameter(
        "target", "A class index, a label, or a text such as prob:3; several give several heatmaps.", array(TEXT)
    ),
    parameter("layer", "A layer's name; several are fused.", array(TEXT)),
    parameter("pipeline", "The order of ReLU, scaling and resizing.", {"enum": list(PIPELINES)}),
    parameter("fuse", "How maps of several layers are joined."),
    parameter("eigen_smooth", "The leading component of the weighted activations.", FLAG),
    parameter("tta", "Average six mirrored and brightened runs.", FLAG),
    parameter("mask_space", "What hidden pixels show.", {"enum": list(MASK_SPACES)}),
    parameter("max_forwards", "Stop masked forwards after so many.", WHOLE),
    parameter("max_seconds", "Stop masked forwards after so long.", NUMBER),
    parameter("stability", "Stop masked forwards when the map's ranks correlate so much with the last.", NUMBER),
    parameter("timeout", "Seconds until the request fails.", {**NUMBER, "minimum": 0}),
    parameter("colormap", "Of an overlay.", {"enum": list(COLORMAPS)}),
    parameter("opacity", "The colours' share of an overlay.", {**NUMBER, "minimum": 0, "maximum": 1}),
    parameter("colorbar", "A colour bar and a title; the bare picture at the model's size without.", FLAG),
    parameter(
        "encoding", "Heatmaps in JSON as lists, or as base64 of little-endian float32.", {"enum": ["list", "base64"]}
    ),
    parameter("picture", "Add what the network saw, as a PNG in a data URL.", FLAG),
    parameter(
        "options",
        "Any other name is an option of the method: GET /models/NAME lists them.",
        {"type": "object", "additionalProperties": TEXT},
        style="form",
        explode=True,
    ),
)
PICTURE = {"image/jpeg": None, "image/png": None, "image/webp": None, NPY: None, BINARY: None}
EXPLAIN = described(
    "Explain one picture",
    {JSON: ANSWER, PNG: None, NPY: None},
    about="The body is one JPEG, PNG or WebP file, or a `.npy` file of one prepared input; its Content-Type is not looked "
    "at. `Accept` chooses between JSON, a PNG overlay of the first target, and the heatmaps as `.npy`.",
    parameters=WISHES,
    body=PICTURE,
    errors=(*INFERENCE, 406),
)


@router.post("/explain", **EXPLAIN)
@router.post("/invocations", **{**EXPLAIN, "summary": "The same, for SageMaker"})
async def _explain(request: Request) -> Response:
    """Explain the picture that is the body."""
    kind = accepted(request.headers.get("accept"))
    query, settings = request.query_params, request.app.state.settings
    name = query.get("model") or _only(request.app.state.registry.names())
    return await answered(
        request,
        name,
        query.get("version") or None,
        lambda body, served: read_plain(query.multi_items(), body, kind, served, settings),
        lambda answer, look: _written(request, answer, look),
        parsed=lambda body: 0,
        written=lambda answer, look: DRAWN,
    )


def _only(names: list[str]) -> str:
    """Return the one model that is served."""
    if not names:
        raise UnreadyError("no model is ready yet; try again later", SOON)
    if len(names) > 1:
        raise InputError(f"say which model, for example ?model={names[0]}; GET /models lists them")
    return names[0]


def _written(request: Request, answer: Answer, look: Look) -> Response:
    """Write an answer in the form that was asked for."""
    if look.kind == PNG:
        body = write_png(answer, look)
    elif look.kind == NPY:
        body = write_npy(answer)
    else:
        state = request.state
        body = write_json_answer(answer, look, state.request_id, time.perf_counter() - state.started)
    return Response(body, headers={"Vary": "Accept"}, media_type=look.kind)


@router.get("/models", **described("Models", {JSON: MODELS}))
async def _models(request: Request) -> Response:
    """List models, their versions, and which one answers where none is named."""
    index = await run_in_threadpool(request.app.state.registry.index)  # it looks at the disk
    states: dict[str, dict[str, str]] = {}
    for row in index:
        if row["version"]:
            states.setdefault(row["name"], {})[row["version"]] = row["state"]
    ready = {name: [v for v, state in rows.items() if state == "READY"] for name, rows in states.items()}
    only = [name for name, versions in ready.items() if versions]
    listed = [
        {
            "name": name,
            "version": max(versions or states[name], key=int),
            "versions": versions,
            "ready": bool(versions),
            "default": only == [name],
        }
        for name, versions in ready.items()
    ]
    return Response(orjson.dumps({"models": listed}), media_type=JSON)


@router.get(
    "/models/{model}",
    **described(
        "What a model can do",
        {JSON: FACTS},
        about="Its layers, and the methods that run on it with their options and their cost in forwards.",
        path=("model",),
        parameters=(WHICH,),
        errors=(404, 503),
    ),
)
async def _model(request: Request) -> Response:
    """Describe a model."""
    state = request.app.state
    with state.registry.lease(request.path_params["model"], request.query_params.get("version") or None) as lease:
        facts = await run_in_threadpool(describe, lease.served, state.settings)
    return Response(orjson.dumps(facts), media_type=JSON)
