"""block: on a made-up machine whose disks are files, on plain files, and on this machine's own loop devices and kernel."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mk9p.client import Client
from mk9p.servers.block import Disks, tree
from mk9p.testing import check_tree, mounted, until
from mk9p.tree import Node
from mk9p.uevents import Uevent
from tests.servers.tables import dos, gpt
from tests.servers.trees import fails, ls, mode, names, plant, read, write

MIB = 1 << 20
SECTORS = 4096


def disk(root: Path, name: str, content: bytes, **more: str) -> None:
    """Put a disk into a made-up machine."""
    sysfs = {"size": str(len(content) // 512), "ro": "0", "removable": "0", "diskseq": "1", "uevent": f"DEVNAME={name}"}
    plant(root, {f"sys/block/{name}/{key.replace('__', '/')}": value for key, value in (sysfs | more).items()})
    plant(root, {f"sys/block/{name}/queue/logical_block_size": "512", f"dev/{name}": ""})
    (root / "dev" / name).write_bytes(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    disk(tmp_path, "sda", bytes(2 * MIB), device__vendor="ATA", device__model="Old Faithful", device__rev="1.0")
    disk(tmp_path, "sdb", dos(SECTORS))
    disk(tmp_path, "sr0", b"", removable="1")
    disk(tmp_path, "loop0", b"")  # stands for nothing
    for n, (start, size) in {1: (2048, 1024), 12: (3072, 512)}.items():
        base = f"sys/block/sda/sda{n}"
        plant(tmp_path, {f"{base}/partition": str(n), f"{base}/start": str(start), f"{base}/size": str(size)})
    return tmp_path


async def refused(client: Client, path: str, text: str) -> tuple[int, str]:
    """Write what must be refused and return errno and words; `error` beside the file must say the same."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the caller looks at the errno
        await client.write(path, text)
    words = await client.read(path.removesuffix("ctl") + "error")
    return caught.value.errno or 0, words.rstrip("\n")


async def test_there_is_a_directory_for_each_disk(client: Client) -> None:
    assert sorted(await names(client)) == ["events", "sda", "sdb", "sr0", "status"]
    assert sorted(await names(client, "sda")) == ["ctl", "data", "error", "p1", "p12", "raw"]
    assert sorted(await names(client, "sdb")) == ["ctl", "data", "error", "p1", "p3", "p4", "p5", "p6", "raw"]
    assert sorted(await names(client, "sr0")) == ["ctl", "data", "error", "raw"]
    assert (await client.read("status")).splitlines() == [
        "sda 2097152 512 rw fixed 'ATA Old Faithful 1.0'",
        "sdb 2097152 512 rw fixed sdb",
        "sr0 0 512 rw removable sr0",
    ]
    for name in ("data", "p1", "raw"):
        assert (await client.stat(f"sda/{name}")).mode & 0o777 == 0o600
    assert [(await client.stat(f"sda/{name}")).length for name in ("data", "p1", "p12")] == [
        2 * MIB,
        524288,
        262144,
    ]


async def test_ctl_reads_as_sd_and_can_be_written_back(client: Client) -> None:
    settings = await client.read("sda/ctl")
    assert settings.splitlines() == [
        "inquiry ATA Old Faithful 1.0",
        "geometry 4096 512",
        "part data 0 4096",
        "part p1 2048 3072",
        "part p12 3072 3584",
        "readonly off",
    ]
    await client.write("sda/ctl", settings)
    assert await client.read("sda/ctl") == settings
    assert await refused(client, "sda/ctl", "geometry 4096 4096") == (
        errno.EPERM,
        "geometry of sda is 4096 512, and cannot be changed",
    )


async def test_sectors_of_4096_bytes_are_the_unit(root: Path) -> None:
    plant(root, {"sys/block/sda/queue/logical_block_size": "4096"})
    async with tree(root=str(root)) as node, mounted(node) as client:
        assert (await client.read("sda/ctl")).splitlines()[1:4] == [
            "geometry 512 4096",
            "part data 0 512",
            "part p1 256 384",
        ]


