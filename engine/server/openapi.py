"""
What the OpenAPI document says of routes that take and give raw bytes.

FastAPI reads a route's description from the types of its function; ours take the bare request, because no client should
need a Content-Type and no body should be read before it is known to be wanted. So they are described here: a path's
parameters, a body's media types, and every status a route may answer with, as plain OpenAPI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

__all__ = ["BINARY", "ERROR", "INFERENCE", "JSON", "PIXEL", "Schema", "array", "described", "mapping", "parameter"]

Schema = Mapping[str, Any]

JSON, BINARY = "application/json", "application/octet-stream"
ERROR: Schema = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "What was wanted, what came, what to do."}},
    "required": ["error"],
    "additionalProperties": False,
}
PIXEL = (  # base64 of a PNG of one grey pixel, for examples
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
_SAID = {
    400: "The request cannot be read, or asks for something that does not exist.",
    401: "No key, or a wrong one.",
    403: "The key does not open this.",
    404: "No such model, version or layer.",
    406: "None of the media types that are accepted is made here.",
    408: "The body did not arrive in time.",
    413: "More bytes, pixels, images, targets or elements than are allowed.",
    415: "A content type or content encoding that is not read here.",
    429: "The queue is full of work; try again after the seconds in Retry-After.",
    500: "The server's own mistake; logged under the request's id.",
    501: "Valid, but this model cannot do it.",
    503: "The model is loading, or the server is stopping; try again after the seconds in Retry-After.",
    504: "The deadline passed.",
}
_HEADERS = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "How to give a key."}},
    429: {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}},
    503: {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds, where known."}},
}
INFERENCE = (400, 404, 408, 413, 415, 429, 501, 503, 504)  # what any route that explains may answer
_PATH = {
    "model": "A model's name.",
    "version": "One of its versions.",
    "name": "A file's name.",
}


def parameter(name: str, about: str, schema: Schema | None = None, where: str = "query", **more: Any) -> dict[str, Any]:
    """
    Describe a parameter.

    Parameters
    ----------
    name : str
        Its name.
    about : str
        One sentence.
    schema : mapping, optional
        What it may be; a string where None.
    where : {"query", "path", "header"}, default "query"
        Where it is given.
    **more : object
        Further fields of OpenAPI's parameter object.

    Returns
    -------
    dict
        OpenAPI's parameter object.
    """
    return {"name": name, "in": where, "description": about, "schema": dict(schema or {"type": "string"}), **more}


def mapping(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any
) -> dict[str, Any]:
    """
    Describe a JSON object.

    Parameters
    ----------
    required, optional : mapping of str to mapping
        Schemas of its members.
    **more : object
        Further fields of the schema.

    Returns
    -------
    dict
        A JSON schema.
    """
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required), **more}


def array(items: Schema, **more: Any) -> dict[str, Any]:
    """
    Describe a JSON array.

    Parameters
    ----------
    items : mapping
        The schema of its items.
    **more : object
        Further fields of the schema.

    Returns
    -------
    dict
        A JSON schema.
    """
    return {"type": "array", "items": dict(items), **more}


def described(
    summary: str,
    answer: Mapping[str, Schema | None],
    *,
    about: str = "",
    path: Sequence[str] = (),
    parameters: Sequence[Mapping[str, Any]] = (),
    body: Mapping[str, Schema | None] | None = None,
    needs_body: bool = True,
    errors: Sequence[int] = (),
    also: Sequence[int] = (),
    guarded: bool = True,
) -> dict[str, Any]:
    """
    Describe a route.

    Parameters
    ----------
    summary : str
        A few words.
    answer : mapping of str to mapping or None
        The schema of a good answer, by media type; None for bytes.
    about : str
        More, in Markdown.
    path : sequence of str
        The path's parameters.
    parameters : sequence of mapping
        Others, made by `parameter`.
    body : mapping of str to mapping or None, optional
        The schema of the request's body, by media type; no body where None.
    needs_body : bool, default True
        Whether a request without it is refused.
    errors : sequence of int
        Statuses that it may fail with, beside 500, and 401 and 403 where it is guarded.
    also : sequence of int
        Statuses other than 200 whose answers have the schema of a good one.
    guarded : bool, default True
        Whether it asks for a key where the server has one.

    Returns
    -------
    dict
        Arguments of FastAPI's route.
    """
    codes = sorted({*errors, 500, *((401, 403) if guarded else ())})
    extra: dict[str, Any] = {
        "parameters": [*(parameter(name, _PATH[name], where="path", required=True) for name in path), *parameters]
    }
    if body is not None:
        extra["requestBody"] = {"required": needs_body, "content": _content(body)}
    if guarded:
        extra["security"] = [{"bearer": []}, {"key": []}, {}]  # {}: a server may have no keys
    return {
        "summary": summary,
        "description": about,
        "response_class": Response,
        "responses": {
            200: {"description": "Done.", "content": _content(answer)},
            **{code: _refusal(code) for code in codes},
            **{code: {"description": _SAID[code], "content": _content(answer)} for code in also},
        },
        "openapi_extra": extra,
    }


def _content(kinds: Mapping[str, Schema | None]) -> dict[str, Any]:
    """Return OpenAPI's content object; bytes are told by their media type alone."""
    return {kind: {} if schema is None else {"schema": dict(schema)} for kind, schema in kinds.items()}


def _refusal(code: int) -> dict[str, Any]:
    """Describe an error answer."""
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": _SAID[code], "content": content, "headers": _HEADERS.get(code, {})}
