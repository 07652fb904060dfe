"""The application around the embedded model, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from PIL import Image

import camrt
from camrt.demo import HELD_OUT, draw
from camrt.render import png
from camrt.server.app import create_app
from camrt.server.registry import Registry
from camrt.server.settings import Settings
from tests.engine.server.checking import Client

NAME = "camrt-demo"


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """Return a registry with the embedded model."""
    models = Registry(Settings())
    models.open()
    yield models
    models.close()


@pytest.fixture(scope="session")
def client(registry: Registry) -> Iterator[Client]:
    """Return a client of the application with default settings."""
    with _client(registry, Settings()) as client:
        yield client


@pytest.fixture
def client_of(registry: Registry) -> Iterator[Callable[..., Client]]:
    """Return what makes a client of an application with other settings."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Client:
            return stack.enter_context(_client(registry, Settings(**settings)))

        yield make


def _client(registry: Registry, settings: Settings) -> Client:
    return Client(create_app(settings, registry=registry), raise_server_exceptions=False)


@pytest.fixture(scope="session")
def explainer(registry: Registry) -> camrt.Explainer:
    """Return the embedded model as the server runs it."""
    with registry.lease(NAME) as lease:
        return lease.served.explainer


@pytest.fixture(scope="session")
def photo() -> bytes:
    """Return a PNG of a striped disc and a striped triangle."""
    return png(Image.fromarray(draw(HELD_OUT + 11, (0, 4)).image))
