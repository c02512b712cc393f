"""What every resource server that is installed must do: the checks of every tree, and a line that breaks at its nth operation, for every n."""

import errno
import gc
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socketpair
from typing import Any

import pytest
import trio

from mk9p.auth import ROOT
from mk9p.client import Client, connect
from mk9p.dial import SocketLink
from mk9p.server.closing import in_use
from mk9p.testing import PRIVATE, Faults, FlakyLink, check_tree, serving
from mk9p.tree import Dir, Node, settle
from tests.leftovers import descriptors as open_now
from tests.server.left_open import nothing_more
from tests.server.odd_tree import alone
from tests.servers.every_tree import BUT, SERVERS, make
from tests.servers.trees import names

ABSENT = (errno.ENODEV, errno.ENOENT, errno.EPERM, errno.ENOSYS)


@pytest.mark.parametrize("name", SERVERS)
async def test_a_tree_is_as_every_tree(name: str, tmp_path: Path) -> None:
    tree = make(name, tmp_path)
    try:
        await check_tree(tree, but=BUT.get(name, ()))
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        pytest.skip(f"this kernel has no {name}: {error}")


@asynccontextmanager
async def made(tree: Any) -> AsyncIterator[Node]:
    try:
        if isinstance(tree, Node):
            yield tree
            return
        async with tree as node:
            yield node
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        pytest.skip(f"this kernel has it not: {error}")


async def script(client: Client, but: tuple[str, ...]) -> None:
    """Do a little of everything: list, look, read, wait and give up, begin a conversation, say a wrong word to a ctl."""
    paths = await names(client)
    for inside in paths[:3]:
        with suppress(NotADirectoryError):
            paths += [f"{inside}/{stat.name}" for stat in (await client.listdir(inside))[:4]]
    kinds = set()
    for path in paths:
        stat = await client.stat(path)
        name = path.rpartition("/")[2]
        kind = name if name in ("ctl", "clone", "events", "status", "wait") else stat.mode
        if stat.is_dir or kind in kinds or any(fnmatch(path, pattern) for pattern in but):
            continue
        kinds.add(kind)
        modes = ("r", "r", "w", "w", "r+", "r+", "r+", "r+")
        async with await client.open(path, modes[(stat.mode >> 6 & 2) + bool(stat.mode & 0o400) * 4]) as file:
            if name.endswith("ctl"):
                with suppress(OSError):
                    await file.write(b"no-such-word\n")
            with trio.move_on_after(0.01):
                if stat.mode & 0o400:
                    await file.pread(100, 0)
                    await file.pread(100, 100)


@pytest.mark.parametrize("name", SERVERS)
async def test_whenever_its_line_breaks_nothing_stays_open(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        tree = await stack.enter_async_context(made(make(name, tmp_path)()))
        if name == "proc":  # of all processes of this machine, the one that neither begins nor ends meanwhile
            tree = Dir({"me": await settle(tree.walk(str(os.getpid()), ROOT))})
        server = await stack.enter_async_context(serving(tree))

        async def once(faults: Faults) -> None:
            ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
            theirs.setblocking(False)
            server.add(FlakyLink(SocketLink(theirs, PRIVATE), faults))
            number = ours.detach()
            with suppress(OSError):
                async with connect(f"fd!{number}!{number}", uname="root") as client:
                    await script(client, BUT.get(name, ()))
            await alone(server)

        await once(Faults(0))
        gc.collect()
        before, tasks = open_now(), trio.lowlevel.current_statistics().tasks_living
        operations = 0
        for short in (False, True):
            at, struck = 0, True
            while struck:
                at += 1
                faults = Faults(at, short)
                await once(faults)
                struck = faults.struck
                gc.collect(0)
                await nothing_more(before, f"after {at} operations")
                # When it was counted first, a thread may have had a file open.
                before = min(before, open_now(), key=len)
                assert not in_use, f"after {at} operations"
            operations = max(operations, at)
        assert operations > 6
        assert trio.lowlevel.current_statistics().tasks_living <= tasks + 32
        assert not [record for record in caplog.records if record.levelname == "ERROR"], caplog.text