async def test_any_offset_and_length_is_read_and_written(root: Path, client: Client) -> None:
    async with await client.open("sda/data", "r+") as data:
        assert await data.pwrite(b"unaligned", 511) == 9
        assert await data.pread(20, 505) == bytes(6) + b"unaligned" + bytes(5)
        whole = os.urandom(MIB)
        assert await data.pwrite(whole, MIB // 2 + 1) == MIB
        await data.sync()
        assert (root / "dev/sda").read_bytes()[MIB // 2 + 1 :][:MIB] == whole
        assert await data.pread(MIB, MIB // 2 + 1) == whole


async def test_a_part_is_a_window_that_cannot_be_left(root: Path, client: Client) -> None:
    async with await client.open("sda/p1", "r+") as part:
        await part.pwrite(b"first", 0)
        with fails(errno.ENOSPC):
            await part.pwrite(b"last and more", 1024 * 512 - 4)
        assert await part.pread(100, 1024 * 512 - 4) == b"last"
        assert await part.pread(100, 1024 * 512) == await part.pread(100, 1 << 40) == b""
        with fails(errno.ENOSPC):
            await part.pwrite(b"x", 1024 * 512)
    content = (root / "dev/sda").read_bytes()
    assert content[2048 * 512 :][:5] == b"first"
    assert content[3072 * 512 - 4 :][:6] == b"last\0\0"
    assert len(content) == 2 * MIB


async def test_the_end_of_a_disk_is_no_place_to_write(root: Path) -> None:
    async with tree(root=str(root)) as node, mounted(node) as client, await client.open("sda/data", "r+") as data:
        with fails(errno.ENOSPC):
            await data.pwrite(b"12345", 2 * MIB - 2)
        assert await data.pread(10, 2 * MIB - 2) == b"12"
        with fails(errno.ENOSPC):
            await data.pwrite(b"x", 2 * MIB)
    assert (root / "dev/sda").stat().st_size == 2 * MIB


async def test_parts_are_made_and_unmade_in_memory(root: Path, client: Client) -> None:
    await client.write("sda/ctl", "part plan9 100 200\npart plan9 100 200\n")
    assert "plan9" in await names(client, "sda")
    await client.write("sda/plan9", b"hello")
    assert (root / "dev/sda").read_bytes()[100 * 512 :][:5] == b"hello"
    assert (await client.stat("sda/plan9")).length == 100 * 512
    for line, number, words in [
        ("part plan9 1 2", errno.EEXIST, "there is another part plan9: delpart plan9 first"),
        ("part x 10 10", errno.EINVAL, "a part lies between 0 and 4096, its end after its start"),
        ("part x 10 4097", errno.EINVAL, "a part lies between 0 and 4096, its end after its start"),
        ("part ctl 1 2", errno.EINVAL, "'ctl' cannot be a part's name"),
        ("part a/b 1 2", errno.EINVAL, "'a/b' cannot be a part's name"),
        ("part x", errno.EINVAL, "usage: part NAME START END"),
        ("delpart data", errno.EPERM, "data is the disk itself"),
        ("delpart x", errno.ENOENT, "no part x"),
    ]:
        assert await refused(client, "sda/ctl", line) == (number, words)
    async with await client.open("sda/plan9"):
        assert await refused(client, "sda/ctl", "delpart plan9") == (errno.EBUSY, "part plan9 is open")
    await client.write("sda/ctl", "delpart plan9\ndelpart p1\n")
    assert sorted(await names(client, "sda")) == ["ctl", "data", "error", "p12", "raw"]
    with pytest.raises(FileNotFoundError):
        await client.stat("sda/plan9")


async def test_a_file_is_a_disk(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(gpt(SECTORS, {1: (64, 999), 2: (1000, 1999)}))
    async with tree(str(image)) as node, mounted(node) as client:
        assert sorted(await names(client)) == ["ctl", "data", "error", "p1", "p2", "raw"]
        assert (await client.read("ctl")).splitlines() == [
            f"inquiry file {image}",
            "geometry 4096 512",
            "part data 0 4096",
            "part p1 64 1000",
            "part p2 1000 2000",
            "readonly off",
        ]
        await client.write("p2", b"there")
        assert image.read_bytes()[512000:][:5] == b"there"
        await client.write("ctl", "flush\ndiscard 1000 2000\n")
        assert image.read_bytes()[512000:][:5] == bytes(5)
        await client.write("ctl", "readonly on")
        assert "readonly on" in await client.read("ctl")
        with fails(errno.EROFS):
            await client.write("p2", b"there")
        assert (await refused(client, "ctl", "discard 0 1"))[0] == errno.EROFS
        await client.write("ctl", "readonly off")
        assert (await refused(client, "ctl", "discard 1 5000"))[0] == errno.EINVAL


async def test_a_new_table_is_seen_after_rescan_and_a_bad_one_is_said(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(SECTORS * 512))
    async with tree(str(image)) as node, mounted(node) as client:
        assert "p1" not in await names(client)
        await client.write("data", gpt(SECTORS, {1: (64, 999)}))
        await client.write("ctl", "rescan")
        assert "p1" in await names(client)
        async with await client.open("data", "r+") as data:
            await data.pwrite(b"broken", 1024)
        assert await refused(client, "ctl", "rescan") == (
            errno.EINVAL,
            "disk.img: its primary entries have a wrong checksum",
        )
        assert "p1" in await names(client)  # by the backup
        async with await client.open("data", "r+") as data:
            await data.pwrite(b"broken", (SECTORS - 1) * 512)
        number, words = await refused(client, "ctl", "rescan")
        assert (number, "bad GPT" in words) == (errno.EINVAL, True)
        assert sorted(await names(client)) == ["ctl", "data", "error", "raw"]


async def test_wrong_files_are_refused_at_the_start(tmp_path: Path) -> None:
    for file, sector, number in [
        (tmp_path / "none", "512", errno.ENOENT),
        (tmp_path, "512", errno.EISDIR),
        (Path(__file__), "513", errno.EINVAL),
    ]:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            async with tree(str(file), sector=sector):
                pass
        assert caught.value.errno == number


def uevent(action: str, name: str, **values: str) -> Uevent:
    return Uevent(action, f"/devices/x/block/{name}", {"SUBSYSTEM": "block", "DEVTYPE": "disk"} | values)


async def test_a_disk_that_vanishes_while_open_is_eio_at_once(root: Path) -> None:
    disks = Disks(str(root))
    async with mounted(disks.tree()) as client, await client.open("sda/data", "r+") as data:
        assert len(await data.pread(10, 0)) == 10
        disks.told(uevent("remove", "sda"))
        shutil.rmtree(root / "sys/block/sda")
        for attempt in (
            lambda: data.pread(10, 0),
            lambda: data.pwrite(b"x", 0),
            data.sync,
        ):
            with fails(errno.EIO):
                await attempt()
        assert sorted(await names(client)) == ["events", "sdb", "sr0", "status"]
        async with await client.open("events") as events:
            assert (await events.pread(100, 0)).split()[2:] == [b"remove", b"sda"]


async def test_without_a_word_of_the_kernel_it_is_noticed_at_the_end(root: Path, client: Client) -> None:
    async with await client.open("sda/data") as data:
        shutil.rmtree(root / "sys/block/sda")
        os.truncate(root / "dev/sda", 0)  # what is gone reads as empty
        with fails(errno.EIO):
            await data.pread(10, 0)
        with pytest.raises(FileNotFoundError):
            await client.stat("sda")


async def test_hot_plug_is_seen_and_a_new_disk_of_an_old_name_is_a_new_one(root: Path) -> None:
    disks = Disks(str(root))
    async with mounted(disks.tree()) as client:
        await client.write("sda/ctl", "part mine 0 1")
        async with await client.open("sda/data") as data:
            disk(root, "sdc", bytes(MIB))
            disks.told(uevent("add", "sdc"))
            plant(root, {"sys/block/sda/diskseq": "2", "sys/block/sda/size": "100"})
            disks.told(uevent("change", "sda"))
            disks.told(uevent("change", "sdb"))
            disks.told(
                Uevent("add", "/devices/x/block/sdc/sdc1", {"SUBSYSTEM": "block", "DEVTYPE": "partition", "PARTN": "1"})
            )
            disks.told(Uevent("add", "/devices/x/cpu7", {"SUBSYSTEM": "cpu"}))
            assert [line.split()[2:] for line in disks.events.lines] == [
                [b"add", b"sdc"], [b"remove", b"sda"], [b"add", b"sda"], [b"change", b"sdb"], [b"part", b"sdc", b"p1"],
            ]  # fmt: skip
            with fails(errno.EIO):
                await data.pread(10, 0)
        assert "mine" not in await names(client, "sda")
        assert (await client.stat("sda/data")).length == 51200
        plant(root, {"sys/block/loop0/size": "16"})
        disks.present.look()
        assert [line.split()[2:] for line in disks.events.lines][5:] == [[b"add", b"loop0"]]


async def test_what_is_no_scsi_disk_has_no_raw(client: Client) -> None:
    async with await client.open("sda/raw", "r+") as raw:
        with fails(errno.EINVAL):
            await raw.pread(100, 0)
        with fails(errno.EINVAL):
            await raw.pwrite(b"12345", 0)
        assert await raw.pwrite(bytes([0x12, 0, 0, 0, 36, 0]), 0) == 6
        with fails(errno.ENOTTY):
            await raw.pread(36, 0)
        with fails(errno.EINVAL):
            await raw.pread(100, 0)
        with fails(errno.EBUSY):
            await client.open("sda/raw", "r+")


async def test_the_made_up_tree_is_a_proper_one(tmp_path: Path) -> None:
    disk(tmp_path, "sda", dos(SECTORS)[: 64 * 1024])
    disk(tmp_path, "sr0", b"", removable="1")
    assert len(await check_tree(lambda: tree(root=str(tmp_path)))) > 10


@contextmanager
def loop(image: Path) -> Iterator[str]:
    """Give the name of a loop device of this kernel for a file."""
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("no root, or no losetup(8)")
    done = subprocess.run(["losetup", "-f", "--show", str(image)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr.strip()}")
    name = done.stdout.strip()
    try:
        yield os.path.basename(name)
    finally:
        subprocess.run(["losetup", "-d", name], check=False, capture_output=True)


async def test_a_real_loop_device(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(gpt(SECTORS, {1: (64, 999)}))
    with loop(image) as name:
        ro = Path(f"/sys/block/{name}/ro").read_text
        async with tree() as node, mounted(node) as client:
            lines = (await client.read(f"{name}/ctl")).splitlines()
            assert lines[0] == f"inquiry loop {image}"
            assert lines[1:4] == ["geometry 4096 512", "part data 0 4096", "part p1 64 1000"]
            data = os.urandom(300_001)
            async with await client.open(f"{name}/p1", "r+") as part:
                await part.pwrite(data, 777)
                await part.sync()
                assert image.read_bytes()[64 * 512 + 777 :][: len(data)] == data
            await client.write(f"{name}/ctl", "discard 64 1000\nflush\n")
            assert image.read_bytes()[64 * 512 : 1000 * 512] == bytes(936 * 512)
            await client.write(f"{name}/ctl", "readonly on")
            assert ro() == "1\n"
            with fails(errno.EROFS):
                await client.write(f"{name}/data", b"x")
            await client.write(f"{name}/ctl", "readonly off")
            async with await client.open(f"{name}/data", "r+") as file:
                with fails(errno.ENOSPC):
                    await file.pwrite(b"1234", SECTORS * 512 - 2)
                assert await file.pread(100, SECTORS * 512 - 2) == b"12"


async def test_a_real_disk_comes_and_goes(tmp_path: Path) -> None:
    """A loop device that was taken away has no size any more: what is open says EIO, and events tell of it."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(MIB))
    async with tree() as node:
        events = await walk_events(node)
        with loop(image) as name:
            await until(lambda: [b"add", name.encode()] in events())
            assert name in await ls(node)
            assert await mode(node, f"{name}/data") == 0o600
            await write(node, f"{name}/ctl", "part x 0 1")
            assert "part x 0 1\n" in await read(node, f"{name}/ctl")
        await until(lambda: [b"remove", name.encode()] in events())
        assert name not in await ls(node)


async def walk_events(node: Node) -> Callable[[], list[list[bytes]]]:
    from mk9p.tree import Log
    from tests.servers.trees import walk

    log = await walk(node, "events")
    assert isinstance(log, Log)
    return lambda: [line.split()[2:] for line in log.lines]
