"""The page's files and pictures, and the sign of life."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from camrt.demo import CLASSES
from camrt.server.routes_page import FOLDER, POLICY
from tests.engine.server.checking import Client

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def test_kserve_reads_a_sign_of_life(client: Client) -> None:
    for accept in ("*/*", "application/json"):
        answer = client.get("/", headers={"accept": accept})
        assert answer.json() == {"status": "alive"} and answer.headers["vary"] == "Accept"


def test_a_browser_gets_the_page_and_a_policy(client: Client) -> None:
    answer = client.get("/", headers={"accept": BROWSER})
    assert answer.headers["content-type"] == "text/html; charset=utf-8" and answer.headers["vary"] == "Accept"
    assert answer.content == (FOLDER / "index.html").read_bytes()
    rules = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert answer.headers["content-security-policy"] == POLICY
    assert rules["default-src"] == "'none'" and rules["script-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in POLICY and answer.headers["referrer-policy"] == "no-referrer"


def test_everything_the_page_refers_to_is_there(client: Client) -> None:
    text = client.get("/", headers={"accept": BROWSER}).text
    named = re.findall(r'(?:href|src)="(page/[^"]+)"', text)
    assert len(named) >= 3
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    for path in named:
        answer = client.get(f"/{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kinds[path[path.rindex(".") :]])


def test_a_file_that_has_not_changed_is_not_sent_again(client: Client) -> None:
    first = client.get("/page/page.css")
    again = client.get("/page/page.css", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content and again.headers["etag"] == first.headers["etag"]
    assert client.get("/page/page.css", headers={"if-none-match": '"other"'}).content == first.content


@pytest.mark.parametrize(
    "name", ["..%2fapp.py", "%2e%2e/app.py", "....//app.py", "..\\app.py", "nothing.js", "page.css%00", "."]
)
def test_no_other_file_is_sent(client: Client, name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404


def test_pictures_are_drawn_and_named(client: Client) -> None:
    rows = client.get("/page/pictures").json()["pictures"]
    assert len(rows) >= 4 and len({row["name"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row["labels"]) <= set(CLASSES) and row["name"] == " and ".join(row["labels"])
        answer = client.get(f"/{row['url']}")
        assert answer.headers["content-type"] == "image/png"
        assert np.asarray(Image.open(io.BytesIO(answer.content))).shape == (128, 128, 3)
    assert client.get("/page/pictures/other.png").status_code == 404


def test_the_model_knows_what_is_on_the_pictures(client: Client) -> None:
    for row in client.get("/page/pictures").json()["pictures"]:
        told = client.post("/explain", content=client.get(f"/{row['url']}").content).json()
        assert told["targets"][0]["label"] in row["labels"]


def test_without_a_page_there_is_only_the_sign_of_life(client_of: Callable[..., Client]) -> None:
    client = client_of(page=False)
    assert client.get("/", headers={"accept": BROWSER}).json() == {"status": "alive"}
    for path in ("/page/page.css", "/page/pictures", "/page/index.html"):
        assert client.get(path).status_code == 404
