"""What a kernel's tree shows to one whom nobody knows, over a listener that reaches beyond the machine: nothing of other people's business."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mk9p.auth import NONE, ROOT, may
from mk9p.errors import NineError
from mk9p.specs import Spec, kernel_tree
from mk9p.tree import Handle, Node, Open, settle
from mk9p.wire import QTDIR

SECRET = "its-secret-argument"
PRIVATE = {
    "args",
    "cwd",
    "environ",
    "exe",
    "fd",
    "maps",
    "mem",
    "ns",
    "kmsg",
    "cons",
    "local",
    "remote",
    "data",
    "listen",
}
PUBLIC = {"status", "wait", "error", "stats", "time", "sysname", "sysstat", "random", "zero", "null", "arp", "iproute"}


@pytest.fixture
def process() -> Iterator[int]:
    started = subprocess.Popen([sys.executable, "-c", "input()", SECRET], stdin=subprocess.PIPE)
    yield started.pid
    started.communicate(b"\n")


async def readable(node: Node, at: str, depth: int) -> dict[str, Node]:
    """Return the files that a stranger may open for reading, below the directories that they may walk and list."""
    found: dict[str, Node] = {}
    for name, child in await settle(node.entries(NONE)):
        try:
            stat = await settle(child.stat())
        except ProcessLookupError:
            continue
        path = f"{at}/{name}"
        if child.qtype & QTDIR and depth and may(NONE, stat.mode, stat.uid, stat.gid, 5):
            found |= await readable(child, path, depth - 1)
        elif not child.qtype & QTDIR and may(NONE, stat.mode, stat.uid, stat.gid, 4):
            found[path] = child
    return found


async def test_a_stranger_reads_nothing_of_other_peoples_business(process: int) -> None:
    async with kernel_tree([Spec(name) for name in ("proc", "net", "dev", "cmd", "host")]) as tree:
        tcp = await settle((await settle(tree.walk("net", ROOT))).walk("tcp", ROOT))
        clone = await settle((await settle(tcp.walk("clone", ROOT))).open(Open(ROOT, write=True)))
        assert isinstance(clone, Handle)
        try:
            found = await readable(tree, "", 4)
        finally:
            await settle(clone.close())
        names = {path.rpartition("/")[2] for path in found}
        assert not names & PRIVATE
        assert names >= PUBLIC - {"arp", "iproute"}  # which a small container may lack
        assert f"/proc/{process}/status" in found
        for path in (f"/proc/{process}/status", f"/proc/{process}/error"):
            handle = await settle(found[path].open(Open(NONE)))
            assert SECRET.encode() not in bytes(await settle(handle.read(0, 4096)))


async def test_arguments_are_for_the_process_s_own_user_and_for_root(process: int) -> None:
    async with kernel_tree([Spec("proc")]) as proc:
        node: Node = proc
        for name in ("proc", str(process), "args"):
            node = await settle(node.walk(name, ROOT))
        handle = await settle(node.open(Open(ROOT)))
        assert SECRET in bytes(await settle(handle.read(0, 4096))).decode()
        stat = await settle(node.stat())
        assert (stat.mode & 0o777, stat.uid) == (0o400, os.geteuid())
        with pytest.raises(NineError):
            await settle((await settle(node.open(Open(NONE)))).read(0, 4096))
