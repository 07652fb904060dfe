"""
The command line's entry: run a command, and turn every intended error into one line and exit code 2.

The commands themselves are in `camrt.commands`, which needs the extra ``cli``.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

from .errors import CamrtError

__all__ = ["main"]

INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


def main() -> None:
    """
    Run the command line.

    Raises
    ------
    SystemExit
        0 on success, 2 for a user's mistake, 130 when interrupted.
    """
    try:
        _run()
    except CamrtError as error:
        print(f"camrt: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        print("camrt: interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from error
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, as `| head` does
        raise SystemExit(1) from None


def _run() -> None:
    """Read the arguments and run their command; an interrupt stays one."""
    try:
        from .commands import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("camrt"):
            raise
        sys.exit(f"camrt: {error.name} is not installed: pip install 'camrt[cli]'")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with a picture is said once, in our line
    warnings.simplefilter("ignore")
    try:
        app(prog_name="camrt")
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:  # typer makes this of an interrupt, without a word
            raise KeyboardInterrupt from leaving
        raise
