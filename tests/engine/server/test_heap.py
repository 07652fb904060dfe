"""Free memory goes back to the machine."""

from __future__ import annotations

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
