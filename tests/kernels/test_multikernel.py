"""The backend `multikernel` at the emulated kernel, in a server of its own: the lives of instances, what moves, what is refused and what is told."""

from __future__ import annotations

import errno
import signal
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from mk9p.client import Client, connect
from mk9p.errors import NineError
from mk9p.testing import Memory, serving_at, until
from tests.kernels.multikernel.place import placed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.kernels.multikernel.place import Place

MB = 1 << 20
LIFE = "created loaded started active halted started active killed unloaded deleted"


@attrs.frozen
class Machine:
    """A server of kernels/ on the emulated machine, and that machine's own files."""

    place: Place
    served: Client
    ground: Client

    async def say(self, path: str, *lines: str) -> None:
        await self.served.write(f"kernels/run/{path}", "".join(line + "\n" for line in lines))

    async def read(self, path: str) -> str:
        return await self.served.read(f"kernels/run/{path}")

    async def error(self, path: str, line: str) -> str:
        """Return the error of a line, "" if there is none."""
        try:
            await self.say(path, line)
        except NineError as error:
            return f"{errno.errorcode[error.errno]} {error.ename}"
        return ""

    async def refused(self, path: str, line: str) -> str:
        said = await self.error(path, line)
        assert said, line
        return said

    async def status(self, path: str = "k1/status") -> dict[str, str]:
        lines = (await self.read(path)).rstrip("\n").split("\n")
        return dict(line.partition(" ")[::2] for line in lines)

    async def has(self, *keys: str) -> list[str]:
        status = await self.status()
        return [status[key] for key in keys]

    async def events(self) -> list[str]:
        """Return all events until now, without their numbers."""
        await self.served.mkdir("kernels/run/mark")
        said = b""
        async with await self.served.open("kernels/run/events") as file:
            while b" created mark" not in said:
                said += await file.read(1 << 16)
        await self.served.remove("kernels/run/mark")
        return [line.split(" ", 2)[2] for line in said.decode().rstrip("\n").split("\n")]

    async def until(self, state: str, name: str = "k1") -> None:
        async def there() -> bool:
            return (await self.status(f"{name}/status"))["state"] == state

        await until(there)

    async def order(self, line: str) -> None:
        await self.ground.write(".order", line)

    async def loaded(self, cpus: int = 2, name: str = "k1") -> None:
        await self.served.mkdir(f"kernels/run/{name}")
        await self.say(
            f"{name}/ctl", "backend multikernel", f"cpus {cpus}", f"memory {64 * MB}", "load /bin/true cmdline quiet"
        )


@pytest.fixture
def place() -> Iterator[Place]:
    with placed() as place:
        yield place


@asynccontextmanager
async def machine(place: Place, *, pool: bool = True) -> AsyncIterator[Machine]:
    """Run a server there until the block ends."""
    with place.serving():
        await until(lambda: dialled(place.server))
        async with connect(place.server) as kernels, connect(place.machine) as ground:
            here = Machine(place, kernels, ground)
            if pool:
                await here.say("pool/multikernel/ctl", "baseline 1-5 512M")
            yield here


async def dialled(address: str) -> bool:
    try:
        async with connect(address):
            return True
    except OSError:
        return False


async def test_a_life(place: Place) -> None:
    async with machine(place) as here:
        await here.loaded()
        assert await here.has("state", "cpus", "memory", "kernel") == ["loaded", "2", str(64 * MB), "/bin/true"]
        assert (await here.ground.read("instances/k1/status")) == "loaded\n"
        await here.say("k1/ctl", "start")
        await here.until("active")
        assert (await here.ground.read("instances/k1/status")) == "active\n"
        await until(lambda: _said(here, "Command line: quiet console=mktty0"))
        assert await here.refused("k1/ctl", "unload") == "EBUSY kernel k1 is running: halt or kill it first"
        await here.say("k1/ctl", "halt")
        assert await here.has("state", "reason") == ["loaded", "halted"]
        await here.say("k1/ctl", "start")
        await here.until("active")
        await here.say("k1/ctl", "kill")
        assert await here.has("state", "reason") == ["loaded", "killed"]
        await here.say("k1/ctl", "unload")
        assert (await here.ground.read("instances/k1/status")) == "ready\n"
        await here.say("k1/ctl", "delete")
        assert await here.ground.listdir("instances") == []
        told = [words[0] for line in await here.events() if (words := line.split(" "))[1:2] == ["k1"]]
        assert [word for word in told if word not in ("set", "progress")] == LIFE.split(" ")


