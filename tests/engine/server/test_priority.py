"""Threads that compute give way."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from camrt.server.priority import POLITE, give_way

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux keeps priorities for threads")


def niceness() -> int:
    """Return the calling thread's own."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@linux
def test_a_thread_and_those_it_starts_give_way_once_and_the_first_one_never() -> None:
    own = niceness()
    found: list[int] = []

    def work() -> None:
        assert give_way() and give_way()
        found.append(niceness())
        child = threading.Thread(target=lambda: found.append(niceness()))
        child.start()
        child.join()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    assert found == [min(19, own + POLITE)] * 2
    assert not give_way() and niceness() == own
