"""fd, char and exec."""

import errno
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.dial import TRANSPORTS, FdLink, Link, Peer, SocketLink, commands, dial, lines, listen
from mk9p.dial.link import IOV_MAX
from mk9p.errors import NineError
from mk9p.testing import SOON
from tests.dial.helpers_dial import ended, receive, send_all, talk

# fd


async def fd_pair() -> tuple[FdLink, FdLink]:
    here, there = os.pipe(), os.pipe()
    one, other = await dial(f"fd!{here[0]}!{there[1]}"), await dial(f"fd!{there[0]}!{here[1]}")
    assert isinstance(one, FdLink)
    assert isinstance(other, FdLink)
    return one, other


async def test_fd_pipes() -> None:
    one, other = await fd_pair()
    assert one.peer == Peer(TRANSPORTS["fd"], f"{one.rfd}!{one.wfd}", loopback=True)
    assert one.lossy is False
    await talk(one, other)
    assert one.sendmsg([b"ab", bytearray(b"c"), memoryview(b"d")]) == 4
    assert one.sendmsg([b"x"] * (IOV_MAX + 500)) == IOV_MAX
    assert await receive(other, 4 + IOV_MAX) == b"abcd" + b"x" * IOV_MAX
    one.close()
    one.close()
    assert await ended(other)
    with pytest.raises(BrokenPipeError):
        other.send(b"x")
    other.close()
    with pytest.raises(trio.ClosedResourceError):
        await other.wait_readable()


async def test_closing_a_pipe_wakes_who_waits() -> None:
    one, other = await fd_pair()

    async def closed() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await one.wait_readable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(closed)
        await trio.testing.wait_all_tasks_blocked()
        one.close()
    other.close()


async def test_fd_gets_its_blocking_mode_back() -> None:
    rfd, wfd = os.pipe()
    mine = os.dup(rfd)  # the same open file, as a shell has
    os.set_blocking(wfd, False)
    theirs = os.dup(wfd)
    link = await dial(f"fd!{rfd}!{wfd}")
    assert not os.get_blocking(mine)
    link.close()
    assert os.get_blocking(mine)
    assert not os.get_blocking(theirs)
    os.close(mine)
    os.close(theirs)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
async def test_fd_of_a_socket_is_used_as_one(family: int) -> None:
    a, b = socket.socketpair()
    if family == socket.AF_INET:
        a.close()
        b.close()
        with socket.create_server(("127.0.0.1", 0)) as server:
            a = socket.create_connection(server.getsockname())
            b = server.accept()[0]
    mine = os.dup(a.fileno())
    one, other = await dial("fd!{0}!{0}".format(a.detach())), await dial("fd!{0}!{0}".format(b.detach()))
    assert isinstance(one, SocketLink)
    assert one.peer.transport.name == "fd"
    assert not os.get_blocking(mine)
    await talk(one, other)
    one.close()
    assert os.get_blocking(mine)
    os.close(mine)
    assert await ended(other)
    other.close()


@pytest.mark.parametrize("sockets", [False, True])
def test_standard_descriptors_are_given_back_as_null_and_not_left_free(sockets: bool) -> None:
    script = """
import os, sys, trio
from mk9p.dial import listen
async def main():
    listener = await listen(sys.argv[1])
    link = await listener.accept()
    await link.wait_readable()
    buf = bytearray(9)
    n = link.recv_into(memoryview(buf))
    link.send(bytes(buf[:n]).upper())
    link.close()
    await listener.aclose()
trio.run(main)
given = {int(each) for each in sys.argv[1].split("!")[1:]}
print([os.readlink(f"/proc/self/fd/{fd}") for fd in given], file=sys.stderr)
"""
    with ExitStack() as stack:
        if sockets:
            mine, theirs = (stack.enter_context(sock) for sock in socket.socketpair())
            mine.sendall(b"hello")
            done = subprocess.run(
                [sys.executable, "-c", script, "fd!0!0"], stdin=theirs.fileno(), stderr=subprocess.PIPE, check=True
            )
            assert mine.recv(9) == b"HELLO"
            assert done.stderr == b"['/dev/null']\n"
        else:
            done = subprocess.run(
                [sys.executable, "-c", script, "fd!0!1"], input=b"hello", capture_output=True, check=True
            )
            assert done.stdout == b"HELLO"
            assert done.stderr == b"['/dev/null', '/dev/null']\n"


