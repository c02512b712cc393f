"""What all files of one exported directory share: its options, /proc/self/fd, and the bookkeeping of descriptors.

A descriptor that was opened only for its path (O_PATH) holds every file that a client has a fid of: it stays that file, whatever is renamed
meanwhile, and the server never builds a path string. Linux's v9fs keeps a fid for each cached name, so a `find` over 80,000 files needs as many.
So the server raises the limit of descriptors to the hard one, and three quarters of it may be held so. Beyond that, the file that was walked to
first gives its descriptor back and keeps a file handle instead (name_to_handle_at(2), what NFS servers use), which opens it again when it is used.
A file without a handle (on unusual file systems, or with a server that is not root) keeps its descriptor, and at the end of them all there is
EMFILE.

/proc/self/fd turns a descriptor for the path into one for the content, or into a name that chmod and link take.
"""

import contextlib
import errno
import fcntl
import os
import resource
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeVar

import trio

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.fs import kernel
from mk9p.servers.fs.grips import Grips
from mk9p.servers.fs.identity import ITSELF, Identity, Nobody, numbered
from mk9p.status import umask
from mk9p.tree.qids import child

_SPACE: Final = 0x6D6B_6673  # "mkfs": keeps paths of stored files apart from those of other servers' files
_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
# files whose status is kept, with its encoded form; that takes more than all else that is kept of a file
KNOWN: Final = 1024
THREADS: Final = 8  # for each file system that may not answer: so many calls can hang there

T = TypeVar("T")


class Known(Protocol):
    """A file whose status is kept."""

    def forget(self) -> None:
        """Stop keeping the status."""


class Export:
    """One exported directory. `readonly`: clients can change nothing through it; `xdev`: they cannot enter other file systems below it.

    `descriptors`: how many files may be held open for their paths; None: three quarters of what this process may have.
    """

    def __init__(self, *, readonly: bool = False, xdev: bool = False, descriptors: int | None = None) -> None:
        self.readonly = readonly
        self.identity = Identity()
        self.guards = not self.identity.alone
        self.proc = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY)  # raises ENOENT where /proc is not mounted
        self.xdev = xdev
        self.umask = umask()
        self.arrive: Callable[[Export, int], Any]
        self._threads: dict[int, trio.CapacityLimiter] = {}
        self.grips = Grips(descriptors or _raised() * 3 // 4, self.proc)
        self.fds = self.grips.fds
        self._known: deque[weakref.ref[Known]] = deque()
        self._devices: dict[int, int] = {}
        # devices whose file system can't read without waiting, and whether it is in memory
        self.memory: dict[int, bool] = {}

    def close(self) -> None:
        """Close what the export itself has open."""
        os.close(self.proc)
        self.grips.close()

    # who

    def acting(self, who: Principal, *about: int) -> Nobody:
        """Return the context for a user's work with the files of these descriptors."""
        if who.uid == 0:
            return ITSELF
        if numbered(who):
            return self.identity.of(who)
        return self.identity.of(who, [(now.st_uid, now.st_gid) for now in map(os.stat, about)])

    def changing(self, who: Principal, *about: int, names: Iterable[tuple[int, bytes]] = ()) -> Nobody:
        """Return the context for a change to the files of these descriptors, and to `names` in directories.

        Raises EROFS, or EPERM where this server cannot be that user.
        """
        self.require(who)
        if numbered(who):
            return self.identity.making(who)
        owners = [(now.st_uid, now.st_gid) for now in map(os.stat, about)]
        for directory, name in names:
            with contextlib.suppress(OSError):  # a missing file has no owner, and the change gives a better error
                seen = kernel.glance(directory, name)
                owners.append((seen.uid, seen.gid))
        return self.identity.making(who, owners)

    def require(self, who: Principal) -> None:
        """Raise EROFS if nothing may be changed, EPERM if this server cannot be the user who asks."""
        if self.readonly:
            raise NineError(errno.EROFS)
        if self.identity.alone and who.uid not in (0, self.identity.own.uid):
            raise NineError(errno.EPERM, "the server is not root, and can change nothing for other users")

    # what

    def path(self, device: int, inode: int) -> int:
        """Return the qid.path of a file: one number for each, the same after a restart. Inodes of one device never meet; two devices are apart."""
        base = self._devices.get(device)
        if base is None:
            base = self._devices[device] = child(_SPACE, str(device))
        return (base + inode) & _MASK

    def reopen(self, fd: int, flags: int) -> int:
        """Open the very file that a descriptor is for."""
        return os.open(str(fd), flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, dir_fd=self.proc)

    @staticmethod
    def keep_times(fd: int) -> None:
        """Make reads by a descriptor, which was opened as a user, change no time of access, if this server may say so: in a readonly export."""
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NOATIME | fcntl.fcntl(fd, fcntl.F_GETFL))

    # what may wait

    async def later(self, device: int, call: Callable[..., T], *args: Any) -> T:
        """Call a function in one of the threads of a file system. If cancelled, the call goes on and its result is dropped."""
        limiter = self._threads.get(device)
        if limiter is None:
            limiter = self._threads[device] = trio.CapacityLimiter(THREADS)
        return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=True, limiter=limiter)

    # status that is kept

    def knows(self, node: Known) -> None:
        """Note that a node keeps its status again; if there are too many, those that were noted first forget theirs."""
        known = self._known
        known.append(weakref.ref(node))
        if len(known) > KNOWN:
            first = known.popleft()()
            if first is not None:
                first.forget()


class Path:
    """A descriptor for a file's path, which is closed when nobody has this object any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def _raised() -> int:
    """Return how many descriptors this process may have, after raising the limit as far as possible."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
