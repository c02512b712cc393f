"""Somebody who uses a tree whose server may say anything: any operation, on any file, and no more of a failure than an OSError."""

import gc
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random

import trio

from mk9p.client import Client, attach, changes, connect, requests, stored
from mk9p.client.blocking import open_blocking
from mk9p.testing import SOON, until
from mk9p.testing.replies import CONTENT, FILES
from mk9p.tree import NOW, Change, Lock

PATIENCE = 0.05  # seconds for one operation: a server that never answers is left by cancelling
TASKS = 8


async def use(client: Client, r: Random, below: str = "") -> None:
    """Do one thing with some file."""
    c = client.connection
    path = below + "/".join(r.choice(FILES) for _ in range(r.randrange(1, 5)))
    match r.randrange(13):
        case 0 | 1:
            await client.stat(path)
        case 2 | 3:
            await client.listdir(path)
        case 4 | 5:
            async with await client.open(path) as file:
                await file.pread(r.choice((1, 100, 10_000, 200_000)), r.choice((0, 5, 10_000)))
                await file.stat()
        case 6:
            async with await client.open(path, "r+") as file:
                await file.write(b"x" * r.choice((1, 100, 100_000)))
                await file.truncate(3)
        case 7:
            async with await client.open(path, r.choice("xwa")) as file:
                await file.sync()
        case 8:
            await client.mkdir(path)
        case 9:
            await (client.remove(path) if r.random() < 0.5 else client.rename(path, below + "d1/f9"))
        case 10:
            await client.walk(path)
        case _:
            fid, _ = await requests.walk(c, client.root, path.split("/"))
            try:
                match r.randrange(7):
                    case 0:
                        await stored.xattr(c, fid, r.choice(("", "user.x")))
                    case 1:
                        await stored.set_xattr(c, fid, "user.x", b"value", 0)
                    case 2:
                        await stored.lock(c, fid, Lock(1))
                    case 3:
                        await stored.locked(c, fid, Lock(1))
                    case 4:
                        await stored.statfs(c, fid)
                    case 5:
                        await requests.readlink(c, fid)
                    case 6:
                        await changes.change(c, fid, Change(0o644, 0, 0, 7, NOW, -5))
            finally:
                c.clunk_nowait(fid)


async def use_for_a_while(
    address: str, r: Random, enough: Callable[[], bool], *, version: str = "9P2000.L", below: str = ""
) -> None:
    """Connect, use, and connect again, until it is enough. Raises whatever is no OSError, and TooSlowError for what does not end."""
    while not enough():
        await trio.lowlevel.checkpoint()
        try:
            with trio.fail_after(SOON):
                with trio.move_on_after(10 * PATIENCE):  # for a version that is never answered
                    async with connect(address, version=version, uname="root") as client:
                        await _use_all_at_once(client, r, below)
                        del client
        except OSError:
            continue


async def _use_all_at_once(client: Client, r: Random, below: str) -> None:
    async def one() -> None:
        for _ in range(30):
            if client.connection.gone is not None:
                return
            with trio.move_on_after(PATIENCE):
                try:
                    await use(client, r, below)
                except OSError:
                    continue

    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(one)


def use_blocking_for_a_while(address: str, r: Random, enough: Callable[[], bool]) -> None:
    """Do as `use_for_a_while`, in this thread, without trio; raises AssertionError for what does not end."""
    while not enough():
        start = time.monotonic()
        with suppress(OSError):
            c = open_blocking(address, deadline=10 * PATIENCE)
            try:
                root, qid = c.run(c.within(10 * PATIENCE, partial(attach, c, "root")))
                c.run(_all_at_once(Client(c, root, qid), r))
            finally:
                c.close()
        assert time.monotonic() - start < SOON


async def _all_at_once(client: Client, r: Random) -> None:
    async def one() -> None:
        for _ in range(30):
            with suppress(OSError):
                await client.connection.within(PATIENCE, partial(use, client, r))

    await client.connection.side_by_side(TASKS, one)


async def is_well(client: Client, below: str = "") -> None:
    """Check that a tree is what a good server says of it."""
    assert [stat.name for stat in await client.listdir(below + "d1")] == list(FILES)
    assert await client.read_bytes(below + "d1/f1") == CONTENT


def held() -> tuple[int, int]:
    """Return how many descriptors and tasks there are."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), trio.lowlevel.current_statistics().tasks_living


@asynccontextmanager
async def nothing_held() -> AsyncIterator[None]:
    """Check that as many descriptors and tasks are there after the block as before."""
    before = held()
    yield
    await until(lambda: held() == before)