async def test_fd_refusals(tmp_path: Path) -> None:
    rfd, wfd = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    for address, number, words in (
        (f"fd!{wfd}!{wfd}", errno.EBADF, f"descriptor {wfd} is not open for reading"),
        (f"fd!{rfd}!{rfd}", errno.EBADF, f"descriptor {rfd} is not open for writing"),
        ("fd!1000000!1", errno.EBADF, "descriptor 1000000 is not open"),
        ("fd!99999999999999999999!1", errno.EBADF, "descriptor 99999999999999999999 is not open"),
        (f"fd!{rfd}!{file}", errno.EINVAL, "a file that cannot be waited for"),
    ):
        for call in (dial, listen):
            with pytest.raises(NineError, match=f"^{address}: {words}") as caught:
                await call(address)
            assert caught.value.errno == number
    assert os.get_blocking(rfd)
    for fd in (rfd, wfd, file):
        os.close(fd)


async def test_fd_listener_has_one_link() -> None:
    (rfd, back), (theirs, wfd) = os.pipe(), os.pipe()
    listener = await listen(f"fd!{rfd}!{wfd}")
    assert (listener.address, listener.transport.name, listener.loopback) == (f"fd!{rfd}!{wfd}", "fd", True)
    link = await listener.accept()
    link.close()

    async def closed() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(closed)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    await listener.aclose()
    os.close(back)
    os.close(theirs)


# char


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal as it is by default, cooked and echoing: our side's descriptor, the other side's name."""
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    try:
        yield master, name
    finally:
        os.close(master)
        os.close(slave)


def flags(name: str) -> tuple[int, int, int]:
    fd = os.open(name, os.O_RDWR | os.O_NOCTTY)
    iflag, oflag, _, lflag, *_ = termios.tcgetattr(fd)
    os.close(fd)
    return iflag, oflag, lflag


async def test_char_terminal_is_a_raw_line_and_gets_its_mode_back(terminal: tuple[int, str]) -> None:
    master, name = terminal
    before = flags(name)
    assert before[2] & termios.ECHO
    link = await dial(f"char!{name}")
    assert link.peer == Peer(TRANSPORTS["char"], name)
    assert link.lossy is True
    iflag, oflag, lflag = flags(name)
    assert not iflag & (termios.ICRNL | termios.IXON | termios.ISTRIP)
    assert not oflag & termios.OPOST
    assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG)
    with pytest.raises(BlockingIOError):
        link.recv_into(memoryview(bytearray(1)))
    other = await dial(f"fd!{os.dup(master)}!{os.dup(master)}")
    await talk(link, other)
    link.close()
    assert flags(name) == before
    other.close()


async def test_fd_of_a_terminal_is_no_less_a_line(terminal: tuple[int, str]) -> None:
    fd = os.open(terminal[1], os.O_RDWR | os.O_NOCTTY)
    link = await dial(f"fd!{fd}!{fd}")
    assert link.lossy is True
    link.close()


async def test_char_listener_opens_the_line_again(terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "RETRY", 0.01)
    master, name = terminal
    listener = await listen(f"char!{name}")
    assert (listener.address, listener.transport.name, listener.loopback) == (f"char!{name}", "char", False)
    for word in (b"one", b"two"):
        with trio.fail_after(SOON):
            link = await listener.accept()
        assert link.lossy
        os.write(master, word)
        assert await receive(link, 3) == word
        with trio.move_on_after(5 * lines.RETRY) as scope:
            await listener.accept()
        assert scope.cancelled_caught
        link.close()
    with trio.fail_after(SOON):
        link = await listener.accept()
    await listener.aclose()
    os.write(master, b"still")
    assert await receive(link, 5) == b"still"
    link.close()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_char_listener_closed_before_anybody_accepts(terminal: tuple[int, str]) -> None:
    listener = await listen(f"char!{terminal[1]}")
    assert not flags(terminal[1])[2] & termios.ECHO
    await listener.aclose()
    assert flags(terminal[1])[2] & termios.ECHO


async def test_char_that_is_a_unix_socket_and_goes_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU's `-chardev socket,server=on` and its restart."""
    monkeypatch.setattr(lines, "RETRY", 0.01)
    path = tmp_path / "p9"
    emulator = await listen(f"unix!{path}")
    one = await dial(f"char!{path}")
    other = await emulator.accept()
    assert one.peer == Peer(TRANSPORTS["char"], str(path))
    assert one.lossy is True
    await talk(one, other)
    one.close()
    other.close()

    listener = await listen(f"char!{path}")
    link = await listener.accept()
    other = await emulator.accept()
    await emulator.aclose()
    other.close()
    assert await ended(link)
    link.close()
    with trio.move_on_after(5 * lines.RETRY) as scope:  # long enough to be refused
        await listener.accept()
    assert scope.cancelled_caught
    emulator = await listen(f"unix!{path}")
    with trio.fail_after(SOON):
        link = await listener.accept()
        other = await emulator.accept()
    await talk(link, other)
    link.close()
    other.close()
    await listener.aclose()
    await emulator.aclose()


