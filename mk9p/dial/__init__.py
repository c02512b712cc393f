"""Dial strings to non-blocking byte links and listeners.

    tcp!HOST!PORT       port 564 if left out; HOST a name, an address of either family, or * (listening: all; dialling: this machine)
    tls!HOST!PORT       the same with TLS 1.3, and a certificate at both ends
    unix!/PATH          or unix!@NAME, an abstract one
    vsock!CID!PORT      CID a number, local, host or *
    fd!READ!WRITE       descriptors that this process was given
    fd!N                a socket that this process was given, on which somebody listens for it already; listened on only
    char!DEVICE         a virtio port, an hvc console, a serial line, or the unix socket that an emulator has in its place
    exec!COMMAND        the standard input and output of a command, quoted as in sh; dialled only
    NETNS/tcp!...       inside the network namespace of that file, as /run/netns/k1/tcp!10.0.0.1!564

These rules hold for all of them. Every failure is one `NineError` with one line that begins with the address. If cancelled, `dial`, `listen`,
`accept` and the waits leave nothing open and lose nothing. A link that works logs nothing; `mk9p.dial` is the logger. See Plan 9's dial(2) and
dial(3).

Functions that wait import trio themselves, and the modules do not: otherwise a program that dials without it (blocking.py) would wait only for the
import.
"""

from typing import TYPE_CHECKING, Final

from mk9p.lazy import lazily

if TYPE_CHECKING:
    from mk9p.dial.address import PORT, TRANSPORTS, Dial, Transport, parse
    from mk9p.dial.dialling import dial, hang_up, listen
    from mk9p.dial.keys import Keys
    from mk9p.dial.link import FdLink, Link, Listener, Peer, Refused, SocketLink, receive, send_all
    from mk9p.dial.tcp import RESERVED

__all__ = [
    "PORT",
    "RESERVED",
    "TRANSPORTS",
    "Dial",
    "FdLink",
    "Keys",
    "Link",
    "Listener",
    "Peer",
    "Refused",
    "SocketLink",
    "Transport",
    "dial",
    "hang_up",
    "listen",
    "parse",
    "receive",
    "send_all",
]

_HOMES: Final = {
    "address": ("PORT", "TRANSPORTS", "Dial", "Transport", "parse"),
    "dialling": ("dial", "hang_up", "listen"),
    "keys": ("Keys",),
    "link": ("FdLink", "Link", "Listener", "Peer", "Refused", "SocketLink", "receive", "send_all"),
    "tcp": ("RESERVED",),
}
__getattr__ = lazily(__name__, _HOMES)
