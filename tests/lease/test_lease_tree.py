"""`lease/` and `registry/` as users read and write them."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.auth import Policy, Principal, Told
from mk9p.client import Client, connect
from mk9p.compose.resources import beside, find, key_of
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.lease.entries import RegistryTree
from mk9p.lease.files import LeaseTree
from mk9p.lease.gate import Gate
from mk9p.lease.leases import Leases
from mk9p.lease.store import Memory as Store
from mk9p.lease.stores import Local
from mk9p.lease.wish import SECOND
from mk9p.server import Server
from mk9p.testing import SOON, Memory, serving, serving_at, until
from mk9p.testing.serving import address_of
from mk9p.tree import Ctl, Dir, Text
from tests.lease.test_leases import Virtual
from tests.servers.trees import names


@attrs.frozen
class Known(Policy):
    """Everybody who comes is this one."""

    who: Principal = attrs.field(kw_only=True)

    def attach(self, uname: str, n_uname: int, peer: Told) -> Principal:
        return self.who


def user(name: str, uid: int) -> Known:
    return Known(who=Principal(name, uid, frozenset({uid}), proof="peercred"))


ROOT, ANN, BOB = user("root", 0), user("ann", 41001), user("bob", 41002)


@attrs.define
class Lab:
    server: Server
    leases: Leases
    clock: Virtual
    store: Store
    registry: RegistryTree
    disk: Memory
    done: list[str]

    def at(self, who: Policy = ROOT) -> str:
        return address_of(self.server, policy=who)


def kernel(done: list[str], disk: Memory) -> Dir:
    cpu = Dir({"ctl": Ctl({"do": done.append}, mode=0o666), "0": Dir({"ctl": Ctl({"do": done.append}, mode=0o666)})})
    for name in ("data", "ctl", "other"):
        disk.at(name).mode = 0o666
    return Dir({"cpu": cpu, "disk": disk, "status": Text("up\n"), "ctl": Ctl({"do": done.append}, mode=0o666)})


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """Serve a composed namespace with leases, whose kernel k1 is another server."""
    done: list[str] = []
    disk = Memory({"data": "old", "ctl": "", "other": "o"}, mode=0o777)
    clock, store = Virtual(), Store()
    leases = Leases(Local(store), clock)
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            registry = RegistryTree(Local(store))
            own = {"lease": LeaseTree(leases, lambda path, who: find(ns, path, who)), "registry": registry}
            local = Dir({"ctl": Ctl({"do": done.append}, mode=0o666)})
            ns = namespace(nursery, {**own, "local": local, "kernels": Dir({"k1": local, "k2": local})})
            nursery.start_soon(leases.run)
            async with serving_at(f"unix!{folder}/k1", kernel(done, disk)) as host:
                ns.mount(host.address, "/k/k1")
                async with serving(ns.root, gate=Gate(leases, key_of, partial(beside, ns))) as server:
                    yield Lab(server, leases, clock, store, registry, disk, done)
            nursery.cancel_scope.cancel()


async def refused(what: Any) -> NineError:
    with pytest.raises(NineError) as caught:
        await what
    return caught.value


async def say(ctl: Any, line: str) -> None:
    await ctl.pwrite(f"{line}\n".encode(), 0)


@asynccontextmanager
async def conversation(ns: Client) -> AsyncIterator[tuple[Any, int]]:
    async with await ns.open("lease/clone", "r+") as ctl:
        yield ctl, int(await ctl.pread(99, 0))


async def test_a_lease_from_its_taking_to_its_end(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, connect(it.at(ROOT)) as ns, conversation(ns) as (ctl, n):
        assert await ns.read(f"lease/{n}/status") == f"{n} idle - - - - -\n"
        await say(ctl, "take /k/k1/disk for 30")
        line = f"{n} held /k/k1/disk exclusive root 1 {1030 * SECOND}\n"
        assert await ns.read(f"lease/{n}/status") == await ns.read("lease/status") == line
        assert await ns.read(f"lease/{n}/ctl") == "take /k/k1/disk exclusive for 30\n"
        it.clock.go(10)
        await say(ctl, "renew")
        await say(ctl, "for 5")
        assert (await ns.read("lease/status")).split()[-1] == str(1015 * SECOND)
        await say(ctl, "give")
        assert await ns.read("lease/status") == ""
        assert (await ns.read(f"lease/{n}/status")).split()[1] == "idle"
        assert (await refused(say(ctl, "renew"))).errno == errno.ESTALE
        await say(ctl, "take /k/k1/disk shared")
        it.clock.go(5)
        await until(lambda: not it.leases.book.leases)
        assert (await ns.read(f"lease/{n}/status")).split()[1] == "lost"


async def test_the_same_resource_by_another_path_is_the_same(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, connect(it.at(ROOT), version="9P2000.u") as ns:
        await ns.write("ctl", "bind /k/k1/disk /n/disk")
        async with conversation(ns) as (one, _), conversation(ns) as (two, _):
            await say(one, "take /n/disk/data")
            for path in ("/k/k1/disk", "/k/k1", "/k/k1/disk/data", "/n/disk"):
                said = await refused(say(two, f"take {path}"))
                assert (said.errno, said.ename) == (errno.EBUSY, "root has leased /n/disk/data")
            await say(two, "take /k/k1/cpu")
            await say(two, "give")
            await say(one, "give")
        async with conversation(ns) as (one, _), conversation(ns) as (two, _):
            await say(one, "take /all/cpu/k1.0")
            assert (await refused(say(two, "take /k/k1/cpu/0"))).errno == errno.EBUSY
            await say(two, "take /local")


async def test_a_holder_that_is_gone_keeps_it_until_its_term_and_can_come_again(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        async with connect(it.at(ANN)) as ns, conversation(ns) as (ctl, n):
            await say(ctl, "take /k/k1/disk for 10")
        async with connect(it.at(BOB)) as other, conversation(other) as (ctl, m):
            assert m != n
            assert (await refused(say(ctl, "take /k/k1/disk"))).errno == errno.EBUSY
            assert (await refused(other.write(f"lease/{n}/ctl", "give"))).errno == errno.EACCES
            async with connect(it.at(ANN)) as again:
                await again.write(f"lease/{n}/ctl", "renew")
            it.clock.go(10)
            await until(lambda: not it.leases.book.leases)
            await say(ctl, "take /k/k1/disk")
            assert sorted(name for name in await names(other, "lease") if name.isdecimal()) == [str(m)]
        async with connect(it.at(ROOT)) as root:
            await root.write("lease/ctl", f"give {m}")
            assert (await refused(root.write("lease/ctl", f"give {m}"))).errno == errno.ESTALE


async def test_a_request_that_waits_is_told_and_ends_with_its_flush(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ns, conversation(ns) as (one, n):
        await say(one, "take /k/k1/disk")
        async with conversation(ns) as (two, m):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say, two, "take /k/k1/disk wait 100000")
                await until(lambda: m in it.leases.book.waiting)
                assert f"{m} waiting /k/k1/disk exclusive ann - -\n" in await ns.read("lease/status")
                nursery.cancel_scope.cancel()
            await until(lambda: m not in it.leases.book.waiting)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say, two, "take /k/k1/disk wait 100000")
                await until(lambda: m in it.leases.book.waiting)
                await say(one, "give")
            assert (await ns.read("lease/status")).startswith(f"{m} held")
            assert n != m


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("take", errno.EINVAL),
        ("take disk", errno.EINVAL),
        ("take /", errno.EINVAL),
        ("take /lease", errno.EINVAL),
        ("take /lease/0/ctl", errno.EINVAL),
        ("take /k/k1/nothing", errno.ENOENT),
        ("take /k/k9", errno.ENOENT),
        ("take /k/k1/disk for 0", errno.EINVAL),
        ("take /k/k1/disk for 31536000", errno.EINVAL),
        ("take /k/k1/disk for -1", errno.EINVAL),
        ("take /k/k1/disk for 1 for 2", errno.EINVAL),
        ("take /k/k1/disk both", errno.EINVAL),
        ("take /k/k1/disk wait", errno.EINVAL),
        ("renew", errno.ESTALE),
        ("give", errno.ESTALE),
        ("for 5", errno.ESTALE),
        ("for", errno.EINVAL),
    ],
)
async def test_what_cannot_be_is_refused(tmp_path: Path, line: str, number: int) -> None:
    async with lab(tmp_path) as it, connect(it.at(ROOT)) as ns, conversation(ns) as (ctl, _):
        assert (await refused(say(ctl, line))).errno == number
        assert not it.leases.book.leases
        assert not it.leases.book.waiting


async def test_only_who_may_write_there_leases_it(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ns, conversation(ns) as (ctl, _):
        assert (await refused(say(ctl, "take /k/k1/status"))).errno == errno.EACCES
        await say(ctl, "take /k/k1/disk/data")


async def test_an_entry_of_the_registry_lives_with_its_file(tmp_path: Path) -> None:
    async with lab(tmp_path) as it, connect(it.at(BOB)) as other:
        async with connect(it.at(ANN)) as ns, await ns.open("registry/new", "r+") as new:
            await say(new, "web host 10.0.0.1 port 80 has 'a b'")
            assert await other.read("registry/index") == "web host 10.0.0.1 port 80 has 'a b'\n"
            assert await other.read("registry/web") == "host 10.0.0.1\nport 80\nhas a b\nby ann\n"
            await say(new, "web port 81")
            assert "port 81" in await other.read("registry/web")
            async with await other.open("registry/new", "r+") as mine:
                assert (await refused(say(mine, "web x y"))).errno == errno.EEXIST
                await say(mine, "db port 5432")
                assert (await refused(say(mine, "web x y"))).errno == errno.EINVAL
                for wanted, found in (
                    ("", "db\nweb\n"),
                    ("port *", "db\nweb\n"),
                    ("port 8?", "web\n"),
                    ("name d*", "db\n"),
                    ("host * port 5432", ""),
                    ("has 'a b'", "web\n"),
                ):
                    async with await other.open("registry/find", "r+") as search:
                        await search.pwrite(f"{wanted}\n".encode(), 0)
                        assert (await search.pread(999, 0)).decode() == found, wanted
        await until(lambda: "web" not in _index(it))
        told = [line.decode().split()[2:4] for line in it.registry.event.lines]
        assert told == [["new", "web"], ["changed", "web"], ["new", "db"], ["gone", "db"], ["gone", "web"]]


def _index(it: Lab) -> str:
    return it.registry.index()


async def test_one_that_persists_outlives_its_file_and_the_composer(tmp_path: Path) -> None:
    async with lab(tmp_path) as it:
        async with connect(it.at(ANN)) as ns, await ns.open("registry/new", "r+") as new:
            await say(new, "web port 80 persist 1")
        again = RegistryTree(Local(it.store))
        assert again.index() == _index(it) == "web port 80\n"
        async with connect(it.at(BOB)) as other:
            assert (await refused(other.remove("registry/web"))).errno == errno.EACCES
            async with await other.open("registry/new", "r+") as new:
                assert (await refused(say(new, "web port 80"))).errno == errno.EEXIST
        async with connect(it.at(ANN)) as ns, await ns.open("registry/new", "r+") as new:
            await say(new, "web port 81")
            assert it.store.kept == {}
        await until(lambda: _index(it) == "")
        async with connect(it.at(ROOT)) as ns:
            async with await ns.open("registry/new", "r+") as new:
                await say(new, "web persist 1")
            await ns.remove("registry/web")
            assert _index(it) == ""
            assert it.store.kept == {}


@pytest.mark.parametrize(
    "line",
    ["", "web x", "a/b x y", "new x y", "find", "web name x", "web x y x z", "web persist 2", ". x y", "web '' y"],
)
async def test_an_entry_that_cannot_be_is_refused(tmp_path: Path, line: str) -> None:
    async with lab(tmp_path) as it, connect(it.at(ANN)) as ns, await ns.open("registry/new", "r+") as new:
        assert (await refused(say(new, line))).errno in (errno.EINVAL, errno.EEXIST)
        assert _index(it) == ""
