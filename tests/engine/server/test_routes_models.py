"""The model repository over HTTP: index, load, unload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from camrt.server.app import create_app
from camrt.server.registry import Registry
from camrt.server.settings import Settings
from tests.engine.server.checking import Client
from tests.engine.server.conftest import NAME
from tests.engine.server.models import write_bundle

KEY = {"x-api-key": "an-admin-key-of-the-test"}
MODELS = "/v2/repository/models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of two versions of one model."""
    folder = tmp_path_factory.mktemp("repository")
    for version in (1, 2):
        write_bundle(folder / "tiny" / str(version), seed=version)
    return folder


@pytest.fixture
def admin(folder: Path) -> Iterator[Client]:
    """Return a client whose server has loaded nothing yet."""
    settings = Settings(repository=folder, control="explicit", admin_keys=(KEY["x-api-key"],), warm=())  # type: ignore[arg-type]
    registry = Registry(settings)
    registry.open()
    with Client(create_app(settings, registry=registry), headers=KEY) as client:
        yield client
    registry.close()


def states(client: Client, **asked: Any) -> dict[str, str]:
    return {row["version"]: row["state"] for row in client.post("/v2/repository/index", json=asked).json()}


def test_a_model_is_loaded_served_and_unloaded(admin: Client) -> None:
    assert states(admin) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
    assert admin.get("/v2/models/tiny/ready").status_code == 404
    assert admin.post(f"{MODELS}/tiny/load").json() == {"name": "tiny", "load": True}
    assert states(admin) == {"1": "UNAVAILABLE", "2": "READY"} and states(admin, ready=True) == {"2": "READY"}
    assert admin.get("/v2/models/tiny/ready").status_code == 200
    assert admin.get("/models").json()["models"] == [
        {"name": "tiny", "version": "2", "versions": ["2"], "ready": True, "default": True}
    ]
    assert admin.post(f"{MODELS}/tiny/load", json={"parameters": {"version": "1"}}).status_code == 200
    assert admin.get("/v2/models/tiny").json()["versions"] == ["1", "2"]
    unloading = {"parameters": {"unload_dependents": False}}  # as tritonclient sends it
    assert admin.post(f"{MODELS}/tiny/unload", json=unloading).json() == {"name": "tiny", "unload": True}
    assert admin.get("/v2/models/tiny/ready").status_code == 404
    assert admin.get("/models").json()["models"] == [
        {"name": "tiny", "version": "2", "versions": [], "ready": False, "default": False}
    ]


def test_what_is_not_there_is_not_found(admin: Client) -> None:
    assert admin.post(f"{MODELS}/other/load").status_code == 404
    assert admin.post(f"{MODELS}/tiny/load", json={"parameters": {"version": "9"}}).status_code == 404
    assert admin.post(f"{MODELS}/tiny/unload").status_code == 404
    for name in ("..", "%2e%2e%2fetc", "a%00b", "x" * 100):
        assert admin.post(f"{MODELS}/{name}/load").status_code in (404, 405)


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ([], 400),
        ({"parameters": []}, 400),
        ({"parameters": {"version": 1}}, 400),
        ({"parameters": {"config": "{}"}}, 400),
        ({"parameters": {"file:1/model.onnx": "AAAA"}}, 400),
        ({"parameters": {"version": "one"}}, 404),
    ],
)
def test_nothing_but_a_version_is_taken(admin: Client, document: Any, status: int) -> None:
    assert admin.post(f"{MODELS}/tiny/load", json=document).status_code == status


def test_bodies_that_are_no_json_are_refused(admin: Client) -> None:
    for path in ("/v2/repository/index", f"{MODELS}/tiny/load", f"{MODELS}/tiny/unload"):
        assert admin.post(path, content=b"{").status_code == 400
        assert admin.post(path, content=b"\t").status_code == 400
        assert admin.post(path, json={"parameters": [None]}).status_code == 400
        assert admin.post(path, content=b"[" * 100_000).status_code == 400
    assert admin.post("/v2/repository/index", json={"ready": "yes"}).status_code == 400


def test_a_server_that_does_not_load_on_request_says_so(client: Client) -> None:
    assert states(client) == {"1": "READY"}
    assert client.post(f"{MODELS}/{NAME}/load").status_code == 403
