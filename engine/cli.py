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


def main() -> None:
    """
    Run the command line.

    Raises
    ------
    SystemExit
        0 on success, 2 for a user's mistake, 130 when interrupted.
    """
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
    except CamrtError as error:
        print(f"camrt: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        print("camrt: interrupted", file=sys.stderr)
        raise SystemExit(130) from error
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, as `| head` does
        raise SystemExit(1) from None
