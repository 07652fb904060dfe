"""
The page at ``/``, its files, and the built-in pictures that it offers; no key opens or closes them.

Files are read once, when the application is made: only what lay in the folder then is ever sent.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from fastapi import APIRouter
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from ..demo import CLASSES, HELD_OUT, draw
from ..render import png
from .faults import NotFoundError
from .openapi import JSON, array, described, mapping
from .plain import accepted

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["POLICY", "router"]

HTML = "text/html"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SCENES = (  # seeds that training never saw, and what is drawn
    (HELD_OUT + 11, (0, 4)),
    (HELD_OUT + 23, (2, 7)),
    (HELD_OUT + 5, (1,)),
    (HELD_OUT + 42, (6, 3)),
    (HELD_OUT + 64, (8,)),
    (HELD_OUT + 77, (5, 9)),
)
FOLDER = Path(__file__).with_name("page")
DAY = "public, max-age=86400"
TEXT = {"type": "string"}
ALIVE = mapping({"status": {"const": "alive"}})
PICTURES = mapping({"pictures": array(mapping({"name": TEXT, "url": TEXT, "labels": array(TEXT)}))})
FILES: dict[str, None] = {kind.partition(";")[0]: None for kind in KINDS.values()}


def router(settings: Settings) -> APIRouter:
    """
    Make the routes.

    Parameters
    ----------
    settings : Settings
        ``page``: without it there is only ``/``, which says that the server lives.

    Returns
    -------
    APIRouter
        Without a key.
    """
    routes = APIRouter(tags=["page"])
    kinds = {JSON: ALIVE, **({HTML: None} if settings.page else {})}
    routes.get("/", **described("The page, or a sign of life", kinds, errors=(406,), guarded=False))(_front)
    if settings.page:
        routes.get("/page/pictures", **described("Built-in pictures", {JSON: PICTURES}, guarded=False))(_pictures)
        routes.get(
            "/page/pictures/{name}",
            **described("A built-in picture", {"image/png": None}, path=("name",), errors=(404,), guarded=False),
        )(_picture)
        routes.get(
            "/page/{name}", **described("A file of the page", FILES, path=("name",), errors=(404,), guarded=False)
        )(_page_file)
    return routes


async def _front(request: Request) -> Response:
    """Give the page to browsers, and a sign of life to others: KServe's client reads exactly this one."""
    offered = (JSON, HTML) if request.app.state.settings.page else (JSON,)
    if accepted(request.headers.get("accept"), offered) == HTML:
        return _file(request, "index.html", {"Vary": "Accept"})
    return Response(orjson.dumps({"status": "alive"}), headers={"Vary": "Accept"}, media_type=JSON)


async def _page_file(request: Request) -> Response:
    """Give one of the page's files."""
    return _file(request, request.path_params["name"], {})


async def _pictures(request: Request) -> Response:
    """List the built-in pictures, with addresses relative to the page."""
    listed = [
        {"name": name, "url": f"page/pictures/{file}", "labels": [CLASSES[label] for label in SCENES[scene][1]]}
        for file, (name, scene) in _names().items()
    ]
    return Response(orjson.dumps({"pictures": listed}), media_type=JSON)


async def _picture(request: Request) -> Response:
    """Draw a built-in picture."""
    name = request.path_params["name"]
    if name not in _names():
        raise NotFoundError("there is no such picture; GET /page/pictures lists them")
    body = await run_in_threadpool(_drawn, _names()[name][1])
    return Response(body, headers={"Cache-Control": DAY}, media_type="image/png")


def _file(request: Request, name: str, headers: dict[str, str]) -> Response:
    """Answer with a file, or that the browser has it already."""
    if name not in _files():
        raise NotFoundError("there is no such file")
    body, tag, kind = _files()[name]
    headers = {**headers, **SAFE, "Cache-Control": "no-cache", "ETag": tag}
    if tag in [part.strip() for part in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=kind)


@cache
def _files() -> dict[str, tuple[bytes, str, str]]:
    """Read the page's files: content, a tag that changes with it, and kind."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in KINDS:
            body = path.read_bytes()
            found[path.name] = (body, f'"{sha256(body).hexdigest()[:16]}"', KINDS[path.suffix])
    return found


@cache
def _names() -> dict[str, tuple[str, int]]:
    """Return the pictures' file names: what is on each, and its place in `SCENES`."""
    said = [" and ".join(CLASSES[label] for label in labels) for _, labels in SCENES]
    return {f"{name.replace(' ', '-')}.png": (name, scene) for scene, name in enumerate(said)}


@cache
def _drawn(scene: int) -> bytes:
    """Draw a picture; 4 ms, once."""
    return png(Image.fromarray(draw(*SCENES[scene]).image))
