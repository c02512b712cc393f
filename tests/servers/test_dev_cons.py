"""`dev/cons` and `dev/consctl` on pseudoterminals, where the test sits as the person."""

import errno
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.errors import NineError
from mk9p.servers.dev import tree
from mk9p.servers.dev.cons import HISTORY
from mk9p.testing import SOON
from mk9p.tree import Handle, settle
from tests.servers.trees import arrived, opened, read, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine without processes."""
    (tmp_path / "proc").mkdir()
    return tmp_path


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudoterminal: the end where a person sits, and the name of the end that is a console."""
    person, other = pty.openpty()
    os.set_blocking(person, False)
    yield person, os.ttyname(other)
    os.close(person)
    os.close(other)


async def next_message(handle: Handle, at: int) -> bytes:
    with trio.fail_after(SOON):
        return bytes(await settle(handle.read(at, 8192)))


async def test_output_goes_to_the_console(root: Path, terminal: tuple[int, str]) -> None:
    person, console = terminal
    dev = tree(root=str(root), console=console)
    await write(dev, "cons", "hello")
    assert await arrived(person, 7) == b"hello\r\n"


async def test_a_full_console_takes_what_it_can_and_then_waits(root: Path, terminal: tuple[int, str]) -> None:
    person, console = terminal
    handle = await opened(tree(root=str(root), console=console), "cons", "w")
    taken = await settle(handle.write(0, memoryview(b"x" * 200_000)))
    assert 0 < taken < 200_000
    got: list[int] = []

    async def more(data: bytes) -> None:
        got.append(await settle(handle.write(0, memoryview(data))))

    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(more, b"y" * 10)
            # The kernel may find room by itself, when it passes on what it has; whoever waits by then comes first all the same.
            await trio.testing.wait_all_tasks_blocked()
            shown = os.read(person, taken)
            nursery.start_soon(settle, handle.write(0, memoryview(b"z" * 10)))
            shown += await arrived(person, taken - len(shown))
            assert shown == b"x" * taken
    assert got == [10]
    assert await arrived(person, 20) == b"y" * 10 + b"z" * 10
    await settle(handle.close())


async def test_all_readers_see_all_input(root: Path, terminal: tuple[int, str]) -> None:
    person, console = terminal
    dev = tree(root=str(root), console=console)
    readers = [await opened(dev, "cons") for _ in range(3)]
    got: list[tuple[bytes, bytes]] = []

    async def reader(handle: Handle) -> None:
        first = await next_message(handle, 0)
        got.append((first, await next_message(handle, len(first))))

    async with trio.open_nursery() as nursery:
        for handle in readers:
            nursery.start_soon(reader, handle)
        await trio.testing.wait_all_tasks_blocked()
        os.write(person, b"one\ntwo\n")
    assert got == [(b"one\n", b"two\n")] * 3
    for handle in readers:
        await settle(handle.close())


async def test_input_that_nobody_waited_for_comes_to_the_next_reader(root: Path, terminal: tuple[int, str]) -> None:
    person, console = terminal
    dev = tree(root=str(root), console=console)
    for line in (b"one\n", b"two\n"):
        handle = await opened(dev, "cons")
        if line == b"one\n":
            os.write(person, b"one\ntwo\n")
        assert await next_message(handle, 0) == line
        await settle(handle.close())


async def test_a_cancelled_reader_loses_nothing_and_another_takes_its_turn(
    root: Path, terminal: tuple[int, str]
) -> None:
    person, console = terminal
    dev = tree(root=str(root), console=console)
    leader, follower = await opened(dev, "cons"), await opened(dev, "cons")
    got: list[bytes] = []

    async def wait_for(handle: Handle, scope: trio.CancelScope) -> None:
        with scope:
            got.append(await next_message(handle, 0))

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for, leader, scope)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait_for, follower, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        os.write(person, b"hello\n")
    assert got == [b"hello\n"]
    assert await next_message(leader, 0) == b"hello\n"  # it had read before, so it sees this too
    await settle(leader.close())
    await settle(follower.close())


async def test_too_slow_a_reader_is_told_and_goes_on(root: Path, terminal: tuple[int, str]) -> None:
    person, console = terminal
    dev = tree(root=str(root), console=console)
    slow, quick = await opened(dev, "cons"), await opened(dev, "cons")
    os.write(person, b"start\n")
    assert await next_message(slow, 0) == b"start\n"
    for at in range(HISTORY + 5):
        os.write(person, b"%d\n" % at)
        assert await next_message(quick, at * 10 + 10) == b"%d\n" % at
    with pytest.raises(NineError, match="5 messages of console input were lost"):
        await next_message(slow, 6)
    assert await next_message(slow, 6) == b"5\n"
    await settle(slow.close())
    await settle(quick.close())


