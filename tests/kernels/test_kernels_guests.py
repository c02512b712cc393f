"""Real kernels: booted, talked to, halted, panicked, and gone."""

# ruff: noqa: ASYNC240 - what blocks here is memory (/proc, /run)

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import trio

from mk9p import cgroups
from mk9p.auth import ROOT
from mk9p.dial import Listener, dial, listen
from mk9p.servers.kernels import backend, tree
from mk9p.servers.kernels.bare import family
from mk9p.servers.kernels.files import KernelDir
from mk9p.tree import Open, settle
from tests.kernels.guests import BACKENDS, BOOT, booted, ended, owner, processes_of, require, watched

KINDS = pytest.mark.parametrize("kind", ["qemu", "uml"])


@KINDS
async def test_boots_runs_talks_and_halts(kind: str, home: Path) -> None:
    require(kind)
    async with booted(kind, home, cpus=2 if kind == "qemu" else 1) as guest:
        status, text = await guest.run(f"hostname; nproc; cat {__file__} | wc -c; stat -f -c %T /sys/fs/cgroup; exit 7")
        name, cpus, size, cgroup = text.split()
        assert (status, name, cgroup) == (7, "t1", "cgroup2fs")
        assert int(cpus) == (2 if kind == "qemu" else 1)
        assert int(size) == Path(__file__).stat().st_size  # the host's own files
        new = Path(__file__).with_name("new")
        assert (await guest.run(f"echo x > {new} && cat {new}"))[1] == "x\n"
        assert not new.exists()  # and they are safe from it
        # the console: its history, and its keyboard
        await guest.until(b"mk9p: t1 has booted")
        await guest.running.send(b"echo it is $((6 * 7))\n")
        await guest.until(b"it is 42")
        if kind == "qemu":
            assert (await guest.run("test -c /dev/vport0p1 -a -c /dev/vport0p2"))[0] == 0
        pid = guest.running.pid
        assert Path(f"/proc/{pid}").exists()
        await guest.running.halt()
        await guest.over.wait()
    assert guest.reason == "halted"
    assert b"t1 is going down" in guest.said
    assert not Path(f"/proc/{pid}").exists()
    assert not (home / "t1").exists()


@KINDS
async def test_an_emulator_is_in_a_group_that_limits_it_and_goes_with_it(kind: str, home: Path) -> None:
    require(kind)
    folders = set[Path]()
    async with booted(kind, home) as guest:
        await guest.run("true")
        for what, parent, version in cgroups.places(cgroups.MOUNTS.read_text(), cgroups.GROUPS.read_text()):
            (folder,) = parent.glob(f"mk9p-{os.getpid()}-t1-*")
            folders.add(folder)
            most = {
                "memory": ("memory.limit_in_bytes", "memory.max"),
                "cpu": ("cpu.cfs_quota_us", "cpu.max"),
                "pids": ("pids.max", "pids.max"),
            }[what]
            assert 0 < int((folder / most[version - 1]).read_text().split()[0]) < 1 << 40
            there = set(map(int, (folder / "cgroup.procs").read_text().split()))
            assert set(family(guest.running.pid)) <= there
        assert folders, "this machine has no control group of ours to try that"
        await guest.running.halt()
        await guest.over.wait()
    assert not any(folder.exists() for folder in folders)


@KINDS
async def test_a_panic_is_noticed_at_once(kind: str, home: Path) -> None:
    require(kind)
    async with booted(kind, home, hostroot=False) as guest:
        await guest.run("true")
        before = time.monotonic()
        with pytest.raises(OSError, match="not running"):
            await guest.run("echo c > /proc/sysrq-trigger")
        await guest.over.wait()
        took = time.monotonic() - before
    assert guest.reason == "panicked"
    assert b"sysrq triggered crash" in guest.said
    assert took < 10, f"{took:.1f} s"  # tenths of one on an idle machine; whatever else would notice it takes a minute


async def test_a_reboot_is_told_from_an_end(home: Path) -> None:
    require("qemu")
    async with booted("qemu", home, hostroot=False) as guest:
        with pytest.raises(OSError, match="not running"):
            await guest.run("busybox reboot -f")
        await guest.over.wait()
    assert guest.reason == "rebooted"


async def test_killed_from_outside(home: Path) -> None:
    require("qemu")
    async with booted("qemu", home) as guest:
        os.kill(guest.running.pid, signal.SIGKILL)
        await guest.over.wait()
    assert guest.reason == "killed"
    assert not (home / "t1").exists()


