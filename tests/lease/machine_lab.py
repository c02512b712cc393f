"""Composers with a clock of the test's own, whose store fails, answers late or not at all, and which crash and begin again: for test_machine.py."""

import errno
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import attrs
import httpx
import pytest
import trio

from mk9p.errors import NineError
from mk9p.etcd.address import parse
from mk9p.lease.book import Lease
from mk9p.lease.leases import Leases
from mk9p.lease.opening import shared
from mk9p.lease.shared import Shared
from mk9p.lease.store import SqliteStore
from mk9p.lease.stores import Local, Store
from mk9p.lease.wish import SECOND, Mode, Wish
from mk9p.testing import SOON, until
from tests.etcd.cluster import Cluster
from tests.lease.compared import in_the_way
from tests.lease.history import Grant, wrong
from tests.lease.test_leases import Virtual

Fate = Literal["well", "unasked", "unanswered", "late"]
ALWAYS = 1 << 30


@attrs.define(eq=False)
class Fated:
    """What happens to the next `left` requests; those after them are well."""

    fate: Fate = "well"
    left: int = 0

    def next(self) -> Fate:
        """Return what happens to this request."""
        fate = self.fate
        self.left -= 1
        if self.left <= 0:
            self.fate = "well"
        return fate


@attrs.define(eq=False)
class Line(Fated):
    """What etcd is spoken to through: a request may never go out, be done without an answer, or be done later."""

    real: httpx.AsyncClient = attrs.field(kw_only=True)
    late: list[httpx.Request] = attrs.field(factory=list)

    async def send(self, request: httpx.Request, **more: Any) -> httpx.Response:
        fate = self.next()
        if fate == "well":
            return await self.real.send(request, **more)
        if fate == "unanswered" and not more:
            await self.real.send(request)
        if fate == "late" and not more and len(self.late) < 3:
            self.late.append(request)
        await trio.lowlevel.checkpoint()
        raise httpx.ReadError("made up", request=request)

    async def arrive(self) -> None:
        """Let what is late be done."""
        late, self.late = self.late, []
        for request in late:
            with suppress(httpx.TransportError):  # it has come too late even for its line
                await self.real.send(request)


@attrs.define(eq=False)
class Disk(SqliteStore):
    """A file whose writes fail: before they are done, or after."""

    line: Fated = attrs.field(factory=Fated, kw_only=True)

    def _do(self, *statements: Any) -> None:
        fate = self.line.next()
        if fate in ("well", "unanswered"):
            super()._do(*statements)
        if fate != "well":
            raise NineError(errno.EIO, "made up")


