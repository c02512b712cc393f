"""The links of a server: what the leader (leader.py) waits for, in one epoll, and which of them have a turn then."""

import os
import select
from collections.abc import Sequence
from time import monotonic_ns
from typing import Final

import trio

from mk9p.server.connection import Connection
from mk9p.server.courtesy import Courtesy
from mk9p.server.exchange import Exchange
from mk9p.server.relay import Backend
from mk9p.server.turns import Turns
from mk9p.server.workers import Workers
from mk9p.session import Request

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
GONE: Final = select.EPOLLHUP | select.EPOLLERR


class Links(Workers):
    """The workers of a server, and the links that the one who leads waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.poller = select.epoll()
        self.courtesy = Courtesy(self.poller)
        self._bell = os.eventfd(
            0, os.EFD_NONBLOCK | os.EFD_CLOEXEC
        )  # wakes a leader that waits, when a link has a turn without being readable
        self.poller.register(self._bell, _IN)
        self.by_fd: dict[int, Connection | Backend] = {}
        self.exchange = Exchange(self)
        self.turns = Turns()
        self._asleep = False  # the leader waits, and nothing but a link or the bell wakes it

    def close(self) -> None:
        """Give back what the leader waits with."""
        self.poller.close()
        os.close(self._bell)

    # links

    def watch(self, c: Connection) -> None:
        """Wait for a new link too. Raises OSError for a descriptor that cannot be waited for."""
        self.poller.register(c.link.rfd, _IN)
        self.by_fd[c.link.rfd] = c

    def unwatch(self, c: Connection) -> None:
        """Wait for a link no more."""
        for fd in {c.link.rfd, c.link.wfd}:
            if self.by_fd.pop(fd, None) is not None:
                self.poller.unregister(fd)

    def send(self, c: Connection) -> None:
        """Send what is queued; when the kernel takes no more, wait for writable instead of readable."""
        was = c.blocked
        c.send()
        if c.counts.runs:
            c.counts.batch()
        if c.blocked != was:
            self.rewatch(c)
            c.count()

    def again(self, c: Connection) -> None:
        """Read a link again that was not read for a while: its next requests may have been received already."""
        if not c.dead:
            c.counts.since = monotonic_ns()
            self.rewatch(c)
            self.call(c)

    def may_run(self, c: Connection, ready: Sequence[Request]) -> None:
        c.ready.extend(ready)
        self.call(c)

    def call(self, link: Connection | Backend) -> None:
        """Let a link have a turn without being readable."""
        self.turns.add(link)
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._bell, 1)

    def rewatch(self, c: Connection) -> None:
        link = c.link
        idle = c.blocked or c.held or bool(c.choked)
        for b in c.backends.values():
            self.exchange.mind(b)
        if link.rfd == link.wfd:
            self.poller.modify(link.rfd, _OUT if c.blocked else 0 if idle else _IN)
            return
        self.poller.modify(link.rfd, 0 if idle else _IN)
        if c.blocked and link.wfd not in self.by_fd:
            self.by_fd[link.wfd] = c
            self.poller.register(link.wfd, _OUT)
        elif not c.blocked and self.by_fd.pop(link.wfd, None) is not None:
            self.poller.unregister(link.wfd)

    # waiting

    async def sleep(self) -> None:
        """Wait until a link is ready for something, or has a turn without being so."""
        self._asleep = True
        try:
            await trio.lowlevel.wait_readable(self.poller.fileno())
        finally:
            self._asleep = False

    def come(self, events: list[tuple[int, int]]) -> int:
        """Let all links have a turn that are ready for something. Returns when that was, on the monotonic clock in ns."""
        by_fd, users = self.by_fd, self.turns.users
        now = monotonic_ns()
        for fd, event in events:
            link = by_fd.get(fd)
            if link is None:
                if fd == self._bell:
                    os.eventfd_read(fd)
                continue
            if event & GONE and isinstance(link, Connection):
                # nobody would read that
                if link.choked or link.held:
                    self.hang_up(link, "the peer closed it")
                    continue
                # else it still reads, maybe
                link.hung_up = link.hung_up or link.link.rfd == link.link.wfd
            # as `Turns.add`, for what comes most often
            if not link.queued:
                link.queued = True
                user = link.user
                if not user.links:
                    users.append(user)
                user.links.append(link)
                if isinstance(link, Connection):
                    link.counts.since = now
        return now
