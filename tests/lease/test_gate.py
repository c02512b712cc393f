"""What a lease keeps: nobody else writes, by whatever way, and nothing of its holder arrives after its end."""

import errno
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from mk9p.client import changes, connect, requests
from mk9p.errors import NineError
from mk9p.lease.book import Lease
from mk9p.lease.gate import Gate, covering
from mk9p.lease.leases import Leases
from mk9p.lease.store import Memory as Nowhere
from mk9p.lease.stores import Local
from mk9p.lease.wish import SECOND, Wish
from mk9p.testing import Memory, MemoryHandle, until
from mk9p.tree import Change, settle
from tests.lease.test_lease_tree import ANN, BOB, ROOT, conversation, lab, refused, say

VERSIONS = ["9P2000.L", "9P2000.u"]  # the first goes the fast way to the kernel, the second does not


def test_a_lease_reaches_what_is_below_and_the_ctl_beside() -> None:
    lease = ("9p", "k1", "", "dev", "tty", "ttyS0")
    covers = covering(Wish(0, "/k", lease, "exclusive", "ann", SECOND))
    for names in ((), ("x",), ("x", "y")):
        assert covers((*lease, *names))
    assert covers((*lease[:-1], "ctl"))
    assert covers((*lease[:-1], "ttyS0ctl"))
    for key in (
        lease[:-1],
        (*lease[:-1], "ttyS1"),
        (*lease[:-1], "ttyS1ctl"),
        (*lease[:-2], "ctl"),
        ("9p", "k2", *lease[2:]),
    ):
        assert not covers(key)


def test_a_lease_of_another_composer_keeps_out_everybody_here_whatever_they_are_called() -> None:
    leases = Leases(Local(Nowhere()))
    gate = Gate(leases, lambda node, path: ())
    wish = Wish(-1, "/k/k1", ("9p", "k1"), "exclusive", "ann", SECOND, home="a")
    leases.store.told(-1, Lease(wish, 5, leases.clock.now() + 60 * SECOND))
    for who in ("ann", "bob", "ann at a"):
        with pytest.raises(NineError, match="ann at a has leased /k/k1"):
            gate.require(("9p", "k1", "disk"), who)
    gate.require(("9p", "k2"), "bob")
    leases.store.told(-1, None)
    gate.require(("9p", "k1", "disk"), "bob")


async def busy(what: Any, version: str) -> None:
    said = await refused(what)
    assert said.errno == errno.EBUSY, said
    if version != "9P2000.L":
        assert said.ename == "ann has leased /k/k1/disk/data"


