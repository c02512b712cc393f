"""Open files of a program: its three streams, the directories that it was granted, and what it opened in them."""

import errno
import os
import select
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import attrs

from mk9p import sync
from mk9p.errors import NineError
from mk9p.servers.wasm.machine import Ended, Frozen
from mk9p.servers.wasm.snapshot_head import altered
from mk9p.servers.wasm.space import Grant, Place, Space
from mk9p.servers.wasm.wasi.numbers import AGAIN, BADF, F_APPEND, F_DSYNC, F_NONBLOCK, F_SYNC, NOTDIR, PIPE, Error

MOST: Final = 1024  # open files of a program, as Linux has for a process
CANNOT_SYNC: Final = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # what a file says that is stored nowhere


@attrs.define(eq=False)
class Stream:
    """Standard input, output or error: this side of a socket, whose other side is the server's."""

    number: int
    fd: int
    wake: int
    flags: int = 0

    def read(self, n: int) -> bytes:
        """Return at least a byte, at most `n`; b"" at the end. Raises Frozen instead of waiting on when the program is to be frozen."""
        while True:
            try:
                return os.read(self.fd, n)
            except BlockingIOError:
                self._wait(select.POLLIN)

    def write(self, data: bytes) -> int:
        """Write at least a byte and return how many. Raises Frozen instead of waiting on when the program is to be frozen."""
        while True:
            try:
                return os.write(self.fd, data)
            except BlockingIOError:
                self._wait(select.POLLOUT)
            except BrokenPipeError:
                raise Error(PIPE) from None

    def _wait(self, events: int) -> None:
        if self.flags & F_NONBLOCK:
            raise Error(AGAIN)
        poll = select.poll()
        poll.register(self.fd, events)
        poll.register(self.wake, select.POLLIN)
        if any(fd == self.wake for fd, _ in poll.poll()):
            raise Frozen


@attrs.define(eq=False)
class Opened:
    """A file or directory of the namespace. `file` is None for a directory. `ahead` was read and not given to the program yet."""

    place: Place
    file: sync.File | None = None
    read_: bool = True
    write_: bool = False
    flags: int = 0
    position: int = 0
    ahead: bytes = b""
    marked: bool = False  # an empty read may be no more than the end of a record
    granted: bool = False  # it is one of those that the program began with
    listing: list[tuple[str, int, int]] | None = None
    path: int = 0  # qid.path: the same file has the same
    appended: bool = False  # it was written to at its end, wherever that is: `position` is not where it goes on
    owed: int | None = None  # what was written by the call that is made now, and is still to be synced

    @property
    def directory(self) -> bool:
        return self.file is None

    @property
    def stored(self) -> bool:
        """Tell whether it is stored somewhere: what is made up may be a stream, and has no version."""
        return self.file is not None and self.file.qid.version != 0

    def read(self, n: int) -> bytes:
        """Return what comes next, at most `n` bytes, at least one; b"" at the end.

        Of a file that may be a stream, a whole message is read: the rest of it would be lost with the open file.
        """
        file = self.file
        assert file is not None
        self.look()
        if self.ahead:
            data, self.ahead = self.ahead[:n], self.ahead[n:]
            self.position += len(data)
            return data
        count = min(n, file.iounit) if self.stored else file.iounit
        data = file.pread(count, self.position)
        if not data and self.marked:
            self.marked = False
            data = file.pread(count, self.position)
        self.marked = bool(data) and not self.stored
        data, self.ahead = data[:n], data[n:]
        self.position += len(data)
        return data

    def look(self) -> None:
        """Learn where it goes on, if only the server knows: after what was appended."""
        if self.appended and self.file is not None:
            self.seek(self.file.stat().length)

    def write(self, data: bytes) -> int:
        """Write in one message, at the position, and return how much was taken."""
        return self.synced(partial(self._write, data))

    def _write(self, data: bytes) -> int:
        assert self.file is not None
        taken = self.file.put(data, self.position)
        if self.flags & F_APPEND:
            self.appended = True
        else:
            self.position += taken
        return taken

    def synced(self, write: Callable[[], int]) -> int:
        """Write, and sync what was written where the file is open so. When a call is made again that was stopped in between, it only syncs."""
        taken = self.owed if self.owed is not None else write()
        if not self.flags & (F_DSYNC | F_SYNC):
            return taken
        assert self.file is not None
        self.owed = taken
        try:
            self.file.sync(data=not self.flags & F_SYNC)
        except sync.Stopped:
            raise
        except NineError as error:
            self.owed = None
            if error.errno not in CANNOT_SYNC:
                raise
        self.owed = None
        return taken

    def seek(self, position: int) -> None:
        """Go on at another place."""
        self.appended = False
        if position != self.position:
            self.position, self.ahead, self.marked = position, b"", False

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def dump(self) -> dict[str, Any]:
        """Return what a snapshot has of it."""
        return {
            "at": self.place.grant.at,
            "names": list(self.place.names),
            "directory": self.directory,
            "read": self.read_,
            "write": self.write_,
            "flags": self.flags,
            "position": self.position,
            "ahead": self.ahead.hex(),
            "marked": self.marked,
            "granted": self.granted,
            "listing": self.listing,
            "path": self.path,
            "appended": self.appended,
            "owed": self.owed,
        }


