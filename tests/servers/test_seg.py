"""seg: memory that several programs of this machine map, and others read and write."""

import errno
import mmap
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mk9p.auth import ROOT
from mk9p.client import Client, changes, requests
from mk9p.clients.seg import map_segment, open_segment
from mk9p.errors import NineError
from mk9p.servers import seg
from mk9p.testing import SOON, check_tree, mounted, serving_at
from mk9p.tree import Change, Dir
from tests.leftovers import descriptors as open_now
from tests.server.left_open import nothing_more
from tests.servers.trees import plant


@asynccontextmanager
async def segments(*, root: str = "/", uname: str = "root") -> AsyncIterator[Client]:
    with trio.fail_after(SOON):
        async with seg.tree(root=root) as tree, mounted(Dir({"seg": tree}), uname=uname) as ns:
            yield ns


async def made(ns: Client, size: int = 1 << 16, perm: int = 0o700) -> None:
    await ns.mkdir("seg/x")
    await ns.write("seg/x/ctl", f"size {size}")
    fid, _ = await requests.walk(ns.connection, ns.root, ("seg", "x"))
    await changes.change(ns.connection, fid, Change(mode=perm))


async def test_it_is_read_and_written_at_any_offset() -> None:
    async with segments() as ns:
        await made(ns, 3_000_000)
        assert (await ns.stat("seg/x/data")).length == 3_000_000
        async with await ns.open("seg/x/data", "r+") as file:
            assert await file.pread(10, 2_999_995) == bytes(5)
            data = os.urandom(2_500_000)
            assert await file.pwrite(data, 123_456) == len(data)
            assert await file.pread(len(data), 123_456) == data
            assert await file.pread(10, 3_000_000) == b""
            for offset in (3_000_000, 1 << 40):
                with pytest.raises(OSError, match="No space") as caught:
                    await file.pwrite(b"x", offset)
                assert caught.value.errno == errno.ENOSPC
        assert await ns.read("seg/x/ctl") == "hugetlb off\nsize 3000000\n"
        await ns.write("seg/x/ctl", "size 200000")
        assert (await ns.stat("seg/x/data")).length == 200_000


async def test_programs_of_this_machine_share_the_memory() -> None:
    async with segments() as ns:
        await made(ns)
        async with map_segment(ns, "seg/x") as one, map_segment(ns, "seg/x") as two:
            assert len(one) == 1 << 16
            one[100:105] = b"hello"
            assert two[100:105] == b"hello"
            async with await ns.open("seg/x/data", "r+") as file:
                assert await file.pread(5, 100) == b"hello"
                await file.pwrite(b"HE", 100)
            assert one[100:105] == b"HEllo"
            await ns.remove("seg/x")
            two[0:1] = b"!"  # it lives as long as it is mapped
            assert one[0:1] == b"!"


async def test_another_process_maps_it() -> None:
    script = """
import sys, trio
from mk9p.clients.seg import map_segment
from mk9p.client import connect
async def main():
    async with connect(sys.argv[1]) as ns, map_segment(ns, "seg/x") as buffer:
        buffer[7:12] = buffer[0:5][::-1]
trio.run(main)
"""
    with trio.fail_after(SOON):
        async with (
            seg.tree() as tree,
            serving_at(f"unix!@mk9p-test-{os.getpid()}", Dir({"seg": tree})) as host,
            mounted(Dir({"seg": tree})) as ns,
        ):
            await made(ns)
            async with map_segment(ns, "seg/x") as buffer:
                buffer[0:5] = b"abcde"
                await trio.run_process([sys.executable, "-c", script, host.address])
                assert buffer[7:12] == b"edcba"


async def test_the_size_is_fixed_once_it_is_handed_out() -> None:
    async with segments() as ns:
        await made(ns)
        assert "fixed no\n" in await ns.read("seg/x/status")
        async with map_segment(ns, "seg/x"):
            pass
        assert "fixed yes\n" in await ns.read("seg/x/status")
        with pytest.raises(OSError, match="a program has its descriptor") as caught:
            await ns.write("seg/x/ctl", "size 100")
        assert caught.value.errno == errno.EBUSY