@pytest.mark.parametrize("walked", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
async def test_nobody_else_opens_or_changes_it_by_whatever_path(tmp_path: Path, version: str, walked: bool) -> None:
    """`walked`: the client has a fid of each file from before the lease."""
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ann, conversation(ann) as (ctl, _):
        async with connect(it.at(ROOT)) as root:
            await root.write("ctl", "bind /k/k1/disk /n/disk")
        async with connect(it.at(BOB), version=version) as bob:
            c = bob.connection
            fids = {}
            if walked:
                for name in ("data", "ctl", "other", ""):
                    fids[name] = (await requests.walk(c, bob.root, ("k", "k1", "disk", *([name] if name else []))))[0]
                assert await bob.read("k/k1/disk/data") == "old"
            await say(ctl, "take /k/k1/disk/data")
            if walked:
                for name in ("data", "ctl"):
                    await busy(requests.open_(c, fids[name], read=False, write=True), version)
                    await busy(changes.change(c, fids[name], Change(length=0)), version)
            for path in ("k/k1/disk", "n/disk"):
                for name in ("data", "ctl"):
                    await busy(bob.write(f"{path}/{name}", "no"), version)
                await busy(bob.open(f"{path}/data", "r+"), version)
                await busy(bob.remove(f"{path}/data"), version)
                await busy(bob.rename(f"{path}/data", f"{path}/moved"), version)
                if version == "9P2000.L":  # in the others a name never replaces another
                    await busy(bob.rename(f"{path}/other", f"{path}/data"), version)
                assert await bob.read(f"{path}/data") == "old"
                await bob.write(f"{path}/other", "mine")
            await bob.write("k/k1/cpu/ctl", "do it")
            await bob.write("local/ctl", "do it")
        assert bytes(it.disk.at("data").data) == b"old"
        assert bytes(it.disk.at("other").data) == b"mine"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_directory_that_is_leased_keeps_all_that_is_in_it(tmp_path: Path, version: str) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ann, conversation(ann) as (ctl, _):
        await say(ctl, "take /k/k1/disk")
        async with connect(it.at(BOB), version=version) as bob:
            for what in (
                bob.write("k/k1/disk/data", "no"),
                bob.create("k/k1/disk/new", 0o666),
                bob.mkdir("k/k1/disk/new"),
                bob.remove("k/k1/disk/other"),
                bob.write("k/k1/ctl", "do no"),
            ):
                assert (await refused(what)).errno == errno.EBUSY
        await ann.write("k/k1/disk/data", "new")
        async with await ann.create("k/k1/disk/new", 0o666) as file:
            await file.write(b"mine")
            await say(ctl, "give")
            assert (await refused(file.write(b"more"))).errno == errno.EIO
        assert sorted(it.disk.children) == ["ctl", "data", "new", "other"]
        assert bytes(it.disk.at("new").data) == b"mine"


async def test_a_kernels_own_ctl_belongs_to_its_cpus_memory_and_devices(tmp_path: Path) -> None:
    async with (
        lab(tmp_path) as it,
        connect(it.at(ROOT)) as root,
        connect(it.at(BOB)) as bob,
        conversation(root) as (ctl, _),
    ):
        for path, kept in (("/k/k1/cpu/0", True), ("/k/k1", True), ("/k/k1/disk", False), ("/kernels/k1", True)):
            await say(ctl, f"take {path}")
            if kept:
                assert (await refused(bob.write("kernels/k1/ctl", "do no"))).errno == errno.EBUSY
            else:
                await bob.write("kernels/k1/ctl", "do it")
            await bob.write("kernels/k2/ctl", "do it")
            await root.write("kernels/k1/ctl", "do it")
            await say(ctl, "give")
    assert "no" not in it.done


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("end", ["give", "term"])
async def test_a_holder_that_lost_it_has_eio_on_the_next_write(tmp_path: Path, version: str, end: str) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN), version=version) as ann, conversation(ann) as (ctl, _):
        await say(ctl, "take /k/k1/disk/data for 10")
        async with await ann.open("k/k1/disk/data", "r+") as file, connect(it.at(BOB)) as bob:
            await file.pwrite(b"ann1", 0)
            if end == "give":
                await say(ctl, "give")
            else:
                it.clock.go(10)
                assert (await refused(file.pwrite(b"late", 0))).errno == errno.EIO
                await until(lambda: not it.leases.book.leases)
            for _ in range(2):
                said = await refused(file.pwrite(b"late", 0))
                assert said.errno == errno.EIO
            assert await file.pread(4, 0) == b"ann1", "reading goes on"
            await bob.write("k/k1/disk/data", "bob")
            assert (await refused(file.pwrite(b"late", 0))).errno == errno.EIO
        await ann.write("k/k1/disk/data", "free again")
        assert bytes(it.disk.at("data").data) == b"free again"


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_is_not_granted_while_somebody_has_it_open_for_writing(tmp_path: Path, version: str) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ann, connect(it.at(BOB), version=version) as bob:  # noqa: SIM117
        async with conversation(ann) as (ctl, _), conversation(ann) as (other, _):
            async with await bob.open("k/k1/disk/data", "r+") as file:
                await file.pwrite(b"x", 0)
                assert (await refused(say(ctl, "take /k/k1/disk"))).errno == errno.EBUSY
                assert await ann.read(f"lease/{0}/error") == "bob has /k/k1/disk open for writing\n"
                await say(ctl, "take /k/k1/disk shared")
                await say(ctl, "give")
                await say(ctl, "take /k/k1/cpu/ctl")
                await say(ctl, "give")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(say, ctl, "take /k/k1/disk wait 100000")
                    await until(lambda: it.leases.book.waiting)
                    assert (await refused(say(other, "take /k/k1/disk/other"))).errno == errno.EBUSY
                    for _ in range(10):
                        it.clock.go(1)
                        await trio.sleep(0.01)
                    assert not it.leases.book.leases
                    await file.pwrite(b"y", 0)
                    await file.aclose()

                    async def go_on() -> None:
                        while not it.leases.book.leases:
                            it.clock.go(0.1)
                            await trio.sleep(0.001)

                    await go_on()
            assert (await refused(bob.write("k/k1/disk/data", "no"))).errno == errno.EBUSY


