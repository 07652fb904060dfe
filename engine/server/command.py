"""
The command ``camrt serve``: options for what is set often; every other setting by ``--set`` or the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, MissingExtraError

__all__ = ["serve"]


def serve(
    repository: Annotated[
        Path | None,
        typer.Option("--repository", "-r", help="Folder of MODEL/VERSION/ bundles. None: the demo's model."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Name or address to listen at, or unix:/path. 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 for any that is free. 8080.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="/metrics on a port of its own.")] = None,
    providers: Annotated[str | None, typer.Option(help="Execution providers in order: cpu, cuda. cpu.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads within one run.")] = None,
    load: Annotated[
        list[str] | None, typer.Option(help="Load this model, NAME or NAME:VERSION, alone. Repeat for several.")
    ] = None,
    warm: Annotated[list[str] | None, typer.Option(help="Run this method before being ready. Repeat.")] = None,
    prepare: Annotated[
        bool | None, typer.Option("--prepare", help="Make bundles of raw .onnx files, in a process of its own.")
    ] = None,
    page: Annotated[bool | None, typer.Option("--page/--no-page", help="The page at /.")] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Listen beyond this machine without a key.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="json or console. json.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. info.")] = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; --show-config lists them. Repeat."),
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print every setting as JSON, keys masked, and stop.")
    ] = False,
) -> None:
    """Serve explanations over HTTP. Settings are also read from CAMRT_ variables, keys best from there alone."""
    told: dict[str, Any] = {
        "repository": repository, "host": host, "port": port, "metrics_port": metrics_port, "providers": providers,
        "threads": threads, "load": load or None, "warm": warm or None, "prepare": prepare, "page": page,
        "insecure": insecure, "log_format": log_format, "log_level": log_level,
    }  # fmt: skip
    told = {name: value for name, value in told.items() if value is not None}
    if load:
        told["control"] = "explicit"
    for pair in also or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set takes NAME=VALUE, for example --set queue_work=8192; got {pair!r}")
        told[name.strip().replace("-", "_")] = value.strip()
    try:
        from .settings import read_settings, shown

        settings = read_settings(told)
        if show_config:
            from ..printing import print_json

            print_json(shown(settings))
            return
        from .serving import serve as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("camrt"):
            raise
        raise MissingExtraError(f"{error.name} is not installed: pip install 'camrt[serve]'") from error
    run(settings)
