"""`Session`: this program as the others see it. A key says that it is there; what goes with it goes with that key's lease of etcd.

Theory
* One keep-alive for the program, and none for each of its things: all that is to go with it is bound to one lease of etcd's.
* A name is one program's. Which program, a secret in the state directory says: so the same one, started again, has its name at once, and what its
  earlier life had bound is gone; another one with that name is refused.
* A call that nobody answered may still be done later. Every change compares the revision in which this program's key was last written: to be sure
  that nothing comes late any more, the program writes its key again (`settle`).
"""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

import attrs
import trio

from mk9p import state
from mk9p.errors import NineError
from mk9p.etcd.client import Client, no_quorum
from mk9p.etcd.records import Json, Record, get, number, part, put, same, untouched
from mk9p.said import from_json

log = logging.getLogger("mk9p.etcd")

HOMES: Final = "home/"
TRIES: Final = 16  # to have our name: each but the last ends an earlier life of ours


@attrs.define(eq=False)
class Session:
    """The session of a program called `name`, which is this one and no other by `identity`."""

    client: Client
    name: str
    identity: str
    ttl: int
    restored: list[Callable[[], Awaitable[None]]] = attrs.field(factory=list)
    """Each binds again what went with a session that was lost; it may raise OSError, and is asked again then."""
    lease: int = attrs.field(default=0, init=False)
    written: int = attrs.field(default=0, init=False)
    """The revision in which our key was last written."""
    until: float = attrs.field(default=0.0, init=False)
    """Until when, by trio's clock, we are surely there."""
    unsure: bool = attrs.field(default=False, init=False)
    """Whether a call that nobody answered may still be done."""
    _settling: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _bound: bool = attrs.field(default=True, init=False)  # whether all that goes with us is bound to this session

    @property
    def key(self) -> str:
        """The key that says that we are there."""
        return f"{self.client.where.prefix}{HOMES}{self.name}"

    def require(self) -> None:
        """Raise EAGAIN at once if nobody has answered for as long as a session lasts."""
        if trio.current_time() >= self.until:
            raise no_quorum("etcd has not answered for as long as others believe us")

    def ours(self) -> Json:
        """Compare: we are there, and nothing has been settled since."""
        return untouched(self.key, self.written)

    async def begin(self) -> None:
        """Be there. Raises EBUSY if another program has the name, EAGAIN."""
        for _ in range(TRIES):
            sent = trio.current_time()
            granted = await self.client.call("/v3/lease/grant", {"TTL": str(self.ttl)})
            lease = number(granted, "ID")
            value = json.dumps({"id": self.identity})
            outcome = await self.client.txn([same(self.key, 0)], [put(self.key, value, lease)], [get(self.key)])
            written = outcome.revision
            if not outcome.done:
                other = next(iter(outcome.found[0]), None)
                if other is not None and other.lease == lease:  # said twice, and done the first time
                    written = other.written
                else:
                    await self._revoke(lease)
                    if other is not None:
                        await self._take_over(other)
                    continue
            self.lease, self.written, self.unsure = lease, written, False
            self.until = sent + self.ttl
            return
        raise no_quorum("our name is never free, and nobody has it")

    async def _take_over(self, other: Record) -> None:
        """End an earlier life of ours. Raises EBUSY for somebody else's."""
        try:
            identity = from_json(other.value).get("id")
        except (ValueError, AttributeError):
            identity = None
        if identity != self.identity:
            raise NineError(errno.EBUSY, f"another composer is called {self.name}: give this one a name, ?name=N")
        await self._revoke(other.lease)

    async def _revoke(self, lease: int) -> None:
        with suppress(FileNotFoundError):  # it has ended
            await self.client.call("/v3/lease/revoke", {"ID": str(lease)})

    async def settle(self) -> None:
        """Let no call come late any more that nobody has answered. Raises EAGAIN."""
        async with self._settling:
            while self.unsure:
                value = json.dumps({"id": self.identity, "n": token_hex(8)})
                outcome = await self.client.txn([self.ours()], [put(self.key, value, self.lease)], [get(self.key)])
                found = () if outcome.done else outcome.found[0]
                if not outcome.done and (not found or found[0].lease != self.lease):
                    self.until = 0.0  # it has ended: `run` begins another
                    raise no_quorum("the session has ended")
                self.written, self.unsure = found[0].written if found else outcome.revision, False

    async def run(self) -> None:
        """Stay there until cancelled; if we were lost, begin again."""
        while True:
            await trio.sleep(self.ttl / 3)
            try:
                if not await self._keep():
                    self.until = 0.0
                    log.warning("etcd has taken this composer for gone: it comes again")
                    self._bound = False
                    await self.begin()
                if not self._bound:
                    for bind in self.restored:
                        await bind()
                    self._bound = True
            except OSError as error:
                log.error("this composer cannot tell etcd that it is there: %s", error)

    async def _keep(self) -> bool:
        """Tell that we are there; tell whether we still were."""
        sent = trio.current_time()
        if not self.lease:
            return False
        try:
            answer = await self.client.call("/v3/lease/keepalive", {"ID": str(self.lease)}, self.ttl, self.ttl / 5)
        except FileNotFoundError:
            return False
        left = number(part(answer, "result"), "TTL")
        if left:
            self.until = sent + self.ttl
        return left > 0

    async def end(self) -> None:
        """Be gone, with all that goes with us."""
        with suppress(OSError), trio.move_on_after(1, shield=True):
            await self._revoke(self.lease)


@contextmanager
def identity(name: str) -> Iterator[str]:
    """Have the secret by which a program called `name` is known again, in the state directory. Raises EBUSY if another process has it."""
    path = state.directory() / f"etcd-{name}"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(Path(f"{path}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NineError(
                errno.EBUSY, f"another composer of this user is called {name}: give this one a name, ?name=N"
            ) from None
        with suppress(FileExistsError):
            state.make(path, token_hex(16).encode())
        yield state.read(path, 64).decode(errors="replace")
    finally:
        os.close(lock)
