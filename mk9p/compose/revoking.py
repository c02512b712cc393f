"""What composers revoke that have one etcd: each takes it for revoked as soon as it hears of it.

A revocation holds here a moment before anybody else hears of it, and is in our own ledger. If etcd does not answer, others hear of it as soon as it
does. `revoked/ID` is its record: until when, in seconds since 1970, somebody may still hold what is revoked.
"""

import json
import logging
from typing import Final

import attrs
import trio

from mk9p.authority.ledger import Ledger
from mk9p.etcd.records import Record, delete, put
from mk9p.lease.shared import Shared
from mk9p.said import from_json

log = logging.getLogger("mk9p.compose")

REVOKED: Final = "revoked/"
LOOK: Final = 0.3  # seconds between two looks for what others do not know yet
LONG: Final = 86400  # seconds after which what has ended is forgotten: so far may the clocks of machines be apart


@attrs.define(eq=False)
class Revoking:
    """Tells others what a ledger revokes, and the ledger what others do."""

    ledger: Ledger
    store: Shared

    def __attrs_post_init__(self) -> None:
        self.store.mirror.heard.append(self._heard)
        for key, one in self.store.mirror.kept.items():
            self._heard(key, one)

    @property
    def prefix(self) -> str:
        return f"{self.store.prefix}{REVOKED}"

    def _heard(self, key: str, one: Record | None) -> None:
        if one is None or not key.startswith(self.prefix):
            return
        try:
            until = from_json(one.value)
            if until is not None and (not isinstance(until, int) or isinstance(until, bool) or abs(until) >= 1 << 63):
                raise ValueError(f"{until!r:.80} is no time")
        except ValueError as error:
            log.error("what etcd has at %s is not understood, so it ends no earlier: %s", key, error)
            until = None
        name = key.removeprefix(self.prefix)
        if name not in self.ledger.revoked:
            self.ledger.hear(name, until)

    async def run(self) -> None:
        """Tell others, until cancelled."""
        while True:
            try:
                self.ledger.look()  # other programs of this user revoke too
                await self._tell()
            except OSError as error:
                log.warning("what is revoked here is not yet known to others: %s", error)
            await trio.sleep(LOOK)

    async def _tell(self) -> None:
        now = int(self.ledger.clock())
        for name, until in tuple(self.ledger.revoked.items()):
            key = self.prefix + name
            if key not in self.store.mirror.kept and (until is None or until + LONG > now):
                outcome = await self.store.client.txn([], [put(key, json.dumps(until))], [])
                await self.store.mirror.reached(outcome.revision)
        for name, until in tuple(self.ledger.elsewhere.items()):
            if until is not None and until + LONG <= now:
                await self.store.client.txn([], [delete(self.prefix + name)], [])
                del self.ledger.elsewhere[name]
