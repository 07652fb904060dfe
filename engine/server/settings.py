"""
Everything that can be set: one frozen class, from the command line, the environment (``CAMRT_...``) or a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Ceilings = dict[str, Annotated[int, Field(ge=1)]]


class Settings(BaseSettings):
    """How the server runs; every field is also an environment variable, ``CAMRT_PORT`` and so on."""

    model_config = SettingsConfigDict(env_prefix="CAMRT_", extra="forbid", frozen=True)

    # where
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None  # None: /metrics on the same port
    page: bool = True  # the page at /
    docs: bool = True  # /docs and /openapi.json

    # models
    repository: Path | None = None  # a folder of <model>/<version>/; None: the embedded model alone
    control: Literal["none", "explicit"] = "none"  # none: every model, its highest version; explicit: those of `load`
    load: tuple[str, ...] = ()  # with explicit: name or name:version
    warm: tuple[str, ...] = ("gradcam",)  # methods run once for each batch size before a model is ready
    prepare: bool = False  # raw .onnx files become bundles, in a process of their own
    prepare_memory: str = "4GB"
    prepare_seconds: Seconds = 600
    cache: Path | None = None  # where prepared bundles go; None: beside the raw file

    # running
    providers: str = "cpu"
    precision: str = "float32"
    threads: Count | None = None  # within one run; None: ONNX Runtime decides
    memory: str = "400MB"  # of masked forwards, as `camrt.load` takes it

    # safety
    infer_keys: tuple[SecretStr, ...] = ()  # any of them opens explaining; none: open to all
    admin_keys: tuple[SecretStr, ...] = ()  # any of them opens loading and unloading, and explaining
    insecure: bool = False  # listen beyond this machine without a key
    max_body: Count = 64 * 2**20  # bytes, before and after decompression
    body_timeout: Seconds = 10  # to receive a body
    max_pixels: Count = 16_000_000
    max_side: Count = 8192
    max_images: Count = 64  # a request
    max_targets: Count = 32  # an image
    max_answer: Count = 64 * 2**20  # bytes of heatmaps as float32
    max_work: Annotated[float, Field(gt=0)] = 16_384  # forward-equivalents a request
    ceilings: Ceilings = {"iters": 200, "n": 64, "steps": 200, "channels": 2048, "masks": 8000}  # of options, by name

    # queue
    queue_work: Annotated[float, Field(gt=0)] = 32_768  # forward-equivalents that may wait or run
    batch: Count = 32  # images a run
    delay: Annotated[float, Field(ge=0, le=1)] = 0.0  # seconds that a run waits for company
    heavy_lanes: Count = 4  # dear requests that run at a time; their masked forwards share chunks
    decoders: Count = 2  # pictures decoded at a time
    timeout: Seconds = 30  # where a request gives none
    max_timeout: Seconds = 300

    # stopping
    drain_delay: Annotated[float, Field(ge=0, le=600)] = 0.0  # not ready, but still answering
    graceful_timeout: Seconds = 310

    # telling
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    telemetry: bool = False  # spans and metrics through OpenTelemetry's API; the exporter is the operator's
