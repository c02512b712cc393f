"""The kernel's name: read, set, and watched, so `events` reports a change, whoever made it.

/proc/sys/kernel/hostname says EPOLLPRI when somebody changed the name (kernel/utsname_sysctl.c), and is also always readable. So the server waits
for it through an epoll of its own, whose descriptor is readable only then.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from mk9p.ktext import trim, whole
from mk9p.sysfs import put_hostname
from mk9p.tree import Log


class HostName:
    """The name in the file `path`; `events` gets its changes."""

    def __init__(self, path: str, events: Log) -> None:
        self.path, self.events = path, events
        self.known = self.get()

    def get(self) -> str:
        """Return the name."""
        return trim(whole(self.path))

    def set(self, name: str) -> None:
        """Set the name; raises EINVAL for an impossible one."""
        put_hostname(self.path, name)
        self.look()

    def look(self) -> None:
        """Tell `events` if the name has changed. It makes no difference who changed it, and how often this is called."""
        now = self.get()
        if now != self.known:
            self.known = now
            self.events.emit("hostname", now)

    async def watch(self) -> None:
        """Look whenever the kernel says that a name has changed, until cancelled."""
        with self.changes() as changes:
            self.look()  # a change before the file was open is not told
            while True:
                await trio.lowlevel.wait_readable(changes.fileno())
                changes.poll(0)
                self.look()

    @contextmanager
    def changes(self) -> Iterator[select.epoll]:
        """Give an epoll that is readable when a name has changed."""
        with open(self.path) as file, select.epoll() as changes:
            changes.register(file, select.EPOLLPRI)
            yield changes
