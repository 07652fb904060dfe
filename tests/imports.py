"""Run import-linter in this interpreter: its package has no ``__main__``."""

from __future__ import annotations

from importlinter.cli import lint_imports_command

if __name__ == "__main__":
    lint_imports_command()
