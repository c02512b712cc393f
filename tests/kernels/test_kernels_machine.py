"""The machines of real guests: stopped, dumped and changed while they run."""

from __future__ import annotations

import errno
import glob
import mmap
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest
import trio

from mk9p.errors import NineError
from mk9p.servers.kernels.bare import family
from mk9p.servers.kernels.device import Device
from tests.kernels.guests import BOOT, booted, require

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernels.guests import Guest

COUNT = "cat /run/count"
COUNTING = (
    "(n=0; while :; do n=$((n + 1)); echo $n >/run/count; /run/guest/busybox usleep 10000; done) >/dev/null 2>&1 &"
)


async def counts(guest: Guest) -> None:
    """See that a program in the guest goes on."""
    # the file is empty for a moment, whenever a number is written
    _, first = await guest.run(f'until n=$({COUNT} 2>/dev/null); [ "$n" ]; do :; done; echo $n')
    _, second = await guest.run(f'until n=$({COUNT}); [ "${{n:-0}}" -gt {int(first)} ]; do :; done; echo $n')
    assert int(second) > int(first)


@pytest.mark.parametrize("kind", ["qemu", "uml"])
async def test_a_frozen_guest_does_nothing_and_a_thawed_one_goes_on(kind: str, home: Path) -> None:
    require(kind)
    async with booted(kind, home) as guest:
        await guest.run(COUNTING)
        # one that never leaves its CPU by itself
        await guest.run("(while :; do :; done) >/dev/null 2>&1 &")
        await counts(guest)
        for _ in range(3):
            await guest.running.machine.freeze()
            assert min([await spent(guest.running.pid) for _ in range(3)]) < 20  # of 100 ticks
            await guest.running.machine.thaw()
            await counts(guest)


async def spent(pid: int) -> int:
    """Return the ticks that a guest's processes use in a second."""
    before = used(pid)
    await trio.sleep(1)
    return used(pid) - before


def used(pid: int) -> int:
    """Return the ticks that a guest's processes have used."""
    total = 0
    for one in family(pid):
        with open(f"/proc/{one}/stat") as file:
            fields = file.read().rpartition(") ")[2].split(" ")
        total += int(fields[11]) + int(fields[12])
    return total


async def test_a_frozen_guest_can_be_killed_and_leaves_nothing(home: Path) -> None:
    require("uml")
    async with booted("uml", home) as guest:
        await guest.run("true")
        await guest.running.machine.freeze()
        assert groups()
        await guest.running.kill()
        assert not groups()


def groups() -> list[str]:
    return glob.glob(f"/sys/fs/cgroup/**/mk9p-{os.getpid()}-frozen-t1-*", recursive=True)


async def test_a_qemu_is_dumped_and_reset(home: Path) -> None:
    require("qemu")
    async with booted("qemu", home) as guest:
        await guest.run("echo a sentence that nothing else in this machine says >/run/mark; cat /run/mark")
        with tempfile.TemporaryFile() as file:
            await guest.running.machine.dump(file.fileno())
            file.seek(0)
            told = subprocess.run(  # noqa: ASYNC221 - it takes no time
                ["readelf", "-h", "-l", f"/dev/fd/{file.fileno()}"],
                pass_fds=[file.fileno()],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            assert "CORE (Core file)" in told
            assert told.count("LOAD") >= 1
            assert os.fstat(file.fileno()).st_size > (512 << 20)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
                assert memory.find(b"a sentence that nothing else in this machine says") > 0
        assert await guest.run("cat /run/mark") == (0, "a sentence that nothing else in this machine says\n")
        await guest.running.machine.reset()
        with trio.fail_after(BOOT):
            await guest.over.wait()
        assert guest.reason == "rebooted"


async def test_memory_and_devices_come_and_go_while_it_runs(home: Path, tmp_path: Path) -> None:
    require("qemu")
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"what is on the disk" + bytes(1 << 20))
    modules = ("virtio_mem", "virtio_blk", "xhci_pci", "usb_storage", "sd_mod", "virtio_net")
    async with booted("qemu", home, modules=modules) as guest:
        machine = guest.running.machine
        await guest.run("sh /run/guest/load; echo online_movable >/sys/devices/system/memory/auto_online_blocks")

        async def total() -> int:
            return int((await guest.run("while read k v u; do [ $k = MemTotal: ] && echo $v; done </proc/meminfo"))[1])

        before = await total()
        assert (await machine.memory(), await machine.plugged()) == (0, frozenset())
        await machine.set_memory(256 << 20)
        assert await machine.memory() == 256 << 20
        assert await total() == before + (256 << 10)
        await machine.set_memory(0)
        assert await total() == before
        for kind, name in (("disk", "vda"), ("usb", "sda"), ("net", "eth0")):
            device = Device("d0", kind, (str(disk),) if kind != "net" else ("closed",))
            place = "/sys/class/net" if kind == "net" else "/sys/block"
            await machine.plug(device)
            assert await machine.plugged() == {"d0"}
            await guest.run(f"until [ -e {place}/{name} ]; do :; done")
            if kind != "net":
                assert (await guest.run(f"head -c 19 /dev/{name}"))[1] == "what is on the disk"
                with pytest.raises(
                    NineError, match=f"{disk} is in use: .* lock"
                ) as refused:  # what it has, nobody else gets
                    await machine.plug(Device("d1", kind, (str(disk),)))
                assert refused.value.errno == errno.EBUSY
                assert await machine.plugged() == {"d0"}
            await machine.unplug(device)
            assert await machine.plugged() == frozenset()
            assert (await guest.run(f"ls {place}"))[1].count(name) == 0
        for device, words, number in (
            (Device("d2", "disk", (f"{tmp_path}/absent",)), "absent: No such file", errno.ENOENT),
            (Device("d2", "disk", (str(tmp_path),)), "Is a directory", errno.EISDIR),
            (Device("d2", "disk", ("/dev/null",)), "a disk is a file or a block device", errno.EINVAL),
        ):
            with pytest.raises(NineError, match=words) as caught:
                await machine.plug(device)
            assert caught.value.errno == number
        with pytest.raises(NineError, match="not found"):
            await machine.unplug(Device("d9", "net"))
        assert await machine.plugged() == frozenset()
