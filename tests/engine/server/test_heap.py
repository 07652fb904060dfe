"""Free memory goes back to the machine."""

from __future__ import annotations

import asyncio
import platform
import threading
from pathlib import Path

import numpy as np
import pytest

from camrt.server import heap

MB = 2**20
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")


def resident() -> int:
    """Return the bytes this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@glibc
def test_what_the_heap_keeps_is_given_back() -> None:
    blocks = [np.ones(60_000, np.uint8) for _ in range(3000)]  # below what the C library maps by itself
    kept = blocks[::100]  # so that the heap's end stays where it is
    full = resident()
    del blocks
    assert heap.trim()
    assert full - resident() > 100 * MB
    assert all(block.all() for block in kept)


def test_an_owner_s_end_is_followed_by_a_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = threading.Event()
    monkeypatch.setattr(heap, "trim", trimmed.set)
    monkeypatch.setattr(heap, "SETTLED", 0.01)

    class Owner:
        pass

    owner = Owner()
    heap.trim_after(owner)
    assert not trimmed.is_set()
    del owner
    assert trimmed.wait(30)


def test_each_busy_time_is_followed_by_one_trim_and_none_comes_while_work_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, held, at, trims, turns = 0, 0.0, 0, [], iter(range(1, 12))

    async def _next_turn(seconds: float) -> None:
        """Let time pass: what is done and held at each turn."""
        nonlocal done, held, at
        at = turn = next(turns)
        done = {1: 0, 2: 3, 3: 5}.get(turn, 9 if turn >= 9 else 5)  # quiet, work, more work, quiet, work again
        held = 2.0 if turn in (3, 4) else 0.0

    async def _run() -> None:
        with pytest.raises(RuntimeError):  # the turns are over
            await heap.trim_when_quiet(lambda: done, lambda: held)

    monkeypatch.setattr(heap.asyncio, "sleep", _next_turn)
    monkeypatch.setattr(heap, "trim", lambda: trims.append((at, done)))
    asyncio.run(_run())
    assert trims == [(5, 5), (10, 9)]  # at the first quiet turn without work
