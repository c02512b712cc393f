"""`Places`: what this composer writes to etcd at places of its own, and how it takes away what nobody answered for.

A place is a key without the prefix. A change that nobody answered leaves its place doubtful: the session makes sure that nothing comes late any more
(etcd/session.py), and then what is there, and is not wanted, is removed.
"""

import logging
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.etcd.client import Client
from mk9p.etcd.mirror import Mirror
from mk9p.etcd.records import Json, Outcome, Record, delete, get, untouched
from mk9p.etcd.session import Session
from mk9p.lease.wish import SECOND

log = logging.getLogger("mk9p.lease")

MOMENT: Final = SECOND // 20
AGAIN: Final = 1.0  # seconds until what nobody answered is tried again


@attrs.define(eq=False)
class Places:
    """The places of one composer. Whoever inherits says which are wanted."""

    client: Client
    mirror: Mirror
    session: Session
    _writing: set[str] = attrs.field(factory=set, init=False)
    _doubtful: set[str] = attrs.field(factory=set, init=False)  # places of ours that nothing may be at
    _untidy: trio.Event = attrs.field(factory=trio.Event, init=False)
    _loaded: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def prefix(self) -> str:
        """What all keys begin with."""
        return self.client.where.prefix

    def _wanted(self, at: str) -> bool:
        """Tell whether there must be something at a place of ours."""
        raise NotImplementedError

    def _is_ours(self, at: str, one: Record) -> bool:
        """Tell whether what is at a place was written by this composer."""
        raise NotImplementedError

    async def _write(self, at: str, compare: list[Json], changes: list[Json], reads: list[Json]) -> Outcome:
        """Change what is at a place of ours. Raises EAGAIN; if nobody knows whether it was done, the place is doubtful."""
        key = self.prefix + at
        self.session.require()
        with trio.CancelScope(shield=True):
            await self.session.settle()
            self._writing.add(at)
            try:
                outcome = await self.client.txn(
                    [self.session.ours(), *compare], changes, [get(self.session.key), get(key), *reads]
                )
            except NineError:
                self.session.unsure = True
                self._doubt(at)
                raise
            finally:
                self._writing.discard(at)
        if not outcome.done:
            mine = outcome.found[0]
            if not mine or mine[0].lease != self.session.lease:
                self.session.until = 0.0
                self.session.require()
        return outcome

    def _doubt(self, at: str) -> None:
        self._doubtful.add(at)
        self._untidy.set()

    async def _tidy(self) -> None:
        """Take away what is at places of ours that nothing may be at, until cancelled."""
        await self._loaded.wait()
        while True:
            await self._untidy.wait()
            self._untidy = trio.Event()
            try:
                await self.session.settle()
                for at in tuple(self._doubtful):
                    if at in self._writing:
                        continue
                    if not self._wanted(at):
                        await self._take_away(at)
                    self._doubtful.discard(at)
            except OSError as error:
                log.debug("not yet: %s", error)
                await trio.sleep(AGAIN)
            if self._doubtful:
                self._untidy.set()
                await trio.sleep(MOMENT / SECOND)

    async def _take_away(self, at: str) -> None:
        key = self.prefix + at
        found = (await self.client.txn([], [get(key)], [])).found[0]
        if found and self._is_ours(at, found[0]):
            await self.client.txn([self.session.ours(), untouched(key, found[0].written)], [delete(key)], [])
