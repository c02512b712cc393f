"""The shared part of the table of composers that have one etcd: mount points that are the same at each of them.

`share OLD` gives the others what is at OLD here: its commands are the record `table/OLD`. Each composer makes its own OLD from them, now and when it
starts; the last who shared it decides. `unshare OLD` takes it away everywhere. What somebody changes at a shared OLD without sharing it again is
theirs alone, until they hear of the next.
"""

import errno
import json
import logging
from typing import Final
from urllib.parse import quote

import attrs
import trio

from mk9p.compose.far_records import dialable
from mk9p.compose.namespace import KERNELS, Namespace
from mk9p.compose.table import Flags, clean
from mk9p.errors import NineError
from mk9p.etcd.records import Record, delete, put
from mk9p.lease.shared import Shared
from mk9p.said import from_json
from mk9p.tree.words import split

log = logging.getLogger("mk9p.compose")

TABLE: Final = "table/"
MOST: Final = 256  # commands of one mount point: more servers than anybody joins in one union


@attrs.define(eq=False)
class Sharing:
    """Gives others what is at some mount points, and makes here what they give."""

    ns: Namespace
    store: Shared
    local: bool = False
    """All are on one machine."""
    _came: "dict[str, Record | None]" = attrs.field(factory=dict, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.store.mirror.heard.append(self._heard)
        for key, one in self.store.mirror.kept.items():
            self._heard(key, one)
        self.ns.sharing = self

    @property
    def prefix(self) -> str:
        return f"{self.store.prefix}{TABLE}"

    def key(self, old: str) -> str:
        return self.prefix + quote(old or "/", safe="", errors="surrogateescape")

    async def share(self, old: str) -> None:
        """Give others what is at OLD. Raises EINVAL if nothing is mounted there, or it is not for others, EAGAIN without a quorum."""
        old = clean(old)
        for line in self.ns.table.commands(old):
            self._require_shared(old, line)
        lines = self.ns.table.commands(old)
        if not lines:
            raise NineError(errno.EINVAL, "not mounted")
        self.store.session.require()
        outcome = await self.store.client.txn([], [put(self.key(old), json.dumps({"old": old, "lines": lines}))], [])
        await self.store.mirror.reached(outcome.revision)

    async def unshare(self, old: str) -> None:
        """Take what was shared at OLD away, everywhere. Raises EINVAL if it is not shared, EAGAIN without a quorum."""
        key = self.key(clean(old))
        if key not in self.store.mirror.kept:
            raise NineError(errno.EINVAL, "not shared")
        self.store.session.require()
        outcome = await self.store.client.txn([], [delete(key)], [])
        await self.store.mirror.reached(outcome.revision)

    def _heard(self, key: str, one: Record | None) -> None:
        if key.startswith(self.prefix):
            self._came[key] = one
            self._changed.set()

    async def run(self) -> None:
        """Make here what others share, until cancelled."""
        shown: dict[str, str] = {}  # by key: the mount point
        while True:
            self._changed = trio.Event()
            while self._came:
                key, one = self._came.popitem()
                try:
                    if one is not None:
                        shown[key] = await self._make(one)
                    elif key in shown and self.ns.table.commands(old := shown.pop(key)):
                        self.ns.unmount(old)
                except (OSError, ValueError) as error:
                    log.error("what is shared at %s cannot be here: %s", key, error)
            await self._changed.wait()

    async def _make(self, one: Record) -> str:
        said = from_json(one.value)
        old, lines = (said.get("old"), said.get("lines")) if isinstance(said, dict) else (None, None)
        if not isinstance(old, str) or not isinstance(lines, list) or not 0 < len(lines) <= MOST:
            raise ValueError("it is no mount point")
        old = clean(old)
        for line in lines:
            if not isinstance(line, str) or "\n" in line:
                raise ValueError(f"{line!r:.80} is no line")
            self._require_shared(old, line)
        if self.ns.table.commands(old) != lines:
            if self.ns.table.points.get(old):
                self.ns.unmount(old)
            for line in lines:
                await self.ns.run(line + "\n")
        return old

    def _require_shared(self, old: str, line: str) -> None:
        """Raise EINVAL for a command that one composer may not give to another: it mounts what another machine has, or binds, and hides no file of a
        composer's own."""
        words = split(line)
        kind, *rest = words or [""]
        flags = Flags.parse(rest)
        if kind not in ("mount", "bind") or flags is None or len(rest) not in (2, 3) or clean(rest[1]) != old:
            raise NineError(errno.EINVAL, f"{line!r:.80} is no mount or bind at {old}")
        if old in ("", KERNELS) or old.split("/")[1] in self.ns.own - {KERNELS[1:]}:
            raise NineError(errno.EINVAL, f"{old or '/'} has files of each composer's own")
        if kind == "mount" and not dialable(rest[0], local=self.local):
            raise NineError(errno.EINVAL, f"{rest[0]:.80} cannot be dialled from another machine")
