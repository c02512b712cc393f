"""The states of a kernel, its files, and its console's history, on a made-up backend and a virtual clock."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from mk9p.auth import ROOT
from mk9p.errors import NineError
from mk9p.servers.kernels import backend, console, files, life
from mk9p.testing import SOON
from mk9p.tree import Dir, Handle, Open, settle
from tests.servers import trees

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mk9p.servers.kernels import agent


@attrs.define(eq=False)
class Made:
    """A made-up guest: its console is a channel, its end an event."""

    says: trio.MemorySendChannel[bytes]
    hears: trio.MemoryReceiveChannel[bytes]
    dial: str = "unix!/nowhere"
    listen: str = "unix!/nowhere"
    guest_dial: str = "char!/dev/hvc1"
    agent: agent.Agent | None = None
    pid: int = 4321
    reason: str = ""
    typed: bytes = b""
    over: trio.Event = attrs.Factory(trio.Event)

    async def receive(self) -> bytes:
        try:
            return await self.hears.receive()
        except trio.EndOfChannel:
            return b""

    async def send(self, data: bytes) -> None:
        self.typed += data

    async def wait(self) -> str:
        await self.over.wait()
        return self.reason

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.says.close()
        self.over.set()

    async def halt(self) -> None:
        self.end("halted")

    async def kill(self) -> None:
        self.end("killed")

    async def close(self) -> None:
        self.hears.close()


@attrs.define(eq=False)
class MadeUp:
    """A backend of such guests; `refuse` is what goes wrong next."""

    kernel: str = "made-up"
    guests: list[Made] = attrs.Factory(list)
    refuse: OSError | None = None

    async def prepare(self, spec: backend.Spec, *, report: Callable[[str], None]) -> None:
        report(f"preparing {spec.kernel}")
        self._refuse()

    async def start(self, spec: backend.Spec, directory: Path) -> Made:
        self._refuse()
        self.guests.append(Made(*trio.open_memory_channel[bytes](100)))
        return self.guests[-1]

    def _refuse(self) -> None:
        error, self.refuse = self.refuse, None
        if error:
            raise error


@attrs.define(eq=False)
class Lab:
    """Kernels on the made-up backend, and their files."""

    kernels: files.Kernels
    top: Dir
    backend: MadeUp

    async def open(self, path: str, *, records: bool = False) -> Handle:
        return await settle((await trees.walk(self.top, path)).open(Open(ROOT, write=True, records=records)))

    async def read(self, path: str) -> str:
        return await trees.read(self.top, path)

    async def write(self, path: str, text: str) -> None:
        await trees.send(self.top, path, text)

    def kernel(self, name: str = "k1") -> life.Kernel:
        return self.kernels.entries[name].kernel

    def state(self) -> str:
        return self.kernel().state

    @property
    def guest(self) -> Made:
        return self.backend.guests[-1]

    async def boot(self, name: str = "k1") -> None:
        await self.write(f"{name}/ctl", "start\n")
        await self.guest.says.send(b"noise mk9p: list")
        await self.guest.says.send(b"ening on char!/dev/hvc0\r\n")
        with trio.fail_after(SOON):
            await self.kernel(name).ready()

    def happened(self, name: str = "k1") -> list[str]:
        return [line.decode().split()[2] for line in self.kernels.entries[name].events.lines]


@asynccontextmanager
async def lab(home: Path) -> AsyncIterator[Lab]:
    async with trio.open_nursery() as nursery:
        chosen = MadeUp()
        kernels = files.Kernels(home, nursery, backends={"qemu": chosen, "uml": chosen})
        one = Lab(kernels, kernels.tree(), chosen)
        await one.write("ctl", "create k1")
        yield one
        nursery.cancel_scope.cancel()


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
        for word in ("grant /k/k2", "grant /k/k2 r", "grant /k/k2 ro rw", "ungrant"):
            with pytest.raises(NineError, match="usage: "):
                await one.write("k1/ctl", word)
        await one.write("k1/ctl", "load\nstart\n")
        with pytest.raises(NineError, match="k1 is running"):  # what it may use is settled while it runs
            await one.write("k1/ctl", "grant / rw\n")


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
        with pytest.raises(TimeoutError, match="k1 is silent: not serving 60 s after its start"):
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
        if again:  # but one that ends while it boots does not come back for ever
            one.guest.end(reason)
            await trio.testing.wait_all_tasks_blocked()
            assert len(one.backend.guests) == 2
            assert one.state() == "failed"


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
