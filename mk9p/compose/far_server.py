"""`FarServer`: a kernel of another machine as a server, which knows when nobody answers there."""

import errno
from collections.abc import Callable

import attrs

from mk9p.client.connection import Connection
from mk9p.compose.remote import Server
from mk9p.dial import hang_up, parse
from mk9p.errors import NineError


@attrs.define(eq=False)
class FarServer(Server):
    """The server. While it is out, requests fail at once, and nobody dials."""

    doubted: Callable[[], None] = attrs.field(kw_only=True)
    """Called when it could not be reached."""
    out: str = attrs.field(default="", init=False)

    async def connected(self) -> Connection:
        if self.out and self.connection is None:
            raise NineError(errno.EIO, f"{self.shown} is down: {self.out}")
        try:
            return await super().connected()
        except NineError:
            self.doubted()
            raise

    def leave(self, why: str) -> None:
        """Be out: end all connections there, whatever their transport notices."""
        self.out, self.many = why, False
        hang_up(self.address)

    def back(self) -> None:
        """Be there again, for whoever dials."""
        self.out, self.many = "", not self.wait and parse(self.address).transport.redial
