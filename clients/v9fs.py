"""Mounts by Linux's own client, v9fs (Documentation/filesystems/9p.rst): which options for which address, on which kernel.

* The kernel itself dials tcp with an IPv4 address and unix with a path; a port that is root's it dials from a port that is root's too
  (`privport`). Everything else is dialled here and handed over as a descriptor (trans=fd), which the kernel takes if its own threads can read it:
  sockets, terminals and pipes. A virtio port they cannot read: a process stands between it and a socket.
* Over TLS it is the same: the descriptor is one whose TLS the kernel does (mk9p/dial/ktls.py), or, where it has none, a process does it.
* `version=` must be in lower case. msize is the most that sockets have (MAX_SOCK_BUF of net/9p/trans_fd.c); the server may say less.
* `cache=none`: the mounted tree changes by itself. `noxattr`: synthetic files have no attributes, and asking costs a message for each write.
* Without a user name, `access=client`: every user of this machine attaches under their own number, and the server decides. With one, `access=any`:
  all are that user to the server, and this kernel checks the permission bits.
* The kernel silently ignores options that it does not know: so /proc/mounts is read to see what it took.
"""

import errno
import os
import stat as st
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from mk9p.client.capability import PREFIX
from mk9p.dial import RESERVED, Dial, FdLink, Link, SocketLink, dial, parse, receive, send_all
from mk9p.dial.eyeballs import first
from mk9p.errors import NineError, ProtocolError
from mk9p.ktext import split_words

if TYPE_CHECKING:
    from mk9p.wire import FrameBuffer

MSIZE: Final = 1 << 20
_FLUSHED: Final = 2.0  # s for the answer to a flush: an emulated kernel on a busy machine takes less than one
_PIECE: Final = 1 << 17  # bytes that a relay carries at a time
RECORD: Final = 1 << 14  # bytes of a record of TLS at most
MODULES: Final = ("9p", "9pnet_fd", "9pnet_virtio")
CACHES: Final = ("none", "readahead", "mmap", "loose", "fscache")
_WORDS: Final = (6, 4)  # the first kernel that knows cache=readahead


@attrs.frozen
class Wish:
    """What the command line asked for; `user` None: every user has their own name; `attributes`: ask for extended ones."""

    user: str | None = None
    aname: str = ""
    cache: str = "none"
    readonly: bool = False
    attributes: bool = False
    noexec: bool = False
    msize: int = MSIZE
    cap: str = attrs.field(default="", repr=False)  # the capability to log in with
    wait: int = 0  # seconds that requests wait for a server that is gone; then the mount outlives it


@attrs.frozen
class Plan:
    """What to tell mount(8). `dialled`: dial the address first, and put `rfdno` and `wfdno` before the other options."""

    source: str
    options: tuple[str, ...]
    dialled: bool = False

    def arguments(self, directory: str, fds: tuple[int, int] | None = None) -> list[str]:
        """Return the arguments of mount(8); `fds` are the descriptors to read and to write, if the address was dialled."""
        options = list(self.options)
        if fds is not None:
            options[1:1] = [f"rfdno={fds[0]}", f"wfdno={fds[1]}"]
        return ["-i", "-t", "9p", "-o", ",".join(options), self.source, directory]


def plan(address: str, wish: Wish, *, me: str, release: str, numeric: str | None = None) -> Plan:
    """Return how to mount a dial string.

    `me` is the user who mounts, `release` the kernel's, `numeric` the host of a tcp address as an IPv4 number if it has one. Looks nothing up.
    Raises NineError (EINVAL) for what the kernel cannot do or would misread: it cannot quote a comma.
    """
    where = parse(address)
    first, source, dialled = _transport(where, numeric)
    aname = wish.aname
    if wish.cap:  # it is shown before the kernel gets the line: /proc/mounts shows everybody what the kernel says there
        first, source, dialled = ("trans=fd",), where.address, True
        aname = f"{PREFIX}/{aname.strip('/')}" if aname.strip("/") else PREFIX
    if wish.wait:  # the process that holds the mount attaches to the tree, and shows the capability (kept.py)
        first, source, dialled, aname = ("trans=fd",), where.address, True, ""
    if wish.cache not in CACHES:
        raise NineError(errno.EINVAL, f"unknown cache {wish.cache!r}: there are {' '.join(CACHES)}")
    if wish.cache == "readahead" and _number(release) < _WORDS:
        raise NineError(errno.EINVAL, f"Linux {release} has no cache=readahead: there are none mmap loose fscache")
    for value in (wish.user or "", wish.aname):
        if "," in value:
            raise NineError(errno.EINVAL, f"{value!r}: v9fs takes no comma in names")
    options = (
        *first,
        "version=9p2000.L",
        f"msize={wish.msize}",
        f"cache={wish.cache}",
        *([] if wish.attributes else ["noxattr"]),
        f"uname={wish.user or me}",
        "access=any" if wish.user else "access=client",
        *([f"aname={aname}"] if aname else []),
        *(["ro"] if wish.readonly else []),
        *(["noexec"] if wish.noexec else []),
        "nosuid",
        "nodev",  # a device there is not the device of that number here
    )
    return Plan(source, options, dialled)


