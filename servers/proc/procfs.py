"""Which process is meant: a `Pid` is a number and the moment its process started, never the number alone.

Linux gives a number again. So every use opens the directory /proc/N, reads the start time through it, and works on through that descriptor, which
belongs to this one process for good: when the process ends, reads give ESRCH, and pidfd_send_signal(2) takes the descriptor as it takes a pidfd.
No other process can come between the check and the act. No descriptor is kept: there may be thousands of nodes.

The kernel is asked each time whose the process is. `owner` is the effective user, as ps shows it. `guard` is the one user, besides root, who may
look inside and steer, by the rule of ptrace(2): all four uids are this user's, and the kernel calls the process dumpable, which it does not after
a change of user.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.ktext import field, split_words

TICK_MS: Final = 1000 // os.sysconf("SC_CLK_TCK")  # a clock tick of /proc/N/stat; Linux shows 100 a second everywhere
_SLOW: Final = 8  # threads for reads that a stuck process can hold up (its mmap lock, memory on a dead FUSE)


def exited() -> NineError:
    """Return Plan 9's error for a process that is gone."""
    return NineError(errno.ESRCH, "process exited")


def read_at(directory: int, name: str) -> bytes:
    """Return the whole of a file below an open directory."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    except ProcessLookupError:
        raise exited() from None
    finally:
        os.close(fd)


@attrs.frozen
class Times:
    """The content of /proc/N/stat (proc_pid_stat(5)): `name` as it is, `fields` those after it; `field(k)` counts as the manual page does, from 3."""

    name: bytes
    fields: list[bytes]

    @classmethod
    def parse(cls, line: bytes) -> "Times":
        end = line.rindex(b")")  # a name may contain blanks and brackets
        return cls(line[line.index(b"(") + 1 : end], line[end + 2 :].split(b" "))

    def field(self, number: int) -> int:
        """Return a number; 0 where an older kernel (or a made-up tree) has fewer fields."""
        return int(self.fields[number - 3]) if number - 3 < len(self.fields) else 0

    @property
    def state(self) -> str:
        return self.fields[0].decode()

    @property
    def start(self) -> int:
        return self.field(22)


def _open_directory(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise exited() from None


def _times(directory: int) -> Times:
    try:
        return Times.parse(read_at(directory, "stat"))
    except FileNotFoundError:
        raise exited() from None


@attrs.define(eq=False)
class Procfs:
    """A /proc: where it is, and which number this server itself has there (None in a made-up one)."""

    path: str
    own: int | None = attrs.field(init=False)
    slow: trio.CapacityLimiter = attrs.field(init=False, factory=lambda: trio.CapacityLimiter(_SLOW))
    _users: dict[int, str] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        try:
            self.own = int(os.readlink(f"{self.path}/self"))
        except (OSError, ValueError):
            self.own = None

    def names(self) -> list[str]:
        """Return the numbers of all processes, lowest first."""
        return sorted(filter(str.isdecimal, os.listdir(self.path)), key=int)

    def start(self, name: str) -> int | None:
        """Return when the process with a number started, in ticks since the boot; None if there is none. Quick, because a listing calls it for
        every process."""
        if not name.isdecimal() or name[0] == "0":
            return None
        try:
            fd = os.open(f"{self.path}/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            return None
        try:
            return Times.parse(os.read(fd, 4096)).start
        except ProcessLookupError:
            return None
        finally:
            os.close(fd)

    def pid(self, number: int) -> "Pid":
        """Return the process that has the number now; raises ESRCH."""
        start = self.start(str(number))
        if start is None:
            raise exited()
        return Pid(self, number, start)

    def require_ours(self) -> None:
        """Raise EOPNOTSUPP unless the numbers here are those that system calls of this server take."""
        if self.own != os.getpid():
            raise NineError(errno.EOPNOTSUPP, f"{self.path} is not the /proc of this server")

    def user(self, uid: int) -> str:
        """Return a user's name, or the number where there is none."""
        found = self._users.get(uid)
        if found is None:
            import pwd

            try:
                found = self._users[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                return str(uid)
        return found


@attrs.frozen
class Pid:
    """The name of one process, for good."""

    procfs: Procfs
    number: int
    start: int

    @contextmanager
    def directory(self) -> Iterator[int]:
        """Open /proc/N and hold it; raises ESRCH `process exited` unless it is still this process."""
        directory = _open_directory(f"{self.procfs.path}/{self.number}")
        try:
            if _times(directory).start != self.start:
                raise exited()
            yield directory
        finally:
            os.close(directory)

    def times(self) -> Times:
        """Return what /proc/N/stat says; raises ESRCH."""
        with self.directory() as directory:
            times = _times(directory)
        return times

    def owner(self) -> tuple[int, int]:
        """Return the effective user and group; raises ESRCH."""
        with self.directory() as directory:
            status = os.fstat(directory)
        return status.st_uid, status.st_gid

    def guard(self) -> tuple[int, int]:
        """Return the user and group who may look inside, (0, 0) if only root may; raises ESRCH."""
        with self.directory() as directory:
            return guard_of(directory)


def guard_of(directory: int) -> tuple[int, int]:
    """Return the guard of the process whose directory is open."""
    try:
        status = os.stat("environ", dir_fd=directory)
        if status.st_uid:
            line = split_words(field(read_at(directory, "status"), b"Uid"))
            if len(set(line)) != 1 or int(line[0]) != status.st_uid:
                return 0, 0
    except (FileNotFoundError, ProcessLookupError):
        raise exited() from None
    return status.st_uid, status.st_gid
