"""The top level of a kernel's tree, on made-up roots, and watching this machine's own kernel. Nothing here may end, rename or stop this machine."""

import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from mk9p.errors import NineError
from mk9p.servers.host import tree
from mk9p.servers.host.uevents import Uevents
from mk9p.testing import SOON
from mk9p.tree import Dir, Handle, Log, settle
from tests.servers.trees import ls, mode, opened, plant, read, write

BOOT = "2a9675cb-f05e-4cf9-bd64-17ce62e16f51"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    plant(
        tmp_path,
        {
            "proc/sys/kernel/hostname": "made-up",
            "proc/sys/kernel/osrelease": "6.1.0-56-amd64",
            "proc/sys/kernel/version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1",
            "proc/sys/kernel/arch": "x86_64",
            "proc/sys/kernel/random/boot_id": BOOT,
            "proc/uptime": "1220.07 2400.00",
            "proc/loadavg": "0.10 0.20 0.30 1/100 4711",
            "proc/stat": "cpu  1 2\ncpu0 1 2\ncpu3 1 2\nctxt 5",
            "proc/meminfo": "MemTotal:         500000 kB\nMemFree: 1 kB",
        },
    )
    (tmp_path / "proc/sysrq-trigger").touch()
    return tmp_path


@pytest.fixture
async def host(root: Path) -> AsyncIterator[Dir]:
    async with tree(root=str(root)) as made:
        yield made


async def lines(handle: Handle, at: int) -> tuple[list[list[str]], int]:
    with trio.fail_after(SOON):
        text = bytes(await settle(handle.read(at, 65536)))
    return [line.split()[2:] for line in text.decode().splitlines()], at + len(text)


async def test_the_top_level(host: Dir) -> None:
    assert await ls(host) == ["ctl", "status", "events", "error"]
    assert [await mode(host, name) for name in ("ctl", "status", "events", "error")] == [0o644, 0o444, 0o444, 0o444]


async def test_status_is_attribute_lines(host: Dir) -> None:
    assert await read(host, "status") == (
        "name made-up\n"
        f"boot {BOOT}\n"
        "release 6.1.0-56-amd64\n"
        "version #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1\n"
        "arch x86_64\n"
        "uptime 1220070000000\n"
        "load 0.10 0.20 0.30\n"
        "cpus 2\n"
        "memory 512000000\n"
    )


async def test_what_a_kernel_does_not_have_is_a_dash(host: Dir, root: Path) -> None:
    for name in ("sys/kernel/random/boot_id", "sys/kernel/arch", "loadavg", "uptime", "meminfo", "stat"):
        (root / "proc" / name).unlink()
    status = dict(line.split(" ", 1) for line in (await read(host, "status")).splitlines())
    assert [status[key] for key in ("boot", "load", "uptime", "memory", "cpus")] == ["-"] * 5
    assert status["arch"] == os.uname().machine


async def test_status_of_this_kernel() -> None:
    async with tree() as host:
        status = dict(line.split(" ", 1) for line in (await read(host, "status")).splitlines())
    assert status["name"] == os.uname().nodename
    assert status["release"] == os.uname().release
    assert int(status["uptime"]) > 10**9
    assert int(status["cpus"]) >= 1
    assert int(status["memory"]) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("word", "letter"), [("panic", "c"), ("reboot", "b"), ("halt", "o")])
async def test_the_ends_of_a_made_up_kernel_are_sysrq_letters(host: Dir, root: Path, word: str, letter: str) -> None:
    await write(host, "ctl", word)
    assert (root / "proc/sysrq-trigger").read_text() == letter


async def test_a_kernel_without_sysrq_says_so(host: Dir, root: Path) -> None:
    (root / "proc/sysrq-trigger").unlink()
    with pytest.raises(FileNotFoundError, match="this kernel has no sysrq-trigger"):
        await write(host, "ctl", "panic")
    assert await read(host, "error") == "this kernel has no sysrq-trigger\n"


async def test_words_are_checked(host: Dir, root: Path) -> None:
    for text, usage in {
        "panic now": "usage: panic",
        "hostname": "usage: hostname NAME",
        "explode": "unknown word explode",
    }.items():
        with pytest.raises(NineError, match=usage) as caught:
            await write(host, "ctl", text)
        assert caught.value.errno == errno.EINVAL
    assert (root / "proc/sysrq-trigger").read_text() == ""


