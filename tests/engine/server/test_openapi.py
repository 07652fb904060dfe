"""Descriptions of routes whose bodies are raw."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.responses import Response

from camrt.server.openapi import BINARY, JSON, array, described, mapping, parameter

TEXT = {"type": "string"}


def operation(**told: object) -> dict[str, object]:
    """Return what OpenAPI says of a route."""
    router = APIRouter()

    @router.post(
        "/a/{model}", **described("A route", {JSON: mapping({"a": TEXT}), BINARY: None}, path=("model",), **told)
    )  # type: ignore[arg-type]
    async def route() -> Response:
        return Response()

    app = FastAPI()
    app.include_router(router)
    found: dict[str, object] = app.openapi()["paths"]["/a/{model}"]["post"]
    return found


def test_schemas_are_json_schema() -> None:
    assert mapping({"a": TEXT}, {"b": array(TEXT, maxItems=2)}, minProperties=1) == {
        "type": "object",
        "properties": {"a": TEXT, "b": {"type": "array", "items": TEXT, "maxItems": 2}},
        "required": ["a"],
        "minProperties": 1,
    }
    assert parameter("n", "How many.", {"type": "integer"}, "header", required=True) == {
        "name": "n", "in": "header", "description": "How many.", "schema": {"type": "integer"}, "required": True,
    }  # fmt: skip


def test_a_guarded_route_needs_a_key_or_none() -> None:
    said = operation(errors=(404, 429))
    assert said["security"] == [{"bearer": []}, {"key": []}, {}]
    assert set(said["responses"]) == {"200", "401", "403", "404", "429", "500"}  # type: ignore[call-overload]
    assert "Retry-After" in said["responses"]["429"]["headers"]  # type: ignore[index]
    assert said["responses"]["200"]["content"] == {JSON: {"schema": mapping({"a": TEXT})}, BINARY: {}}  # type: ignore[index]
    assert said["parameters"] == [parameter("model", "A model's name.", where="path", required=True)]
    assert "requestBody" not in said


def test_an_open_route_and_a_body() -> None:
    said = operation(guarded=False, body={BINARY: None}, needs_body=False, also=(503,))
    assert "security" not in said and set(said["responses"]) == {"200", "500", "503"}  # type: ignore[call-overload]
    assert said["requestBody"] == {"required": False, "content": {BINARY: {}}}
    assert said["responses"]["503"]["content"] == said["responses"]["200"]["content"]  # type: ignore[index]
