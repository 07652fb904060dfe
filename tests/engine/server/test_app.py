"""The application as a whole: errors, keys, the OpenAPI document, start and end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from camrt.errors import InputError
from camrt.methods import METHODS
from camrt.server.app import create_app
from camrt.server.faults import UnreadyError
from camrt.server.registry import Registry
from camrt.server.settings import Settings
from tests.engine.server.checking import Client
from tests.engine.server.conftest import NAME

INFER, ADMIN = "an-infer-key-of-the-test", "an-admin-key-of-the-test"
OPEN = {"/", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready", "/page/pictures"}
OPEN |= {"/page/{name}", "/page/pictures/{name}"}
ADMINS = {"/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload"}


def operations(client: Client) -> list[tuple[str, str, dict[str, Any]]]:
    """Return verb, path and description of every route."""
    document = client.get("/openapi.json").json()
    return [(verb.upper(), path, said) for path, verbs in document["paths"].items() for verb, said in verbs.items()]


def filled(path: str) -> str:
    """Return a path with the embedded model in it."""
    return path.format(model=NAME, version="1", name="page.css")


def with_key(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_every_route_but_probes_and_page_asks_for_a_key(client_of: Callable[..., Client]) -> None:
    client = client_of(infer_keys=(INFER,), admin_keys=(ADMIN,))
    guarded = set()
    for verb, path, _ in operations(client):
        answer = client.request(verb, filled(path), content=b"{}")
        assert (answer.status_code == 401) == (path not in OPEN), (verb, path, answer.status_code)
        assert (answer.headers.get("www-authenticate") == "Bearer") == (path not in OPEN)
        guarded |= {path} - OPEN
    assert len(guarded) > 15


def test_an_infer_key_opens_explaining_and_an_admin_key_everything(client_of: Callable[..., Client]) -> None:
    client = client_of(infer_keys=(INFER,), admin_keys=(ADMIN,))
    for verb, path, _ in operations(client):
        if path in OPEN:
            continue
        codes = [
            client.request(verb, filled(path), content=b"{}", headers=with_key(k)).status_code for k in (INFER, ADMIN)
        ]
        assert (codes[0] == 403) == (path in ADMINS), (verb, path, codes)
        assert codes[0] != 401 and codes[1] not in (401, 403), (verb, path, codes)


def test_nothing_is_loaded_where_there_is_no_admin_key(client: Client) -> None:
    for verb in ("load", "unload"):
        assert client.post(f"/v2/repository/models/{NAME}/{verb}").status_code == 403


@pytest.mark.parametrize(
    "path", ["/v2/", "/v2//", "/v2/../models", "/v2/health/live/..%2f..%2fmodels", "/%2e%2e/models"]
)
def test_an_odd_address_is_none_and_opens_nothing(client_of: Callable[..., Client], path: str) -> None:
    client = client_of(infer_keys=(INFER,))
    assert client.get(path).status_code in (401, 404)


def test_a_host_header_does_not_lead_past_the_keys(client_of: Callable[..., Client]) -> None:
    client = client_of(infer_keys=(INFER,))
    for host in ("example.org/v2/health/live?", "example.org#", "[::1", "a b"):
        assert client.get("/models", headers={"host": host}).status_code == 401


def test_a_wrong_verb_is_told_which_ones_there_are(client: Client) -> None:
    for path, allowed in (("/v2", "GET"), ("/explain", "POST"), (f"/v1/models/{NAME}:explain", "POST")):
        answer = client.delete(path)
        assert answer.status_code == 405 and answer.headers["allow"] == allowed


def test_there_is_no_redirect(client: Client) -> None:
    assert client.get("/models/", follow_redirects=False).status_code == 404


class Broken:
    """A registry that fails in a way nobody foresaw."""

    ready = True

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def names(self) -> list[str]:
        raise self.error

    def index(self) -> list[dict[str, str]]:
        return []


def broken(error: BaseException) -> Client:
    app = create_app(Settings(), registry=Broken(error))  # type: ignore[arg-type]
    return Client(app, raise_server_exceptions=False)


@pytest.mark.parametrize("error", [KeyError("/etc/passwd"), MemoryError(), AssertionError("object at 0x7ffffffff")])
def test_a_surprise_is_told_in_a_fixed_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with broken(error) as client:
        answer = client.get("/v1/models")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server made a mistake; it was logged under this request's id"}
    told = capsys.readouterr()
    assert "Traceback" in told.out + told.err and type(error).__name__ in told.out + told.err


def test_an_error_of_ours_keeps_its_text_and_headers() -> None:
    with broken(UnreadyError("the model is being loaded", 4.2)) as client:
        answer = client.get("/v1/models")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json() == {"error": "the model is being loaded"}


class Slow(Registry):
    """A registry that opens when the test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(Settings(warm=()))
        self.go, self.error, self.closed = threading.Event(), error, False

    def open(self) -> None:
        self.go.wait()
        if self.error is not None:
            raise self.error
        super().open()

    def close(self) -> None:
        self.closed = True
        super().close()


