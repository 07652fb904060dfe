"""The error tree is what its module draws, and a mistake of the caller can be caught as such."""

from __future__ import annotations

import re

import pytest

from camrt import errors


def test_the_drawn_tree_names_every_error_once_and_nothing_else() -> None:
    drawn = re.findall(r"\b(\w+Error|InputError)\b(?= |\n| \()", errors.__doc__ or "")
    named = [name for name in drawn if hasattr(errors, name)]
    assert sorted(set(named)) == sorted(errors.__all__)


OTHERS = [
    ("NumericError", ArithmeticError),
    ("ProviderError", RuntimeError),
    ("MissingExtraError", ImportError),
    ("MemoryBoundError", MemoryError),
    ("DeadlineError", TimeoutError),
    ("CancelledError", RuntimeError),
]


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"CamrtError", *(name for name, _ in OTHERS)}))
def test_what_the_caller_can_mend_is_an_input_error_and_a_value_error(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.InputError)
    assert issubclass(kind, ValueError)


@pytest.mark.parametrize(("name", "builtin"), OTHERS)
def test_other_errors_are_also_pythons_own_kind(name: str, builtin: type[Exception]) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.CamrtError)
    assert issubclass(kind, builtin)
    assert not issubclass(kind, errors.InputError)