async def test_control_d_is_an_end(root: Path, terminal: tuple[int, str]) -> None:
    person, console = terminal
    handle = await opened(tree(root=str(root), console=console), "cons")
    os.write(person, b"\x04")
    assert await next_message(handle, 0) == b""
    assert await next_message(handle, 0) == b""
    await settle(handle.close())


LOGIN = "import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); print(1, flush=True); os.read(0, 9)"


@pytest.fixture
def login(terminal: tuple[int, str]) -> Iterator[int]:
    """A process that has the terminal as its controlling one, as a getty's shell has."""
    with open(terminal[1], "rb", opener=lambda path, flags: os.open(path, os.O_RDWR | os.O_NOCTTY)) as stdin:
        process = subprocess.Popen(
            [sys.executable, "-c", LOGIN], stdin=stdin, stdout=subprocess.PIPE, start_new_session=True
        )
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    yield process.pid
    process.kill()
    process.communicate()


async def test_input_of_a_terminal_that_a_process_controls_is_not_stolen(terminal: tuple[int, str], login: int) -> None:
    dev = tree(console=terminal[1])
    handle = await opened(dev, "cons", "rw")
    with pytest.raises(NineError, match=rf"console input belongs to python.* \(process {login}\)") as caught:
        await next_message(handle, 0)
    assert caught.value.errno == errno.EBUSY
    assert await settle(handle.write(0, memoryview(b"hello\n"))) == 6  # output is everybody's
    await settle(handle.close())
    with pytest.raises(NineError, match="console input belongs to"):
        await write(dev, "consctl", "rawon")


def flags(console: str) -> tuple[bool, bool]:
    """Return whether a terminal edits lines, and echoes."""
    fd = os.open(console, os.O_RDONLY | os.O_NOCTTY)
    lflag = termios.tcgetattr(fd)[3]
    os.close(fd)
    return bool(lflag & termios.ICANON), bool(lflag & termios.ECHO)


async def test_raw_mode_lasts_until_consctl_is_closed(root: Path, terminal: tuple[int, str]) -> None:
    person, console = terminal
    dev = tree(root=str(root), console=console)
    assert await read(dev, "consctl") == "rawoff\necho on\n"
    ctl, cons = await opened(dev, "consctl", "w"), await opened(dev, "cons")
    other = await opened(dev, "consctl", "w")
    await settle(ctl.write(0, memoryview(b"rawon\n")))
    assert flags(console) == (False, False)
    assert await read(dev, "consctl") == "rawon\necho off\n"
    os.write(person, b"\x03x")
    assert await next_message(cons, 0) == b"\x03x"  # no line, no signal
    await settle(other.write(0, memoryview(b"echo on")))
    assert flags(console) == (False, True)
    await settle(other.close())
    assert flags(console) == (False, True)
    await settle(ctl.write(0, memoryview(b"rawoff")))
    assert flags(console) == (True, True)
    await settle(ctl.write(0, memoryview(b"echo off\n")))
    assert flags(console) == (True, False)
    await settle(ctl.close())
    assert flags(console) == (True, True)
    await settle(cons.close())


async def test_wrong_words_say_how_it_is_right(root: Path, terminal: tuple[int, str]) -> None:
    _, console = terminal
    dev = tree(root=str(root), console=console)
    with pytest.raises(NineError, match=r"usage: echo on\|off"):
        await write(dev, "consctl", "echo perhaps")
    assert await read(dev, "conserror") == "usage: echo on|off\n"
    assert flags(console) == (True, True)


async def test_a_console_that_is_no_terminal_refuses_consctl(root: Path) -> None:
    (root / "plain").touch()
    dev = tree(root=str(root), console=str(root / "plain"))
    with pytest.raises(OSError, match="ioctl") as caught:
        await write(dev, "consctl", "rawon")
    assert caught.value.errno == errno.ENOTTY


async def test_no_descriptor_is_left_open(root: Path, terminal: tuple[int, str]) -> None:
    _, console = terminal
    dev = tree(root=str(root), console=console)
    before = set(os.listdir("/proc/self/fd"))
    for path, how in (("cons", "rw"), ("consctl", "rw")):
        handle = await opened(dev, path, how)
        if path == "consctl":
            await settle(handle.write(0, memoryview(b"rawon")))
        await settle(handle.close())
    assert set(os.listdir("/proc/self/fd")) == before