@attrs.define(eq=False)
class Composer:
    """One composer; `leases` are None while it is down."""

    name: str
    leases: Leases | None = None
    store: Store | None = None
    line: Fated | None = None
    users: trio.Nursery | None = None
    """In which its users' requests run: they end with it."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ended: trio.Event = attrs.field(factory=trio.Event)
    ghosts: list[Lease] = attrs.field(factory=list)
    """What it held when it crashed."""

    def held(self) -> list[Lease]:
        """Return what its users may write under now."""
        if self.leases is None:
            return []
        book, now = self.leases.book, self.leases.clock.now()
        busy = book.ending | book.granting
        own = (lease for number, lease in book.leases.items() if number >= 0 and number not in busy)
        return [lease for lease in own if now < lease.until and lease.token > 0]


@attrs.define(eq=False)
class Lab:
    """All of them, and what has happened."""

    nursery: trio.Nursery
    open: Callable[["Composer", Virtual], Any]
    composers: list[Composer]
    clock: Virtual = attrs.field(factory=Virtual)
    grants: list[Grant] = attrs.field(factory=list)
    asked: dict[tuple[str, str], int] = attrs.field(factory=dict)
    """The first step in which somebody asked for a path, by composer: for what was granted without an answer."""
    steps: Any = attrs.field(factory=lambda: itertools.count(1))
    busy: dict[tuple[str, int], Wish] = attrs.field(factory=dict)
    """What is being asked for."""
    counts: dict[str, int] = attrs.field(factory=dict)
    said: list[str] = attrs.field(factory=list)
    """What was done, a line each: a failure tells it, because etcd's own pace is no part of a seed."""

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # composers

    async def begin(self, it: Composer) -> None:
        await self.nursery.start(self._run, it)
        assert it.leases is not None
        step = next(self.steps)
        for lease in it.held():
            known = next((one for one in self.grants if one.token == lease.token), None)
            if known is None:
                first = self.asked[it.name, lease.wish.path]
                self.grants.append(Grant(lease.wish, lease.token, first, step))
            else:
                known.ends = None
        it.ghosts = []
        self.said.append(f"{it.name} has begun with {it.held()}")
        self.note(step)

    async def _run(self, it: Composer, task_status: trio.TaskStatus[None]) -> None:
        it.scope, it.ended = trio.CancelScope(), trio.Event()
        try:
            with it.scope:
                async with self.open(it, self.clock) as store, trio.open_nursery() as nursery:
                    it.store, it.leases = store, Leases(store, self.clock)
                    nursery.start_soon(it.leases.run)
                    it.users = nursery
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            it.leases = it.store = it.line = it.users = None
            it.ended.set()

    async def crash(self, it: Composer, known: bool) -> None:
        """End a composer at once; `known`: etcd has noticed that it is gone."""
        it.ghosts = it.held()
        session = it.store.session if isinstance(it.store, Shared) else None
        assert it.line is not None
        if not known or session is None:
            it.line.fate, it.line.left = "unasked", ALWAYS
        else:
            it.line.fate = "well"
        it.scope.cancel()
        await it.ended.wait()
        self.count("crashed")
        self.said.append(f"{it.name} has crashed, known {known}, with {it.ghosts}")

    # what users do

    async def take(self, it: Composer, wish: Wish, wait: float | None) -> None:
        leases = it.leases
        if leases is None:
            return
        call = next(self.steps)
        self.asked.setdefault((it.name, wish.path), call)
        self.said.append(f"{it.name} take {wish} wait {wait}")
        self.busy[it.name, wish.number] = wish
        try:
            lease = await leases.take(wish, wait)
        except NineError as error:
            self.count(errno.errorcode[error.errno])
            self.said.append(f"{it.name} refused {wish.number}: {error}")
            if error.errno == errno.EAGAIN:
                self.unsettled = True  # it may come late, also where only the machine was slow
            if error.errno == errno.EBUSY and wait is None and not self._may_be_busy(it, wish, call):
                history = "\n".join(self.said)
                raise AssertionError(f"{wish} refused for no reason: {error}\n{history}") from None
        else:
            self.count("granted")
            self.said.append(f"{it.name} granted {lease}")
            told = next(self.steps)
            self.grants.append(Grant(lease.wish, lease.token, call, told))
            self.note(told)
        finally:
            self.busy.pop((it.name, wish.number), None)

    def _may_be_busy(self, it: Composer, wish: Wish, call: int) -> bool:
        """Tell whether something could be in the way of a request: all that has not surely ended before it."""
        if any(one.line is None or one.line.fate != "well" or one.ghosts for one in self.composers) or self.unsettled:
            return True
        if any(other != wish and in_the_way(other, wish) for other in self.busy.values()):
            return True  # it waits, or has been granted just now
        some = (one for one in self.grants if in_the_way(one.wish, wish))
        return any(one.ends is None or one.ends >= call - 1 for one in some)

    unsettled: bool = False

    async def renew(self, it: Composer, number: int, term: int | None) -> None:
        if it.leases is None:
            return
        self.said.append(f"{it.name} renew {number} {term}")
        try:
            await it.leases.renew(number, term)
            self.count("renewed")
        except NineError as error:
            self.count(f"renew {errno.errorcode[error.errno]}")
            self.unsettled |= error.errno == errno.EAGAIN

    async def give(self, it: Composer, number: int) -> None:
        if it.leases is None:
            return
        lease = it.leases.book.leases.get(number)
        self.said.append(f"{it.name} give {number}")
        step = next(self.steps)
        try:
            it.leases.book.held(number, self.clock.now())
        except NineError:
            return
        for one in self.grants:
            if lease is not None and one.token == lease.token and one.ends is None:
                one.ends = step
        self.unsettled = True
        with suppress(NineError):
            await it.leases.give(number)
            self.count("given")

    def go(self, seconds: float) -> None:
        """Let time pass."""
        step = next(self.steps)
        self.said.append(f"{seconds} s pass")
        self.clock.time += round(seconds * SECOND)
        self.note(step)
        self.unsettled = True
        self.clock.go(0)

    def note(self, step: int) -> None:
        """Note which leases have ended by now."""
        alive = {lease.token for it in self.composers for lease in it.held()}
        alive |= {ghost.token for it in self.composers for ghost in it.ghosts if self.clock.now() < ghost.until}
        for grant in self.grants:
            if grant.ends is None and grant.token not in alive:
                grant.ends = step

    # what must be so

    def check(self) -> None:
        """Raise AssertionError if two hold what only one may, or if what was granted could not be so."""
        held = [(it.name, lease.wish) for it in self.composers for lease in it.held()]
        ghosts = [(it.name, one.wish) for it in self.composers for one in it.ghosts if self.clock.now() < one.until]
        both, history = [*held, *ghosts], "\n".join(self.said)
        for at, (name, wish) in enumerate(both):
            for other, theirs in both[:at]:
                assert not in_the_way(wish, theirs), f"{name} has {wish}, and {other} has {theirs}\n{history}"
        said = wrong(self.grants)
        assert not said, f"{said}\n{history}"

    async def quiet(self) -> None:
        """Let all that is under way come to its end, if every store is well; then all must know the same."""
        for it in self.composers:
            if it.line is None or it.line.fate != "well" or it.ghosts:
                return
        for _ in range(3):  # ends that could not be written are tried again
            self.go(1)
            await trio.testing.wait_all_tasks_blocked(0.002)
        await until(self._settled, SOON / 2)
        self.unsettled = False
        self.count("quiet")

    def _settled(self) -> bool:
        known: list[set[tuple[str, int]]] = []
        for it in self.composers:
            assert it.leases is not None
            book = it.leases.book
            if book.ending or book.over(self.clock.now()):
                self.clock.go(0.1)
                return False
            if isinstance(it.store, Shared) and it.store._doubtful:
                return False
            wishes = [*(lease.wish for lease in book.leases.values()), *book.waiting.values()]
            known.append({(w.home or it.name, w.there if w.home else w.number) for w in wishes})
        return all(one == known[0] for one in known)

    async def run(self, work: Callable[..., Awaitable[None]], it: Composer, *args: object) -> None:
        """Begin something at a composer, and wait until it is done, or waits."""
        done = trio.Event()

        async def one() -> None:
            await work(it, *args)
            done.set()

        if it.users is None:
            return
        it.users.start_soon(one)
        with trio.move_on_after(0.05):
            await done.wait()


