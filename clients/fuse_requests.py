"""A request of the kernel to the FUSE adapter (fuse.py), and how it ends.

* A process that is killed or gets a signal meanwhile gets EINTR (interrupts.py).
* Whatever goes wrong is an errno to the kernel, the server's if it has one. ENOSYS would end that kind of request for the whole mount, and a
  number that is no errno of a program would leave the request without an answer: these become EOPNOTSUPP and EIO.
"""

import errno
import logging
from contextvars import ContextVar
from types import TracebackType
from typing import Final

from pyfuse3 import FUSEError

from mk9p.clients.interrupts import Asked, Interrupts

log = logging.getLogger("mk9p.fuse")

ASKER: Final = ContextVar("asker", default=0)  # the thread whose request this task does; 0: unknown

_ERRNOS: Final = 512  # from here on they are the kernel's own (include/linux/errno.h): it takes no such answer


class Request:
    """Around each request: it is cancelled when the process that asks is interrupted, and turns every error into the errno for the kernel."""

    __slots__ = ("asked", "interrupts")

    def __init__(self, interrupts: Interrupts, tid: int, inode: int = 0, opener: int = 0) -> None:
        self.interrupts, self.asked = interrupts, Asked(tid, inode, opener)

    def __enter__(self) -> None:
        ASKER.set(self.asked.tid)
        self.asked.scope.__enter__()
        self.interrupts.add(self.asked)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.interrupts.waiting.discard(self.asked)
        self.asked.scope.__exit__(kind, error, trace)
        if self.asked.scope.cancelled_caught:
            raise FUSEError(errno.EINTR) from None
        if isinstance(error, OSError):
            raise FUSEError(_told(error.errno or errno.EIO)) from None
        if isinstance(error, Exception) and not isinstance(error, FUSEError):
            log.error("internal error", exc_info=error)
            raise FUSEError(errno.EIO) from None


def _told(number: int) -> int:
    """Return an errno in the form for the kernel."""
    if number == errno.ENOSYS:
        return errno.EOPNOTSUPP
    return number if 0 < number < _ERRNOS else errno.EIO