async def test_a_wrong_device_is_told_in_the_emulators_own_words(home: Path) -> None:
    require("qemu")
    async with booted("qemu", home, devices=("-device", "no-such-thing")) as guest:
        await guest.over.wait()
    assert "no-such-thing" in guest.reason


async def first_bytes(listener: Listener) -> bytes:
    link = await listener.accept()
    try:
        await link.wait_readable()
        buffer = bytearray(100)
        return bytes(buffer[: link.recv_into(memoryview(buffer))])
    finally:
        link.close()


@KINDS
async def test_the_guest_reaches_us(kind: str, home: Path) -> None:
    """The other direction: what listens at `listen` is what the guest finds at `guest_dial`."""
    require(kind)
    async with booted(kind, home, hostroot=False) as guest:
        listener = await listen(guest.running.listen)  # after its start, and QEMU calls again until it is there
        say = {
            "char!/dev/vport0p2": "exec 3<>/dev/vport0p2; printf hello >&3",
            "tcp!10.0.2.2!564": "printf hello | nc 10.0.2.2 564",
        }[guest.running.guest_dial]
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(guest.run, say)
                assert await first_bytes(listener) == b"hello"
                nursery.cancel_scope.cancel()
        finally:
            await listener.aclose()


async def rversion(address: str) -> bytes:
    """Say Tversion and return what comes back."""
    link = await dial(address)
    try:
        link.send(b"\x13\0\0\0\x64\xff\xff\0\x20\0\0\x06\09P2000")
        answer = bytearray()
        while len(answer) < 19:
            await link.wait_readable()
            buffer = bytearray(100)
            answer += buffer[: link.recv_into(memoryview(buffer))]
        return bytes(answer)
    finally:
        link.close()


async def test_two_kernels_through_files_serve_their_trees(home: Path) -> None:
    require("qemu", "uml")
    with trio.fail_after(4 * BOOT):
        async with tree(str(home / "run"), serve="cpu") as top:
            create = await settle((await settle(top.walk("ctl", ROOT))).open(Open(ROOT, write=True)))
            entries = {}
            for kind, cpus in (("qemu", 2), ("uml", 1)):
                await settle(create.write(0, memoryview(f"create {kind}\n".encode())))
                directory = await settle(top.walk(kind, ROOT))
                ctl = await settle((await settle(directory.walk("ctl", ROOT))).open(Open(ROOT, write=True)))
                words = f"backend {kind}\ncpus {cpus}\nload\nstart\n"
                await settle(ctl.write(0, memoryview(words.encode())))
                assert isinstance(directory, KernelDir)
                entries[kind] = directory.kernel
            for kernel in entries.values():
                try:
                    await kernel.ready()
                except TimeoutError:
                    pytest.fail(kernel.console.read(kernel.console.start).decode(errors="replace"))
                assert kernel.state == "active"
                assert kernel.running is not None
                assert (await rversion(kernel.running.dial))[4:7] == b"\x65\xff\xff"
            pids = [kernel.running.pid for kernel in entries.values() if kernel.running]
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert not (home / "run").exists()


OWNER = """
    import sys, trio
    from pathlib import Path
    from mk9p.servers.kernels import backend, qemu, uml

    held = []  # a guest that nobody holds is ended

    async def start(kind, chosen):
        spec = backend.Spec(name=kind, kernel=chosen.kernel, serve=("cpu",))
        held.append(running := await chosen.start(spec, Path(sys.argv[1]) / kind))
        if sys.argv[2] == "later":
            await running.receive()
        print(kind, running.pid, flush=True)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(start, "qemu", qemu.Qemu())
            nursery.start_soon(start, "uml", uml.Uml())
            await trio.sleep_forever()

    trio.run(main)
"""


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_nothing_survives_its_owner(when: str, home: Path) -> None:
    """SIGKILL in mid-boot: the guests, their helpers, namespaces and folders go too."""
    require("qemu", "uml")
    for chosen in BACKENDS.values():
        await chosen.prepare(backend.Spec(name="t1", kernel=chosen.kernel), report=print)
    async with owner(OWNER, home, when, lines=2) as process:
        running = processes_of(home)
        assert len(running) >= 5  # the owner, two keepers, two guests
        (netns,) = Path("/run/netns").glob(f"mk9p-{process.pid}-uml-*")
        assert (home / "qemu").exists()
        with watched(running) as all_of_them:
            process.kill()
            await ended(all_of_them)
    assert processes_of(home) == []
    assert not netns.exists()
    assert not any(home.iterdir())
