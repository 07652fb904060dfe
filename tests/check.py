"""Every check that is not a test, as one command: ``python -m tests.check``."""

from __future__ import annotations

import io
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine", "export", "kernels")
TERSE = (
    "export/vjp/",
    "export/maps/",
    "engine/arguments.py",
    "engine/commands.py",
    "engine/evaluating.py",
    "engine/printing.py",
    "engine/server/command.py",
    "engine/demo/train.py",
)  # formulas; --help; the training script
COMMANDS = (
    ("format", ("ruff", "format", "--check", ".")),
    ("lint", ("ruff", "check", ".")),
    ("types", ("mypy",)),
    ("imports", ("lint-imports",)),
    ("docstrings", ("numpydoc", "lint", *FOLDERS)),
)


def code_lines(path: Path) -> int:
    """Count the lines that hold code; comments and docstrings are free."""
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        is_text = token.type == tokenize.STRING and token.line.strip().startswith(('"""', 'r"""'))
        if (
            token.type not in skip
            and not is_text
            and not (token.type == tokenize.STRING and token.start[0] != token.end[0])
        ):
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def main() -> int:
    """Run every check, print what failed, and show the size of the house."""
    failed = []
    for name, command in COMMANDS:
        if name == "docstrings":
            files = [str(p.relative_to(ROOT)) for f in FOLDERS for p in sorted((ROOT / f).rglob("*.py"))]
            command = ("numpydoc", "lint", *(f for f in files if not f.startswith(TERSE)))
        result = subprocess.run([sys.executable, "-m", *_module(command)], cwd=ROOT, check=False)
        print(f"{name}: {'ok' if result.returncode == 0 else 'FAILED'}", flush=True)
        if result.returncode:
            failed.append(name)
    for folder in FOLDERS:
        sizes = {p: code_lines(p) for p in (ROOT / folder).rglob("*.py")}
        largest = max(sizes, key=lambda p: sizes[p])
        print(
            f"{folder}: {sum(sizes.values())} lines of code, the largest {largest.relative_to(ROOT)} with {sizes[largest]}"
        )
    return 1 if failed else 0


def _module(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command as a module run by this interpreter, so that the right environment answers."""
    if command[0] == "lint-imports":
        return ("tests.imports",)
    return command


if __name__ == "__main__":
    raise SystemExit(main())