async def test_its_tree_and_its_console(place: Place) -> None:
    """With `dial` it is active when a server answers there; and what is typed goes to /dev/mktty."""
    async with machine(place) as here:
        await here.loaded()
        await here.say("k1/ctl", f"dial unix!{place.top}/tree", "start")
        await here.say("k1/ctl", "cpu add 4")  # nobody in it is asked
        await here.served.write("kernels/run/k1/console", "typed\n")
        await until(lambda: _said(here, "typed"))
        assert await here.has("state", "dial", "cpus") == ["loaded", f"unix!{place.top}/tree", "3"]
        async with serving_at(f"unix!{place.top}/tree", Memory({"f": "text"})):
            await here.until("active")
        assert f"active k1 unix!{place.top}/tree" in await here.events()
        for word in ("freeze", "reset", "dump"):
            assert (await here.refused("k1/ctl", word)).startswith("ENOTSUP a multikernel kernel ")
        await here.say("k1/ctl", "kill")


async def _said(here: Machine, words: str) -> bool:
    return words in await here.read("k1/log")


async def test_what_moves(place: Place) -> None:
    async with machine(place) as here:
        await here.loaded()
        await here.loaded(1, "k2")
        await here.say("k1/ctl", "start")
        await here.until("active")
        # CPUs
        await here.say("k1/ctl", "cpu add 4-5")
        assert await here.has("cpus", "extra_cpus") == ["4", "0"]
        await here.say("ctl", "move cpu 4 k1 k2")
        assert (await here.has("cpus"), (await here.status("k2/status"))["cpus"]) == (["3"], "2")
        await here.say("k2/ctl", "cpu del 4")
        assert (await here.status("pool/multikernel/status"))["cpus"] == "4"
        assert await here.refused("k2/ctl", "cpu del 3") == "EBUSY CPU 3 is the last of k2"
        assert await here.refused("k1/ctl", "cpu add 3") == "ENODEV CPU 3 is not free in the pool of multikernel"
        assert await here.refused("k1/ctl", "cpu del 3") == "ENODEV k1 has no CPU 3"
        # memory
        await here.say("k1/ctl", "mem add 32M", "mem add 16M")
        await here.say("ctl", "move mem 16M k1 k2")
        assert (await here.has("memory"), (await here.status("k2/status"))["memory"]) == ([str(96 * MB)], str(80 * MB))
        refused = "EBUSY multikernel: Cannot shrink by 16 MB: memory leaves an instance in whole regions, newest first"
        assert (await here.refused("k1/ctl", "mem del 16M")).startswith(refused)
        assert (await here.refused("k1/ctl", "mem add 1G")).startswith("ENOMEM the pool of multikernel has ")
        # devices
        await here.say("pool/multikernel/ctl", "dev add 0000:09:00.0 nvme0", "dev add 0000:0a:00.0")
        await here.say("k1/ctl", "dev add nvme0")
        await here.say("ctl", "move dev nvme0 k1 k2")
        assert (await here.has("devices"), (await here.status("k2/status"))["devices"]) == ([""], "0000:09:00.0")
        assert await here.refused("k1/ctl", "dev del nvme0") == "ENODEV k1 has no device nvme0"
        # undone
        number = (await here.served.listdir("kernels/run/tx"))[-1].name
        await here.served.remove(f"kernels/run/tx/{number}")
        assert (await here.has("devices"), (await here.status("k2/status"))["devices"]) == (["0000:09:00.0"], "")
        # what is real does not go where all is emulated
        await here.served.mkdir("kernels/run/k3")
        words = "EXDEV k1 is multikernel and k3 is qemu: what is real in the one is emulated in the other"
        assert await here.refused("ctl", "move cpu 4 k1 k3") == words
        await here.say("k3/ctl", "backend multikernel")
        assert (
            await here.refused("k3/ctl", "cpu add 4") == "EINVAL kernel k3 has nothing of the machine yet: load KERNEL"
        )


async def test_a_second_half_that_fails_leaves_the_first_undone(place: Place) -> None:
    async with machine(place) as here:
        await here.loaded()
        await here.loaded(1, "k2")
        for line in ("move cpu 2 k1 k2", "move mem 16M k1 k2"):
            await here.say("k1/ctl", "mem add 16M")
            before = [await here.ground.read_bytes(f"instances/{name}/device_tree") for name in ("k1", "k2")]
            await here.order("pass 1\nrefuse the spawn does not answer")
            said = await here.refused("ctl", line)
            assert said.startswith("EIO multikernel: transaction ")
            assert said.endswith(": failed: the spawn does not answer")
            number = (await here.served.listdir("kernels/run/tx"))[-1].name
            assert (await here.status(f"tx/{number}/status"))["state"] == "failed"
            assert (await here.read(f"tx/{number}/error")).endswith("failed: the spawn does not answer\n")
            assert [await here.ground.read_bytes(f"instances/{name}/device_tree") for name in ("k1", "k2")] == before


