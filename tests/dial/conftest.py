"""Every test here must leave as many descriptors, threads of its own and children as it found."""

import os
import threading
from collections.abc import Iterator

import pytest


def _open() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = _open()
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("mk9p-"):
            thread.join(10)
    assert _open() == before
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