@asynccontextmanager
async def on_file(folder: Path) -> AsyncIterator[Lab]:
    @asynccontextmanager
    async def open_file(it: Composer, clock: Virtual) -> AsyncIterator[Store]:
        disk = Disk(folder / "leases")
        it.line = disk.line
        try:
            yield Local(disk)
        finally:
            disk.close()

    async with trio.open_nursery() as nursery:
        lab = Lab(nursery, open_file, [Composer("")])
        await lab.begin(lab.composers[0])
        yield lab
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def on_etcd(etcd: Cluster, prefix: str) -> AsyncIterator[Lab]:
    @asynccontextmanager
    async def open_shared(it: Composer, clock: Virtual) -> AsyncIterator[Store]:
        async with shared(parse(etcd.where(it.name, prefix=prefix, ttl=60)), clock) as store:
            client = store.client
            client.patience = 0.3
            line = it.line = Line(real=client._http)
            client._http = line  # type: ignore[assignment]
            yield store

    with pytest.MonkeyPatch.context() as patch:
        async with trio.open_nursery() as nursery:
            lab = Lab(nursery, open_shared, [Composer("a"), Composer("b")])
            # what a lease has left when its composer begins again is counted by this clock too
            patch.setattr("mk9p.lease.shared.boottime", lab.clock.now)
            for it in lab.composers:
                await lab.begin(it)
            yield lab
            for it in lab.composers:
                if it.line is not None:
                    it.line.fate = "well"
            nursery.cancel_scope.cancel()


def wish(number: int, path: str, mode: Mode, holder: str, term: float) -> Wish:
    key = tuple(name for name in path.split("/") if name)
    return Wish(number, path, key, mode, holder, round(term * SECOND))
