"""A walk through `all/PART` crosses too: `all/proc/k1.7` goes over as one walk to `proc/7` of k1, and says what walking name by name says."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mk9p.testing import Memory
from mk9p.wire import messages as m
from tests.server.relaying import Lab, cat, fails, lab, pack, replies, walk
from tests.server.test_crossing import asked, says_as_name_by_name

NAMES = (
    "all",
    "proc",
    "cpu",
    "block",
    "k0.1",
    "k1.2",
    "k1.",
    "k1...",
    "k0.none",
    "k9.1",
    "k0",
    "status",
    "vda",
    "k1.vda",
    "..",
    ".",
)


def a_kernel(name: str) -> Memory:
    tasks = {number: {"status": f"{name} {number}\n".encode(), "fd": {"0": b"tty"}} for number in ("1", "2")}
    return Memory({"proc": tasks, "cpu": {"status": b"up"}, "dev": {"block": {"vda": {"size": b"9"}}}})


@asynccontextmanager
async def kernels(tmp_path: Path, **more: Any) -> AsyncIterator[Lab]:
    """Give two kernels, each mounted at /k/NAME."""
    async with lab(tmp_path, a_kernel("k0"), a_kernel("k1"), **more) as found:
        for number, host in enumerate(found.hosts):
            found.ns.unmount(f"/k{number}")
            await found.ns.run(f"mount {host.address} /k/k{number}\n")
        yield found


async def test_a_walk_to_a_file_of_all_is_one_twalk_to_its_kernel(tmp_path: Path) -> None:
    async with kernels(tmp_path) as found:
        talk = await found.client(on=None)
        for _ in range(2):  # the first finds out which parts there are
            assert await cat(talk, "all", "proc", "k1.2", "status", fid=0) == b"k1 2\n"
        before = asked(found, 0), asked(found, 1)
        await walk(talk, 0, 5, "all", "proc", "k1.2", "fd", "0")
        assert found.crossings
        await walk(talk, 0, 6, "all", "proc", "k1.1", "fd", "0")
        before[1]["Twalk"] += 2
        assert (asked(found, 0), asked(found, 1)) == before


@pytest.mark.parametrize("seed", range(4))
async def test_what_it_says_is_what_walking_name_by_name_says(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    async with kernels(tmp_path) as found:
        talk = await found.client(on=None)
        for _ in range(100):
            names = ("all", "proc", *(random.choice(NAMES) for _ in range(random.randint(1, 3))))
            await says_as_name_by_name(talk, names[random.choice((0, 0, 0, 1)) :])


async def test_what_follows_in_one_go_comes_to_its_file_and_back_again_by_dot_dot(tmp_path: Path) -> None:
    async with kernels(tmp_path) as found:
        talk = await found.client(on=None)
        for _ in range(3):
            await talk.raw(
                pack(m.Twalk, 1, 0, 5, ("all", "proc", "k0.1", "status"))
                + pack(m.Tlopen, 2, 5, 0)
                + pack(m.Tread, 3, 5, 0, 99)
                + pack(m.Tclunk, 4, 5)
            )
            got = await replies(talk, 4)
            assert bytes(got[3].data) == b"k0 1\n"
        task = await walk(talk, 0, 6, "all", "proc", "k0.1")
        back = await walk(talk, 6, 7, "fd", "..")
        assert back.qids[-1] == task.qids[-1]
        up = await walk(talk, 6, 8, "..")
        assert up.qids == task.qids[1:2]  # the directory all/proc


async def test_a_device_is_found_in_dev_and_a_mount_inside_goes_before(tmp_path: Path) -> None:
    async with kernels(tmp_path) as found:
        talk = await found.client(on=None)
        for _ in range(2):
            assert await cat(talk, "all", "block", "k1.vda", "size", fid=0) == b"9"
            assert await cat(talk, "all", "proc", "k1.1", "status", fid=0) == b"k1 1\n"
        await found.ns.run("bind /k/k0/proc/2 /k/k1/proc/1\n")
        assert await cat(talk, "all", "proc", "k1.1", "status", fid=0) == b"k0 2\n"
        found.ns.unmount("/k/k1")
        assert await fails(talk, m.Twalk, 0, 9, ("nothing",)) == errno.ENOENT
        reply = await talk.rpc(m.Twalk, 1, 0, 9, ("all", "proc", "k1.2", "status"))
        assert len(reply.qids) == 2


async def test_who_may_not_search_a_part_walks_no_further(tmp_path: Path) -> None:
    async with kernels(tmp_path) as found:
        root = await found.client(on=None)
        await walk(root, 0, 5, "all", "proc", "k0.1")
        part = found.hosts[0].tree
        assert isinstance(part, Memory)
        secret = part.children["proc"]
        assert isinstance(secret, Memory)
        secret.mode = 0o40700
        talk = await found.client(on=None, uname="nobody")
        for _ in range(3):
            reply = await talk.rpc(m.Twalk, 1, 0, 5, ("all", "proc", "k0.1", "status"))
            assert len(reply.qids) == 2, reply
        assert len((await walk(talk, 0, 6, "all", "proc", "k1.1", "status")).qids) == 4
