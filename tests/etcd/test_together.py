"""What composers have together that have one etcd, beside leases and the registry: what is revoked, and mount points that are shared."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mk9p import state
from mk9p.authority.grants import Terms
from mk9p.authority.ledger import Ledger
from mk9p.compose.namespace import Namespace
from mk9p.compose.revoking import Revoking
from mk9p.compose.sharing import Sharing
from mk9p.composing import namespace
from mk9p.testing import SOON, until
from tests.etcd.cluster import Cluster
from tests.etcd.composers import Composer, composer, refused

CPU = Terms.of("/k/k1/cpu", "rc")


@asynccontextmanager
async def revoking(it: Composer, ledger: Ledger) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Revoking(ledger, it.store).run)
        yield
        nursery.cancel_scope.cancel()


async def test_what_one_revokes_is_revoked_at_all_also_at_those_who_come_later(etcd: Cluster, tmp_path: Path) -> None:
    here = Ledger(tmp_path / "a" / "grants")
    one, two = here.grant(CPU, "root", 0), here.grant(CPU, "root", 0)
    told: list[str] = []
    # the others take the same capabilities: they have the same key
    for name in "bc":
        state.make(tmp_path / name / "grants", (tmp_path / "a" / "grants").read_bytes())
    there, later = (Ledger(tmp_path / name / "grants") for name in "bc")
    there.heard.append(lambda: told.append("ended"))
    with trio.fail_after(SOON):
        async with composer(etcd, "a") as a, composer(etcd, "b") as b, revoking(a, here), revoking(b, there):
            there.read(one.text)
            here.revoke(one.id, "root")
            await until(lambda: one.id in there.elsewhere)
            assert told == ["ended"]
            with pytest.raises(PermissionError, match="is revoked"):
                there.read(one.text)
            there.read(two.text)
            for member in etcd.members:
                member.pause()
            there.revoke(two.id, "root")  # it holds at once where it was said
            with pytest.raises(PermissionError, match="is revoked"):
                there.read(two.text)
            for member in etcd.members:
                member.resume()
            await until(lambda: two.id in here.elsewhere)
        async with composer(etcd, "c") as c, revoking(c, later):
            for granted in (one, two):
                with pytest.raises(PermissionError, match="is revoked"):
                    later.read(granted.text)


@asynccontextmanager
async def sharing(it: Composer) -> AsyncIterator[tuple[Namespace, Sharing]]:
    async with trio.open_nursery() as nursery:
        ns = namespace(nursery)
        both = Sharing(ns, it.store, local=True)
        nursery.start_soon(both.run)
        yield ns, both
        nursery.cancel_scope.cancel()


async def test_a_shared_mount_point_is_the_same_at_all(etcd: Cluster) -> None:
    def lines(ns: Namespace, old: str) -> list[str]:
        return ns.table.commands(old)

    with trio.fail_after(SOON):
        async with (
            composer(etcd, "a") as a,
            composer(etcd, "b") as b,
            sharing(a) as (here, give),
            sharing(b) as (there, take),
        ):
            await there.run("mount unix!/own /own\nmount unix!/b /n/it\n")
            await here.run("mount unix!/1 /n/it\nmount -a -w 5 unix!/2 /n/it\nmount unix!/3 /n/alone\n")
            await refused(give.share("/n/none"), errno.EINVAL)
            await give.share("/n/it")
            await until(lambda: lines(there, "/n/it") == ["mount unix!/1 /n/it", "mount -a -w 5 unix!/2 /n/it"])
            assert not lines(there, "/n/alone")
            assert lines(there, "/own")
            async with composer(etcd, "c") as c, sharing(c) as (later, _):
                await until(lambda: len(lines(later, "/n/it")) == 2)
            await here.run("unmount unix!/1 /n/it\n")
            await give.share("/n/it")
            await until(lambda: len(lines(there, "/n/it")) == 1)
            await take.unshare("/n/it")
            await until(lambda: not lines(here, "/n/it") and not lines(there, "/n/it"))
            await refused(take.unshare("/n/it"), errno.EINVAL)
