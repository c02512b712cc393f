"""cmd: a program that holds the lock of its own pipe while it waits for something else, as sendfile(2) of a 9P file does, holds up nobody else."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from mk9p.testing import SOON, until
from mk9p.tree import Dir, split
from tests.servers.talks import Talk, ended, nothing_left, state, talk, written

# A terminal that nobody types on is spliced from, or one that nobody reads is spliced to: for as long as this waits, it has the pipe's lock.
OUTPUT = """
import os, sys
_, quiet = os.openpty()
os.write({fd}, b"first")
open(sys.argv[1], "w").write("ready")
os.splice(quiet, {fd}, 100)
"""
INPUT = """
import os, sys, fcntl, termios
_, full = os.openpty()
os.set_blocking(full, False)
try:
    while True: os.write(full, bytes(4096))
except BlockingIOError:
    os.set_blocking(full, True)
os.read(0, 1)
open(sys.argv[1], "w").write("ready")
os.splice(0, full, 65536)
"""


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Check that this process goes on all the while: if it stands still, kill the command, or it would for ever."""
    timer = threading.Timer(SOON / 6, os.kill, (pid, signal.SIGKILL))
    timer.start()
    try:
        yield
        assert timer.is_alive(), "the server stood still"
    finally:
        timer.cancel()


async def holding(t: Talk, tmp_path: Path) -> int:
    """Wait until the command has the lock; return its pid."""
    pid = int(split(await t.read("status"))[5])
    await written(tmp_path / "ready", "ready")
    with trio.fail_after(SOON):
        try:
            while state(pid) != "S":  # it sleeps nowhere but in the splice
                await trio.lowlevel.checkpoint()
        except FileNotFoundError:
            pytest.skip("this kernel does not splice from and to terminals")
    return pid


def command(script: str, tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text(script)
    return f"exec {sys.executable} {path} {tmp_path}/ready"


@pytest.mark.parametrize(("fd", "file"), [(1, "data"), (2, "stderr")])
async def test_output_that_is_held_is_waited_for_by_its_reader_alone(
    cmd: Dir, tmp_path: Path, nursery: trio.Nursery, fd: int, file: str
) -> None:
    async with nothing_left(), talk(cmd) as t:
        out = await t.open(file)
        await t.ctl.write(command(OUTPUT.format(fd=fd), tmp_path))
        got = []

        async def read() -> None:
            got.append(await out.read())

        pid = await holding(t, tmp_path)
        with stopped(pid):
            for _ in range(2):  # who gives up takes nothing with him
                with trio.move_on_after(0.05):
                    await read()
            nursery.start_soon(read)
            async with talk(cmd, "exec echo others") as other:
                assert await other.read("data") == "others\n"
            assert not got
            await t.ctl.write("kill")
            await until(lambda: got)
        assert got == [b"first"]
        assert await out.read() == b""


async def test_a_conversation_ends_whose_pipe_is_held(cmd: Dir, tmp_path: Path) -> None:
    async with nothing_left():
        async with talk(cmd, command(OUTPUT.format(fd=1), tmp_path)) as t:
            pid = await holding(t, tmp_path)
            waiting = await t.open("data")
            with stopped(pid), trio.move_on_after(0.05):
                await waiting.read()
        with stopped(pid):
            await ended(pid)


async def test_input_that_is_held_is_waited_for_by_its_writer_alone(
    cmd: Dir, tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with nothing_left(), talk(cmd, command(INPUT, tmp_path)) as t:
        into = await t.open("data", "w")
        await into.write(bytes(50_000))  # more than a terminal finds room for, which moves what it has for a while
        pid = await holding(t, tmp_path)
        with stopped(pid):
            with trio.move_on_after(0.05) as scope:
                await into.write("more")
            assert scope.cancelled_caught
            failed: list[BaseException] = []

            async def write() -> None:
                with pytest.raises(BrokenPipeError) as caught:
                    await into.write("yet more")
                failed.append(caught.value)

            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            await t.ctl.write("closein")
            await until(lambda: failed)
            await t.ctl.write("kill")
            await ended(pid)
