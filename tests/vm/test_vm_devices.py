"""Devices of k1, a QEMU kernel with a second disk, a USB stick and a second serial line, used from k2 and seen to come and go.

The lab is one of its own: its k2 is killed in the end.
"""

import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.client import Client
from mk9p.clients import lab as labs
from tests.servers.tables import dos, gpt
from tests.vm.lab_vm import ALL, PATIENCE, Vm, insmod, lab_up, short_folder, until

MIB = 1 << 20
DISK = 192 * MIB
WRITTEN = 100  # MiB that k2 writes into its file system on k1's disk
MODULES = ("virtio_blk", "xhci_pci", "usb_storage", "sd_mod", "crc32c_generic", "ext4", "loop", "e1000")
BLOCK = "k/k1/dev/block"
MOUNT = "/mnt/n"


@attrs.frozen
class Machine:
    """k1, and what its hardware is on the host."""

    vm: Vm
    home: Path

    @property
    def disk(self) -> Path:
        return self.home / "disk.img"

    @property
    def stick(self) -> Path:
        return self.home / "stick.img"

    def hardware(self) -> list[str]:
        """Return the arguments of QEMU."""

        def node(name: str, file: Path) -> list[str]:
            return [
                "-blockdev",
                f"driver=raw,node-name={name},discard=unmap,file.driver=file,file.discard=unmap,file.filename={file}",
            ]

        def line(name: str) -> list[str]:
            return ["-chardev", f"socket,id={name},path={self.home / name},server=on,wait=off"]

        return [
            *node("disk", self.disk), "-device", "virtio-blk-pci,drive=disk,serial=k1-disk",
            *node("stick", self.stick), "-device", "qemu-xhci,id=xhci", "-device", "usb-storage,bus=xhci.0,drive=stick,id=stick",
            *line("uart"), "-device", "isa-serial,chardev=uart,index=1", *line("hmp"), "-mon", "chardev=hmp,mode=readline",
        ]  # fmt: skip

    def monitor(self, command: str) -> None:
        """Give QEMU's monitor a command."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(PATIENCE)
            monitor.connect(str(self.home / "hmp"))
            said = b""
            for _ in range(2):  # its greeting, and its answer
                while not said.endswith(b"(qemu) "):
                    said += monitor.recv(4096)
                monitor.sendall(f"{command}\n".encode() if not said.count(b"(qemu)") > 1 else b"")
                said += b"|"
            assert b"Error" not in said, said

    def listed(self, path: str) -> list[str]:
        return [name.rstrip("/") for name in self.vm.mk9p("ls", path).stdout.decode().split()]

    def events(self, path: str) -> list[str]:
        """Return what an events file has by now, without numbers and times."""

        async def read(ns: Client) -> str:
            text = ""
            with trio.move_on_after(1):
                async with await ns.open(path) as file:
                    while data := await file.pread(1 << 16, len(text)):
                        text += data.decode()
            return text

        return [line.split(" ", 2)[2] for line in self.vm.client(read).splitlines()]


@pytest.fixture(scope="module")
def machine(guests: None) -> Iterator[Machine]:
    with short_folder() as home:
        machine = Machine(Vm(labs.Lab(home / "lab")), home)
        for file, size in ((machine.disk, DISK), (machine.stick, 8 * MIB)):
            with file.open("wb") as empty:
                empty.truncate(size)
        kernels: dict[str, dict[str, Any]] = {
            "k1": {"backend": "qemu", "kernel": "6.1", "memory": "768M", "device": machine.hardware()},
            "k2": {"backend": "uml", "kernel": "uml", "memory": "512M", **ALL},
        }
        with lab_up(home, kernels) as vm:
            vm.sh("k1", insmod("6.1", MODULES))
            vm.sh("k2", insmod("uml", ("loop",)))
            vm.mount("k2", MOUNT)
            until(lambda: {"vda", "sda"} <= set(machine.listed(BLOCK)), "the disks of k1")
            yield machine


def test_disks_tell_what_they_are(machine: Machine) -> None:
    status = {line.split()[0]: line.split() for line in machine.vm.cat(f"{BLOCK}/status").splitlines()}
    assert status["vda"][1:5] == [str(DISK), "512", "rw", "fixed"]
    assert status["sda"][1:4] == [str(8 * MIB), "512", "rw"]
    ctl = machine.vm.cat(f"{BLOCK}/vda/ctl").splitlines()
    assert ctl[:3] == ["inquiry disk k1-disk", f"geometry {DISK // 512} 512", f"part data 0 {DISK // 512}"]
    assert "inquiry QEMU QEMU HARDDISK" in machine.vm.cat(f"{BLOCK}/sda/ctl")


def test_k2_makes_a_file_system_on_the_disk_of_k1(machine: Machine) -> None:
    """As a user of k2 would: losetup, mkfs, mount; then k1 finds all of it on its own disk."""
    vm, data = machine.vm, f"{MOUNT}/{BLOCK}/vda/data"
    made = vm.sh(
        "k2",
        f"""set -e; test $(stat -c %s {data}) = {DISK}
        d=$(losetup -f --show --direct-io=on {data}); mkfs.ext4 -q $d; mkdir -p /mnt/disk; mount $d /mnt/disk; cd /mnt/disk
        date +%s.%N
        for n in $(seq {WRITTEN // 10}); do dd if=/dev/urandom of=file$n bs=1M count=10 2>/dev/null; done; sync
        date +%s.%N
        sha256sum file*; cd /; umount /mnt/disk; losetup -d $d""",
    ).splitlines()
    print(f"{WRITTEN} MiB in {float(made[1]) - float(made[0]):.1f} s")
    sums = made[2:]
    assert len(sums) == WRITTEN // 10
    found = vm.sh(
        "k1",
        "mkdir -p /mnt/disk && mount -o ro /dev/vda /mnt/disk && cd /mnt/disk && sha256sum file*; cd /; umount /mnt/disk",
    )
    assert found.splitlines() == sums
    # and on the host, whose file it is, the same bytes
    text = subprocess.run(["debugfs", "-R", "cat file1", str(machine.disk)], capture_output=True, check=False)
    if text.returncode == 0 and text.stdout:
        import hashlib

        assert f"{hashlib.sha256(text.stdout).hexdigest()}  file1" in sums


def test_words_of_ctl_on_a_real_disk(machine: Machine) -> None:
    vm = machine.vm
    vm.write(f"{BLOCK}/vda/ctl", "readonly on")
    try:
        assert vm.sh("k1", "cat /sys/block/vda/ro") == "1\n"
        refused = vm.mk9p("write", f"{BLOCK}/vda/data", "x")
        assert refused.returncode == 1
        assert b"Read-only file system" in refused.stderr
    finally:
        vm.write(f"{BLOCK}/vda/ctl", "readonly off")
    vm.write(f"{BLOCK}/vda/ctl", "flush\ndiscard 0 2048\npart mine 8 16\n")
    assert machine.disk.read_bytes()[:MIB] == bytes(MIB)
    vm.write(f"{BLOCK}/vda/mine", "hello")
    vm.write(f"{BLOCK}/vda/ctl", "flush")
    assert machine.disk.read_bytes()[4096:4101] == b"hello"


@pytest.mark.parametrize("table", ["gpt", "dos"])
def test_tables_are_read_as_the_kernel_reads_them(machine: Machine, table: str) -> None:
    """Write a table on k1's stick; its kernel's partitions and ours, read from the same bytes as a plain file, are the same."""
    vm = machine.vm
    sectors = 8 * MIB // 512
    content = gpt(sectors, {1: (64, 999), 3: (1000, 1999), 7: (5000, sectors - 34)}) if table == "gpt" else dos(sectors)

    async def put(ns: Client) -> str:
        async with await ns.open(f"{BLOCK}/sda/data", "r+") as file:
            await file.pwrite(content, 0)
        await ns.write(f"{BLOCK}/sda/ctl", "rescan")
        return await ns.read(f"{BLOCK}/sda/ctl")

    ours = [line for line in vm.client(put).splitlines() if line.startswith("part p")]
    rows = vm.sh(
        "k1", "cd /sys/block/sda; for p in sda*; do echo $(cat $p/partition) $(cat $p/start) $(cat $p/size); done"
    )
    kernel = [tuple(map(int, row.split())) for row in rows.splitlines()]
    assert ours == [f"part p{n} {start} {start + size}" for n, start, size in sorted(kernel)]
    assert len(ours) >= 3

    async def read(ns: Client) -> bytes:
        return await ns.read_bytes(f"{BLOCK}/sda/p1")

    assert vm.client(read) == content[64 * 512 :][: len(vm.client(read))]

    from mk9p.servers.block import tables

    parsed = tables.find(lambda start, count: content[start * 512 : (start + count) * 512], sectors, 512)
    assert ours == [f"part {p.name} {p.start} {p.end}" for p in parsed.parts]


def test_raw_speaks_scsi(machine: Machine) -> None:
    async def ask(ns: Client) -> tuple[bytes, bytes, bytes, bytes, bytes]:
        async with await ns.open(f"{BLOCK}/sda/raw", "r+") as raw:
            await raw.pwrite(bytes([0x12, 0, 0, 0, 36, 0]), 0)
            inquiry = await raw.pread(36, 0)
            status = await raw.pread(12, 36)
            await raw.pwrite(
                struct.pack(">BBIBHB", 0x28, 0, 0x7FFFFFFF, 0, 1, 0), 0
            )  # READ(10) of a sector that is not
            await raw.pread(512, 0)
            bad = await raw.pread(12, 512)
            await raw.pwrite(bytes([0x03, 0, 0, 0, 18, 0]), 0)
            sense = await raw.pread(18, 0)
            await raw.pread(12, 18)
            await raw.pwrite(bytes([0x25] + [0] * 9), 0)
            return inquiry, status, bad, sense, await raw.pread(8, 0)

    inquiry, status, bad, sense, capacity = machine.vm.client(ask)
    assert inquiry[8:24] == b"QEMU    QEMU HAR"
    assert int(status) == 0
    assert int(bad) == 2  # CHECK CONDITION
    assert sense[2] & 15 == 5  # ILLEGAL REQUEST
    assert struct.unpack(">II", capacity) == (8 * MIB // 512 - 1, 512)


def test_a_stick_is_pulled_out_and_plugged_in(machine: Machine) -> None:
    vm = machine.vm
    port = next(line.split()[0] for line in vm.cat("k/k1/dev/usb/status").splitlines() if "HARDDRIVE" in line)
    status = vm.cat(f"k/k1/dev/usb/{port}/status")
    assert "driver usb\n" in status
    assert "usb-storage" in status.splitlines()[-1]
    assert vm.client(lambda ns: ns.read_bytes(f"k/k1/dev/usb/{port}/raw"))[:2] == b"\x12\x01"

    async def pull(ns: Client) -> OSError:
        async with await ns.open(f"{BLOCK}/sda/data", "r+") as data:
            await data.pread(512, 4 * MIB)
            await trio.to_thread.run_sync(machine.monitor, "device_del stick")
            await trio.to_thread.run_sync(until, lambda: "sda" not in machine.listed(BLOCK), "sda to go")
            with pytest.raises(OSError) as caught:  # noqa: PT011 - it is given back
                await data.pread(512, 4 * MIB)
            with pytest.raises(OSError):  # noqa: PT011 - as above
                await data.pwrite(b"x" * 512, 0)
            return caught.value

    before = machine.events("k/k1/dev/usb/events"), machine.events(f"{BLOCK}/events")
    assert vm.client(pull).errno == 5
    until(lambda: port not in machine.listed("k/k1/dev/usb"), "the stick to go")
    machine.monitor("device_add usb-storage,bus=xhci.0,drive=stick,id=stick")
    until(lambda: any(name.startswith("sd") for name in machine.listed(BLOCK)), "the stick to come back")
    usb = machine.events("k/k1/dev/usb/events")[len(before[0]) :]
    assert f"remove {port}" in usb
    assert any(line.startswith("add ") and line.endswith("46f4:0001") for line in usb)
    assert any(line.startswith("bind ") and line.endswith("usb-storage") for line in usb)
    block = machine.events(f"{BLOCK}/events")[len(before[1]) :]
    assert "remove sda" in block
    assert any(line.startswith("add sd") for line in block)
    assert "Traceback" not in vm.cat("kernels/k1/log")


def test_usb_words(machine: Machine) -> None:
    vm = machine.vm
    port = next(line.split()[0] for line in vm.cat("k/k1/dev/usb/status").splitlines() if "HARDDRIVE" in line)
    ctl = f"k/k1/dev/usb/{port}/ctl"
    vm.write(ctl, "power off")
    assert vm.cat(ctl).startswith("power off\n")
    until(lambda: not any(name.startswith("sd") for name in machine.listed(BLOCK)), "the disk to go")
    vm.write(ctl, "power on")
    until(lambda: any(name.startswith("sd") for name in machine.listed(BLOCK)), "the disk to come back")
    vm.write(ctl, "reset\nunbind\n")
    assert "unbind" in vm.cat(ctl)
    assert "driver -\n" in vm.cat(f"k/k1/dev/usb/{port}/status")
    vm.write(ctl, "bind")
    until(lambda: any(name.startswith("sd") for name in machine.listed(BLOCK)), "the disk to come back")


def test_pci_words(machine: Machine) -> None:
    vm = machine.vm
    slot = next(line.split()[0] for line in vm.cat("k/k1/dev/pci/status").splitlines() if line.endswith("xhci_hcd"))
    before = len(machine.events("k/k1/dev/pci/events"))
    ctl = f"k/k1/dev/pci/{slot}/ctl"
    assert vm.cat(ctl) == "bind xhci_hcd\n"
    assert "config" in machine.listed(f"k/k1/dev/pci/{slot}")
    vm.write(ctl, "unbind")
    assert vm.sh("k1", f"ls /sys/bus/pci/drivers/xhci_hcd | grep -c {slot}; :") == "0\n"
    refused = vm.mk9p("write", ctl, "bind virtio-pci")
    assert refused.returncode == 1
    vm.write(ctl, "bind xhci_hcd")
    vm.write(ctl, "remove")
    assert slot not in machine.listed("k/k1/dev/pci")
    vm.write("k/k1/dev/pci/ctl", "rescan")
    until(lambda: slot in machine.listed("k/k1/dev/pci"), "the controller to come back")
    events = machine.events("k/k1/dev/pci/events")[before:]
    assert [line for line in events if slot in line and "bind" not in line] == [f"remove {slot}", f"add {slot}"]
    assert f"bind {slot} xhci_hcd" in events
    assert f"unbind {slot}" in events


def test_a_serial_line_is_shared(machine: Machine) -> None:
    """What is said on k1's second serial line is read by two in the namespace, and what they write comes out at the other end."""
    vm, name = machine.vm, "k/k1/dev/tty/ttyS1"
    assert "ttyS0" in machine.listed("k/k1/dev/tty")
    with socket.socket(socket.AF_UNIX) as far:
        far.connect(str(machine.home / "uart"))
        vm.write(f"{name}ctl", "b115200 l8 pn s1 m0 d1 r1")
        assert vm.cat(f"{name}ctl").startswith("b115200 c0 d1 e0 l8 m0 pn r1 s1 x0")

        async def talk(ns: Client) -> list[bytes]:
            got = []
            async with await ns.open(name, "r+") as one, await ns.open(name) as two:
                far.sendall(b"login: ")
                for file in (one, two):
                    text = b""
                    while len(text) < 7:
                        text += await file.pread(100, len(text))
                    got.append(text)
                await one.write(b"root\n")
            return got

        assert vm.client(talk) == [b"login: ", b"login: "]
        said = b""
        while len(said) < 5 and select.select([far], [], [], PATIENCE)[0]:
            said += far.recv(100)
        assert said == b"root\n"
        lines = vm.cat(f"{name}status").splitlines()
        assert lines[0].startswith("b115200 c0 d1 e0 l8 m0 pn r1 s1")
        assert "framing(0) overruns(0)" in lines[1]
        refused = vm.mk9p("cat", "k/k1/dev/tty/ttyS0")  # the console, with a shell on it
        assert refused.returncode == 1
        assert os.strerror(16).encode() in refused.stderr


def test_what_k2_had_synced_is_there_when_it_dies(machine: Machine) -> None:
    """The last test here: k2 is killed while it writes."""
    vm, data = machine.vm, f"{MOUNT}/{BLOCK}/vda/data"
    said = vm.sh(
        "k2",
        f"""set -e; d=$(losetup -f --show --direct-io=on {data}); mkfs.ext4 -q $d; mkdir -p /mnt/disk; mount $d /mnt/disk; cd /mnt/disk
        dd if=/dev/urandom of=kept bs=1M count=8 conv=fsync 2>/dev/null; sync .; sha256sum kept
        setsid sh -c 'while :; do dd if=/dev/zero of=lost bs=1M count=100 conv=fsync; done' </dev/null >/dev/null 2>&1 &""",
    )
    vm.write("kernels/k2/ctl", "kill")
    found = vm.sh(
        "k1",
        "mount /dev/vda /mnt/disk && cd /mnt/disk && sha256sum kept && dmesg | grep 'EXT4-fs (vda)'; cd /; umount /mnt/disk",
    )
    assert found.startswith(said)
    assert "recovery complete" in found  # it was in the middle of it
