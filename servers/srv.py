"""srv: 9P services that programs post by name, after Plan 9's srv(3). The files are those of docs/files/srv.md.

In Plan 9 a program posts a descriptor by writing its number, and whoever opens the file has the descriptor. Here it posts a dial string. A client
that opens the file to read and write gets a connection of its own to that service, which this server makes, in this kernel. So everybody who
reaches this file reaches a service that only this kernel can reach. A client that opens the file only to read gets the dial string.

Only the user that the server runs as may post, because the server dials as itself. A program can post only what the server can dial again and
again.
"""

import errno
import os
import stat as st
from typing import Final

from mk9p.auth import Principal
from mk9p.dial import TRANSPORTS, Link, dial, parse, receive
from mk9p.errors import NineError, translate
from mk9p.ktext import split_words, trim
from mk9p.tree import Buffer, Change, Ctl, Dir, Handle, Maybe, Node, Open, Stat, StreamHandle, Text, decoded

PIECE: Final = 65536
NAMES: Final = 4096  # services: a table must have an end


def tree(*, root: str = "/") -> Dir:
    """Give the directory of services. `root` has no effect: they are dialled from the present kernel."""
    return Services()


class Services(Dir):
    """The directory: users who may write in it can post."""

    def __init__(self) -> None:
        self.posted: dict[str, Node] = {}
        self.fixed: dict[str, Node] = {"ctl": Ctl({"keep": self.keep})}
        super().__init__(self.fixed, self.posted, mode=0o755)
        self.owned(os.geteuid(), os.getegid())

    def create(self, name: str, perm: int, how: Open) -> Maybe[tuple[Node, Handle]]:
        """Make a service, which goes when the handle is closed, unless it is kept. Raises EEXIST if there is one, ENOSPC if there are too many."""
        service = self.posted.get(name)
        if isinstance(service, Service) and how.reuses:
            return self._again(service, how)
        if service is not None or name in ("ctl", "error"):
            raise NineError(errno.EEXIST)
        if len(self.posted) >= NAMES:
            raise NineError(errno.ENOSPC, f"there are {NAMES} services already")
        made = self.posted[name] = Service(self, name, perm & 0o777, how.who)
        return made, _Poster(made, how)

    async def _again(self, service: "Service", how: Open) -> tuple[Node, Handle]:
        handle = service.open(how)
        return service, handle if isinstance(handle, Handle) else await handle

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> None:
        """Remove a service; connections to it go on."""
        if name not in self.posted:
            raise NineError(errno.EPERM if name in ("ctl", "error") else errno.ENOENT)
        if directory:
            raise NineError(errno.ENOTDIR)
        del self.posted[name]

    def keep(self, *name: str) -> None:
        """Let services stay when the programs that posted them go. Raises ENOENT, with nothing changed."""
        services = [self.posted.get(each) for each in name]
        if None in services:
            raise NineError(errno.ENOENT, f"no service {name[services.index(None)]}")
        for service in services:
            assert isinstance(service, Service)
            service.kept = True


class Service(Node):
    """One service: a dial string, and who posted it."""

    def __init__(self, owner: Services, name: str, perm: int, who: Principal) -> None:
        self.owner, self.name = owner, name
        self.address, self.kept = "", False
        self._stat = Stat(st.S_IFREG | perm, uid=who.uid, gid=who.group)

    def stat(self) -> Stat:
        return self._stat

    def change(self, change: Change, who: Principal) -> None:
        """Let chmod and chown set who may use it; a length means nothing."""
        now = self._stat
        mode = now.mode if change.mode is None else st.S_IFREG | change.mode & 0o777
        uid = now.uid if change.uid is None else change.uid
        gid = now.gid if change.gid is None else change.gid
        self._stat = now._replace(mode=mode, uid=uid, gid=gid)

    def open(self, how: Open) -> Maybe[Handle]:
        """Open it: to read, for the dial string; to write, for words; for both, as a connection to the service. Raises the errors of dialling it."""
        if how.read and how.write:
            return self._dial(how)
        return _Words(self, how)

    async def _dial(self, how: Open) -> Handle:
        if not self.address:
            raise NineError(errno.EIO, f"nothing has been posted as {self.name} yet")
        return StreamHandle.of(_Conversation(await dial(self.address)), how)

    def say(self, line: str) -> None:
        """Take a line that was written: `keep`, or the dial string, once."""
        words = split_words(line)
        if not words:
            return
        if words == ["keep"]:
            self.kept = True
            return
        if self.address:
            raise NineError(errno.EBUSY, f"{self.address} is posted as {self.name}: remove it first")
        where = parse(trim(line))
        if not where.transport.redial:  # exec! would also be a shell for whoever posts
            able = " ".join(row.name for row in TRANSPORTS.values() if row.redial)
            raise where.refuse(errno.EINVAL, f"want a dial string that can be dialled again: {able}")
        self.address = trim(line)


class _Words(Handle):
    """A service open for reading or writing: its dial string and `keep`."""

    def __init__(self, service: Service, how: Open) -> None:
        self.service, self.who = service, how.who
        text = Text(lambda: service.address + "\n" if service.address else "").open(how)
        assert isinstance(text, Handle)
        self.text = text

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        return self.text.read(offset, count)

    def write(self, offset: int, data: memoryview) -> int:
        ctl = self.service.owner.fixed["ctl"]
        assert isinstance(ctl, Ctl)
        try:
            for line in decoded(data).split("\n"):
                self.service.say(line)
        except OSError as error:
            ctl.remember(self.who, translate(error).ename)
            raise
        ctl.remember(self.who, "")
        return len(data)


class _Poster(_Words):
    """The handle that made a service; the service goes with it."""

    prompt = True

    def close(self) -> None:
        service = self.service
        posted = service.owner.posted
        if not (service.kept and service.address) and posted.get(service.name) is service:
            del posted[service.name]


class _Conversation:
    """A connection to a service, as bytes (mk9p.tree.Source)."""

    def __init__(self, link: Link) -> None:
        self.link, self.buffer = link, memoryview(bytearray(PIECE))

    async def receive(self) -> bytes:
        return bytes(self.buffer[: await receive(self.link, self.buffer)])

    async def send(self, data: bytes) -> int:
        while True:
            try:
                return self.link.send(data)
            except BlockingIOError:
                await self.link.wait_writable()

    def close(self) -> None:
        self.link.close()
