"""Routes that call their handler alone."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from camrt.errors import InputError
from camrt.server.direct import Direct


def client_of(*, refuse: bool) -> TestClient:
    """Return a client of one route behind two checks."""
    seen: list[str] = []

    async def first(request: Request) -> None:
        seen.append("first")

    async def second(request: Request) -> None:
        if refuse:
            raise InputError("no")
        seen.append("second")

    router = APIRouter(route_class=Direct, dependencies=[Depends(first)])

    @router.post("/echo/{word}", dependencies=[Depends(second)], summary="Echo")
    async def echo(request: Request) -> Response:
        body = (await request.body()).decode()
        return PlainTextResponse(f"{request.path_params['word']} {body} {seen}")

    app = FastAPI()
    app.include_router(router)
    return TestClient(app)


def test_every_check_is_called_in_order_and_then_the_handler_with_the_raw_request() -> None:
    answer = client_of(refuse=False).post(
        "/echo/word", content=b"\xc3\xa9{", headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.text) == (200, "word é{ ['first', 'second']")


def test_a_check_that_raises_ends_the_request() -> None:
    with pytest.raises(InputError, match="no"):
        client_of(refuse=True).post("/echo/word")


def test_the_route_stays_documented() -> None:
    assert client_of(refuse=False).get("/openapi.json").json()["paths"]["/echo/{word}"]["post"]["summary"] == "Echo"