async def test_what_is_under_way_at_the_end_arrives_before_the_next_holder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ann, connect(it.at(BOB)) as bob:  # noqa: SIM117
        async with conversation(ann) as (one, _), conversation(bob) as (two, _), trio.open_nursery() as nursery:
            await say(one, "take /k/k1/disk/data for 10")
            async with await ann.open("k/k1/disk/data", "r+") as file:
                may, begun, real = trio.Event(), trio.Event(), MemoryHandle.write

                def slow(self: MemoryHandle, offset: int, data: memoryview) -> Any:
                    kept = memoryview(bytes(data))

                    async def work() -> int:
                        begun.set()
                        await may.wait()
                        return await settle(real(self, offset, kept))

                    return work()

                monkeypatch.setattr(MemoryHandle, "write", slow)
                nursery.start_soon(file.pwrite, b"ann", 0)
                await begun.wait()
                monkeypatch.undo()
                nursery.start_soon(say, two, "take /k/k1/disk/data wait 100000")
                await until(lambda: it.leases.book.waiting)
                it.clock.go(10)
                for _ in range(50):
                    await trio.lowlevel.checkpoint()
                assert [lease.wish.holder for lease in it.leases.book.leases.values()] == ["ann"]
                may.set()
                await until(lambda: [lease.wish.holder for lease in it.leases.book.leases.values()] == ["bob"])
                assert bytes(it.disk.at("data").data) == b"ann"
                assert (await refused(file.pwrite(b"late", 0))).errno == errno.EIO


