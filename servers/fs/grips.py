"""The descriptors that hold the files of one export. A file has a number here, and by that its descriptor, or the handle instead of it.

A table of numbers, without references to the files: so it takes twelve bytes for each held file, of which there may be 85,000 for each user.
"""

import os
import stat as st
import threading
from array import array
from typing import Final

from mk9p.servers.fs import kernel

_NONE: Final = -1


class Grips:
    """Descriptors and handles by number. `most`: how many descriptors there may be; `proc`: a descriptor of /proc/self/fd."""

    def __init__(self, most: int, proc: int) -> None:
        self.most, self._proc = most, proc
        self.fds = array("i")
        # of those that gave their descriptor back: number[4] of an open mount, and a handle
        self._handles: list[bytes | None] = []
        self._given = 0  # how many of these there are
        self._free: list[int] = []
        self._kept: set[int] = set()  # never to be given back
        self._next = 0  # where the search for one to give back goes on: roughly the oldest
        # number of a mount -> descriptor of something on it, None: it has no handles
        self._mounts: dict[int, int | None] = {}
        # The collector may end a file in any thread, and in the middle of the work here.
        self.lock = threading.RLock()

    def __len__(self) -> int:
        """Return how many descriptors are held."""
        return len(self.fds) - len(self._free) - self._given

    @property
    def full(self) -> bool:
        """Tell whether as many descriptors are held as may be."""
        return len(self) >= self.most

    def close(self) -> None:
        """Close what is open for the table itself."""
        for fd in self._mounts.values():
            if fd is not None:
                os.close(fd)
        self._mounts.clear()

    def take(self, fd: int) -> int:
        """Enter a descriptor, which then belongs to the table. Return its number."""
        try:
            number = self._free.pop()
        except IndexError:
            with self.lock:
                number = len(self.fds)
                self.fds.append(fd)
                self._handles.append(None)
        else:
            self.fds[number] = fd
        return number

    def keep(self, number: int) -> None:
        """Never give a descriptor back for another."""
        self._kept.add(number)

    def spare(self, number: int) -> None:
        """Leave a descriptor, which is kept, out of the count."""
        self.keep(number)
        self.most += 1

    def drop(self, number: int) -> None:
        """Close a descriptor, or forget the handle instead of it; the number is free. Any thread may call this."""
        with self.lock:
            fd = self.fds[number]
            self.fds[number] = _NONE
            if fd < 0:
                self._handles[number] = None
                self._given -= 1
            self._kept.discard(number)
            self._free.append(number)
        if fd >= 0:
            os.close(fd)

    def again(self, number: int) -> int:
        """Return a descriptor; if it was given back, open it by its handle. Raises ESTALE if the file no longer exists."""
        fd = self.fds[number]
        if fd >= 0:
            return fd
        handle = self._handles[number]
        if handle is None:  # another thread has just opened it
            return self.again(number)
        fd = kernel.open_handle(int.from_bytes(handle[:4], "little"), handle[4:])
        with self.lock:
            found = self.fds[number]
            if found < 0:
                self.fds[number] = fd
                self._handles[number] = None
                self._given -= 1
                return fd
        os.close(fd)  # another thread was faster
        return found

    def shrink(self) -> bool:
        """Give an eighth of the descriptors back, roughly those that were taken first; return False if none could be. Never call this as a user."""
        wanted, done = len(self) // 8 + 1, 0
        for _ in range(len(self.fds)):
            number = self._next = self._next % len(self.fds)
            self._next += 1
            with self.lock:
                fd = self.fds[number]
                if fd < 0 or number in self._kept:
                    continue
                handle = self._handle(fd)
                if handle is None or self.fds[number] != fd:  # the collector came between
                    continue
                self.fds[number], self._handles[number] = _NONE, handle
                self._given += 1
            os.close(fd)
            done += 1
            if done == wanted:
                break
        return done > 0

    def _handle(self, fd: int) -> bytes | None:
        """Return the mount and handle that open a file again, None if there are none."""
        found = kernel.file_handle(fd)
        if found is None or os.stat(fd).st_nlink == 0:
            return None
        handle, number = found
        if number not in self._mounts:
            mode = os.stat(fd).st_mode
            if not (st.S_ISREG(mode) or st.S_ISDIR(mode)):
                return None  # the next file of this mount may do
            try:
                mount = os.open(str(fd), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._proc)
                self._mounts[number] = mount
                os.close(kernel.open_handle(mount, handle))
            except OSError:  # no such handles, or not allowed
                self._mounts[number] = None
        mount_fd = self._mounts[number]
        return None if mount_fd is None else mount_fd.to_bytes(4, "little") + handle
