"""A program's process may have been taken over, and a user may hold what it had: neither harms the server, nor others."""

import ctypes
import errno
import fcntl
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
import wasmtime

from mk9p.auth import ROOT, Principal
from mk9p.errors import NineError
from mk9p.servers.wasm import programs, running, tree
from mk9p.servers.wasm.keeping import Stored
from mk9p.servers.wasm.process import Process, memfd, require_local
from mk9p.servers.wasm.program import Program
from mk9p.servers.wasm.running import Run
from mk9p.testing import SOON
from mk9p.tree import Conversations, split
from tests.servers.talks import Talk, talk

SPINS = '(module (memory (export "memory") 1) (func (export "_start") (loop br 0)))'
_libc = ctypes.CDLL(None, use_errno=True)


def taken_from(pid: int, fd: int) -> int:
    """Return a descriptor that is another process's (pidfd_getfd(2))."""
    pidfd = os.pidfd_open(pid)
    try:
        mine = _libc.syscall(438, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if mine < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return int(mine)


def runner() -> int:
    """Return the process of the program that runs."""
    for each in os.listdir("/proc"):
        with suppress(ValueError, OSError):
            parent = Path(f"/proc/{int(each)}/stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and b"wasm.runner" in Path(f"/proc/{each}/cmdline").read_bytes():
                return int(each)
    raise AssertionError("no program runs")


async def spinning(t: Talk) -> int:
    file = await t.open("module", "w")
    await file.write_all(bytes(wasmtime.wat2wasm(SPINS)))
    with trio.fail_after(SOON):
        for line in ("load", "start"):
            await t.ctl.write(line)
    return runner()


async def test_output_ends_with_the_program_whoever_else_holds_its_end(cache: str) -> None:
    async with tree(cache=cache) as made, talk(made) as t:
        pid = await spinning(t)
        numbers = [int(n) for n in os.listdir(f"/proc/{pid}/fd")]
        links = {n: os.readlink(f"/proc/{pid}/fd/{n}") for n in numbers}
        held = [socket.socket(fileno=taken_from(pid, n)) for n, link in links.items() if link.startswith("socket:")]
        try:
            await t.ctl.write("kill")
            for _ in range(200):
                for one in held:
                    with suppress(OSError):
                        one.send(b"x" * 65536, socket.MSG_DONTWAIT)
                await trio.lowlevel.checkpoint()
            with trio.fail_after(SOON):
                wait = await t.open("wait", "r")
                assert split((await wait.read()).decode())[4] == "signal SIGKILL"
        finally:
            for one in held:
                one.close()


async def test_what_the_server_reads_nobody_cuts_meanwhile(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start, given = Process.start, list[tuple[int, int]]()

    async def looked_at(
        module: str, spec: Mapping[str, Any], fds: list[int], who: Principal, *, memory: int
    ) -> Process:
        fd = spec["module"]
        assert fd in fds
        given.append((fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE, os.fstat(fd).st_mode & 0o777))
        return await start(module, spec, fds, who, memory=memory)

    monkeypatch.setattr(Process, "start", looked_at)
    async with tree(cache=cache) as made, talk(made) as t:
        pid = await spinning(t)
        assert given == [(os.O_RDONLY, 0o400)] * 2, "to look at it, and to run it"
        limits = await trio.Path(f"/proc/{pid}/limits").read_text()
        (line,) = [each for each in limits.split("\n") if "Max file size" in each]
        assert "unlimited" not in line


def test_a_snapshot_that_grows_while_it_is_read_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LARGEST", 100_000)
    fd = memfd("x", [b"x" * 1000])
    pread = os.pread

    def grows(fd: int, n: int, at: int) -> bytes:
        os.pwrite(fd, b"x" * 1000, at + 1000)
        return pread(fd, min(n, 1000), at)

    monkeypatch.setattr(os, "pread", grows)
    with pytest.raises(NineError) as caught:
        running._taken(fd)
    os.close(fd)
    assert caught.value.errno == errno.EFBIG


async def test_programs_that_do_not_answer_hold_up_a_status_once(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    all_asked = trio.Event()

    async def use(run: Run) -> int:
        nonlocal asked
        asked += 1
        if asked == 2:
            all_asked.set()
        await all_asked.wait()
        return 5

    monkeypatch.setattr(Run, "use", use)
    async with tree(cache=cache) as made, talk(made) as one, talk(made) as two:
        await spinning(one)
        await spinning(two)
        status = made.walk("status", ROOT)
        from mk9p.tree import Open, settle

        handle = await settle((await settle(status)).open(Open(ROOT)))
        with trio.fail_after(SOON):
            text = bytes(await settle(handle.read(0, 4096))).decode()
        assert [split(line)[0] for line in text.splitlines()] == ["0", "1"]


async def test_a_process_that_takes_no_words_holds_up_no_status(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tree(cache=cache) as made, talk(made) as t:
        os.kill(await spinning(t), signal.SIGSTOP)
        assert isinstance(made, Conversations)
        (program,) = [each.talk for each in made.talks.values() if each is not None]
        assert isinstance(program, Program)
        assert program.run is not None
        with trio.move_on_after(0.1):
            while True:
                await program.run.process.tell("use")
        monkeypatch.setattr(running, "_ANSWER", 0.1)
        with trio.fail_after(SOON):
            assert (await program.status()).startswith("0 running")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(program.run.process.tell, "use")
                await trio.testing.wait_all_tasks_blocked()
                await t.ctl.write("kill")


async def test_a_state_for_which_there_is_no_memory_ends_that_program_alone(
    cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(self: Stored, *arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Stored, "replace", replace)
    async with tree(cache=cache) as made, talk(made) as one, talk(made) as two:
        await spinning(two)
        await spinning(one)
        with trio.fail_after(SOON), pytest.raises(NineError, match="it has ended: lost"):
            await one.ctl.write("freeze")
        (line,) = [line for line in (await (await two.open("status", "r")).read()).decode().split("\n") if line]
        assert split(line)[1] == "running"


async def test_one_user_has_a_share_of_the_memory_for_modules(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "SHARE", 1000)
    guest = Principal("guest:k1", 0, proof="guest")
    async with (
        tree(cache=cache) as made,
        talk(made, who=guest) as one,
        talk(made, who=guest) as two,
        talk(made) as root,
    ):
        await (await one.open("module", "w")).write(b"x" * 600)
        file = await two.open("state", "w")
        with pytest.raises(NineError) as caught:
            await file.write(b"x" * 600)
        assert caught.value.errno == errno.ENOSPC
        await file.write(b"x" * 400)
        await (await root.open("module", "w")).write(b"x" * 6000)


@pytest.mark.parametrize("dial", ["exec!id", "exec:id", "/run/netns/x/exec!id", "nonsense"])
async def test_a_namespace_is_no_command(cache: str, dial: str) -> None:
    async with tree(cache=cache) as made, talk(made) as t:
        with pytest.raises(NineError) as caught:
            await t.ctl.write(f"namespace {dial}")
        assert caught.value.errno == errno.EINVAL
        await t.ctl.write("namespace unix!/run/x")


def test_who_is_no_user_of_this_machine_serves_what_they_grant() -> None:
    require_local(ROOT)
    for who in (Principal("guest:k1", 0), Principal("x", 1000, proof="cert"), Principal("x", 1000, proof="token")):
        with pytest.raises(NineError) as caught:
            require_local(who)
        assert caught.value.errno == errno.EACCES
