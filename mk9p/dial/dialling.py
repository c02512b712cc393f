"""`dial` and `listen`, whatever the network of the dial string."""

import errno
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from mk9p.dial.address import Dial, parse
from mk9p.dial.keys import Keys
from mk9p.dial.link import Link, Listener, SocketLink

_dialled: Final[dict[str, set[SocketLink]]] = {}  # the open links, by their dial strings


async def dial(address: str, keys: Keys | None = None) -> Link:
    """Connect to a dial string and return the link. `keys` are for TLS, by default as keys.py says.

    It waits as long as the transport does: put a timeout around it. Raises NineError with the kernel's errno: EINVAL for a string that cannot be
    dialled, EHOSTUNREACH for an unknown host, ENOENT for a path, device or command that does not exist, ECONNREFUSED if nobody listens.
    """
    link = await _dial(parse(address)._replace(keys=keys))
    if isinstance(link, SocketLink):
        _dialled.setdefault(address, set()).add(link)
        link.on_close.append(partial(_closed, address, link))
    return link


def hang_up(address: str) -> None:
    """End all links of this process to a dial string, as if the other end had closed them.

    For a caller that knows that nobody is there any more, when the transport has not noticed: TCP notices a killed kernel only by its silence.
    """
    for link in _dialled.get(address, ()):
        with suppress(OSError):  # the other end has closed it
            link.shut()


def _closed(address: str, link: SocketLink) -> None:
    links = _dialled[address]
    links.remove(link)
    if not links:
        del _dialled[address]


async def _dial(where: Dial) -> Link:
    await trio.lowlevel.checkpoint()
    call = where.transport.function("dial")
    assert call is not None
    try:
        link: Link = await call(where)
    except OSError as error:
        raise where.failed(error) from None
    return link


async def listen(address: str, *, mode: int = 0o600, keys: Keys | None = None) -> Listener:
    """Listen on a dial string and return the listener, whose address has the real port if port 0 was asked for.

    `mode` is that of a unix socket's file; it replaces a file that nobody listens on, and makes a missing folder, 0755. `fd!` and `char!` have one
    link at a time; `fd!` has one in all, and accepting again waits for ever. `keys` are for TLS, by default those of the environment (keys.py).
    Raises NineError as `dial` does, EADDRINUSE if the address is in use.
    """
    where = parse(address)._replace(keys=keys)
    await trio.lowlevel.checkpoint()
    call = where.transport.function("listen")
    if call is None:
        raise where.refuse(errno.EINVAL, "a command cannot be listened on: dial it")
    try:
        listener: Listener = await call(where, mode)
    except OSError as error:
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = "another program listens there: `ss -lp` shows which"
        elif error.errno == errno.EACCES and where.network == "unix":
            hint = "name a place of yours: unix:$XDG_RUNTIME_DIR/NAME"
        raise where.failed(error, hint) from None
    return listener
