"""Dialling for programs without trio: the same links, by calls that block, at most until a deadline. Otherwise as dialling.py."""

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mk9p.dial.address import Dial, parse
from mk9p.dial.eyeballs import STAGGER
from mk9p.dial.keys import Keys
from mk9p.dial.link import FdLink, SocketLink

T = TypeVar("T")


class Late(Exception):
    """The deadline has passed."""


def dial(address: str, deadline: float, keys: Keys | None = None) -> FdLink | SocketLink:
    """Connect to a dial string and return the link. Raises as `mk9p.dial.dial`, and Late at `deadline`, a time of time.monotonic()."""
    where = parse(address)._replace(keys=keys)
    call = where.transport.function("dial_now")
    if call is None:
        raise where.refuse(errno.EOPNOTSUPP, f"{where.network} cannot be dialled without trio")
    try:
        link: FdLink | SocketLink = call(where, deadline)
    except OSError as error:
        raise where.failed(error) from None
    return link


def connected(sock: socket.socket, where: Any, deadline: float) -> socket.socket:
    """Connect a socket and return it, or close it and raise."""
    pause = 0.001
    try:
        while True:
            code = sock.connect_ex(where)
            if code == errno.EAGAIN and sock.family == socket.AF_UNIX and (rest := _rest(deadline)):
                # unix(7): the listener's queue is full, and nothing reports when it has room again
                time.sleep(min(pause, rest))
                pause = min(2 * pause, 0.1)
                continue
            if code == errno.EINPROGRESS and _writable([sock], _rest(deadline)):
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code in (errno.EINPROGRESS, errno.EAGAIN):
                raise Late
            if code:
                raise OSError(code, os.strerror(code))
            return sock
    except BaseException:
        sock.close()
        raise


def _rest(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0)


def _writable(socks: list[socket.socket], seconds: float) -> list[socket.socket]:
    """Wait until connecting some of the sockets has succeeded or failed; return these."""
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLOUT)
    ready = {fd for fd, _ in poll.poll(seconds * 1000)}
    return [sock for sock in socks if sock.fileno() in ready]


def first(
    dial: Dial,
    addresses: list[tuple[int, Any]],
    prepare: Callable[[socket.socket, Any], None],
    deadline: float,
) -> socket.socket:
    """Return a socket that is connected to the first address that answers; the addresses are tried side by side, as in eyeballs.py.

    `prepare` gets each socket before it is connected, and its address.
    """
    under_way: list[socket.socket] = []
    failure: OSError | Late = Late()
    todo = addresses[::-1]
    try:
        while todo or under_way:
            if todo:
                family, where = todo.pop()
                try:
                    sock = _new_socket(dial, family, deadline)
                    under_way.append(sock)
                    prepare(sock, where)
                    code = sock.connect_ex(where)
                    if code not in (0, errno.EINPROGRESS):
                        under_way.remove(sock)
                        sock.close()
                        raise OSError(code, os.strerror(code))
                except OSError as error:
                    failure = error
                    continue
            until = min(deadline, time.monotonic() + STAGGER) if todo else deadline
            while under_way:
                ready = _writable(under_way, _rest(until))
                for sock in ready:
                    under_way.remove(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return sock
                    sock.close()
                    failure = OSError(code, os.strerror(code))
                if not ready and until == deadline:
                    raise Late
                if todo:  # one of them has failed, or it is time for the next
                    break
        raise failure
    finally:
        for sock in under_way:
            sock.close()


def _new_socket(dial: Dial, family: int, deadline: float) -> socket.socket:
    if dial.netns is None:
        sock = socket.socket(family, socket.SOCK_STREAM)
    else:
        sock = in_thread(dial, lambda: socket.socket(family, socket.SOCK_STREAM), deadline)
    sock.setblocking(False)
    return sock


def in_thread(dial: Dial, work: Callable[[], T], deadline: float) -> T:
    """Run slow work in a thread, inside the network namespace if there is one. At the deadline the thread is left to end by itself."""
    from mk9p.dial.netns import inside, threaded

    try:
        return threaded(work if dial.netns is None else lambda: inside(dial, work), _rest(deadline))
    except TimeoutError:
        raise Late from None
