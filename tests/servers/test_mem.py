"""mem: on a made-up machine with nodes and blocks, on one with neither, and read-only on the kernel that the tests run on."""

import errno
import os
from pathlib import Path

import pytest

from mk9p.servers.mem import tree
from mk9p.tree import Node
from tests.servers.trees import ls, mode, plant, read, refusal, write

MEM = "sys/devices/system/memory"
NODE = "sys/devices/system/node"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two nodes; block 0 ordinary memory of node 0, block 32 movable memory of node 1, block 33 offline; 128 MiB each."""
    plant(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:        4679900 kB\nActive(anon):         12 kB\nHugePages_Total:       3\nHugepagesize:       2048 kB",
            f"{MEM}/block_size_bytes": "8000000",
            f"{MEM}/auto_online_blocks": "offline",
            f"{NODE}/node0/meminfo": "Node 0 MemTotal:        1024 kB\nNode 0 Active(anon):        1 kB\nNode 0 HugePages_Free:      2",
            f"{NODE}/node0/cpulist": "0-1",
            f"{NODE}/node0/distance": "10 20",
            f"{NODE}/node1/cpulist": "",
            f"{NODE}/node1/meminfo": "Node 1 MemTotal:        512 kB",
            f"{NODE}/possible": "0-1",
        },
    )
    for n, state, zones, node in (
        (0, "online", "none", 0),
        (32, "online", "Movable", 1),
        (33, "offline", "Normal Movable", 1),
    ):
        base = f"{MEM}/memory{n}"
        plant(tmp_path, {f"{base}/state": state, f"{base}/valid_zones": zones, f"{base}/removable": "1"})
        (tmp_path / base / f"node{node}").mkdir()
    return tmp_path


@pytest.fixture
def mem(root: Path) -> Node:
    return tree(root=str(root))


def state(root: Path, n: int) -> str:
    return (root / MEM / f"memory{n}/state").read_text()


async def test_the_files(mem: Node, root: Path) -> None:
    assert await ls(mem) == ["ctl", "status", "node", "block", "error"]
    assert await ls(mem, "node") == ["0", "1"]
    assert await ls(mem, "node/0") == ["status"]
    assert await ls(mem, "block") == ["0", "32", "33"]
    assert await ls(mem, "block/32") == ["ctl", "status", "error"]
    assert [await mode(mem, f) for f in ("ctl", "status", "block/0/ctl", "block/0/status")] == [
        0o644,
        0o444,
        0o644,
        0o444,
    ]
    for name in ("1", "032", "9" * 5000):
        with pytest.raises(FileNotFoundError):
            await ls(mem, f"block/{name}")
    plant(root, {f"{MEM}/memory34/state": "offline"})
    assert await read(mem, "block/34/ctl") == "offline\n"


async def test_status_is_meminfo_in_bytes(mem: Node) -> None:
    assert await read(mem, "status") == (
        "MemTotal 4792217600\nActive(anon) 12288\nHugePages_Total 3\nHugepagesize 2097152\nblock_size 134217728\n"
    )


async def test_a_node_has_its_own(mem: Node) -> None:
    assert (
        await read(mem, "node/0/status")
        == "cpus 0-1\ndistance 10 20\nMemTotal 1048576\nActive(anon) 1024\nHugePages_Free 2\n"
    )
    assert await read(mem, "node/1/status") == "cpus -\ndistance -\nMemTotal 524288\n"


async def test_a_block_says_what_and_where_it_is(mem: Node) -> None:
    assert await read(mem, "block/32/status") == (
        "block 32\nstate online\nnode 1\nzones Movable\nremovable 1\nstart 4294967296\nsize 134217728\n"
    )


async def test_blocks_are_switched_on_disk(mem: Node, root: Path) -> None:
    await write(mem, "block/33/ctl", "online_movable")
    assert state(root, 33) == "online_movable"
    await write(mem, "block/0/ctl", "offline")
    assert state(root, 0) == "offline"
    await write(mem, "block/0/ctl", "online")
    assert state(root, 0) == "online"


async def test_what_a_block_is_already_is_no_error_and_not_asked_of_the_kernel(mem: Node, root: Path) -> None:
    for n, word in ((0, "online"), (32, "online_movable"), (32, "online"), (33, "offline")):
        await write(mem, f"block/{n}/ctl", word)
    for n in (0, 32, 33):
        await write(mem, f"block/{n}/ctl", await read(mem, f"block/{n}/ctl"))
    assert [state(root, n) for n in (0, 32, 33)] == ["online\n", "online\n", "offline\n"]


async def test_refusals_are_in_words(mem: Node, root: Path) -> None:
    assert await refusal(mem, "block/0/ctl", "online_movable") == (
        errno.EBUSY,
        "block 0 is online as ordinary memory: take it offline first",
    )
    assert await refusal(mem, "block/0/ctl", "offline now") == (errno.EINVAL, "usage: offline")
    assert (await refusal(mem, "block/0/ctl", "burn"))[
        1
    ] == "unknown word burn; usage: online · online_movable · offline"
    (root / MEM / "memory33/state").unlink()
    assert await refusal(mem, "block/33/ctl", "online") == (
        errno.ENOENT,
        "block 33 cannot be brought online: No such file or directory",
    )


async def test_auto_online_is_set_and_read_back(mem: Node, root: Path) -> None:
    assert await read(mem, "ctl") == "auto_online offline\n"
    await write(mem, "ctl", "auto_online online_movable")
    assert (root / MEM / "auto_online_blocks").read_text() == "online_movable"
    await write(mem, "ctl", await read(mem, "ctl"))
    assert await refusal(mem, "ctl", "auto_online maybe") == (
        errno.EINVAL,
        "usage: auto_online offline|online|online_kernel|online_movable",
    )


async def test_a_kernel_without_blocks_and_nodes_still_has_status(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/meminfo": "MemTotal: 1 kB"})
    mem = tree(root=str(tmp_path))
    assert await read(mem, "status") == "MemTotal 1024\n"
    assert await ls(mem, "node") == await ls(mem, "block") == []
    assert await read(mem, "ctl") == ""
    assert await refusal(mem, "ctl", "auto_online online") == (errno.ENODEV, "this kernel has no memory blocks")


async def test_the_real_kernel_agrees() -> None:
    mem = tree()
    status = dict(line.split() for line in (await read(mem, "status")).splitlines())
    assert int(status["MemTotal"]) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    blocks = await ls(mem, "block")
    online = 0
    for n in blocks:
        block = dict(line.split(" ", 1) for line in (await read(mem, f"block/{n}/status")).splitlines())
        assert int(block["start"]) == int(n) * int(status["block_size"])
        online += block["state"] == "online"
    if blocks:
        assert online * int(status["block_size"]) >= int(status["MemTotal"])
    for n in await ls(mem, "node"):
        assert "MemTotal " in await read(mem, f"node/{n}/status")