def _transport(where: Dial, numeric: str | None) -> tuple[tuple[str, ...], str, bool]:
    if where.network == "tcp" and where.netns is None and numeric is not None:
        port = where.host_port()[1]
        return ("trans=tcp", f"port={port}", *(["privport"] if port < RESERVED else [])), numeric, False
    # The kernel copies sun_path as a string: an abstract name, which begins with NUL, cannot be said. A comma is fine: the path is the source.
    if where.network == "unix" and where.rest.startswith("/") and len(os.fsencode(where.rest)) < 108:
        return ("trans=unix",), where.rest, False
    return ("trans=fd",), where.address, True


def _number(release: str) -> tuple[int, ...]:
    """Return major and minor of a kernel's release: 6.1.0-56-amd64 is (6, 1)."""
    major, _, rest = release.partition(".")
    minor = split_words("".join(c if c.isdecimal() else " " for c in rest))[:1]
    return int(major), int(minor[0]) if minor else 0


def numeric_hosts(address: str) -> list[str]:
    """Return the host of a tcp address as IPv4 numbers, and look it up for that; none if it has none, or is in another network namespace."""
    import socket

    where = parse(address)
    if where.network != "tcp" or where.netns is not None:
        return []
    host, port = where.host_port()
    try:
        found = socket.getaddrinfo("127.0.0.1" if host == "*" else host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(where[0]) for *_, where in found]


async def answering(address: str, hosts: Sequence[str], patience: float) -> str:
    """Return the first host of a tcp address that can be dialled: the kernel gets one, and tries no other. Raises as `dialled`."""
    port = parse(address).host_port()[1]

    async def one(host: str) -> str:
        (await dialled(f"tcp!{host}!{port}", patience)).close()
        return host

    async def none(_: str) -> None:
        return

    return await first([partial(one, host) for host in hosts], none)


async def dialled(address: str, patience: float) -> Link:
    """Dial an address, to hand its descriptors over. Never close the link: that would end it for the kernel too. Raises as `dial`, ETIMEDOUT."""
    import trio

    with trio.move_on_after(patience):
        link = await dial(address)
        if link.lossy:
            await _settled(link)
        return link
    raise NineError(errno.ETIMEDOUT, f"{address}: no answer within {patience:g} s")


async def _settled(link: Link) -> None:
    """Empty a line of what is left from an earlier conversation, which v9fs would take for answers.

    It repeats Tversion until there is an answer: the server may take the first for the rest of the frame of a program that was killed in the
    middle of it. The server answers each one, and a second answer would end v9fs's own conversation. So the end is the answer to a flush of an
    unused tag, which is sent after the last Tversion.
    """
    import trio

    from mk9p.client.agreement import REPEAT
    from mk9p.wire import NOTAG, Dialect, FrameBuffer, codec, messages

    tag = int.from_bytes(os.urandom(2)) % NOTAG  # an answer to somebody else's flush hardly has the same
    version = codec(Dialect.L, messages.Tversion.type).pack(NOTAG, MSIZE, Dialect.L.version)
    flush = codec(Dialect.L, messages.Tflush.type).pack(tag, NOTAG)
    frames = FrameBuffer(MSIZE)
    while True:
        await send_all(link, version)
        frames.resync(messages.Rversion.type)
        with trio.move_on_after(REPEAT) as scope:
            await _answered(link, frames, messages.Rversion.type, NOTAG)
        if scope.cancelled_caught:
            continue
        await send_all(link, flush)
        with trio.move_on_after(_FLUSHED):  # on a timeout what came was not an answer, but only looked like one
            await _answered(link, frames, messages.Rflush.type, tag)
            return


