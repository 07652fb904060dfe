"""
Who may ask for what: API keys, compared in constant time, and where the server may listen without them.

A key opens explaining (``infer_keys``), or that and loading and unloading of models (``admin_keys``). It comes in one
header: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``. Only digests are compared, each with every key there is, so
that neither the time nor the answer tells how much of a wrong key was right, or which list a right one stands in.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Literal, Protocol

from pydantic import SecretStr

from ..errors import InputError
from .faults import ForbiddenError, KeyMissingError
from .settings import Settings

__all__ = ["Headers", "Place", "check_bind", "check_key"]

Place = tuple[socket.AddressFamily, str]  # a numeric address, or the path of a unix socket
UNIX = "unix:"


class Headers(Protocol):
    """What is needed of a request's headers; Starlette's are such."""

    def getlist(self, key: str, /) -> list[str]:
        """
        Return every value of a header.

        Parameters
        ----------
        key : str
            Its name, in lower case.
        """


def check_key(headers: Headers, scope: Literal["infer", "admin"], settings: Settings) -> None:
    """
    Let a request pass, or refuse it.

    Parameters
    ----------
    headers : Headers
        The request's.
    scope : {"infer", "admin"}
        What it asks for. Explaining is open to all where there are no ``infer_keys``; loading and unloading never is.
    settings : Settings
        With the keys.

    Raises
    ------
    KeyMissingError
        401: no key, a wrong one, or more than one.
    ForbiddenError
        403: a right key that does not open this, or nothing opens it here.
    """
    if scope == "infer" and not settings.infer_keys:
        return
    given = sha256(_given(headers).encode("utf-8", "replace")).digest()
    may_infer, may_admin = _holds(settings.infer_keys, given), _holds(settings.admin_keys, given)
    if scope == "admin" and not settings.admin_keys:
        raise ForbiddenError("models are neither loaded nor unloaded here: the server was started without an admin key")
    if not (may_infer or may_admin):
        raise KeyMissingError("this needs a key: send Authorization: Bearer KEY, or X-API-Key: KEY, once and not both")
    if scope == "admin" and not may_admin:
        raise ForbiddenError("this key opens explaining alone; loading and unloading need an admin key")


def _given(headers: Headers) -> str:
    """Return the one key that came; nothing where none or more than one did."""
    found = list(headers.getlist("x-api-key"))
    for value in headers.getlist("authorization"):
        scheme, _, key = value.partition(" ")
        found.append(key if scheme.lower() == "bearer" else "")
    return found[0].strip() if len(found) == 1 else ""


def _holds(keys: Sequence[SecretStr], given: bytes) -> bool:
    """Compare a digest with every key's, to the last one whatever the first ones say."""
    held = False
    for key in keys:
        held |= compare_digest(sha256(key.get_secret_value().encode()).digest(), given)
    return held


def check_bind(settings: Settings) -> list[Place]:
    """
    Find where to listen, and refuse a place that others reach while everybody may ask.

    Parameters
    ----------
    settings : Settings
        ``host``, the keys and ``insecure``.

    Returns
    -------
    list of (AddressFamily, str)
        Every address that the host's name stands for.

    Raises
    ------
    InputError
        If the name is unknown, or one of its addresses is not this machine's own and there is no key.
    """
    if settings.host.startswith(UNIX):
        return [(socket.AF_UNIX, settings.host.removeprefix(UNIX))]  # the folder's permissions say who may ask
    try:
        found = socket.getaddrinfo(settings.host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise InputError(f"host {settings.host!r} is no address of this machine; give 127.0.0.1, or 0.0.0.0") from None
    places: list[Place] = list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
    reached = [address for _, address in places if not _is_loopback(address)]
    if reached and not settings.infer_keys and not settings.insecure:
        raise InputError(
            f"{settings.host} is reached from other machines: set CAMRT_INFER_KEYS, "
            "or say --insecure where a gateway in front asks for keys"
        )
    return places


def _is_loopback(text: str) -> bool:
    """Say whether an address is reached from this machine alone; IPv4 written as IPv6 is IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
