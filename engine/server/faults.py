"""
What goes wrong with a request, and which HTTP status says so: one table.

Every error answer is ``{"error": "<one line>"}``. Errors of the engine that are about the request keep their text, which
names what to do; whatever else happens is told in a fixed sentence, so that no path, address or stack leaves the process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import (
    BundleError,
    CamrtError,
    CancelledError,
    DeadlineError,
    InputError,
    LayerError,
    MemoryBoundError,
    MissingExtraError,
    MissingRuleError,
    NumericError,
    OutputError,
    ProviderError,
)

__all__ = [
    "BusyError",
    "ForbiddenError",
    "KeyMissingError",
    "MediaTypeError",
    "NotAcceptableError",
    "NotFoundError",
    "SlowError",
    "TooLargeError",
    "UnreadyError",
    "UnsupportedError",
    "headers_of",
    "status_of",
    "text_of",
]


class NotFoundError(InputError):
    """No such model, version or route."""


class TooLargeError(InputError):
    """More bytes, pixels, images, targets or elements than are allowed."""


class MediaTypeError(InputError):
    """A content type or content encoding that is not spoken here."""


class NotAcceptableError(InputError):
    """The client accepts none of the forms that an answer has."""


class SlowError(InputError):
    """The client did not send its body in time."""


class UnsupportedError(InputError):
    """Something valid that this model or this server cannot do."""


class KeyMissingError(InputError):
    """The request carries no key, or a wrong one."""


class ForbiddenError(InputError):
    """The key is right, but not for this."""


class BusyError(CamrtError):
    """
    The work that waits already fills the queue.

    Parameters
    ----------
    message : str
        One line.
    retry_after : float, default 1
        Seconds until there should be room.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:  # a default, for pickle calls it with one
        super().__init__(message)
        self.retry_after = retry_after


class UnreadyError(BusyError):
    """The model is being loaded, the server is draining, or its device is lost."""


STATUS: Mapping[type[Exception], int] = {  # the first that fits; a class comes before what it inherits from
    NotFoundError: 404,
    NotAcceptableError: 406,
    SlowError: 408,
    TooLargeError: 413,
    MediaTypeError: 415,
    UnsupportedError: 501,
    KeyMissingError: 401,
    ForbiddenError: 403,
    UnreadyError: 503,
    BusyError: 429,
    LayerError: 404,
    MissingRuleError: 501,  # an operator of the model without a gradient
    BundleError: 501,  # the bundle was exported without what the method needs
    OutputError: 500,  # of the server's own files, which are nobody else's business
    InputError: 400,
    NumericError: 400,  # a model that was verified gives NaN: so does this input
    DeadlineError: 504,
    CancelledError: 499,  # logged; whoever asked has left
    MemoryBoundError: 503,
    ProviderError: 503,
    MissingExtraError: 500,
}
MAX_TEXT = 1000  # letters; the longest message, of all method names, has half of it
_PRIVATE = {  # said instead of the error's own text
    500: "the server made a mistake; it was logged under this request's id",
    503: "the model cannot run now; try again later",
}


def status_of(error: BaseException) -> int:
    """
    Return the HTTP status that an error is answered with.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    int
        500 for whatever is not in the table.

    Examples
    --------
    >>> status_of(BusyError("the queue is full", 2.0)), status_of(LayerError("no such layer")), status_of(KeyError())
    (429, 404, 500)
    """
    return next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)


def text_of(error: BaseException) -> str:
    """
    Return what a client is told.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    str
        One line of a thousand letters at most; the error's own where it is about the request.
    """
    status = status_of(error)
    if status in _PRIVATE and not isinstance(error, BusyError):
        return _PRIVATE[status]
    text = " ".join(str(error).split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


def headers_of(error: BaseException) -> dict[str, str]:
    """
    Return the headers that belong to an error's answer.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    dict of str to str
        ``Retry-After`` in whole seconds, ``WWW-Authenticate``, or nothing.
    """
    if isinstance(error, BusyError):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, KeyMissingError):
        return {"WWW-Authenticate": "Bearer"}
    return {}