async def test_char_refusals(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for address, number, words in (
        (f"char!{tmp_path}/none", errno.ENOENT, "No such file or directory"),
        (f"char!{tmp_path}/file", errno.ENODEV, "neither a character device nor a unix socket"),
        ("char!/dev/null", errno.EINVAL, "a file that cannot be waited for"),
    ):
        for call in (dial, listen):
            with pytest.raises(NineError, match=f"^{address}: {words}") as caught:
                await call(address)
            assert caught.value.errno == number
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    os.close(slave)
    os.close(master)
    with pytest.raises(NineError, match=f"^char!{name}: "):
        await dial(f"char!{name}")


# exec


def exists(pid: int | None) -> bool:
    """Is it a child, running or a zombie?"""
    assert pid is not None
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


async def reaped(pid: int | None) -> None:
    for thread in threading.enumerate():
        if thread.name == f"mk9p-reap-{pid}":
            await trio.to_thread.run_sync(thread.join, 10)
    assert not exists(pid)


async def test_exec() -> None:
    link = await dial("exec!cat")
    assert isinstance(link, FdLink)
    pid = link.peer.pid
    assert link.peer == Peer(TRANSPORTS["exec"], f"pid {pid}", pid=pid, loopback=True)
    await send_all(link, b"to and fro")
    assert await receive(link, 10) == b"to and fro"
    assert exists(pid)
    link.close()
    link.close()
    await reaped(pid)


async def test_exec_words_are_quoted_as_in_sh_and_stderr_passes(capfd: pytest.CaptureFixture[str]) -> None:
    link = await dial("""exec!sh -c 'echo "$1" >&2; printf "%s|%s" "$1" "$2"' sh "a  b" c\\ d""")
    assert await receive(link, 100) == b"a  b|c d"
    pid = link.peer.pid
    await trio.to_thread.run_sync(os.waitid, os.P_PID, pid or 0, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    link.close()
    assert not exists(pid)
    assert capfd.readouterr().err == "a  b\n"


async def test_exec_is_told_to_end_and_not_killed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "GRACE", 1000)
    link = await dial("exec!sleep 1000")
    link.close()
    await reaped(link.peer.pid)


async def test_exec_that_does_not_want_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "GRACE", 0.05)
    link = await dial("exec!sh -c \"trap '' TERM; echo deaf; exec sleep 1000\"")
    assert await receive(link, 5) == b"deaf\n"
    link.close()
    with trio.fail_after(SOON):
        await reaped(link.peer.pid)


async def test_exec_that_takes_and_gives_nothing_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "GRACE", 0.05)
    link = await dial("exec!sleep 1000")
    pid = link.peer.pid or 0
    assert not os.get_blocking(link.rfd)
    assert not os.get_blocking(link.wfd)
    for theirs in (0, 1):  # and what is ours is not the command's, who would not expect it
        info = await trio.Path(f"/proc/{pid}/fdinfo/{theirs}").read_text()
        assert not int(info.split("flags:")[1].split()[0], 8) & os.O_NONBLOCK
    with pytest.raises(BlockingIOError):
        link.recv_into(memoryview(bytearray(1)))
    assert 0 < link.send(b"x" * 10_000_000) < 10_000_000
    with pytest.raises(BlockingIOError):
        link.send(b"x")
    with pytest.raises(BlockingIOError):
        link.sendmsg([b"x", b"y"])
    os.kill(pid, signal.SIGSTOP)  # now it takes no signals either
    async with trio.open_nursery() as nursery:
        for wait in (link.wait_readable, link.wait_writable):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    link.close()
    with trio.fail_after(SOON):
        await reaped(pid)


async def test_exec_closed_outside_trio_run() -> None:
    links: list[Link] = []
    done = threading.Event()

    def other_thread() -> None:
        links[0].close()
        done.set()

    links.append(await dial("exec!cat"))
    threading.Thread(target=other_thread).start()
    await trio.to_thread.run_sync(done.wait)
    await reaped(links[0].peer.pid)


async def test_exec_refusals_and_cancellation(tmp_path: Path) -> None:
    for address, number, words in (
        ("exec!no-such-command -x", errno.ENOENT, "no such command 'no-such-command'"),
        (f"exec!{tmp_path}", errno.EACCES, "Permission denied"),
        ("exec!cat 'x", errno.EINVAL, "No closing quotation: quote as in sh"),
        ("exec! ", errno.EINVAL, "want exec!COMMAND"),
    ):
        with pytest.raises(NineError, match=f"^{address}: {words}$") as caught:
            await dial(address)
        assert caught.value.errno == number
    with trio.CancelScope() as scope:
        scope.cancel()
        await dial(f"exec!touch {tmp_path}/ran")
    assert scope.cancelled_caught
    assert not (tmp_path / "ran").exists()
