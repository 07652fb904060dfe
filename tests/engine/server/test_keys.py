"""API keys: who passes, what others are told, and where a server without keys may listen."""

from __future__ import annotations

import socket
from contextlib import suppress
from hmac import compare_digest

import pytest
from starlette.datastructures import Headers

from camrt.errors import InputError
from camrt.server import keys
from camrt.server.faults import ForbiddenError, KeyMissingError
from camrt.server.keys import check_bind, check_key
from camrt.server.settings import Settings

INFER, OTHER, ADMIN = "infer-key-0123456789", "other-key-0123456789", "admin-key-0123456789"
KEYED = Settings(infer_keys=(INFER, OTHER), admin_keys=(ADMIN,))
OPEN = Settings()


def sent(*pairs: tuple[str, str]) -> Headers:
    """Return headers as Starlette has them."""
    return Headers(raw=[(name.lower().encode(), value.encode("latin-1")) for name, value in pairs])


@pytest.mark.parametrize("key", [INFER, OTHER, ADMIN])
@pytest.mark.parametrize(
    "header", [("Authorization", "Bearer {}"), ("authorization", "bEARER  {} "), ("X-API-Key", "{}")]
)
def test_a_right_key_opens_explaining_in_either_header(key: str, header: tuple[str, str]) -> None:
    check_key(sent((header[0], header[1].format(key))), "infer", KEYED)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("X-API-Key", "")],
        [("X-API-Key", INFER[:-1])],
        [("X-API-Key", INFER + "x")],
        [("X-API-Key", INFER.upper())],
        [("X-API-Key", "\xe9" * 20)],
        [("Authorization", INFER)],
        [("Authorization", f"Basic {INFER}")],
        [("Authorization", "Bearer")],
        [("Authorization", f"Bearer {INFER} {INFER}")],
        [("X-API-Key", INFER), ("X-API-Key", INFER)],
        [("X-API-Key", INFER), ("Authorization", f"Bearer {INFER}")],
        [("X-API-Key", INFER), ("Authorization", "Basic xyz")],
        [("X-API-Key", f"{INFER},{OTHER}")],
    ],
)
@pytest.mark.parametrize("scope", ["infer", "admin"])
def test_none_a_wrong_one_and_several_keys_are_refused(pairs: list[tuple[str, str]], scope) -> None:
    with pytest.raises(KeyMissingError, match="this needs a key") as caught:
        check_key(sent(*pairs), scope, KEYED)
    assert INFER not in str(caught.value)


def test_loading_needs_an_admin_key() -> None:
    check_key(sent(("X-API-Key", ADMIN)), "admin", KEYED)
    with pytest.raises(ForbiddenError, match="explaining alone"):
        check_key(sent(("X-API-Key", INFER)), "admin", KEYED)


def test_without_keys_explaining_is_open_and_loading_is_closed() -> None:
    check_key(sent(), "infer", OPEN)
    check_key(sent(("Authorization", "Bearer of-some-gateway")), "infer", OPEN)
    check_key(sent(), "infer", Settings(admin_keys=(ADMIN,)))
    with pytest.raises(ForbiddenError, match="without an admin key"):
        check_key(sent(), "admin", OPEN)


def test_every_key_is_compared_whichever_was_right_and_by_digests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare_digest(a, b)

    monkeypatch.setattr(keys, "compare_digest", counting)
    for given in (INFER, ADMIN, "wrong", ""):
        compared.clear()
        with suppress(KeyMissingError):
            check_key(sent(("X-API-Key", given)), "infer", KEYED)
        assert len(compared) == 3
        assert all(len(side) == 32 for pair in compared for side in pair)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "unix:/run/camrt.sock"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    assert check_bind(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_a_place_that_others_reach_needs_a_key(host: str) -> None:
    with pytest.raises(InputError, match="reached from other machines: set CAMRT_INFER_KEYS"):
        check_bind(Settings(host=host))
    with pytest.raises(InputError, match="reached from other machines"):
        check_bind(Settings(host=host, admin_keys=(ADMIN,)))
    assert check_bind(Settings(host=host, infer_keys=(INFER,)))
    assert check_bind(Settings(host=host, insecure=True))


def test_one_address_of_a_name_that_others_reach_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(InputError, match="this-host is reached"):
        check_bind(Settings(host="this-host"))
    assert check_bind(Settings(host="this-host", insecure=True)) == [
        (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "192.0.2.7"),
    ]  # fmt: skip


@pytest.mark.parametrize("host", ["", "no-such-host.invalid", "300.1.1.1", "a..b", "x" * 300])
def test_a_name_of_nothing_is_said(host: str) -> None:
    with pytest.raises(InputError, match="is no address of this machine"):
        check_bind(Settings(host=host))