async def test_many_who_contend_are_never_two_writers(tmp_path: Path) -> None:
    """What arrived at the disk tells: all writes with one token come before all with a greater one."""
    arrived: list[int] = []

    async def one(it: Any, who: Any, seed: int) -> None:
        random = Random(seed)
        version = VERSIONS[seed % 2]
        for _ in range(6):
            with suppress(NineError, trio.BrokenResourceError):
                async with connect(it.at(who), version=version) as ns, conversation(ns) as (ctl, n):
                    await say(ctl, "take /k/k1/disk/data for 5 wait 100000")
                    token = int((await ns.read(f"lease/{n}/status")).split()[5])
                    async with await ns.open("k/k1/disk/data", "r+") as file:
                        for _ in range(random.randrange(1, 6)):
                            await file.pwrite(f"{token:8}".encode(), 0)
                            if random.random() < 0.2:
                                it.clock.go(random.randrange(1, 6))
                        if random.random() < 0.3:
                            return  # it dies with the lease, in the middle
                    if random.random() < 0.7:
                        await say(ctl, "give")

    async with lab(tmp_path) as it:
        watch = _watch(it, arrived)
        async with trio.open_nursery() as nursery:

            async def time() -> None:
                while True:
                    await trio.sleep(0.01)
                    it.clock.go(0.5)

            nursery.start_soon(time)
            async with trio.open_nursery() as workers:
                for seed in range(8):
                    workers.start_soon(partial(one, it, (ANN, BOB)[seed // 4], seed))
            nursery.cancel_scope.cancel()
        watch()
    assert len(set(arrived)) > 8
    assert arrived == sorted(arrived)


def _watch(it: Any, arrived: list[int]) -> Any:
    """Note the token of each write that arrives at the disk."""
    real = MemoryHandle.write

    def write(self: Any, offset: int, data: memoryview) -> Any:
        if self.node is it.disk.at("data"):
            arrived.append(int(bytes(data)))
        return real(self, offset, data)

    MemoryHandle.write = write  # type: ignore[method-assign]

    def undo() -> None:
        MemoryHandle.write = real  # type: ignore[method-assign]

    return undo


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_is_not_granted_while_somebody_is_just_opening_it(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ann, connect(it.at(BOB), version=version) as bob:
        async with conversation(ann) as (ctl, _), trio.open_nursery() as nursery:
            data, begun, go_on = it.disk.at("data"), trio.Event(), trio.Event()
            real = data.open

            async def slow(how: Any) -> Any:
                begun.set()
                await go_on.wait()
                return await settle(real(how))

            monkeypatch.setattr(data, "open", slow)
            nursery.start_soon(bob.write, "k/k1/disk/data", "bob")
            await begun.wait()
            assert (await refused(say(ctl, "take /k/k1/disk/data"))).errno == errno.EBUSY
            go_on.set()
        async with conversation(ann) as (ctl, _):
            await say(ctl, "take /k/k1/disk/data")
        assert bytes(it.disk.at("data").data) == b"bob"


async def test_what_somebody_leased_while_another_opened_it_is_not_theirs() -> None:
    leases = Leases(Local(Nowhere()))
    gate, key = Gate(leases, lambda node, path: ()), ("9p", "k1", "disk")
    await leases.take(Wish(0, "/k/k1/disk", key, "exclusive", "ann", 60 * SECOND))
    handle = MemoryHandle(Memory(""))
    with pytest.raises(NineError, match="ann has leased /k/k1/disk"):
        gate.opened(key, handle, "bob")
    assert gate.opened(("9p", "k1", "other"), handle, "bob") is handle
    assert gate.opened(key, handle, "ann") is not handle


@pytest.mark.parametrize(("lease", "path"), [("/kernels/k1", "kernels/k1/ctl"), ("/k/k1/cpu", "k/k1/cpu/ctl")])
async def test_a_ctl_that_was_opened_under_a_lease_ends_with_it_and_is_in_nobodys_way(
    tmp_path: Path, lease: str, path: str
) -> None:
    async with lab(tmp_path) as it, connect(it.at(ROOT)) as root, conversation(root) as (ctl, _):
        await say(ctl, f"take {lease}")
        async with await root.open(path, "r+") as file:
            await file.pwrite(b"do it", 0)
            await say(ctl, "give")
            assert (await refused(file.pwrite(b"do it", 0))).errno == errno.EIO
            await say(ctl, f"take {lease}")
            assert (await refused(file.pwrite(b"do it", 0))).errno == errno.EIO
    assert it.done == ["it"]


async def test_a_kernels_own_ctl_that_is_open_is_in_the_way(tmp_path: Path) -> None:
    async with (
        lab(tmp_path) as it,
        connect(it.at(ROOT)) as root,
        connect(it.at(BOB)) as bob,
        conversation(root) as (ctl, _),
    ):
        async with await bob.open("kernels/k1/ctl", "r+"):
            assert (await refused(say(ctl, "take /k/k1/cpu/0"))).errno == errno.EBUSY
            await say(ctl, "take /k/k1/disk")
            await say(ctl, "give")
        await say(ctl, "take /k/k1/cpu/0")


async def test_what_was_sent_before_arrives_before_anybody_has_it_though_its_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = trio.Event(), trio.Event()

    class Slow(MemoryHandle):
        async def write(self, offset: int, data: memoryview) -> int:
            begun.set()
            await go_on.wait()
            return await settle(super().write(offset, data))

    async with lab(tmp_path) as it, connect(it.at(ANN)) as ann, connect(it.at(BOB)) as bob:  # noqa: SIM117
        async with conversation(ann) as (ctl, _), trio.open_nursery() as nursery:
            with monkeypatch.context() as patch:
                patch.setattr(it.disk.at("data"), "open", lambda how: Slow(it.disk.at("data")))
                file = await bob.open("k/k1/disk/data", "r+")
            nursery.start_soon(file.pwrite, b"bob", 0)
            await begun.wait()
            nursery.start_soon(file.aclose)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.start_soon(say, ctl, "take /k/k1/disk")
            await until(lambda: it.leases.book.granting)
            await trio.sleep(0.05)
            assert it.leases.book.granting
            assert (await refused(bob.write("k/k1/disk/data", "no"))).errno == errno.EBUSY
            go_on.set()
            await until(lambda: it.leases.book.leases and not it.leases.book.granting)
            assert bytes(it.disk.at("data").data) == b"bob"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_change_that_was_asked_before_is_done_before_anybody_has_it(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = trio.Event(), trio.Event()
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ann, connect(it.at(BOB), version=version) as bob:  # noqa: SIM117
        async with conversation(ann) as (ctl, _), trio.open_nursery() as nursery:
            data = it.disk.at("data")
            real = data.change

            async def slow(*words: Any) -> None:
                begun.set()
                await go_on.wait()
                await settle(real(*words))

            monkeypatch.setattr(data, "change", slow)
            c = bob.connection
            fid = (await requests.walk(c, bob.root, ("k", "k1", "disk", "data")))[0]
            nursery.start_soon(changes.change, c, fid, Change(length=1))
            await begun.wait()
            nursery.start_soon(say, ctl, "take /k/k1/disk")
            await until(lambda: it.leases.book.granting)
            await trio.sleep(0.05)
            assert it.leases.book.granting
            go_on.set()
            await until(lambda: it.leases.book.leases and not it.leases.book.granting)
            assert bytes(data.data) == b"o"