async def test_what_is_refused_and_what_ends(place: Place) -> None:
    async with machine(place, pool=False) as here:
        assert (await here.status("pool/multikernel/status"))["all_cpus"] == ""
        await here.served.mkdir("kernels/run/k1")
        await here.say("k1/ctl", "backend multikernel", f"memory {64 * MB}")
        assert (await here.refused("k1/ctl", "load /bin/true")).startswith(
            "ENODEV the pool of multikernel has 0 free CPUs"
        )
        assert (await here.refused("pool/multikernel/ctl", "cpu add 4")).startswith(
            "ENODEV multikernel has no pool yet"
        )
        await here.say("pool/multikernel/ctl", "baseline 1-3 128M")
        assert (await here.refused("pool/multikernel/ctl", "baseline 4 128M")).startswith(
            "EBUSY multikernel has its pool"
        )
        assert await here.refused("k1/ctl", "start") == "EINVAL kernel k1: nothing is loaded: load KERNEL"
        # a load that fails leaves no instance
        await here.say("k1/ctl", "memory 1073741824")
        assert (await here.refused("k1/ctl", "load /bin/true")).endswith("failed: no memory in the pool")
        await here.say("k1/ctl", f"memory {64 * MB}")
        await here.order("fail load 12")
        assert (
            await here.refused("k1/ctl", "load /bin/true")
            == "ENOMEM multikernel: k1 cannot be loaded: Cannot allocate memory"
        )
        assert await here.ground.listdir("instances") == []
        await here.say("k1/ctl", "load /bin/true")
        assert await here.refused("k1/ctl", "load /bin/true") == "EBUSY instance k1 is loaded: unload it first"
        assert (await here.refused("k1/ctl", "cpus 2")).startswith("EBUSY kernel k1 has its CPUs and memory")
        assert (await here.refused("k1/ctl", "backend qemu")).startswith("EBUSY kernel k1 has parts of the machine")
        assert (await here.refused("pool/multikernel/ctl", "cpu del 1")).startswith("ENODEV CPU 1 is not free")
        assert (await here.refused("pool/multikernel/ctl", "mem del 128M")).endswith("in whole idle chunks: none")
        # it panics, halts by itself, is removed by somebody
        for order, state, reason in (
            ("panic k1", "failed", "panicked"),
            ("halt k1", "loaded", "halted"),
            ("gone k1", "dead", "its instance is gone"),
        ):
            await here.say("k1/ctl", "start")
            await here.until("active")
            await here.order(order)
            assert (await here.read("k1/wait")) == reason + "\n"
            assert await here.has("state", "reason") == [state, reason]
        assert (await here.refused("k1/ctl", "start")).startswith("ENOENT")
        # a kernel that never answers halt is stopped
        await here.say("k1/ctl", "delete")
        await here.loaded(1)
        await here.say("k1/ctl", "start")
        await here.until("active")
        await here.order("fail halt 110")
        await here.say("k1/ctl", "halt")
        assert await here.has("state", "reason") == ["loaded", "killed"]
        await here.say("k1/ctl", "delete")
        await here.say("pool/multikernel/ctl", "mem add 64M", "mem del 128M", "cpu add 4", "cpu del 1-2")
        assert (await here.status("pool/multikernel/status"))["all_cpus"] == "3-4"


