"""`SqliteStore`: what must outlive the composer, in one file of sqlite3: leases, the last token, and entries of the registry that persist.

* What a method has written survives when it returns, whatever happens then (synchronous=FULL), and is there as a whole or not at all. After an error
  of the disk nothing has changed for this process. But the next one may find it done: so stores.py takes a grant that failed out before it makes
  another. One that nothing came after lasts for its term in the next process.
* One process has the file at a time; a second gets EBUSY.
* The file is examined when it is opened. If it is damaged, it is put aside under another name, and the log says so: then nobody holds anything. Its
  number of a token may be lost with it, so tokens go on from the time, in ms, which is greater than any that was given: in each new file beside a
  damaged one, for a process may be killed between the two.
* A file of an older version is brought to this one. A file of a newer version is left alone: EPROTONOSUPPORT would be guessing, so it is EINVAL with
  words.
"""

import errno
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import attrs

from mk9p import state
from mk9p.errors import NineError
from mk9p.lease.book import Book, Lease
from mk9p.lease.near import Near
from mk9p.lease.wish import Resource, Wish
from mk9p.tree.words import join, split

log = logging.getLogger("mk9p.lease")

NAME: Final = "leases.sqlite"
VERSION: Final = 2
T = TypeVar("T")

_TABLES: Final = """
CREATE TABLE lease (number INTEGER PRIMARY KEY, path TEXT NOT NULL, key TEXT NOT NULL, mode TEXT NOT NULL, holder TEXT NOT NULL,
                    uid INTEGER NOT NULL, term INTEGER NOT NULL, token INTEGER NOT NULL, until INTEGER NOT NULL,
                    more TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE last (one INTEGER PRIMARY KEY CHECK (one = 1), token INTEGER NOT NULL) STRICT;
CREATE TABLE entry (name TEXT PRIMARY KEY, owner TEXT NOT NULL, line TEXT NOT NULL) STRICT;
"""
# version 2: a lease of several resources; `more` has the path and the key of each but the first
_SECOND: Final = "ALTER TABLE lease ADD COLUMN more TEXT NOT NULL DEFAULT '';"


class Disk(Protocol):
    """Keeps leases and entries. Every method may wait for a disk: call it in a thread. If it raises OSError, nothing has changed."""

    def load(self) -> Book:
        """Return all leases, and the last token."""

    def put(self, lease: Lease) -> None:
        """Keep a lease, new or renewed, and its token."""

    def drop(self, number: int) -> None:
        """Forget a lease."""

    def entries(self) -> dict[str, tuple[str, str]]:
        """Return the entries of the registry that persist: their owner and their line, by name."""

    def enter(self, name: str, owner: str, line: str) -> None:
        """Keep an entry."""

    def remove(self, name: str) -> None:
        """Forget an entry."""

    def close(self) -> None:
        """Let go of it."""


@attrs.define(eq=False)
class Memory:
    """A store that outlives nothing: for a composer that may keep nothing, and for tests of what uses a store."""

    book: Book = attrs.field(factory=Book)
    kept: dict[str, tuple[str, str]] = attrs.field(factory=dict)

    def load(self) -> Book:
        return Book(Near(self.book.leases), token=self.book.token)

    def put(self, lease: Lease) -> None:
        self.book.leases[lease.number] = lease
        self.book.token = max(self.book.token, lease.token)

    def drop(self, number: int) -> None:
        self.book.leases.pop(number, None)

    def entries(self) -> dict[str, tuple[str, str]]:
        return dict(self.kept)

    def enter(self, name: str, owner: str, line: str) -> None:
        self.kept[name] = owner, line

    def remove(self, name: str) -> None:
        self.kept.pop(name, None)

    def close(self) -> None:
        return None


