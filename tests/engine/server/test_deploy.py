"""The image's recipe and the systemd unit: the rules an operator relies on, and that they fit the settings."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import camrt.server
from camrt.server.settings import Settings
from tests.engine.server.stub import stub

DEPLOY = Path(camrt.server.__file__).parent / "deploy"
SECRET = re.compile(r"key|secret|token|password", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, lines joined and comments left out."""
    text = "\n".join(line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    text = re.sub(r"\\\n\s*", "", text)
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return what each stage does, with what it stands on."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = list(found.get(base, []))
            current = found[name]
        elif found:
            current.append((word, rest))
    return found


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    """Return the systemd unit."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(DEPLOY / "camrt.service")
    return parsed


@pytest.mark.parametrize("stage", ["cpu", "gpu"])
def test_an_image_runs_the_server_itself_as_nobody_in_particular(stage: str) -> None:
    steps = stages()[stage]
    last = dict(steps)
    user, group = last["USER"].split(":")
    assert int(user) > 0 and int(group) > 0  # numbers, which Kubernetes can check
    assert steps[-1][0] == "USER"
    assert [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])] == ["camrt", "serve"]  # no shell eats the signal
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert f"[{stage},export,cli,serve]" in last["RUN"]


def test_an_image_holds_no_secret_and_nothing_is_fetched_but_by_pip() -> None:
    for word, rest in instructions():
        assert word != "ADD"
        assert not re.search(r"curl|wget|sudo|:latest", rest)
        if word in ("ENV", "ARG"):
            names = [pair.partition("=")[0] for pair in shlex.split(rest)]
            assert not [name for name in names if SECRET.search(name)]
            known = {f"CAMRT_{name.upper()}" for name in Settings.model_fields}
            assert {name for name in names if name.startswith("CAMRT_")} <= known


def test_the_image_s_health_check_tells_a_living_server_from_none() -> None:
    form, _, words = dict(stages()["cpu"])["HEALTHCHECK"].partition("CMD ")
    assert "--timeout=3s" in form
    program, flag, code = json.loads(words)
    assert (program, flag) == ("python", "-c")
    with stub() as live:
        port = live.url.rpartition(":")[2]
        asked = code.replace("/v2/health/live", "/quick")
        assert asked != code
        line, env = [sys.executable, "-c", asked], {**os.environ, "CAMRT_PORT": port}
        assert subprocess.run(line, env=env, check=False).returncode == 0
    assert subprocess.run(line, env=env, check=False, stderr=subprocess.DEVNULL).returncode != 0


def test_the_unit_comes_back_and_gives_time_to_stop(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["Restart"] == "always" and float(service["RestartSec"]) <= 5
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["RestartPreventExitStatus"] == "2"  # of a mistake in the settings
    assert float(service["TimeoutStopSec"]) > Settings.model_fields["graceful_timeout"].default + 1
    assert service["KillSignal"] == "SIGTERM"
    assert service["ExecStart"].endswith("/camrt serve")


def test_the_unit_holds_no_secret_and_names_settings_that_exist(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    names = [pair.partition("=")[0] for pair in service["Environment"].split()]
    known = {f"CAMRT_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in names if name.startswith("CAMRT_")} <= known
    assert not [name for name in names if SECRET.search(name)]
    assert service["EnvironmentFile"].startswith("-/etc/camrt/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("User", "camrt"), ("NoNewPrivileges", "yes"), ("ProtectSystem", "strict"), ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"), ("PrivateDevices", "yes"), ("CapabilityBoundingSet", ""),
        ("MemoryDenyWriteExecute", "yes"), ("RestrictNamespaces", "yes"), ("SystemCallArchitectures", "native"),
    ],
)  # fmt: skip
def test_the_unit_is_confined(unit: configparser.ConfigParser, name: str, value: str) -> None:
    assert unit["Service"][name] == value
