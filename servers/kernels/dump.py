"""What is kept of a kernel's memory: an ELF core file that has no name, so it goes with this server, however that ends."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.errors import NineError

if TYPE_CHECKING:
    from .backend import Machine

FOLDER: Final = "/var/tmp"  # a disk, where /tmp and /run may be memory


@attrs.define(eq=False)
class Dump:
    """The last dump of one kernel; before the first there is nothing in it."""

    file: int = -1
    size: int = 0

    async def make(self, machine: Machine, memory: int) -> None:
        """Dump a kernel with so much memory; the dump before it goes when this one is whole.

        Raises ENOSPC if the disk has no room for it, and the machine's errors. If cancelled, the one before it stays.
        """
        room = os.statvfs(FOLDER)
        if room.f_bavail * room.f_frsize < memory:
            raise NineError(errno.ENOSPC, f"{FOLDER} has no room for a dump of {memory} bytes")
        with tempfile.TemporaryFile(dir=FOLDER, buffering=0) as new:
            await machine.dump(new.fileno())
            self.close()
            self.file, self.size = os.dup(new.fileno()), os.fstat(new.fileno()).st_size

    async def read(self, count: int, offset: int) -> bytes:
        """Return what is at an offset; b"" at the end, and where nothing was dumped."""
        if self.file < 0:
            return b""
        file = os.dup(self.file)  # the next dump may close ours meanwhile, and another file may get its number
        try:
            return await trio.to_thread.run_sync(os.pread, file, count, offset)
        finally:
            os.close(file)

    def close(self) -> None:
        """Forget it."""
        if self.file >= 0:
            os.close(self.file)
        self.file, self.size = -1, 0