def test_probes_are_answered_while_models_load(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    monkeypatch.setattr("camrt.server.app.Registry", lambda settings: slow)
    with Client(create_app(Settings())) as client:
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        assert client.post("/explain", content=b"x").status_code == 503
        slow.go.set()
        while client.get("/v2/health/ready").status_code == 503:
            pass
        assert client.get(f"/v2/models/{NAME}/ready").status_code == 200
    assert slow.closed


@pytest.mark.parametrize("kind", [InputError, RuntimeError])
def test_models_that_cannot_be_opened_leave_the_reason(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    slow = Slow(kind("the repository is no folder"))
    monkeypatch.setattr("camrt.server.app.Registry", lambda settings: slow)
    slow.go.set()
    app = create_app(Settings())
    with Client(app) as client:
        while app.state.mistake is None:
            client.get("/ping")
        assert client.get("/ping").status_code == 503
    assert str(app.state.mistake) == "the repository is no folder"


def test_a_registry_that_was_given_is_left_open(registry: Registry) -> None:
    with Client(create_app(Settings(), registry=registry)):
        pass
    assert registry.ready


# ---- the OpenAPI document --------------------------------------------------------------------------------------------


def test_every_operation_says_what_it_takes_and_gives(client: Client) -> None:
    seen = set()
    for verb, path, said in operations(client):
        codes = set(said["responses"])
        assert {"200", "500"} <= codes, path
        assert "422" not in codes, path  # what FastAPI would add, and nothing here answers
        assert (path in OPEN) == ("401" not in codes) == ("403" not in codes), path
        assert {p["name"] for p in said["parameters"] if p["in"] == "path"} == {
            part[1:-1].split("}")[0] for part in path.replace(":", "/").split("/") if part.startswith("{")
        }, path
        for code, answer in said["responses"].items():
            assert answer["content"], (path, code)
        assert ("requestBody" in said) == (verb == "POST"), path
        assert said["operationId"] not in seen
        seen.add(said["operationId"])


def test_every_route_that_explains_documents_every_refusal(client: Client) -> None:
    wanted = {"400", "401", "403", "404", "408", "413", "415", "429", "500", "501", "503", "504"}
    found = [path for verb, path, said in operations(client) if wanted <= set(said["responses"])]
    assert {p.rpartition("/")[2].rpartition(":")[2] for p in found} == {"explain", "predict", "infer", "invocations"}


def test_the_document_refers_only_to_what_is_in_it(client: Client) -> None:
    text = client.get("/openapi.json").text
    document = orjson.loads(text)
    assert {part.split('"')[0] for part in text.split('"$ref":"#/components/schemas/')[1:]} <= set(
        document["components"]["schemas"]
    )
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    assert not {"http://", "https://"} & {text[i : i + 8] for i in range(len(text))}


def test_the_examples_are_answered(client: Client) -> None:
    answered = 0
    for verb, path, said in operations(client):
        schema = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        for example in schema.get("examples", []):
            answer = client.request(verb, filled(path), json=example)
            assert answer.status_code == 200, (path, answer.text)
            answered += 1
    assert answered == 4


def test_without_docs_there_is_no_document(client_of: Callable[..., Client]) -> None:
    client = client_of(docs=False)
    assert client.get("/openapi.json").status_code == 404
    assert client.get("/docs").status_code == 404


def test_metrics_may_live_elsewhere(client_of: Callable[..., Client]) -> None:
    assert client_of(metrics_port=0).get("/metrics").status_code == 404


def test_telemetry_is_off_unless_asked_for() -> None:
    for on in (False, True):
        config = create_app(Settings(telemetry=on), registry=Broken(KeyError()))._telemetry  # type: ignore[arg-type]
        assert config["tracing"] is on and config["metrics"] is on and not config["auto_configure"]
        assert config["exclude"]({"path": "/v2/health/live"}) and not config["exclude"]({"path": "/explain"})


def test_the_table_of_methods_is_described(client: Client) -> None:
    said = client.get(f"/models/{NAME}").json()
    assert {row["id"] for row in said["methods"]} <= set(METHODS)
