"""
Everything that can be set: one frozen class, from the command line or the environment (``CAMRT_...``).

A mistake is one line that names the setting, what was wanted and what came; a key's value is never shown.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ..errors import InputError
from ..words import offer

__all__ = ["Settings", "read_settings", "shown"]

PREFIX = "CAMRT_"
SECRET = ("infer_keys", "admin_keys")
KEY = re.compile(r"[!-+\--~]{16,256}")  # printable, no blank and no comma; 16 random ones are 100 bits
CEILINGS = {  # of options, by name; of the channels and masks that one map may hide one after the other
    "iters": 200,
    "n": 64,
    "steps": 200,
    "samples": 4096,
    "groups": 512,
    "max_n": 2048,
    "blur_size": 255,
    "s": 32,
    "channels": 2048,
    "masks": 8000,
}


def _words(value: object) -> object:
    """Read a list from text: JSON, or words between commas."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else [w.strip() for w in value.split(",") if w.strip()]


def _pairs(value: object) -> object:
    """Read ceilings from text, and let them stand over the defaults, so that naming one keeps the others."""
    value = json.loads(value) if isinstance(value, str) else value
    return {**CEILINGS, **value} if isinstance(value, Mapping) else value


def _strong(key: SecretStr) -> SecretStr:
    """Refuse a key that could be guessed, or that no header can carry."""
    if not KEY.fullmatch(key.get_secret_value()):
        raise ValueError("a key is 16 to 256 printable ASCII characters without blanks and commas")
    return key


Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Ceilings = Annotated[dict[str, Annotated[int, Field(ge=1)]], NoDecode, BeforeValidator(_pairs)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Keys = Annotated[tuple[Annotated[SecretStr, AfterValidator(_strong)], ...], NoDecode, BeforeValidator(_words)]


class Settings(BaseSettings):
    """How the server runs; every field is also an environment variable, ``CAMRT_PORT`` and so on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    # where
    host: str = "127.0.0.1"  # a name, an address, or unix:/path/to/socket
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None  # None: /metrics on the same port
    page: bool = True  # the page at /
    docs: bool = True  # /openapi.json

    # models
    repository: Path | None = None  # a folder of <model>/<version>/; None: the embedded model alone
    control: Literal["none", "explicit"] = "none"  # none: every model, its highest version; explicit: those of `load`
    load: Words = ()  # with explicit: name or name:version
    warm: Words = ("gradcam",)  # methods run once for each batch size before a model is ready
    prepare: bool = False  # raw .onnx files become bundles, in a process of their own
    prepare_memory: str = "4GB"
    prepare_seconds: Seconds = 600
    cache: Path | None = None  # where prepared bundles go, a folder for each repository; None: beside the raw file

    # running
    providers: str = "cpu"
    precision: str = "float32"
    threads: Count | None = None  # within one run; None: all cores alone, its lane's share beside another
    memory: str = "400MB"  # of masked forwards, as `camrt.load` takes it

    # safety
    connections: Count = 1024  # open at a time; a second fence before the queue's
    header_timeout: Seconds = 10  # to receive a request's headers
    infer_keys: Keys = ()  # any of them opens explaining; none: open to all
    admin_keys: Keys = ()  # any of them opens loading and unloading, and explaining
    insecure: bool = False  # listen beyond this machine without a key
    max_body: Count = 64 * 2**20  # bytes, before and after decompression
    max_unsized: Count = 16 * 2**20  # bytes of a body that does not say its length beforehand
    body_timeout: Seconds = 10  # to receive a body
    max_pixels: Count = 16_000_000
    max_side: Count = 8192
    max_images: Count = 64  # a request
    max_targets: Count = 32  # an image
    max_answer: Count = 64 * 2**20  # bytes of heatmaps as float32
    max_work: Annotated[float, Field(gt=0)] = 16_384  # forward-equivalents a request
    ceilings: Ceilings = CEILINGS

    # queue
    queue_work: Annotated[float, Field(gt=0)] = 32_768  # forward-equivalents that may wait or run
    queue_bytes: Count = 96 * 2**20  # pictures and inputs that may wait or run
    batch: Count = 32  # images a run
    full_runs: bool = False  # on a CPU, too, as many images a run as wait: no quicker there, and some wait longer
    delay: Annotated[float, Field(ge=0, le=1)] = 0.0  # seconds that a run waits for company
    light_lanes: Count = 2  # runs of cheap requests at a time: one is prepared and handed out while the other runs
    heavy_lanes: Count = 4  # dear requests that run at a time; their masked forwards share chunks
    decoders: Count = 2  # pictures decoded at a time
    timeout: Seconds = 30  # where a request gives none
    max_timeout: Seconds = 300

    # stopping
    drain_delay: Annotated[float, Field(ge=0, le=600)] = 0.0  # not ready, but still answering
    graceful_timeout: Seconds = 310  # from the signal until the process is gone, `drain_delay` included

    # telling
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    telemetry: bool = False  # spans and metrics through OpenTelemetry's API; the exporter is the operator's

    @property
    def run_threads(self) -> int:
        """The number of threads within one run: as told, or one for each core this process may use."""
        return self.threads or _cores()

    @property
    def run_threads_beside(self) -> int | None:
        """
        The number of threads within a run that begins beside another: an even share of the cores for each light lane.

        None where `threads` is told, or lanes would share no less than all: then every run is like any other.
        """
        share = max(1, _cores() // self.light_lanes)
        return share if self.threads is None and share < _cores() else None

    @property
    def spare_lanes(self) -> int:
        """Light lanes more, for joined runs alone (`camrt.server.running.overflows`): one where lanes share the cores."""
        return int(self.run_threads_beside is not None)

    @property
    def run_threads_busy(self) -> int:
        """The number of threads within a run while all light lanes are busy."""
        return self.run_threads_beside or self.run_threads


def _cores() -> int:
    """Return how many cores this process may use."""
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) or 1


def read_settings(told: Mapping[str, Any]) -> Settings:
    """
    Make the settings of what was told and of the environment.

    Parameters
    ----------
    told : mapping of str to object
        Settings by name, which go before the environment; text is read as the environment's would be.

    Returns
    -------
    Settings
        Checked.

    Raises
    ------
    InputError
        If a name is unknown, among them every ``CAMRT_`` variable, or a value does not fit. One line, without keys.
    """
    named = {name[len(PREFIX) :].lower(): text for name, text in os.environ.items() if name.upper().startswith(PREFIX)}
    for name, text in named.items():
        if re.search(r"(^|_)service_(host|port)|^port_\d+_|^port$", name) and not text.isdecimal():
            raise InputError(
                f"{PREFIX}{name.upper()} was set by Kubernetes for a service called camrt; "
                "give the pod enableServiceLinks: false, or call the service something else"
            )
        if name not in Settings.model_fields:
            raise InputError(f"{PREFIX}{name.upper()} is no setting; {offer(name, Settings.model_fields)}")
    for name in told:
        if name not in Settings.model_fields:
            raise InputError(f"{name} is no setting; {offer(name, Settings.model_fields)}")
    try:
        return Settings(**told)
    except ValidationError as error:
        raise InputError("; ".join(_said(dict(found)) for found in error.errors())) from None


def _said(found: Mapping[str, Any]) -> str:
    """Say one of pydantic's findings in one line."""
    name = str(found["loc"][0])
    wanted = str(found["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    wanted = re.sub("^Input should be ", "wanted ", wanted)
    came = "" if name in SECRET else f"; got {str(found['input'])[:80]!r}"
    return f"{name}: {wanted}{came} (set it by {PREFIX}{name.upper()} or --set {name}=...)"


def shown(settings: Settings) -> dict[str, Any]:
    """
    Return every setting as plain data, keys masked.

    Parameters
    ----------
    settings : Settings
        Any.

    Returns
    -------
    dict of str to object
        Ready for JSON.
    """
    return settings.model_dump(mode="json")
