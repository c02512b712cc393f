"""The ledger: the key that capabilities are signed with, which ones were granted, and which are revoked. It outlives the composer.

It is the file `grants` of the state directory (mk9p/state.py), a line each:

    key HEX                                        the private key, first
    granted TIME_NS ID BY UID PATH OPS TO KERNEL SINCE UNTIL TEXT
    revoked TIME_NS ID BY UNTIL

* Nobody else may read it: it has the key, and texts that `narrow` needs. Where others can read it, or can put another file in its place, it is
  refused, and nothing is granted and no capability taken until somebody has looked.
* A line is written and synced before anything that it says holds. A crash in the middle of a line leaves a line without an end; the next start
  drops it, because nobody was told that it holds.
* A file with anything else wrong is put aside, and there is a new key: a revocation may have been lost, so every capability ends, and the log says
  so. The key is in the same file so that nobody can take away the revocations alone.
* Several programs of a user may have it open. Each looks, by the file's status, whether another has changed it.
"""

import errno
import logging
import os
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from mk9p import state
from mk9p.authority.audit import printable
from mk9p.authority.grants import ID, Capability, Key, Terms, narrow, new_key, refused, require, revoked_by
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.tree.words import join, split

log = logging.getLogger("mk9p.authority")

NAME: Final = "grants"
MOST: Final = 16 << 20  # bytes: 20,000 granted ones; more is EFBIG when somebody grants
# capabilities of one user, so that others can have some too; root, and the user that the server runs as, have no such limit
SHARE: Final = 1024
RESERVE: Final = MOST // 4  # bytes that only root's grants get, and what is revoked
_NONE: Final = "-"


@attrs.frozen
class Granted:
    """A capability that was granted here: its text, by which user of this machine, when, in nanoseconds since 1970."""

    id: str
    terms: Terms
    text: str = attrs.field(repr=False)
    by: str
    uid: int
    time_ns: int


@attrs.frozen
class Use:
    """The last use of a block: when, in nanoseconds since 1970, by whom, and the id of the first block, which was granted."""

    time_ns: int
    who: str
    first: str


