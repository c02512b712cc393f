"""The files that a program was granted: subtrees of one 9P server, by one connection that blocks and can be stopped. Nothing else is to be had.

A program's path is resolved here, name by name, below the directory that it names: `..` and symbolic links lead nowhere else. Servers follow no
symbolic links themselves (walk(5)).
"""

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import attrs

from mk9p import sync
from mk9p.servers.wasm.wasi.numbers import ILSEQ, INVAL, LOOP, NAMETOOLONG, NOENT, NOTCAPABLE, NOTDIR, Error
from mk9p.wire import QTDIR, QTSYMLINK

LINKS: Final = 40  # symbolic links in one path, as Linux
LONGEST: Final = 4096  # bytes of a path, as Linux


@attrs.frozen
class Grant:
    """The file at `path` of the namespace, and all below it, stands at `at`."""

    path: str
    at: str
    readonly: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its path."""
        return tuple(name for name in self.path.split("/") if name)


@attrs.frozen
class Place:
    """A file: the grant by which it is reached, and the names below it. `slash`: the path to it ended so, and only a directory may have that."""

    grant: Grant
    names: tuple[str, ...] = ()
    slash: bool = False

    @property
    def path(self) -> str:
        """Its path in the namespace."""
        return "/".join((*self.grant.names, *self.names))

    def below(self, *names: str) -> "Place":
        """Return the file at names below it."""
        return Place(self.grant, (*self.names, *names))


@attrs.frozen
class Space:
    """The connection. No call waits while `wake` can be read."""

    client: sync.Client
    wake: int

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Let calls wait for at most so many seconds together, whatever `wake` says; then the block is left."""
        late, tell = os.pipe2(os.O_CLOEXEC)
        timer = threading.Timer(seconds, os.write, (tell, b"x"))
        timer.start()
        self.client.stop_by(late)
        try:
            with suppress(sync.Stopped):
                yield
        finally:
            timer.cancel()
            timer.join()
            self.client.stop_by(self.wake)
            os.close(late)
            os.close(tell)

    def resolve(self, start: Place, raw: bytes, *, follow: bool) -> Place:
        """Return the file at a path below a directory; `follow` a symbolic link that the path ends with. It need not exist, its directory must.

        Raises NOTCAPABLE where the path leads out of the directory.
        """
        parts = deque(_parts(raw))
        names, links, least = list(start.names), 0, len(start.names)
        slash = raw.endswith((b"/", b"/."))
        while True:
            first = len(names)
            while parts and parts[0] != "..":
                names.append(parts.popleft())
            link = self._link(start.grant, names, first, follow=follow or bool(parts) or slash)
            if link is not None:
                links += 1
                if links > LINKS:
                    raise Error(LOOP)
                target = self.client.readlink(Place(start.grant, tuple(names[: link + 1])).path)
                if target.startswith("/"):
                    raise Error(NOTCAPABLE)
                parts.extendleft(reversed([*(n for n in target.split("/") if n not in ("", ".")), *names[link + 1 :]]))
                del names[link:]
            elif not parts:
                place = Place(start.grant, tuple(names), slash)
                if slash:
                    with suppress(FileNotFoundError):  # it may be one that is to be made
                        self._require_directory(place)
                return place
            else:
                parts.popleft()
                if len(names) <= least:
                    raise Error(NOTCAPABLE)
                self._require_directory(Place(start.grant, tuple(names)))
                names.pop()

    def _require_directory(self, place: Place) -> None:
        """Raise NOTDIR for a file, and what the server says, ENOENT for what is not there."""
        qids = self.client.walk(place.path)
        if qids and not qids[-1].type & QTDIR:
            raise Error(NOTDIR)

    def _link(self, grant: Grant, names: Sequence[str], first: int, *, follow: bool) -> int | None:
        """Return which of the names, from `first` on, is the first that is a symbolic link, if one is."""
        if len(names) == first:
            return None
        last = len(names) - (not follow)
        above = len(grant.names)
        try:
            kinds = [qid.type for qid in self.client.walk(Place(grant, tuple(names)).path)][above:]
        except OSError:
            kinds = []
            for count in range(first, len(names)):
                try:
                    kinds = [qid.type for qid in self.client.walk(Place(grant, tuple(names[: count + 1])).path)][above:]
                except FileNotFoundError:
                    if count + 1 < len(names):
                        raise
                if len(kinds) > count and kinds[count] & QTSYMLINK and count < last:
                    return count
            return None
        return next((at for at in range(first, last) if kinds[at] & QTSYMLINK), None)


def decoded(raw: bytes) -> str:
    """Return a path as text. Raises ILSEQ."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Error(ILSEQ) from None


def _parts(raw: bytes) -> list[str]:
    if not raw:
        raise Error(NOENT)
    if len(raw) > LONGEST:
        raise Error(NAMETOOLONG)
    if b"\0" in raw:
        raise Error(INVAL)
    text = decoded(raw)
    if text.startswith("/"):
        raise Error(NOTCAPABLE)
    return [name for name in text.split("/") if name not in ("", ".")]
