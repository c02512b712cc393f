"""`Mirror`: what is below a prefix of etcd, here, and told as it changes.

Rules
* What is here is what was there in `revision`, as a whole: all changes of a revision are told before anything else goes on here.
* Nothing is missed. A stream that breaks goes on at another member behind the last revision that was heard. If etcd has forgotten what was between
  (it compacts), everything is read again, and the difference is told.
* A member that has lost the others ends the stream itself (etcd calls it `hasleader`); one that says nothing any more is left by whoever notices
  first: the session (session.py) asks the same member every few seconds.
"""

import errno
import logging
from collections.abc import Callable
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.etcd.client import ATTEMPT, PATIENCE, Client, Passing, no_quorum
from mk9p.etcd.records import Json, Record, coded, end_of, number, part, parts, record

log = logging.getLogger("mk9p.etcd")

MOST: Final = 256 << 20  # bytes of all keys and values
PAUSE: Final = 0.1  # seconds between two members that do not answer


@attrs.define(eq=False)
class Mirror:
    """The records below a prefix, by key. `run` follows them, until cancelled."""

    client: Client
    prefix: str
    heard: list[Callable[[str, Record | None], None]] = attrs.field(factory=list)
    """Each is told of a record that is new or changed, or None and the key of one that is gone; `kept` has it already."""
    kept: dict[str, Record] = attrs.field(factory=dict)
    revision: int = 0
    reloaded: int = 0
    """How often everything was read again because etcd had forgotten what was between."""
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _size: int = attrs.field(default=0, init=False)
    _stream: trio.CancelScope | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.client.moved.append(self._move)

    def _move(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    async def load(self) -> None:
        """Read everything; tell what is different from before. Raises EAGAIN, and what etcd refuses."""
        found, revision = await self.client.below(self.prefix)
        there = {one.key: one for one in found}
        self._require_room(size := sum(map(_size, found)))
        before, self.kept, self._size = self.kept, there, size
        self.revision = max(revision, self.revision)
        for key in before.keys() - there.keys():
            self._tell(key, None)
        for key, one in there.items():
            if before.get(key) != one:
                self._tell(key, one)
        self._wake()

    async def reached(self, revision: int) -> None:
        """Wait until all of a revision is here. Raises EAGAIN if it does not come."""
        with trio.move_on_after(PATIENCE):
            while self.revision < revision:
                await self._changed.wait()
            return
        raise no_quorum("what etcd has changed does not come")

    async def differs(self, key: str, before: Record) -> None:
        """Wait until what is at a key is another than before, or gone. Raises EAGAIN if that does not come."""
        with trio.move_on_after(PATIENCE):
            while (now := self.kept.get(key)) is not None and now.made == before.made:
                await self._changed.wait()
            return
        raise no_quorum("what etcd has changed does not come")

    async def run(self) -> None:
        """Follow the changes until cancelled."""
        while True:
            member = self.client.member
            try:
                with trio.CancelScope() as self._stream:
                    await self._follow(self._stream)
                if self._stream.deadline < trio.current_time():  # it never began
                    self.client.leave(member)
            except Passing as passing:
                log.info("%s: %s", member, passing)
                self.client.leave(member)
                await trio.sleep(PAUSE)
            except NineError as error:
                log.error("what etcd has cannot be followed: %s", error)
                await trio.sleep(ATTEMPT)
            finally:
                self._stream = None

    async def _follow(self, scope: trio.CancelScope) -> None:
        scope.deadline = trio.current_time() + ATTEMPT
        wanted = {"key": coded(self.prefix), "range_end": end_of(self.prefix), "start_revision": str(self.revision + 1)}

        def take(answer: Json) -> bool:
            scope.deadline = float("inf")
            if answer.get("canceled") is True:
                if not number(answer, "compact_revision"):
                    raise Passing(f"{answer.get('cancel_reason')}")
                return False
            self._take(answer)
            return True

        await self.client.stream("/v3/watch", {"create_request": wanted}, take)
        log.warning("etcd has forgotten what was after revision %d: all is read again", self.revision)
        self.reloaded += 1
        await self.load()

    def _take(self, answer: Json) -> None:
        base = self.revision
        for event in parts(answer, "events"):
            one = record(part(event, "kv"))
            if one.written <= base or not one.key.startswith(self.prefix):
                continue
            gone = event.get("type") == "DELETE"
            before = self.kept.get(one.key)
            size = self._size - (0 if before is None else _size(before)) + (0 if gone else _size(one))
            self._require_room(size)
            self.revision, self._size = max(self.revision, one.written), size
            if gone:
                self.kept.pop(one.key, None)
                self._tell(one.key, None)
            else:
                self.kept[one.key] = one
                self._tell(one.key, one)
        if self.revision != base:
            self._wake()

    def _require_room(self, size: int) -> None:
        if size > MOST:
            raise NineError(errno.EMSGSIZE, f"etcd has more than {MOST} bytes below {self.prefix}")

    def _tell(self, key: str, one: Record | None) -> None:
        for tell in self.heard:
            tell(key, one)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _size(one: Record) -> int:
    return len(one.key) + len(one.value)