@attrs.define(eq=False)
class SqliteStore:
    """The store in a file, which is made if there is none. Raises EBUSY if another process has it, EINVAL if it is of a newer version."""

    path: Path
    _lock: int = attrs.field(init=False, default=-1)
    _db: sqlite3.Connection = attrs.field(init=False)
    _one: threading.Lock = attrs.field(
        factory=threading.Lock, init=False
    )  # leases and entries are written in threads of their own

    def __attrs_post_init__(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(
            self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NineError(errno.EBUSY, f"{self.path}: another composer has it") from None
            self._db = self._opened()
        except BaseException:
            os.close(self._lock)
            raise

    def _opened(self) -> sqlite3.Connection:
        if os.path.lexists(self.path):
            state.refuse_public(self.path, os.lstat(self.path))
        try:
            return self._connect()
        except _Damaged as error:
            aside = self.path.with_name(f"{self.path.name}.damaged.{time.time_ns() // 10**9}")
            for end in ("-wal", "-shm", ""):
                if os.path.lexists(f"{self.path}{end}"):
                    os.rename(f"{self.path}{end}", f"{aside}{end}")
            state.sync_directory(self.path.parent)
            log.error("%s is damaged (%s): it is now %s, and nobody holds a lease", self.path, error, aside)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise NineError(
                    errno.EINVAL, f"{self.path} is of version {version}, and this mk9p knows {VERSION}: use a newer one"
                )
            if version == 0:
                self._make(db)
            else:
                found = [line for (line,) in db.execute("PRAGMA integrity_check")]
                if found != ["ok"]:
                    raise _Damaged(found[0])
                if version == 1:
                    db.executescript(f"BEGIN; {_SECOND} PRAGMA user_version = 2; COMMIT;")
                self._read(db)
        except sqlite3.DatabaseError as error:
            db.close()
            if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                raise NineError(errno.EIO, f"{self.path}: {error}") from None
            raise _Damaged(str(error)) from None
        except BaseException:
            db.close()
            raise
        return db

    def _make(self, db: sqlite3.Connection) -> None:
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables:
            raise _Damaged("it is no store of ours")
        aside = any(name.startswith(f"{self.path.name}.damaged.") for name in os.listdir(self.path.parent))
        token = time.time_ns() // 10**6 if aside else 0
        made = f"{_TABLES} INSERT INTO last VALUES (1, {token}); PRAGMA user_version = {VERSION};"
        db.executescript(f"BEGIN; {made} COMMIT;")
        state.sync_directory(self.path.parent)

    def _read(self, db: sqlite3.Connection) -> Book:
        try:
            (token,) = db.execute("SELECT token FROM last").fetchone()
            book = Book(token=token)
            for row in db.execute("SELECT number, path, key, mode, holder, uid, term, token, until, more FROM lease"):
                number, path, key, mode, holder, uid, term, token, until, more = row
                if mode not in ("shared", "exclusive") or token > book.token or number < 0:
                    raise ValueError(f"lease {number} says what none can")
                words = split(more)
                further = (Resource(its, tuple(split(way))) for its, way in zip(words[::2], words[1::2], strict=True))
                wish = Wish(number, path, tuple(split(key)), mode, holder, term, uid, more=tuple(further))
                book.leases[number] = Lease(wish, token, until)
        except (ValueError, TypeError, NineError, sqlite3.DatabaseError) as error:
            raise _Damaged(str(error)) from None
        return book

    def _do(self, *statements: tuple[str, Iterable[Any]]) -> None:
        """Do all of some statements, or none. Raises EIO."""

        def work() -> None:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    self._db.execute(statement, tuple(values))
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

        self._try(work)

    def _try(self, work: Callable[[], T]) -> T:
        try:
            with self._one:
                return work()
        except sqlite3.Error as error:
            raise NineError(errno.EIO, f"{self.path}: {error}") from None

    def load(self) -> Book:
        try:
            return self._read(self._db)
        except _Damaged as error:
            raise NineError(errno.EIO, f"{self.path}: {error}") from None

    def put(self, lease: Lease) -> None:
        wish = lease.wish
        row = (
            wish.number,
            wish.path,
            join(wish.key),
            wish.mode,
            wish.holder,
            wish.uid,
            wish.term,
            lease.token,
            lease.until,
            join([word for path, key in wish.more for word in (path, join(key))]),
        )
        self._do(
            ("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row),
            ("UPDATE last SET token = max(token, ?)", (lease.token,)),
        )

    def drop(self, number: int) -> None:
        self._do(("DELETE FROM lease WHERE number = ?", (number,)))

    def entries(self) -> dict[str, tuple[str, str]]:
        rows = self._try(lambda: self._db.execute("SELECT name, owner, line FROM entry ORDER BY name").fetchall())
        return {name: (owner, line) for name, owner, line in rows}

    def enter(self, name: str, owner: str, line: str) -> None:
        self._do(("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", (name, owner, line)))

    def remove(self, name: str) -> None:
        self._do(("DELETE FROM entry WHERE name = ?", (name,)))

    def close(self) -> None:
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class _Damaged(Exception):
    """The file is not as it was written."""


def _is_damage(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
