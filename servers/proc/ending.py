"""`wait`: the end of a process. It waits through a pidfd (pidfd_open(2)), which becomes readable when all its threads are gone.

The exit status belongs to the parent. But a process that its parent has not waited for yet shows it in /proc/N/stat, and since Linux 6.15 a pidfd
remembers it (PIDFD_GET_INFO in include/uapi/linux/pidfd.h). Where neither helps, the status is `-`.
"""

import errno
import fcntl
import os
import struct
import time
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.servers.proc.procfs import TICK_MS, Pid, Times, exited
from mk9p.signals import ending
from mk9p.tree import quote

_INFO: Final = struct.Struct("=QQ11Ii")  # struct pidfd_info, first version: mask, cgroup id, 11 ids, exit_code
_GET_INFO: Final = 0xC000FF0B | _INFO.size << 16  # _IOWR(0xFF, 11, struct pidfd_info)
_EXIT: Final = 8  # PIDFD_INFO_EXIT

UNKNOWN: Final = "-"


@attrs.define(eq=False)
class Ending:
    """One reader of a process's end: the source of its stream (tree/waiting.py)."""

    pid: Pid
    fd: int
    last: Times
    told: bool = False

    @classmethod
    def of(cls, pid: Pid) -> "Ending":
        """Watch a process; raises ESRCH if it is gone already."""
        pid.procfs.require_ours()
        try:
            fd = os.pidfd_open(pid.number)
        except ProcessLookupError:
            raise exited() from None
        try:
            return cls(pid, fd, pid.times())  # asked after making the pidfd, so the times belong to this process
        except BaseException:
            os.close(fd)
            raise

    async def receive(self) -> bytes:
        """Return the line when the process has ended, then the end; cancelling it loses nothing."""
        if self.told:
            return b""
        await trio.lowlevel.wait_readable(self.fd)
        self.told = True
        real = max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 - self.last.start * TICK_MS)
        status = self.status()
        user, system = (self.last.field(k) * TICK_MS for k in (14, 15))
        return f"{self.pid.number} {user} {system} {real} {quote(status)}\n".encode()

    def status(self) -> str:
        """Return how it ended: as the zombie tells, else as the pidfd remembers."""
        try:
            self.last = self.pid.times()
        except ProcessLookupError:
            pass
        else:
            if self.last.state in "ZX" and os.geteuid() == 0:  # to others the kernel shows 0 here
                return ending(self.last.field(52))
        info = bytearray(_INFO.pack(_EXIT, *[0] * 13))
        try:
            fcntl.ioctl(self.fd, _GET_INFO, info)
        except OSError:  # before Linux 6.13, where a pidfd knows no such call
            return UNKNOWN
        mask, *_, code = _INFO.unpack(info)
        return ending(code) if mask & _EXIT else UNKNOWN

    def send(self, data: bytes) -> None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        os.close(self.fd)
