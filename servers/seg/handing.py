"""Descriptors for programs of this machine: a program asks on a unix socket for a segment by name and gets it (SCM_RIGHTS of unix(7)).

    NAME\\n  ->  `rw BYTES\\n` or `r BYTES\\n` with a descriptor, or `ERRNO WORDS\\n` without

The kernel says which user asks (SO_PEERCRED), and the segment's bits say whether they may. The socket is an abstract one: nothing of it is left,
however the server ends. Other network namespaces do not see it; a program there reads and writes `data`.
"""

import errno
import os
import socket
from collections.abc import Callable

import trio

from mk9p.auth import Policy, Principal
from mk9p.dial import Link, Listener, SocketLink, listen, receive
from mk9p.errors import translate

PATIENCE = 10.0  # seconds for a question of one line
LONGEST = 4096


async def listener() -> Listener:
    """Listen on a socket of our own."""
    return await listen(f"unix!@mk9p-seg-{os.getpid()}-{os.urandom(4).hex()}")


async def hand_out(listener_: Listener, descriptor: Callable[[str, Principal], tuple[int, bool]]) -> None:
    """Answer all who ask, until cancelled. `descriptor(name, who)` gives a descriptor and whether it can be written, or raises OSError."""
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(_answer, await listener_.accept(), descriptor)


async def _answer(link: Link, descriptor: Callable[[str, Principal], tuple[int, bool]]) -> None:
    assert isinstance(link, SocketLink)
    peer = link.peer
    assert peer.uid is not None
    who = Policy().attach("", peer.uid, peer)
    fd = -1
    try:
        with trio.move_on_after(PATIENCE):
            name = await _line(link)
            try:
                fd, write = descriptor(name, who)
                said, fds = f"{'rw' if write else 'r'} {os.fstat(fd).st_size}\n", [fd]
            except OSError as error:
                refused = translate(error)
                said, fds = f"{refused.errno} {refused.ename}\n", []
            socket.send_fds(link.sock, [said.encode()], fds)  # the socket's buffer is empty, so this does not wait
    except OSError:
        pass  # the program that asked has gone
    finally:
        link.close()
        if fd >= 0:
            os.close(fd)


async def _line(link: Link) -> str:
    """Return the question. Raises ECONNRESET if it does not come in time."""
    data, buffer = b"", memoryview(bytearray(LONGEST))
    while not data.endswith(b"\n"):
        count = await receive(link, buffer)
        if not count or len(data) > LONGEST:
            raise ConnectionResetError(errno.ECONNRESET, "")
        data += buffer[:count]
    return data.decode(errors="replace").removesuffix("\n")