async def test_a_segment_of_another_kernel_is_read_and_written(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/sys/kernel/random/boot_id": "0a5d8a2f-another-kernel"})
    async with segments(root=str(tmp_path)) as ns:
        await made(ns)
        with pytest.raises(OSError, match="another kernel's memory") as caught:
            async with map_segment(ns, "seg/x"):
                pass
        assert caught.value.errno == errno.EXDEV
        async with open_segment(ns, "seg/x") as segment:
            assert segment.buffer is None
            assert await segment.pwrite(b"far", 65533) == 3
            assert await segment.pread(10, 65533) == b"far"
            with pytest.raises(OSError, match="past the end"):
                await segment.pwrite(b"far", 65534)


async def test_here_it_is_memory() -> None:
    async with segments() as ns:
        await made(ns)
        async with open_segment(ns, "seg/x") as segment:
            assert isinstance(segment.buffer, mmap.mmap)
            await segment.pwrite(b"near", 10)
            assert await segment.pread(4, 10) == b"near"
            with pytest.raises(OSError, match="past the end"):
                await segment.pwrite(b"far", 65534)
            async with await ns.open("seg/x/data") as file:
                assert await file.pread(4, 10) == b"near"


ASKS = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect("\\0" + sys.argv[1])
sock.sendall(b"x\\n")
said, fds, _, _ = socket.recv_fds(sock, 4096, 1)
print(said.decode().strip(), len(fds))
import os
for fd in fds:
    try:
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
        print("writable")
    except OSError as error:
        print(error.errno)
"""


@pytest.mark.parametrize(
    ("perm", "said"),
    [(0o700, f"{errno.EACCES} permission denied 0"), (0o704, f"r 65536 1\n{errno.EACCES}"), (0o706, "rw 65536 1\n")],
)
async def test_the_kernel_says_who_asks_for_a_descriptor(perm: int, said: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can ask as somebody else")
    async with segments() as ns:
        await made(ns, perm=perm)
        address = (await ns.read("seg/x/fd")).split()[1].removeprefix("unix!@")
        done = await trio.run_process(
            ["/usr/bin/env", "python3", "-c", ASKS, address],
            capture_stdout=True,
            user=65534,
            group=65534,
            extra_groups=[],
        )
        assert done.stdout.decode().startswith(said)


async def test_what_is_asked_wrong() -> None:
    async with segments() as ns:
        await ns.mkdir("seg/x", 0o700)
        for path, number in (("seg/x", errno.EINVAL), ("seg/y", errno.ENOENT)):
            with pytest.raises(OSError, match=r"seg/|No such") as caught:
                async with map_segment(ns, path):
                    pass
            assert caught.value.errno == number
        for word, said in (
            ("size -1", "Invalid"),
            ("size many", "usage: size BYTES"),
            ("hugetlb maybe", r"usage: hugetlb on\|off"),
        ):
            with pytest.raises(OSError, match=said):
                await ns.write("seg/x/ctl", word)
        for name, number in (("x", errno.EEXIST), ("a b", errno.EINVAL)):
            with pytest.raises(NineError) as wrong:
                await ns.mkdir(f"seg/{name}")
            assert wrong.value.errno == number
        async with await ns.open("seg/x/data", "r+") as file:
            assert await file.pread(10, 0) == b""
            await ns.remove("seg/x")
            with pytest.raises(OSError, match="Input/output"):
                await file.pread(10, 0)


async def test_its_bits_say_who_may_use_it() -> None:
    async with seg.tree() as tree:
        async with mounted(Dir({"seg": tree})) as root:
            await root.mkdir("seg/y")
            assert (await root.stat("seg/y/data")).mode & 0o777 == 0o600
            await made(root, perm=0o755)
        async with mounted(Dir({"seg": tree}), uname="nobody") as ns:
            assert (await ns.stat("seg/x/data")).mode & 0o777 == 0o644
            async with await ns.open("seg/x/data") as file:
                assert await file.pread(1, 0) == b"\0"
            for path in ("seg/x/data", "seg/x/ctl"):
                with pytest.raises(PermissionError):
                    await ns.open(path, "r+")
            with pytest.raises(PermissionError):
                await ns.mkdir("seg/z")


# huge pages


@pytest.fixture
def reserved() -> Iterator[None]:
    """Have the kernel reserve some huge pages for the test."""
    path = Path("/proc/sys/vm/nr_hugepages")
    if os.geteuid() != 0 or not path.exists():
        pytest.skip("huge pages need root, and a kernel that has them")
    before = path.read_text()
    path.write_text(str(int(before) + 4))
    try:
        if int(path.read_text()) < int(before) + 4:
            pytest.skip("the kernel has no huge pages to reserve")
        yield
    finally:
        path.write_text(before)


async def test_huge_pages(reserved: None) -> None:
    async with segments() as ns:
        await ns.mkdir("seg/x", 0o700)
        await ns.write("seg/x/ctl", "hugetlb on")
        page = int(dict(line.split() for line in (await ns.read("seg/x/status")).splitlines())["page"])
        with pytest.raises(OSError, match=f"multiple of {page}"):
            await ns.write("seg/x/ctl", "size 4096")
        await ns.write("seg/x/ctl", f"size {2 * page}")
        with pytest.raises(OSError, match="it has memory already"):
            await ns.write("seg/x/ctl", "hugetlb off")
        async with await ns.open("seg/x/data", "r+") as file, map_segment(ns, "seg/x") as buffer:
            await file.pwrite(b"huge", page - 2)
            assert buffer[page - 2 : page + 2] == b"huge"
            assert await file.pread(10, 2 * page - 3) == bytes(3)


@pytest.mark.skipif(not os.path.exists("/sys/kernel/mm/hugepages"), reason="this kernel has no huge pages at all")
async def test_too_few_huge_pages_are_an_error_in_words() -> None:
    async with segments() as ns:
        await ns.mkdir("seg/x", 0o700)
        await ns.write("seg/x/ctl", "hugetlb on")
        with pytest.raises(
            OSError, match=r"not enough huge pages are free \(\d+ of \d+ are free: see /proc/sys/vm/nr_hugepages\)"
        ) as caught:
            await ns.write("seg/x/ctl", f"size {1 << 40}")
        assert caught.value.errno == errno.ENOMEM
        assert await ns.read("seg/x/ctl") == "hugetlb on\nsize 0\n"


async def test_a_kernel_without_huge_pages_says_so(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/meminfo": "MemTotal: 1000 kB"})
    async with segments(root=str(tmp_path)) as ns:
        await ns.mkdir("seg/x", 0o700)
        with pytest.raises(OSError, match="this kernel has no huge pages") as caught:
            await ns.write("seg/x/ctl", "hugetlb on")
        assert caught.value.errno == errno.ENODEV


def listens(address: str) -> bool:
    return address in Path("/proc/net/unix").read_text()


async def test_it_is_a_tree_as_all_are() -> None:
    @asynccontextmanager
    async def with_one() -> AsyncIterator[Dir]:
        async with seg.tree() as tree:
            tree.mkdir("x", 0o755, ROOT)
            yield tree

    assert {"x/ctl", "x/data", "x/error", "x/fd", "x/status"} <= set(await check_tree(with_one, but=["x/fd"]))


async def test_nothing_is_left() -> None:
    before = open_now()
    async with segments() as ns:
        await made(ns)
        async with map_segment(ns, "seg/x"):
            pass
        address = (await ns.read("seg/x/fd")).split()[1].removeprefix("unix!")
        assert listens(address)
    assert not listens(address)
    await nothing_more(before)
