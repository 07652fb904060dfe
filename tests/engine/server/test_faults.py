"""Which error is which status, and what a client is told of it."""

from __future__ import annotations

import inspect

import pytest

from camrt import errors
from camrt.server import faults
from camrt.server.faults import STATUS, headers_of, status_of, text_of

ROWS = [  # what happens, and how it is answered
    (errors.ImageError("no picture"), 400),
    (errors.ShapeError("a shape"), 400),
    (errors.MethodError("no such method"), 400),
    (errors.TargetError("class 99"), 400),
    (errors.NumericError("NaN"), 400),
    (faults.KeyMissingError("a key"), 401),
    (faults.ForbiddenError("not this key"), 403),
    (faults.NotFoundError("no such model"), 404),
    (errors.LayerError("no such layer"), 404),
    (faults.NotAcceptableError("no such form"), 406),
    (faults.SlowError("too slow"), 408),
    (faults.TooLargeError("too large"), 413),
    (faults.MediaTypeError("GIF"), 415),
    (faults.BusyError("full", 3), 429),
    (errors.CancelledError("gone"), 499),
    (errors.MissingExtraError("install it"), 500),
    (errors.OutputError("cannot write"), 500),
    (KeyError("a mistake"), 500),
    (errors.MissingRuleError("no gradient of Foo"), 501),
    (errors.BundleError("no such program"), 501),
    (faults.UnsupportedError("not here"), 501),
    (faults.UnreadyError("loading", 3), 503),
    (errors.MemoryBoundError("does not fit"), 503),
    (errors.ProviderError("no CUDA"), 503),
    (errors.DeadlineError("too late"), 504),
]


@pytest.mark.parametrize(("error", "status"), ROWS, ids=lambda value: type(value).__name__)
def test_the_table(error: Exception, status: int) -> None:
    assert status_of(error) == status


def test_every_error_there_is_has_a_status_of_its_own_kind() -> None:
    for module in (errors, faults):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, errors.CamrtError) and kind is not errors.CamrtError:
                assert any(issubclass(kind, row) for row in STATUS), name


def test_no_row_stands_behind_one_that_takes_its_errors() -> None:
    kinds = list(STATUS)
    for place, kind in enumerate(kinds):
        assert not any(issubclass(kind, before) for before in kinds[:place]), kind


@pytest.mark.parametrize(("error", "status"), ROWS, ids=lambda value: type(value).__name__)
def test_texts_are_the_errors_own_unless_they_are_about_the_server(error: Exception, status: int) -> None:
    private = status == 500 or (status == 503 and not isinstance(error, faults.BusyError))
    assert (text_of(error) == str(error)) is not private
    assert str(error) not in text_of(error) or not private


def test_a_text_is_one_line() -> None:
    assert text_of(errors.InputError("two\nlines,\t and  blanks")) == "two lines, and blanks"


@pytest.mark.parametrize(("seconds", "header"), [(0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (59.5, "60")])
def test_retry_after_is_rounded_up(seconds: float, header: str) -> None:
    for kind in (faults.BusyError, faults.UnreadyError):
        assert headers_of(kind("later", seconds)) == {"Retry-After": header}


def test_headers() -> None:
    assert headers_of(faults.KeyMissingError("a key")) == {"WWW-Authenticate": "Bearer"}
    assert headers_of(errors.InputError("x")) == headers_of(KeyError()) == {}