class Table:
    """The open files by number."""

    def __init__(self, wake: int, space: Space | None, most: int | None) -> None:
        self.wake, self.space, self.most = wake, space, most
        self.open: dict[int, Stream | Opened] = {}

    def begin(self, streams: tuple[int, int, int], grants: list[Grant]) -> None:
        """Open what every program has: its streams, and what it was granted. Raises ENOTDIR for a granted file, and what the server says."""
        for number, fd in enumerate(streams):
            self.open[number] = Stream(number, fd, self.wake)
        for number, grant in enumerate(grants, 3):
            self.open[number] = self._directory(Place(grant), granted=True)

    def _directory(self, place: Place, *, granted: bool = False) -> Opened:
        assert self.space is not None
        try:
            status = self.space.client.stat(place.path)
        except NineError as error:
            raise NineError(error.errno, f"grant {place.grant.path}: {error.strerror}") from None
        if not status.is_dir:
            raise NineError(errno.ENOTDIR, f"grant {place.grant.path}: not a directory")
        return Opened(place, granted=granted, path=status.qid.path if status.qid else 0)

    def get(self, number: int) -> Stream | Opened:
        """Return an open file. Raises BADF."""
        found = self.open.get(number)
        if found is None:
            raise Error(BADF)
        return found

    def opened(self, number: int) -> Opened:
        """Return an open file that is no stream."""
        found = self.get(number)
        if not isinstance(found, Opened):
            raise Error(BADF)
        return found

    def directory(self, number: int) -> Place:
        """Return where an open directory is. Raises NOTDIR."""
        found = self.get(number)
        if not isinstance(found, Opened) or not found.directory:
            raise Error(NOTDIR)
        return found.place

    def add(self, opened: Opened) -> int:
        """Return the lowest free number, which the file has now. Raises Ended above the limit of open files."""
        self.room()
        number = next(n for n in range(len(self.open) + 1) if n not in self.open)
        self.open[number] = opened
        return number

    def room(self) -> None:
        """Raise Ended above the limit of open files that was set, EMFILE above the one that all programs have."""
        if self.most is not None and len(self.open) >= self.most:
            raise Ended("limit files")
        if len(self.open) >= MOST:
            raise NineError(errno.EMFILE)

    def dump(self) -> list[list[Any]]:
        """Return what a snapshot has of all open files. What a stream of input had not given yet is its server's."""
        return [
            [n, each.dump() if isinstance(each, Opened) else {"stream": each.number, "flags": each.flags}]
            for n, each in sorted(self.open.items())
        ]

    def require_there(self) -> None:
        """Raise ESTALE where an open file could not be opened again by its path: it was removed, or another one has its place."""
        for each in self.open.values():
            if isinstance(each, Opened) and not each.granted and self.space is not None:
                try:
                    found = self.space.client.walk(each.place.path)
                except sync.Stopped:
                    raise
                except (FileNotFoundError, NotADirectoryError):
                    found = []
                except OSError:  # who cannot be asked may answer where it goes on
                    continue
                if (each.place.path and not found) or (found and found[-1].path != each.path):
                    name = "/".join((each.place.grant.at.rstrip("/"), *each.place.names))
                    words = f"it has {name} open, which was removed, or is another file now"
                    raise NineError(errno.ESTALE, words)

    def restore(self, dumped: list[Any], streams: tuple[int, int, int], grants: list[Grant]) -> None:
        """Open again what was open. Raises ESTALE where a file is no longer the same."""
        by_place = {grant.at: grant for grant in grants}
        if len(dumped) > MOST or any(number >= 1 << 31 for number, _ in dumped):
            altered("its open files")
        for number, one in dumped:
            if "stream" in one:
                which = one["stream"]
                self.open[number] = Stream(which, streams[which], self.wake, one["flags"])
            else:
                self.open[number] = self._restored(one, by_place)

    def _restored(self, one: dict[str, Any], grants: dict[str, Grant]) -> Opened:
        grant = grants.get(one["at"])
        if grant is None or self.space is None:
            raise NineError(errno.ESTALE, f"{one['at']}: it is not granted here")
        names = tuple(one["names"])
        place = Place(grant, names)
        try:
            if one["directory"]:
                made = self._directory(place, granted=one["granted"])
                listing = one["listing"]
                made.listing = None if listing is None else [(name, path, kind) for name, path, kind in listing]
            else:
                if one["write"] and grant.readonly:
                    raise NineError(errno.EROFS)
                read, write, flags = one["read"], one["write"], one["flags"]
                file = self.space.client.open_as(place.path, read=read, write=write, append=bool(flags & F_APPEND))
                made = Opened(place, file, read, write, flags, path=file.qid.path)
                made.position, made.marked = one["position"], one["marked"]
                made.ahead = bytes.fromhex(one["ahead"])
                # older states have neither
                made.appended, made.owed = one.get("appended", False), one.get("owed")
        except NineError as error:
            raise NineError(errno.ESTALE, f"{grant.at}/{'/'.join(names)}: {error.strerror}") from None
        if made.path != one["path"] and not made.granted:
            raise NineError(errno.ESTALE, f"{grant.at}/{'/'.join(names)}: it is another file now")
        return made

    def granted(self) -> Iterator[tuple[int, Opened]]:
        """Give the directories that the program began with."""
        for number, each in self.open.items():
            if isinstance(each, Opened) and each.granted:
                yield number, each
