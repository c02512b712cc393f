"""Sockets of another network namespace (network_namespaces(7)).

A socket belongs for good to the namespace that its thread was in when it was made: only `socket()` and name lookups must happen inside. setns(2)
moves one thread, so a thread that is made for it does the work and then ends: a thread of trio's pool would have to be moved back, and that could
fail.
"""

import errno
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from mk9p.dial.address import Dial

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000  # <linux/sched.h>


async def new_socket(dial: Dial, family: int) -> socket.socket:
    """Return a new non-blocking stream socket in the namespace of the dial string. Raises NineError; if cancelled, it leaves no socket."""
    if dial.netns is None:
        sock = socket.socket(family, socket.SOCK_STREAM)
    else:
        import trio

        sock = await trio.to_thread.run_sync(inside, dial, lambda: socket.socket(family, socket.SOCK_STREAM))
    sock.setblocking(False)
    return sock


async def in_thread(dial: Dial, work: Callable[[], T]) -> T:
    """Run slow work that owns nothing in a thread, inside the namespace if there is one; if cancelled, the thread is left to end by itself."""
    import trio

    run = work if dial.netns is None else lambda: inside(dial, work)
    return await trio.to_thread.run_sync(run, abandon_on_cancel=True)


def inside(dial: Dial, work: Callable[[], T]) -> T:
    """Run work inside the namespace of the dial string, and return what it returns."""

    def run() -> T:
        _enter(dial)
        return work()

    return threaded(run)


def threaded(work: Callable[[], T], seconds: float | None = None) -> T:
    """Run work in a thread made for it and return what it returns. Raises what it raises, or TimeoutError after `seconds`: then it ends by itself."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # passed to the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, name="mk9p-dial", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(errno.ETIMEDOUT, "no answer")
    return done[0]


def _enter(dial: Dial) -> None:
    assert dial.netns is not None
    try:
        fd = os.open(dial.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(fd)
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        raise dial.failed(error, f"no network namespace {dial.netns}: ip netns list shows them") from None
    except OSError as error:
        raise dial.failed(
            error, f"cannot enter {dial.netns}: it needs root, and the file of a network namespace"
        ) from None


def _setns(fd: int) -> None:
    if sys.version_info >= (3, 12):
        os.setns(fd, _CLONE_NEWNET)
    else:
        import ctypes  # slow to import, and needed only here

        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
