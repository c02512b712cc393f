"""What a server waits for: the descriptors of all its links in one epoll, and a bell for work that does not come from a readable link."""

import os
import select
from typing import TYPE_CHECKING, Final

import trio

from mk9p.server.courtesy import Courtesy
from mk9p.server.turns import Party, Turns
from mk9p.server.warm import Warm

if TYPE_CHECKING:
    from collections.abc import Callable

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
GONE: Final = select.EPOLLHUP | select.EPOLLERR


class Links:
    """The links that a server waits for, and those that have a turn."""

    def __init__(self) -> None:
        self.poller = select.epoll()
        self.courtesy = Courtesy(self.poller)
        self.turns = Turns()
        self.warm = Warm()
        self.by_fd: dict[int, Party] = {}
        # It wakes a waiting leader when a link has a turn without being readable.
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.poller.register(self.bell, IN)
        self._asleep = False  # the leader waits, and only a link or the bell wakes it
        self.start: Callable[..., None]  # starts a task of the server

    def close(self) -> None:
        """Close the descriptors that the leader waits on."""
        self.poller.close()
        os.close(self.bell)

    def wait_for(self, fd: int, party: Party, events: int) -> None:
        """Wait for some events of a descriptor, and for no others except its hang-up. Raises OSError for a descriptor that one cannot wait for."""
        if fd in self.by_fd:
            self.poller.modify(fd, events)
        else:
            self.poller.register(fd, events)
            self.by_fd[fd] = party

    def forget(self, fd: int) -> None:
        """Stop waiting for a descriptor. A second call does nothing."""
        if self.by_fd.pop(fd, None) is not None:
            self.poller.unregister(fd)

    def heard(self, fd: int) -> None:
        """Stop the bell, if the event is from it."""
        if fd == self.bell:
            os.eventfd_read(fd)

    def call(self, party: Party) -> None:
        """Give a link a turn without being readable."""
        self.turns.add(party)
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self.bell, 1)

    async def sleep(self) -> None:
        """Wait until a link is ready for something, or has a turn without being so."""
        self._asleep = True
        try:
            await trio.lowlevel.wait_readable(self.poller.fileno())
        finally:
            self._asleep = False
