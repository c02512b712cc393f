"""The files of channels: the directory that makes them, and the open files of one: `Reader` for data, `Listener` for bell.

The bits of a channel's directory say who may use it, as they say who may make files in another directory. A class of users that may write in the
directory may send and receive, ring and listen. The others see status and settings. mkdir gives that right only to the maker, whatever mode it
asks for; chmod gives it to others.
"""

import errno
import stat as st
from collections.abc import Awaitable

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.chan.channel import Channel
from mk9p.servers.chan.lines import Line, Rings
from mk9p.tree import Conversations, Ctl, Dir, Maybe, Node, Open, Owned, Stream, Text

NAMES = 4096  # channels with a name: each may hold messages
MASK = 0o755  # applied to the mode that mkdir asks for, as create(5) of Plan 9 applies its directory's


class Reader:
    """One open `data` (mk9p.tree.Store)."""

    def __init__(self, channel: Channel, ctl: Ctl, how: Open) -> None:
        self.channel, self.ctl, self.how = channel, ctl, how
        self.line = channel.queue
        channel.readers += how.read
        channel.writers += how.write
        if how.read and channel.mode == "broadcast":
            self.line = Line(marked=True)
            channel.lines.append(self.line)

    def wait(self) -> Awaitable[None]:
        return self.line.waiters.wait()

    def take(self, room: int) -> bytes | None:
        if self.channel.gone:
            return b""
        lost = self.line.lost
        try:
            message = self.line.take(room)
        except NineError as error:
            self.ctl.remember(self.how.who, error.ename)
            raise
        if message is not None and self.line.lost == lost:  # it is a message, not a mark
            self.channel.received += 1
            self.channel.admit_blocked()
        return message

    def untake(self, message: bytes) -> None:
        if self.line is self.channel.queue and not self.channel.gone:
            self.channel.received -= 1
            self.line.untake(message)

    def send(self, data: bytes) -> Maybe[None]:
        try:
            done = self.channel.send(data, self.how.room)
        except NineError as error:
            self.ctl.remember(self.how.who, error.ename)
            raise
        return done

    def close(self) -> None:
        channel = self.channel
        channel.readers -= self.how.read
        channel.writers -= self.how.write
        if self.line in channel.lines:
            channel.lines.remove(self.line)
            channel.admit_blocked()  # writers that waited for the slowest reader may go on now


class Listener:
    """One open `bell` (mk9p.tree.Store)."""

    def __init__(self, channel: Channel, how: Open) -> None:
        self.channel, self.how = channel, how
        self.rings = channel.rings
        channel.listeners += how.read
        if how.read and channel.mode == "broadcast":
            self.rings = Rings()
            channel.bells.append(self.rings)

    def wait(self) -> Awaitable[None]:
        return self.rings.waiters.wait()

    def take(self, room: int) -> bytes | None:
        return b"" if self.channel.gone else self.rings.take()

    def untake(self, message: bytes) -> None:
        self.rings.ring(int(message))

    def send(self, data: bytes) -> None:
        self.channel.ring()

    def close(self) -> None:
        self.channel.listeners -= self.how.read
        if self.rings in self.channel.bells:
            self.channel.bells.remove(self.rings)


def files(channel: Channel, perm: int) -> dict[str, Node]:
    """Return the files of a channel whose directory has the permission bits `perm`."""
    ctl = channel.ctl()
    return {"ctl": ctl, **used(channel, ctl, perm), "status": Text(channel.status)}


def used(channel: Channel, ctl: Ctl, perm: int) -> dict[str, Node]:
    """Return the files by which clients use a channel: the classes of users that have the write bit in `perm`."""
    mode = perm & 0o222
    return {
        "data": Stream(per_open=lambda how: Reader(channel, ctl, how), mode=mode | mode << 1),
        "bell": Stream(per_open=lambda how: Listener(channel, how), mode=mode | mode << 1),
    }


@attrs.define(eq=False)
class Cloned:
    """A channel that opening `clone` made (mk9p.tree.Conversation): it belongs to its user, until its last file is closed."""

    channel: Channel = attrs.field(factory=Channel)

    def tree(self) -> Dir:
        return Dir(files(self.channel, 0o200))

    def close(self) -> None:
        self.channel.close()


class Named(Owned):
    """The directory of a channel with a name, which lives until somebody removes it."""

    def __init__(self, who: Principal, perm: int) -> None:
        self.channel = Channel()
        self.files = files(self.channel, perm)
        super().__init__(self.files, mode=perm)
        self.owned(who.uid, who.group)

    def used(self, perm: int) -> None:
        ctl = self.files["ctl"]
        assert isinstance(ctl, Ctl)
        self.files |= used(self.channel, ctl, perm)


class Channels(Conversations):
    """The directory of channels."""

    def __init__(self) -> None:
        super().__init__(lambda _number, _who: Cloned())
        self.named: dict[str, Node] = {}
        self.children.append(self.named)
        self._stat = self._stat._replace(mode=st.S_IFDIR | 0o755)

    def mkdir(self, name: str, perm: int, who: Principal) -> Node:
        """Make a channel. Raises EEXIST, EINVAL for a number, because cloned channels have numbers, ENOSPC if there are too many."""
        if name.isdecimal():
            raise NineError(errno.EINVAL, "numbers are the names of cloned channels")
        if name == "clone" or name in self.named:
            raise NineError(errno.EEXIST)
        if len(self.named) >= NAMES:
            raise NineError(errno.ENOSPC, f"there are {NAMES} channels already")
        made = self.named[name] = Named(who, perm & MASK)
        return made

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        """Remove a channel with a name, and the messages that wait in it."""
        node = self.named.get(name)
        if node is None:
            found = self.walk(name, who)
            assert not isinstance(found, Awaitable)
            raise NineError(errno.EPERM, "a cloned channel ends with its last file")
        if directory is False:
            raise NineError(errno.EISDIR)
        assert isinstance(node, Named)
        del self.named[name]
        node.channel.close()