async def test_ctl_reads_as_it_is_written(host: Dir, root: Path) -> None:
    assert await read(host, "ctl") == "hostname made-up\n"
    await write(host, "ctl", "hostname k7")
    assert await read(host, "ctl") == "hostname k7\n"
    assert (root / "proc/sys/kernel/hostname").read_text() == "k7\n"
    for wrong in ("hostname ''", "hostname 'a b'", "hostname " + "x" * 65):
        with pytest.raises(NineError, match="one word of 1 to 64 bytes"):
            await write(host, "ctl", wrong)
    assert await read(host, "ctl") == "hostname k7\n"


async def test_events_tell_the_start_and_new_names(host: Dir) -> None:
    events = await opened(host, "events")
    got, at = await lines(events, 0)
    assert got == [["start", "made-up", BOOT]]
    await write(host, "ctl", "hostname made-up")
    await write(host, "ctl", "hostname k7")
    assert (await lines(events, at))[0] == [["hostname", "k7"]]  # and none for the name that it had


@pytest.fixture
def say_uevent() -> Callable[[str], object]:
    """Have the kernel send a uevent of its null device; this is what `udevadm trigger` does, and changes nothing."""
    file = Path("/sys/class/mem/null/uevent")
    if not os.access(file, os.W_OK):
        pytest.skip("may not make the kernel say a uevent")
    return file.write_text


async def test_devices_of_this_kernel_come_and_go_in_events(say_uevent: Callable[[str], object]) -> None:
    async with tree() as host:
        events = await opened(host, "events")
        got, at = await lines(events, 0)
        assert got[0][0] == "start"
        assert ["uevents", "off"] not in [line[:2] for line in got]
        say_uevent("change")  # what is no coming or going is not told
        say_uevent("add")
        mine: list[list[str]] = []
        while not mine:
            got, at = await lines(events, at)
            mine = [line for line in got if line[1:2] == ["mem"]]
        assert mine[0] == ["add", "mem", "/devices/virtual/mem/null", "null"]  # somebody else may ask for it too


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def uevents(log: Log) -> Uevents:
    try:
        made = Uevents(log, "/")
    except OSError as error:
        pytest.skip(f"no uevents here: {error}")
    made.socket.close()
    return made


async def test_lost_uevents_are_counted(log: Log, uevents: Uevents) -> None:
    uevents.last, uevents.deaf = 10, True
    message = "add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=block\0DEVNAME=vdz\0SEQNUM=14\0"
    uevents.take(message.encode())
    uevents.take(message.replace("=14", "=15").replace("add", "remove").encode())
    uevents.take(message.replace("=14", "=16").replace("/devices/x", "/module/x").encode())
    assert [line.decode().split()[2:] for line in log.lines] == [
        ["lost", "3"],
        ["add", "block", "/devices/x", "vdz"],
        ["remove", "block", "/devices/x", "vdz"],
    ]


RENAMING = """
import socket, sys, trio
from mk9p.auth import ROOT
from mk9p.tree import Open, settle
from mk9p.servers.host import tree

async def main():
    async with tree() as host:
        events = host.walk("events", ROOT).open(Open(ROOT))
        said = await settle(events.read(0, 65536))

        async def named():
            # devices come and go beside it, of other tests too
            nonlocal said
            before = said.count(b" hostname ")
            while said.count(b" hostname ") == before:
                said += await settle(events.read(len(said), 65536))
            return [line.split()[2:] for line in said.decode().splitlines() if " hostname " in line][-1]

        with trio.fail_after(60):
            host.walk("ctl", ROOT).open(Open(ROOT, write=True)).write(0, memoryview(b"hostname by-word"))
            first = await named()
            socket.sethostname("by-another")
            print(first, await named())

trio.run(main)
"""


def test_a_name_is_watched_whoever_changes_it() -> None:
    if subprocess.run(["unshare", "-u", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no UTS namespace of our own to be had, and this machine's name is not ours to change")
    name = os.uname().nodename
    done = subprocess.run(
        ["unshare", "-u", sys.executable, "-c", RENAMING], check=False, capture_output=True, text=True
    )
    assert done.stdout == "['hostname', 'by-word'] ['hostname', 'by-another']\n", done.stderr
    assert os.uname().nodename == name