async def test_kerf_beside_it(place: Place) -> None:
    """What kerf has made is taken as it is, what it does is told, and its lock keeps both apart."""
    async with machine(place) as here:
        kerf = partial(trio.to_thread.run_sync, place.beside, "kerf")
        await kerf("create", "web", "--cpus=1,2", "--memory=128MB")
        await kerf("load", "web", "-k", "/bin/true")
        await here.served.mkdir("kernels/run/web")
        await here.say("web/ctl", "backend multikernel", "load")
        web = await here.status("web/status")
        assert (web["state"], web["cpus"], web["memory"]) == ("loaded", "2", str(128 * MB))
        await here.say("web/ctl", "start")
        await here.until("active", "web")
        await here.say("web/ctl", "cpu add 3")
        assert "cpus = <0x0 0x1 0x0 0x2 0x0 0x3>" in await kerf("show", "web")
        await kerf("kill", "web")
        assert await here.read("web/wait") == "halted\n"
        await trio.to_thread.run_sync(
            place.beside, "sh", "-c", "echo mk9p 999999 1 > /run/kerf.lock"
        )  # its maker is no more
        await here.say("web/ctl", "cpu del 3")
        await trio.to_thread.run_sync(place.beside, "touch", "/run/kerf.lock")
        assert (await here.refused("web/ctl", "cpu add 3")).startswith(
            "EBUSY /var/run/kerf.lock is there: kerf is at work"
        )
        await trio.to_thread.run_sync(place.beside, "rm", "/run/kerf.lock")
        await here.say("web/ctl", "cpu add 3", "unload", "delete")
        assert "No instances" in await kerf("show")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_server_that_ends_in_the_middle(how: signal.Signals, place: Place) -> None:
    """An instance outlives it, and a move that it was in the middle of is put back by the next one."""
    async with machine(place) as here:
        await here.loaded()
        await here.loaded(1, "k2")
        await here.say("k1/ctl", "start")
        await here.until("active")
        await here.order("hold 2")  # the second half of the move waits in that kernel
        before = [await here.ground.read_bytes(f"instances/{name}/device_tree") for name in ("k1", "k2")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_lost, here, "move cpu 2 k1 k2")
            await until(lambda: _held(here))
            place.signal(how)
        await here.order("hold 0")
        await until(lambda: dialled(place.server))
        async with connect(place.server) as kernels:
            again = Machine(place, kernels, here.ground)
            await until(lambda: _failed(again))
            assert [await here.ground.read_bytes(f"instances/{name}/device_tree") for name in ("k1", "k2")] == before
            await again.served.mkdir("kernels/run/k1")
            await again.say("k1/ctl", "backend multikernel", "start")
            await again.until("active")
            assert await again.has("cpus") == ["2"]
            await again.say("k1/ctl", "halt", "delete")
            assert [entry.name for entry in await again.ground.listdir("instances")] == ["k2"]


async def test_a_full_disk(place: Place) -> None:
    """Where a transaction cannot be noted, or kerf's lock not made, nothing moves."""
    async with machine(place) as here:
        await here.loaded()
        fill, free = "cat /dev/zero > {0}/fill; test -s {0}/fill", "rm {0}/fill"
        for folder in (f"{place.top}/state", "/run"):
            if folder == "/run":
                await trio.to_thread.run_sync(place.beside, "mount", "-o", "remount,size=64k", "/run")
            await trio.to_thread.run_sync(place.beside, "sh", "-c", fill.format(folder))
            said, line = "", ""
            for line in 40 * ["cpu add 3", "cpu del 3"]:  # what has a page of the journal has room for some
                before = await here.ground.read_bytes("instances/k1/device_tree")
                if said := await here.error("k1/ctl", line):
                    break
            assert said.startswith("ENOSPC"), folder
            assert await here.ground.read_bytes("instances/k1/device_tree") == before
            await trio.to_thread.run_sync(place.beside, "sh", "-c", free.format(folder))
            await here.say("k1/ctl", line)
            if line == "cpu add 3":
                await here.say("k1/ctl", "cpu del 3")


async def test_what_is_desired(place: Place) -> None:
    """A lab file makes a kernel of a multikernel, starts it again, and leaves alone what it has got since."""
    async with machine(place) as here:
        lab = """[k1]
backend = "multikernel"
kernel = "/bin/true"
cpus = 1
memory = "64M"
extra_memory = "64M"
"""
        await here.say("desired", lab.removesuffix("\n"))
        await until(lambda: _is_there(here, "k1"))
        await here.until("active")
        await here.say("k1/ctl", "cpu add 3", "mem add 16M")
        await here.order("panic k1")
        await until(lambda: _counts(here, "1"))
        await here.until("active")
        assert await here.has("cpus", "memory") == ["2", str(80 * MB)]
        assert await here.read("diff") == ""
        assert not [line for line in await here.events() if line.startswith("unrighted ")]


async def _is_there(here: Machine, name: str) -> bool:
    return name in [entry.name for entry in await here.served.listdir("kernels/run")]


async def _counts(here: Machine, ends: str) -> bool:
    return await here.has("ends") == [ends]


async def _lost(here: Machine, line: str) -> None:
    with pytest.raises(OSError, match=r"."):
        await here.say("ctl", line)


async def _held(here: Machine) -> bool:
    return (await here.ground.read(".held")) == "1\n"


async def _failed(here: Machine) -> bool:
    txs = await here.served.listdir("kernels/run/tx")
    return bool(txs) and (await here.status(f"tx/{txs[-1].name}/status"))["state"] == "failed"