async def _answered(link: Link, frames: "FrameBuffer", number: int, tag: int) -> None:
    """Receive until an answer has come. Raises ECONNRESET. Bytes that are out of frame are never an answer."""
    while True:
        try:
            while (frame := frames.next()) is not None:
                start, _ = frame
                if (
                    frames.buf[start + 4] == number
                    and int.from_bytes(frames.buf[start + 5 : start + 7], "little") == tag
                ):
                    return
        except ProtocolError:
            frames.drop_partial()
        count = await receive(link, frames.space())
        if not count:
            raise NineError(errno.ECONNRESET, f"{link.peer.address}: the other side closed the line")
        frames.received(count)


def readable_by_kernel(link: Link) -> bool:
    """Tell whether v9fs can use the descriptors of a link: its threads read sockets, pipes and terminals, but no virtio port."""
    if not isinstance(link, FdLink):
        return True
    return os.isatty(link.rfd) or not st.S_ISCHR(os.fstat(link.rfd).st_mode)


def differences(asked: Sequence[str], shown: Sequence[str]) -> list[str]:
    """Return in words where the kernel took something else than it was asked; `shown` are the options in /proc/mounts."""
    took = dict(option.partition("=")[::2] for option in shown)
    notes = []
    for option in asked:
        key, _, value = option.partition("=")
        if key in ("trans", "aname", "cache", "access", "msize") and took.get(key, value) != value:
            notes.append(f"{key}={took[key]} and not {value}")
    if "noextend" in took or "version" in took:
        notes.append(f"version={took.get('version', '9p2000')} and not 9p2000.L: the server speaks no better")
    return notes


def relay(one: tuple[int, int] | SocketLink, other: int) -> None:
    """Carry bytes between two descriptors (to read, to write), or a link over a socket, and a socket, all non-blocking, until either side ends.

    What one side does not take is not read from the other, so nothing is lost and little is kept: a side that is full holds up only its own
    direction.
    """
    import select

    if isinstance(one, SocketLink):  # with its own calls, because what it carries is not what the socket does: TLS
        source, to = one.rfd, one.wfd
        ways = [_Way(source, other, one.recv_into, partial(os.write, other)), _Way(other, to, _reads(other), one.send)]
    else:
        source, to = one
        ways = [
            _Way(source, other, _reads(source), partial(os.write, other)),
            _Way(other, to, _reads(other), partial(os.write, to)),
        ]
    poll = select.poll()
    watched: dict[int, int] = {}
    while True:
        wanted = dict.fromkeys((source, to, other), 0)
        for way in ways:
            if way.left:
                wanted[way.to] |= select.POLLOUT
            else:
                wanted[way.source] |= select.POLLIN
        for fd, events in wanted.items():
            if not events and fd in watched:
                # this would report a hang-up again and again, and what came before it must still be carried
                poll.unregister(fd)
                del watched[fd]
            elif events != watched.get(fd, 0):
                poll.register(fd, events)
                watched[fd] = events
        happened = dict(poll.poll())
        for way in ways:
            if (way.to if way.left else way.source) in happened:
                try:
                    if not way.left and not way.read():
                        return
                    way.write()
                except BlockingIOError:
                    continue
                except OSError:  # the kernel has unmounted, or the line is gone
                    return


def _reads(fd: int) -> Callable[[memoryview], int]:
    return lambda room: os.readv(fd, (room,))


class _Way:
    """One direction of a relay: from where, to where, how, and what was read and is not yet written."""

    def __init__(
        self, source: int, to: int, take: Callable[[memoryview], int], give: Callable[[memoryview], int]
    ) -> None:
        self.source, self.to, self._take, self._give = source, to, take, give
        self.room = memoryview(bytearray(_PIECE))
        self.left = self.room[:0]

    def read(self) -> bool:
        """Read what is there, up to a piece; False is the end. A virtio port gives a page at a time, and a turn of `relay` costs as much as ten
        reads."""
        room, at = self.room, 0
        try:
            # with less room than that, a part of a record of TLS would be left where poll(2) does not see it
            while at <= _PIECE - RECORD and (count := self._take(room[at:])):
                at += count
        except BlockingIOError:
            if not at:
                raise
        self.left = room[:at]
        return at > 0  # the next call finds an end after some bytes again

    def write(self) -> None:
        while self.left:
            self.left = self.left[self._give(self.left) :]
