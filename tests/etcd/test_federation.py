"""Composers that have one etcd, as users see them: each other's kernels, by name, in `all/`, in the registry, and as claims."""

import errno
import json
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

from mk9p.compose.aliases import Names
from mk9p.compose.far_records import Said, dialable, owner_of, place
from mk9p.errors import NineError
from mk9p.lease.entries import RegistryTree
from mk9p.testing import SOON, until
from mk9p.tree import Dir, split
from tests.etcd.cluster import Cluster
from tests.etcd.composers import refused
from tests.etcd.federated import Composer, answers, composer, kernel, state, until_sees
from tests.lease.test_lease_tree import conversation, say
from tests.servers.trees import names


async def test_kernels_of_all_appear_in_each_and_are_dialled_directly(etcd: Cluster, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.enter_context(trio.fail_after(2 * SOON))
        a, b, c = [await enter(composer(etcd, name)) for name in "abc"]
        await enter(kernel(tmp_path, "k1", a))
        host = await enter(kernel(tmp_path, "k2", b, cpus=3))
        for one in (a, b, c):
            await until(partial(_knows, one, "a.k1", "b.k2"))
        # none but their own has them in its table, and nobody dials before somebody asks
        assert [list(one.ns.table.points) for one in (a, b, c)] == [["/k/k1"], ["/k/k2"], []]
        assert [kernel.server for kernel in c.far.full.values()] == [None, None]
        for one in (a, b, c):
            await until_sees(one, "k1", "k2")
        for path in ("k/b.k2/cpu", "k/k2/cpu"):
            assert sorted(await names(c.client, path)) == ["0", "1", "2", "ctl", "error", "status"]
        for one in (a, c):
            assert await cpus(one) == ["k1.0", "k1.1", "k2.0", "k2.1", "k2.2"]
        await c.client.stat("all/cpu/b.k2.2/ctl")
        assert state(c, "b.k2") == "up"
        # a second one of that name: it is the own one's at its machine, and nobody's elsewhere
        await enter(kernel(tmp_path, "c.k1", c))
        await until_sees(b, "a.k1", "c.k1", "k2")
        said = await refused(b.client.listdir("k/k1"), errno.ENOENT)
        assert "k1 is of several machines: a.k1 c.k1" in said
        assert await cpus(b) == ["a.k1.0", "a.k1.1", "c.k1.0", "c.k1.1", "k2.0", "k2.1", "k2.2"]
        assert await cpus(a) == ["c.k1.0", "c.k1.1", "k1.0", "k1.1", "k2.0", "k2.1", "k2.2"]
        # what is known of them
        await until(
            lambda: "b.k2 has ' cpu mem status ' arch x86_64 release 6.1 cpus 3 host b kernel k2\n" in _index(a)
        )
        assert await a.client.read("registry/index") == await b.client.read("registry/index")
        # one that is gone for a while, and then for ever
        await host.stop()
        await until(lambda: state(c, "b.k2") == "down")
        await until(lambda: "b.k2" not in _index(c))
        await refused(c.client.listdir("k/b.k2"), errno.EIO)
        await host.start()
        await until(partial(answers, c, "k/b.k2"))
        b.ns.unmount("/k/k2")
        for one in (a, b, c):
            await until(partial(_lacks, one, "k2"))
        await refused(c.client.listdir("k/b.k2"), errno.ENOENT)


async def cpus(one: Composer) -> list[str]:
    return sorted(name for name in await names(one.client, "all/cpu") if name[-1].isdecimal())


def _knows(one: Composer, *kernels: str) -> bool:
    return set(one.far.full) == set(kernels)


def _index(one: Composer) -> str:
    tree = one.ns.resolver.made
    assert isinstance(tree, Dir)
    registry = next(m["registry"] for m in tree.children if "registry" in m)
    assert isinstance(registry, RegistryTree)
    return registry.index()


async def _lacks(one: Composer, name: str) -> bool:
    return name not in await names(one.client, "k")


async def test_a_claim_is_met_anywhere_and_a_lease_holds_everywhere(etcd: Cluster, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.enter_context(trio.fail_after(2 * SOON))
        a, b = [await enter(composer(etcd, name)) for name in "ab"]
        await enter(kernel(tmp_path, "k1", a))
        await enter(kernel(tmp_path, "k2", b, cpus=5))
        await until_sees(a, "k1", "k2")
        await until_sees(b, "k1", "k2")
        async with conversation(a.client) as (one, n), conversation(b.client) as (two, m):
            await say(one, "take {cpus 2} {cpus 3}")
            held = [split(line)[2] for line in (await a.client.read(f"lease/{n}/status")).splitlines()]
            assert held == ["/k/k1/cpu/0", "/k/k1/cpu/1", *(f"/k/k2/cpu/{cpu}" for cpu in range(3))]
            assert await refused(say(two, "take {cpus 3}"), errno.EBUSY)
            assert await refused(b.client.write("k/k2/cpu/0/ctl", "do it"), errno.EBUSY)
            assert await refused(b.client.write("k/a.k1/cpu/0/ctl", "do it"), errno.EBUSY)
            await say(two, "take {cpus 2}")
            held = [split(line)[2] for line in (await b.client.read(f"lease/{m}/status")).splitlines()]
            assert held == ["/k/k2/cpu/3", "/k/k2/cpu/4"]
            assert await refused(a.client.write("k/b.k2/cpu/4/ctl", "do it"), errno.EBUSY)


async def test_a_machine_that_is_gone_is_down_and_comes_back(etcd: Cluster, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.enter_context(trio.fail_after(2 * SOON))
        a = await enter(composer(etcd, "a"))
        async with AsyncExitStack() as second:
            b = await second.enter_async_context(composer(etcd, "b", ttl=2))
            await second.enter_async_context(kernel(tmp_path, "k2", b))
            await until(partial(answers, a, "k/b.k2"))
            said = await refused(a.client.write("ctl", "forget b"), errno.EBUSY)
            assert "the composer of b is there" in said
        await until(lambda: state(a, "b.k2") == "down")
        assert "gone" in a.ns.mounts()
        await refused(a.client.listdir("k/b.k2"), errno.EIO)
        b = await enter(composer(etcd, "b", ttl=2))
        await enter(kernel(tmp_path, "k2", b))
        await until(partial(answers, a, "k/b.k2"))
        await until(lambda: state(a, "b.k2") == "up")


async def test_a_composer_that_is_gone_leaves_its_kernels_to_whoever_dials_them_until_they_are_forgotten(
    etcd: Cluster, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.enter_context(trio.fail_after(2 * SOON))
        a = await enter(composer(etcd, "a"))
        host = await enter(kernel(tmp_path, "k2"))
        async with composer(etcd, "b", ttl=2) as b:
            b.ns.mount(host.address, "/k/k2")
            await until(lambda: "b.k2 has" in _index(a))
        await until(lambda: "b.k2" not in _index(a))
        assert state(a, "b.k2") == "down"
        assert "the composer of b is gone" in a.ns.mounts()
        assert await a.client.listdir("k/b.k2/cpu"), "it answers, and nobody is in between"
        assert state(a, "b.k2") == "up"
        await refused(a.client.write("ctl", "forget x"), errno.ENOENT)
        await a.client.write("ctl", "forget b")
        await until(lambda: not a.far.full)
        await refused(a.client.listdir("k/b.k2"), errno.ENOENT)


async def test_rules_by_path_hold_by_both_names(etcd: Cluster, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.enter_context(trio.fail_after(SOON))
        a, b = [await enter(composer(etcd, name)) for name in "ab"]
        await enter(kernel(tmp_path, "k1", a))
        await until_sees(b, "k1")
        for one in (a, b):
            known = Names(one.ns.table, one.far)
            assert "/k/a.k1/cpu/0" in known.of("/k/k1/cpu/0")[0]
            assert "/k/k1/cpu/0" in known.of("/k/a.k1/cpu/0")[0]
            assert {"/k/k1/cpu/0", "/k/a.k1/cpu/0"} <= set(known.of("/all/cpu/k1.0")[0])
            assert {"/k/k1/cpu/0", "/k/a.k1/cpu/0"} <= set(known.of("/all/cpu/a.k1.0")[0])


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b'{"dial": "exec!rm -rf /", "spec": "", "line": ""}',
        b'{"dial": "fd!0", "spec": "", "line": ""}',
        b'{"dial": "char!/dev/sda", "spec": "", "line": ""}',
        b'{"dial": "unix!/run/x", "spec": "", "line": ""}',
        b'{"dial": "/proc/1/ns/net/tcp!10.0.0.1", "spec": "", "line": ""}',
        b'{"dial": "tcp!127.0.0.1!564", "spec": "", "line": ""}',
        b'{"dial": 7, "spec": "", "line": ""}',
        b'{"dial": "tcp!10.0.0.1", "spec": null, "line": ""}',
        b'{"dial": "tcp!10.0.0.1", "spec": "", "line": "k a"}',
        json.dumps({"dial": "tcp!" + "x" * 5000, "spec": "", "line": ""}).encode(),
    ],
)
def test_what_no_composer_says_is_refused(said: bytes) -> None:
    with pytest.raises((ValueError, NineError)):
        Said.read(said)


def test_a_record_is_read_as_it_was_written() -> None:
    said = Said("tls!k1.example!5640", "tree", True, False, "k1 arch x86_64 has ' a b '")
    assert Said.read(said.value().encode()) == said
    assert Said.read(b'{"dial": "tcp!h", "spec": "", "line": ""}').untrusted, "nobody is trusted for want of a word"
    assert owner_of(place("h.x", "k 1ü%")) == ("h.x", "k 1ü%")
    for wrong in ("kernel/h", "kernel//k", "kernel/h/", "kernel/h/..", "kernel/h/a/b", "kernel/h/a%2Fb"):
        with pytest.raises(ValueError, match="nobody's"):
            owner_of(wrong)
    assert not dialable("tcp!localhost!564")
    assert dialable("tcp!10.0.0.1!564")
