"""Buffers for big reads, used again when nobody looks at them any more.

A fresh buffer of 128 KiB costs more than the read into it: it is zeroed, and its pages are faulted in again. A caller gets a view, and a bytearray
with views refuses to change its length: that shows whether a reply still waits to be sent.
"""

from collections import deque
from typing import Final

LEAST: Final = 1 << 15  # below this size a fresh one is cheap
MOST: Final = 1 << 23  # bytes kept in all: a window of 8 at 1 MiB
_SIZES: Final = 4  # clients ask for one size, that of their msize

_free: dict[int, deque[bytearray]] = {}


def take(size: int) -> bytearray:
    """Return a buffer of a size that nobody has a view of; its content is whatever it was."""
    kept = _free.get(size)
    if kept is None:
        if len(_free) >= _SIZES:
            _free.clear()
        kept = _free[size] = deque()
    for _ in range(len(kept)):
        buffer = kept[0]
        kept.rotate(-1)
        try:
            buffer.pop()
        except BufferError:
            continue
        buffer.append(0)
        return buffer
    buffer = bytearray(size)
    if sum(each * len(some) for each, some in _free.items()) + size <= MOST:
        kept.append(buffer)
    return buffer


def filled(buffer: bytearray, count: int) -> memoryview | bytes:
    """Return the first bytes of a buffer, for sending. If they are few, return a copy, so a client that takes no replies does not hold the rest."""
    return memoryview(buffer)[:count] if 2 * count >= len(buffer) else bytes(buffer[:count])