@attrs.define(eq=False)
class Ledger:
    """The ledger in a file; `clock` gives seconds since 1970. It makes the file when something is first granted."""

    path: Path = attrs.field(factory=lambda: state.directory() / NAME)
    clock: Callable[[], float] = time.time
    granted: dict[str, Granted] = attrs.field(factory=dict, init=False)
    revoked: dict[str, int | None] = attrs.field(factory=dict, init=False)
    """By id: until when, in seconds since 1970, somebody may still hold what is revoked; None for ever."""
    elsewhere: dict[str, int | None] = attrs.field(factory=dict, init=False)
    """What others have revoked, who have a store together with this program; in no file of ours."""
    heard: list[Callable[[], None]] = attrs.field(factory=list, init=False)
    """Each is called when something is revoked elsewhere."""
    used: dict[str, Use] = attrs.field(factory=dict, init=False)
    """By id of a block, granted or narrowed: its last use since this program has begun."""
    _key: Key | None = attrs.field(default=None, init=False, repr=False)
    _seen: tuple[int, ...] = attrs.field(default=(), init=False)

    # for those who grant

    def grant(self, terms: Terms, by: str, uid: int) -> Granted:
        """Grant a capability from now on. Raises EINVAL for terms that say too little, or that have ended, ENOSPC for a user who has granted too
        many, EFBIG for a full ledger."""
        now = self.clock()
        terms = attrs.evolve(terms, since=terms.since or int(now))
        self._must_last(terms, now)
        with self._alone():
            most = MOST if uid in (0, os.geteuid()) else self._share(by, uid)
            key = self._made_key()
            text = key.mint(terms)
            new = Granted(key.read(text).id, terms, text, printable(by), uid, int(now * 1e9))
            self._append(_granted_line(new), most)
            self.granted[new.id] = new
        return new

    def _share(self, by: str, uid: int) -> int:
        """Return how many bytes the file may have when a user grants who is not root. Raises ENOSPC for one who has granted too many."""
        if sum(each.uid == uid for each in self.granted.values()) >= SHARE:
            raise NineError(errno.ENOSPC, f"{by} has granted {SHARE} capabilities already")
        return MOST - RESERVE

    def narrow(self, name: str, terms: Terms) -> str:
        """Return the text of a narrower capability of one that was granted. Raises ENOENT for an unknown id, EACCES as `narrow`."""
        self.look()
        self._must_last(terms, self.clock())
        if name in self.gone:
            raise refused(f"{name} is revoked")
        if name not in self.granted:
            raise NineError(errno.ENOENT, f"no capability {name} was granted here")
        return narrow(self.granted[name].text, terms)

    def revoke(self, name: str, by: str) -> str:
        """Revoke a block by its id, or the last one of a capability by its text; return the id. Raises ENOENT for an id that nobody has used."""
        self.look()
        until: int | None = None
        if "." in name:
            told = self._key_or_refuse().read(name)
            name, until = told.id, told.until
        elif name in self.granted:
            until = self.granted[name].terms.until
        elif name not in self.used and name not in self.revoked:
            raise NineError(errno.ENOENT, f"no capability {name} is known here: give its text, if it was narrowed")
        if name in self.revoked:
            return name
        with self._alone():
            self._append(
                join(["revoked", int(self.clock() * 1e9), name, printable(by), _NONE if until is None else until])
            )
            self.revoked[name] = until
        return name

    @property
    def gone(self) -> Mapping[str, int | None]:
        """What is revoked, here or elsewhere."""
        return ChainMap(self.revoked, self.elsewhere) if self.elsewhere else self.revoked

    def hear(self, name: str, until: int | None) -> None:
        """Note what others have revoked."""
        self.elsewhere[name] = until
        for tell in self.heard:
            tell()

    def origin(self, name: str) -> Granted | None:
        """Return what was granted, by the id of one of its blocks, or by its text; None for what is not known. Raises EACCES for another text."""
        self.look()
        if "." in name:
            return self.granted.get(self._key_or_refuse().read(name).ids[0])
        return self.granted.get(self.used[name].first if name in self.used else name)

    def lives(self) -> list[Granted]:
        """Return what was granted and has neither ended nor been revoked, the oldest first."""
        self.look()
        now = self.clock()
        return [
            each
            for each in self.granted.values()
            if each.id not in self.gone and (each.terms.until is None or now < each.terms.until)
        ]

    # for those who check

    def read(self, text: str) -> Capability:
        """Return what a capability gives. Raises EACCES for one that was not granted here, or is revoked."""
        self.look()
        capability = self._key_or_refuse().read(text)
        ended = capability.until is not None and capability.until <= self.clock()  # then it is forgotten here
        if capability.ids[0] not in self.granted and not ended:
            raise refused("it is not known here")
        if (gone := revoked_by(capability.ids, self.gone)) is not None:
            raise refused(f"{gone} is revoked")
        return capability

    def note(self, capability: Capability, who: str) -> None:
        """Note that somebody uses a capability."""
        use = Use(int(self.clock() * 1e9), who, capability.ids[0])
        for name in capability.ids:
            self.used.pop(name, None)
            self.used[name] = use
        while len(self.used) > KEPT:
            del self.used[next(iter(self.used))]

    def look(self) -> bool:
        """Read the file again if another program has changed it; tell whether it was. Raises EACCES if others can read it."""
        if self._status() == self._seen:
            return False
        with self._alone():
            pass
        return True

    # the file

    def _key_or_refuse(self) -> Key:
        if self._key is None:
            raise refused("this server has granted none")
        return self._key

    def _must_last(self, terms: Terms, now: float) -> None:
        if terms.until is not None and terms.until <= max(now, terms.since or 0):
            raise NineError(errno.EINVAL, "it would end before it begins")

    def _status(self) -> tuple[int, ...]:
        try:
            stat = os.lstat(self.path)
        except FileNotFoundError:
            return ()
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other programs from the file, and know what it has."""
        with state.locked(self.path.with_name(f"{self.path.name}.lock")):
            self._load()
            yield

    def _load(self) -> None:
        """Read the file. Raises EACCES if others can read it."""
        if (status := self._status()) == self._seen:
            return
        if status:
            require()  # without it nobody can tell whether the file is right
        self._key, self.granted, self.revoked = None, {}, {}
        if status:
            try:
                self._read(state.read(self.path, MOST + (1 << 16)))
            except _Damaged as error:
                self._key, self.granted, self.revoked = None, {}, {}
                aside = self.path.with_name(f"{NAME}.damaged.{int(self.clock())}")
                os.rename(self.path, aside)
                log.error("%s is damaged (%s): it is now %s, and every capability has ended", self.path, error, aside)
        self._seen = self._status()

    def _read(self, data: bytes) -> None:
        whole, newline, rest = data.rpartition(b"\n")
        if rest:
            log.warning("%s: the last line has no end, and is dropped", self.path)
        try:
            lines = split_lines((whole + newline).decode())
            words = [split(line) for line in lines]
        except (UnicodeDecodeError, NineError) as error:
            raise _Damaged(str(error)) from None
        for number, line in enumerate(words, 1):
            try:
                self._take(line, number == 1)
            except (ValueError, OSError) as error:
                raise _Damaged(f"line {number}: {error}") from None
        if not words:
            raise _Damaged("it has no key")
        now = self.clock()
        ended = [
            name for name, each in self.granted.items() if each.terms.until is not None and each.terms.until <= now
        ]
        over = [name for name, until in self.revoked.items() if until is not None and until <= now]
        if rest or ended or over:
            gone = {*ended, *over}
            kept = [line for line in words if line[0] == "key" or line[2] not in gone]
            for name in ended:
                del self.granted[name]
            for name in over:
                del self.revoked[name]
            state.make(self.path, "".join(f"{join(line)}\n" for line in kept).encode(), over=True)

    def _take(self, words: list[str], first: bool) -> None:
        match words:
            case ["key", text] if first:
                self._key = Key.of(bytes.fromhex(text))
            case ["granted", when, name, by, uid, path, ops, to, kernel, since, until, text] if not first:
                terms = Terms(path.removesuffix("/"), ops, _said(to), _said(kernel), _moment(since), _moment(until))
                assert self._key is not None
                if self._key.read(text).ids != (name,):
                    raise ValueError("its text has another id")
                self.granted[name] = Granted(name, terms, text, by, int(uid), int(when))
            case ["revoked", when, name, by, until] if not first and len(name) == ID and when.isdecimal():
                self.revoked[name] = _moment(until)
            case _:
                raise ValueError("it says nothing that is known")

    def _made_key(self) -> Key:
        if self._key is None:
            private = new_key()
            state.make(self.path, f"key {private.hex()}\n".encode())
            self._seen = self._status()
            self._key = Key.of(private)
        return self._key

    def _append(self, line: str, most: int | None = None) -> None:
        """Add a line, if the file then has no more than `most` bytes, and sync it; after an error nothing of it is left."""
        data = f"{line}\n".encode()
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size + len(data) > (MOST if most is None else most):
                raise NineError(errno.EFBIG, f"{self.path} is full: it has {size} bytes")
            try:
                if os.write(fd, data) != len(data):
                    raise NineError(errno.ENOSPC)
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
            self._seen = ()
        self._seen = self._status()


KEPT: Final = 4096  # ids whose last use is remembered


class _Damaged(Exception):
    """The file is not as it was written."""


def _said(word: str) -> str | None:
    return None if word == _NONE else word


def _moment(word: str) -> int | None:
    return None if word == _NONE else int(word)


def _granted_line(new: Granted) -> str:
    said = new.terms
    more = [_NONE if word is None else word for word in (said.to, said.kernel, said.since, said.until)]
    return join(["granted", new.time_ns, new.id, new.by, new.uid, said.path or "/", said.ops, *more, new.text])
