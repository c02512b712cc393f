"""This process's terminal and its other standard descriptors, for commands that carry bytes while other things happen.

Reading and writing wait in threads, because any of the descriptors may block for as long as its other end likes, and nothing else can wait for
some of them: a file, a stopped terminal, a pipe with less room than there is to write. A cancelled call is left to its thread.
"""

import os
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import trio

from mk9p import stdio
from mk9p.errors import NineError


async def take(count: int) -> bytes:
    """Read from the standard input; b"" is its end, also the end of a terminal that has gone. Raises OSError as read(2)."""
    return await trio.to_thread.run_sync(stdio.take, 0, count, abandon_on_cancel=True)


async def put(descriptor: int, data: bytes) -> None:
    """Write all of the bytes to a standard descriptor. Raises OSError as write(2); if cancelled, a part may be written, and more may follow later."""
    await trio.to_thread.run_sync(stdio.put, descriptor, data, abandon_on_cancel=True)


def size() -> os.terminal_size:
    """Return the size of the first of the standard descriptors that is a terminal. Raises ENOTTY if none is."""
    failed: OSError | None = None
    for descriptor in range(3):
        try:
            return os.get_terminal_size(descriptor)
        except OSError as error:
            failed = failed or error
    assert failed is not None
    raise NineError(failed.errno or 0, "there is no terminal here: neither standard input nor output is one")


def raw() -> AbstractContextManager[None]:
    """Make the terminal that is the standard input raw, and at the end as it was; do nothing if it is no terminal, or has gone meanwhile."""
    return _as(tty.setraw)


def cbreak() -> AbstractContextManager[None]:
    """Let the terminal that is the standard input give each key at once and show none, and at the end be as it was; do nothing if it is none.

    Ctrl-C is still a signal.
    """
    return _as(tty.setcbreak)


@contextmanager
def _as(change: Callable[[int, int], object]) -> Iterator[None]:
    try:
        before = termios.tcgetattr(0)
    except termios.error:
        yield
        return
    # At once, in both directions: a stopped terminal would hold up a call that waits for its output.
    with suppress(termios.error):
        change(0, termios.TCSANOW)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, before)
