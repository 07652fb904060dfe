"""
The model repository: what is there, and loading and unloading with the admin's key.
"""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from ..errors import InputError
from .access import may_admin, may_infer
from .bodies import read_body
from .documents import read_json, said
from .openapi import JSON, array, described, mapping

__all__ = ["router"]

router = APIRouter(tags=["model repository"])

TEXT, FLAG = {"type": "string"}, {"type": "boolean"}
INDEX = array(mapping({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT}))
LOAD = mapping({}, {"parameters": mapping({}, {"version": {"type": ["string", "null"]}})})
UNLOAD = mapping({}, {"parameters": {"type": "object"}})
BODY = (400, 408, 413, 415)  # what any body may be refused for
IGNORED = {"unload_dependents"}  # sent by clients, and nothing depends on anything here


@router.post(
    "/v2/repository/index",
    dependencies=[Depends(may_infer)],
    **described(
        "Models and their states",
        {JSON: INDEX},
        body={JSON: mapping({}, {"ready": FLAG})},
        needs_body=False,
        errors=BODY,
    ),
)
async def _index(request: Request) -> Response:
    """List every version, or those that are ready."""
    asked = await _order(request)
    if not isinstance(asked.get("ready", False), bool):
        raise InputError(f"ready is true or false; got {said(asked['ready'])}")
    rows = await run_in_threadpool(request.app.state.registry.index)  # it looks at the disk
    if asked.get("ready"):
        rows = [row for row in rows if row["state"] == "READY"]
    return Response(orjson.dumps(rows), media_type=JSON)


@router.post(
    "/v2/repository/models/{model}/load",
    dependencies=[Depends(may_admin)],
    **described(
        "Load a model, or load it anew",
        {JSON: mapping({"name": TEXT, "load": FLAG})},
        about="The highest version, or `parameters.version`. What is served goes on being served until the new one is warm.",
        path=("model",),
        body={JSON: LOAD},
        needs_body=False,
        errors=(*BODY, 404, 501, 503),
    ),
)
async def _load(request: Request) -> Response:
    """Load, verify, warm up and swap; answer when that is done."""
    version = _version((await _order(request))["parameters"])
    name = request.path_params["model"]
    await run_in_threadpool(request.app.state.registry.load, name, version)
    return Response(orjson.dumps({"name": name, "load": True}), media_type=JSON)


@router.post(
    "/v2/repository/models/{model}/unload",
    dependencies=[Depends(may_admin)],
    **described(
        "Unload a model",
        {JSON: mapping({"name": TEXT, "unload": FLAG})},
        about="Requests that it has taken are answered.",
        path=("model",),
        body={JSON: UNLOAD},
        needs_body=False,
        errors=(*BODY, 404, 501, 503),
    ),
)
async def _unload(request: Request) -> Response:
    """Take a model out of service."""
    await _order(request)
    name = request.path_params["model"]
    await run_in_threadpool(request.app.state.registry.unload, name)
    return Response(orjson.dumps({"name": name, "unload": True}), media_type=JSON)


async def _order(request: Request) -> dict[str, Any]:
    """Read a body that may be empty."""
    body = await read_body(request.receive, request.headers, request.app.state.settings)
    found = await run_in_threadpool(read_json, body) if body else {}
    if not isinstance(found, dict):
        raise InputError(f"an object such as {{}} was wanted; got {said(found)}")
    parameters = found.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError(f"parameters are an object; got {said(parameters)}")
    return {**found, "parameters": parameters}


def _version(parameters: dict[str, Any]) -> str | None:
    """Read which version to load; a configuration or files in place of the repository's are not taken."""
    unknown = sorted(set(parameters) - {"version"} - IGNORED)
    if unknown:
        raise InputError(f"a model is loaded as it lies in the repository; parameter {said(unknown[0])} is not taken")
    version = parameters.get("version")
    if version is not None and not isinstance(version, str):
        raise InputError(f'a version is a text such as "2"; got {said(version)}')
    return version
