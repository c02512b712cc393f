"""The states of a kernel, its files, and its console's history, on a made-up backend and a virtual clock."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from mk9p.auth import ROOT
from mk9p.errors import NineError
from mk9p.servers.kernels import console
from mk9p.testing import SOON
from mk9p.tree import settle
from tests.kernels.made_up import lab

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_way_up_and_down(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        kernel = one.kernel()
        assert one.state() == "empty"
        await one.write("k1/ctl", "cpus 3\n")
        assert one.state() == "ready"
        with pytest.raises(NineError, match="nothing is loaded"):
            await one.write("k1/ctl", "start\n")
        await one.write("k1/ctl", "load 6.12 initrd /tmp/i cmdline 'a b'\n")
        assert one.state() == "loaded"
        assert kernel.spec.cmdline == "a b"
        assert await one.read("k1/config") == (
            "backend qemu\ncpus 3\nmemory 536870912\nrestart never\nload 6.12 initrd /tmp/i cmdline 'a b'\n"
        )
        await one.boot()
        assert one.state() == "active"
        assert await one.read("status") == "k1 active qemu 3 536870912 6.12\n"
        assert "pid 4321\ndial unix!/nowhere\n" in await one.read("k1/status")
        for word in ("start", "cpus 2", "load 6.1", "backend uml", "delete"):
            with pytest.raises(NineError, match="is running") as caught:
                await one.write("k1/ctl", word)
            assert caught.value.errno == errno.EBUSY
        await one.write("k1/ctl", "halt\n")
        assert (one.state(), kernel.reason, kernel.running) == ("loaded", "halted", None)
        assert await one.read("k1/wait") == "halted\n"
        await one.boot()
        await one.write("k1/ctl", "kill\n")
        assert (one.state(), kernel.reason) == ("loaded", "killed")
        happened = one.happened()
        assert happened[-6:] == ["started", "active", "halted", "started", "active", "killed"]
        await one.write("k1/ctl", "delete\n")
        assert await one.read("status") == ""


async def test_a_settings_reading_can_be_written_back(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "cpus 2\nmemory 1073741824\nserve --trust cpu\ndevice -device 'x y'\nload\n")
        config = await one.read("k1/ctl")
        await one.write("ctl", "create k2")
        await one.write("k2/ctl", config)
        assert await one.read("k2/ctl") == config


async def test_grants_are_settings_one_a_path(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write(
            "k1/ctl", "grant /k/k2/ ro\ngrant /k/k0/fs/../fs/data rw\ngrant '/k/my place' ro\ngrant //k/k2 rw\n"
        )
        lines = "grant /k/k0/fs/data rw\ngrant '/k/my place' ro\ngrant /k/k2 rw\n"
        assert lines in await one.read("k1/config")
        await one.write("ctl", "create k2")
        await one.write("k2/ctl", await one.read("k1/ctl"))
        assert lines in await one.read("k2/ctl")
        await one.write("k1/ctl", "ungrant /k/k2\n")
        assert "/k/k2" not in await one.read("k1/config")
        with pytest.raises(NineError, match="/k/k2 is not granted"):
            await one.write("k1/ctl", "ungrant /k/k2\n")
        for word in ("grant k/k2 ro", "grant '' rw"):
            with pytest.raises(NineError, match="a grant is for a path of the namespace"):
                await one.write("k1/ctl", word)
        for word in ("grant /k/k2", "grant /k/k2 ro rw", "ungrant"):
            with pytest.raises(NineError, match="usage: "):
                await one.write("k1/ctl", word)
        with pytest.raises(NineError, match="OPS are letters of rwcnd"):
            await one.write("k1/ctl", "grant /k/k2 x")
        for word in ("grant / rw", "grant '/k/my place/in' rw"):  # which of two counts would be a riddle
            with pytest.raises(NineError, match=r"/k/my place.* lies in /|/k/my place/in lies in /k/my place"):
                await one.write("k1/ctl", word)


async def test_grants_change_while_a_kernel_runs_and_everybody_is_told(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "grant /k/k2 ro\nload\nstart\n")
        await one.write("k1/ctl", "grant /k/k2 rw\ngrant '/k/my place' ro\n")
        assert "grants /k/k2 rw '/k/my place' ro\n" in await one.read("k1/status")
        await one.write("k1/ctl", "ungrant /k/k2\n")
        assert "grant '/k/my place' ro\n" in await one.read("k1/config")
        assert "grants '/k/my place' ro\n" in await one.read("k1/status")
        said = [line.decode().rstrip().split(" ", 2)[2] for line in one.kernels.events.lines]
        assert [line for line in said if "granted" in line] == [
            *("granted k1 /k/k2 ro", "granted k1 /k/k2 rw", "granted k1 '/k/my place' ro", "ungranted k1 /k/k2")
        ]


async def test_what_more_of_the_machine_is_shown_must_be_there(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", f"show {tmp_path} /usr\n")
        assert f"show {tmp_path} /usr\n" in await one.read("k1/config")
        for path in (f"{tmp_path}/absent", "usr"):
            with pytest.raises(NineError, match="want absolute paths of this machine"):
                await one.write("k1/ctl", f"show {path}\n")


async def test_a_failed_word_leaves_all_as_it_was(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        kernel = one.kernel()
        one.backend.refuse = NineError(errno.ENOENT, "zstd is missing: apt-get install -y zstd")
        with pytest.raises(FileNotFoundError, match="zstd is missing"):
            await one.write("k1/ctl", "load 6.12")
        assert (one.state(), kernel.spec.kernel) == ("empty", "")
        assert await one.read("k1/error") == "zstd is missing: apt-get install -y zstd\n"
        await one.write("k1/ctl", "load")
        one.backend.refuse = NineError(errno.EPERM, "run as root")
        with pytest.raises(PermissionError):
            await one.write("k1/ctl", "start")
        assert (one.state(), kernel.running) == ("loaded", None)
        for word in ("halt", "kill"):
            with pytest.raises(NineError, match="k1 is not running"):
                await one.write("k1/ctl", word)
        for word in ("backend xen", "cpus many", "load a b", "restart sometimes", "cpus"):
            with pytest.raises(NineError, match="usage: "):
                await one.write("k1/ctl", word)


@pytest.mark.parametrize(
    ("reason", "booted", "state"),
    [
        ("panicked", True, "failed"),
        ("panicked", False, "failed"),
        ("halted", True, "loaded"),
        ("halted", False, "failed"),
        ("killed", True, "dead"),
        ("qemu: no such device", False, "failed"),
    ],
)
async def test_how_it_ended(reason: str, booted: bool, state: str, tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "load")
        if booted:
            await one.boot()
        else:
            await one.write("k1/ctl", "start")
        waiting = await one.open("k1/wait")
        one.guest.end(reason)
        with trio.fail_after(SOON):
            assert await settle(waiting.read(0, 100)) == f"{reason}\n".encode()
        assert one.state() == state
        assert f"reason {reason}\n" in await one.read("k1/status")
        await one.boot()  # from every one of them it can be started again


async def test_a_kernel_that_says_nothing_is_silent(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "load\nstart")
        with pytest.raises(TimeoutError, match="k1 is silent: not serving 120 s after its start"):
            await one.kernel().ready()
        assert one.state() == "silent"
        await one.guest.says.send(b"mk9p: listening on x\n")  # late, but it came
        await trio.testing.wait_all_tasks_blocked()
        assert (one.state(), one.kernel().reason) == ("active", "")


async def test_a_kernel_whose_serving_fails_is_silent_at_once(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "load\nstart")
        for _ in range(2):
            await one.guest.says.send(b"ImportError\r\nmk9p: serve ended wi")
            await one.guest.says.send(b"th status 1\r\n")
        with trio.fail_after(SOON), pytest.raises(TimeoutError, match="serve has ended in it"):
            await one.kernel().ready()
        assert one.happened().count("silent") == 1


@pytest.mark.parametrize(
    ("restart", "reason", "again"),
    [
        ("never", "panicked", False),
        ("on-failure", "panicked", True),
        ("on-failure", "killed", True),
        ("on-failure", "halted", False),
        ("always", "halted", True),
        ("never", "rebooted", True),
    ],
)
async def test_restart(
    restart: str, reason: str, again: bool, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", f"restart {restart}\nload")
        await one.boot()
        one.guest.end(reason)
        await trio.testing.wait_all_tasks_blocked()
        assert len(one.backend.guests) == 1 + again


async def test_asked_to_end_it_does_not_come_back(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "restart always\nload")
        await one.boot()
        await one.write("k1/ctl", "kill")
        await trio.testing.wait_all_tasks_blocked()
        assert len(one.backend.guests) == 1


async def test_ends_with_its_nursery(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "load")
        await one.boot()
        guest = one.guest
    assert guest.reason == "killed"


async def test_names(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        for name in ("k1", "ctl", "clone"):
            with pytest.raises(FileExistsError):
                await one.write("ctl", f"create {name}")
        for name in ("a/b", "..", "-x", "a_b", "'a b'", "x" * 64):
            with pytest.raises(NineError) as caught:
                await one.write("ctl", f"create {name}")
            assert caught.value.errno == errno.EINVAL
        await settle(one.top.mkdir("k2", 0o755, ROOT))
        assert "k2" in [name for name, _ in await settle(one.top.entries(ROOT))]
        await settle(one.top.remove("k2", ROOT, directory=True))
        with pytest.raises(FileNotFoundError):
            await one.read("k2/status")
        with pytest.raises(NineError):
            await settle(one.top.remove("ctl", ROOT))


async def test_a_kernel_of_clone_lives_while_it_is_open(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        ctl = await one.open("clone")
        assert await settle(ctl.read(0, 100)) == b"k0\n"
        await settle(ctl.write(0, memoryview(b"load\nstart\n")))
        guest = one.guest
        await settle(ctl.close())
        assert guest.reason == "killed"
        assert "k0" not in one.kernels.entries
        ctl = await one.open("clone")
        await settle(ctl.write(0, memoryview(b"keep\n")))
        await settle(ctl.close())
        assert "k0" in one.kernels.entries


async def test_the_console(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "load")
        with pytest.raises(NineError, match="not running"):
            await one.write("k1/console", "x")
        await one.boot()
        await one.write("k1/console", "ls\n")
        assert one.guest.typed == b"ls\n"
        one.guest.end("halted")
        with trio.fail_after(SOON):
            await one.kernel().ended(0)
        assert await one.read("k1/log") == "noise mk9p: listening on char!/dev/hvc0\r\n"
        first, second = await one.open("k1/console"), await one.open("k1/console")
        for reader in (first, second):  # what is kept is there for everybody, after its end too
            assert await settle(reader.read(0, 5)) == b"noise"
        await one.write("k1/ctl", "delete")
        assert (await settle(first.read(5, 8192))).__len__() == 36
        assert await settle(first.read(41, 8192)) == b""


async def test_history_is_bounded_and_tells_what_was_lost() -> None:
    history = console.History(limit=10)
    history.add(b"0123456789")
    slow, quick = history.reader(), history.reader()
    assert await quick.receive() == b"0123456789"
    history.add(b"abcd")
    assert await quick.receive() == b"abcd"
    assert await slow.receive() == b"\r\n[4 bytes lost]\r\n456789abcd"
    with trio.move_on_after(0):
        await slow.receive()
    history.add(b"e")
    assert await slow.receive() == b"e"
    history.close()
    assert await slow.receive() == b""
