"""The command ``camrt serve``: what it makes of its words, and what it says where it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from camrt.commands import app
from camrt.errors import InputError
from camrt.server import serving
from camrt.server.settings import Settings

KEY = "0123456789-secret-key"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the variables of whoever runs the tests away."""
    for name in [name for name in os.environ if name.upper().startswith("CAMRT_")]:
        monkeypatch.delenv(name)


def config(*words: str) -> dict[str, Any]:
    """Return what ``--show-config`` prints."""
    done = CliRunner().invoke(app, ["serve", *words, "--show-config"], catch_exceptions=False)
    assert done.exit_code == 0
    return dict(json.loads(done.stdout))


def test_every_setting_is_shown_and_keys_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMRT_INFER_KEYS", KEY)
    monkeypatch.setenv("CAMRT_ADMIN_KEYS", json.dumps([KEY + "-of-an-admin"]))
    done = CliRunner().invoke(app, ["serve", "--show-config"], catch_exceptions=False)
    assert KEY not in done.output
    shown = json.loads(done.stdout)
    assert set(shown) == set(Settings.model_fields)
    assert shown["infer_keys"] == shown["admin_keys"] == ["**********"]


def test_options_are_settings() -> None:
    shown = config("--port", "81", "--host", "::1", "--no-page", "--set", "queue-work=64", "--set", 'ceilings={"n": 4}')
    assert (shown["port"], shown["host"], shown["page"], shown["queue_work"]) == (81, "::1", False, 64)
    assert shown["ceilings"]["n"] == 4 and shown["ceilings"]["iters"] == 200
    assert config()["page"] is True


def test_naming_models_loads_those_alone() -> None:
    shown = config("--load", "a", "--load", "b:2")
    assert (shown["control"], shown["load"]) == ("explicit", ["a", "b:2"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "port"], "--set takes NAME=VALUE"),
        (["--set", "prot=3"], "prot is no setting; did you mean port"),
        (["--set", f"infer_keys={KEY},short"], "a key is 16 to 256"),
        (["--port", "70000"], "port: wanted less than or equal to 65535"),
        (["--host", "0.0.0.0", "--port", "0"], "reached from other machines"),
    ],
)
def test_mistakes_are_said_without_keys(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        CliRunner().invoke(app, ["serve", *words], catch_exceptions=False)
    assert KEY not in str(caught.value)


def test_the_server_gets_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Settings] = []
    monkeypatch.setattr(serving, "serve", got.append)
    CliRunner().invoke(app, ["serve", "--port", "0", "--warm", "gradcam", "--warm", "layercam"], catch_exceptions=False)
    assert got == [Settings(port=0, warm=("gradcam", "layercam"))]


@pytest.mark.parametrize("library", ["pydantic_settings", "uvicorn", "structlog"])
def test_a_missing_library_is_named_with_the_extra(library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; sys.argv = ['camrt', 'serve']; import camrt.cli; camrt.cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == f"camrt: {library} is not installed: pip install 'camrt[serve]'"


def test_other_commands_do_not_load_the_server_s_libraries() -> None:
    code = "import camrt.commands, sys; print([n for n in ('fastapi', 'pydantic', 'uvicorn') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
