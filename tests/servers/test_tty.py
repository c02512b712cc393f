"""tty: on pseudo-terminals that stand for serial lines of a made-up machine, and on what this kernel has."""

import errno
import fcntl
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from mk9p.client import Client
from mk9p.servers.tty import tree
from mk9p.servers.tty.line import HISTORY
from mk9p.terminals import user
from mk9p.testing import SOON, check_tree, mounted, until
from tests.servers.trees import arrived, fails, names, plant


class Wire:
    """The far end of a line: the master of a pty whose slave is the line's device."""

    def __init__(self, root: Path, name: str) -> None:
        self.fd, slave = pty.openpty()
        self.path = os.ttyname(slave)
        os.close(slave)  # else we ourselves would be the other program that has the line open
        plant(root, {f"sys/class/tty/{name}/dev": "4:64"})
        (root / "dev").mkdir(exist_ok=True)
        (root / "dev" / name).symlink_to(self.path)

    def hang_up(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    (tmp_path / "proc").symlink_to("/proc")
    for name in ("console", "tty", "tty1", "ptmx", "ttyp0", "ptyp0"):
        plant(tmp_path, {f"sys/class/tty/{name}/dev": "4:1"})
    plant(tmp_path, {"sys/class/tty/ttyS1/type": "0"})  # a port without a chip
    wire = Wire(tmp_path, "ttyS0")
    yield wire
    wire.hang_up()


@pytest.fixture
async def client(tmp_path: Path, wire: Wire) -> AsyncIterator[Client]:
    async with tree(root=str(tmp_path)) as node, mounted(node) as client:
        yield client


async def field(client: Client, key: str) -> str:
    words = (await client.read("ttyS0status")).split()
    return words[words.index(key) + 1]


async def test_there_are_four_files_a_line(client: Client) -> None:
    listed = sorted(await names(client))
    assert listed == ["ttyS0", "ttyS0ctl", "ttyS0error", "ttyS0status"]
    modes = [(await client.stat(name)).mode & 0o777 for name in listed]
    assert modes == [0o600, 0o644, 0o444, 0o444]
    for name in ("tty1", "console", "ttyS1", "ttyS1ctl", "pts7x", "ttyS0foo", "ctl"):
        with pytest.raises(FileNotFoundError):
            await client.stat(name)


async def test_several_readers_see_all_and_a_late_one_what_was_before(wire: Wire, client: Client) -> None:
    async with await client.open("ttyS0") as one, await client.open("ttyS0") as two:
        os.write(wire.fd, b"boot\r\nlogin: \x03\x04\x13")  # nothing is edited, echoed, or taken for a signal
        for reader in (one, two):
            assert await reader.pread(100, 0) == b"boot\r\nlogin: \x03\x04\x13"
        assert await field(client, "readers") == "2"
    os.write(wire.fd, b"more")
    async with await client.open("ttyS0") as late:
        got = await late.pread(100, 0)
        while not got.endswith(b"more"):
            got += await late.pread(100, len(got))
        assert got == b"boot\r\nlogin: \x03\x04\x13more"


async def test_what_is_written_goes_out_as_it_is(wire: Wire, client: Client) -> None:
    async with await client.open("ttyS0", "r+") as file:
        assert await file.write(b"ATZ\n\x11") == 5
        assert await arrived(wire.fd, 5) == b"ATZ\n\x11"


async def test_more_than_a_line_takes_at_once_is_waited_for(tmp_path: Path, wire: Wire) -> None:
    data = os.urandom(100_000)
    async with (
        tree(root=str(tmp_path)) as node,
        mounted(node) as client,
        await client.open("ttyS0", "w") as file,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(file.pwrite, data, 0)
        assert await arrived(wire.fd, len(data)) == data


async def test_a_reader_that_is_too_slow_is_told_what_he_missed(wire: Wire, client: Client) -> None:
    async with await client.open("ttyS0") as slow:
        await client.write("ttyS0ctl", "q100")
        for n in range(40):
            os.write(wire.fd, b"%09d\n" % n)
            assert (await field(client, "before")) is not None
        with trio.fail_after(SOON):
            while int(await field(client, "before")) < 300:
                pass
        with fails(errno.EIO):
            await slow.pread(1000, 0)
        assert await slow.pread(1000, 0) == b"".join(b"%09d\n" % n for n in range(30, 40))
        assert HISTORY == 65536


async def test_one_writer_can_have_it_alone(client: Client) -> None:
    async with await client.open("ttyS0", "w"):
        async with await client.open("ttyS0", "w"):
            with fails(errno.EBUSY):
                await client.write("ttyS0ctl", "exclusive on")
            assert await client.read("ttyS0error") == "it is open for writing 2 times: exclusive is for one\n"
        await client.write("ttyS0ctl", "exclusive on")
        with fails(errno.EBUSY):
            await client.open("ttyS0", "w")
        async with await client.open("ttyS0"):  # reading is everybody's
            assert "exclusive on\n" in await client.read("ttyS0ctl")
    async with await client.open("ttyS0", "w"):  # it ended with that client
        assert "exclusive off\n" in await client.read("ttyS0ctl")


async def test_ctl_has_the_words_of_uart(tmp_path: Path, wire: Wire) -> None:
    fd = os.open(wire.path, os.O_RDWR | os.O_NOCTTY)
    async with tree(root=str(tmp_path)) as node, mounted(node) as client:
        await client.write("ttyS0ctl", "b115200 l8 pn s1\nx1 m1\n")
        now = termios.tcgetattr(fd)
        assert now[4] == now[5] == termios.B115200
        assert now[2] & termios.CSIZE == termios.CS8
        assert now[2] & termios.CRTSCTS
        assert now[0] & termios.IXON
        await client.write("ttyS0ctl", "b9600 s2 x0 m0")
        with fails(errno.EINVAL):  # a pty has no parity
            await client.write("ttyS0ctl", "po")
        assert await client.read("ttyS0error") == "ttyS0 does not take that\n"
        now = termios.tcgetattr(fd)
        assert now[4] == termios.B9600
        assert now[2] & (termios.CSTOPB | termios.CRTSCTS) == termios.CSTOPB
        settings = await client.read("ttyS0ctl")
        assert settings == "b9600 c1 e0 l8 m0 pn s2 x0 q65536\nexclusive off\n"
        await client.write("ttyS0ctl", settings)
        assert await client.read("ttyS0ctl") == settings
        lines = (await client.read("ttyS0status")).splitlines()
        assert lines[0] == "b9600 c1 e0 l8 m0 pn s2"
        assert lines[1].startswith("dev(")
        assert lines[1].endswith(" type(0) framing(0) overruns(0) berr(0) serr(0)")
        assert lines[2] == "readers 0 writers 0 kept 0 before 0"
    os.close(fd)


@pytest.mark.parametrize(
    ("line", "number", "words"),
    [
        ("b12345", errno.EINVAL, "no speed 12345; there are: 50 "),
        ("b", errno.EINVAL, "usage: bSPEED"),
        ("b9600 l9", errno.EINVAL, "usage: l5|l6|l7|l8"),
        ("s3", errno.EINVAL, "usage: s1|s2"),
        ("px", errno.EINVAL, "usage: pe|po|pn"),
        ("z1", errno.EINVAL, "usage: bSPEED"),
        ("hello", errno.EINVAL, "usage: bSPEED"),
        ("b-1", errno.EINVAL, "unknown setting b-1"),
        ("d1", errno.ENOTTY, "ttyS0 has no modem lines"),
        ("e1", errno.EOPNOTSUPP, "ttyS0 does not have: hanging up on DSR"),
        ("i8", errno.EOPNOTSUPP, "ttyS0 does not have: a FIFO to set"),
        ("k99999", errno.EINVAL, "a break lasts 1 to 10000 ms"),
        ("q0", errno.EINVAL, "a queue has 1 to 1048576 bytes"),
        ("exclusive on", errno.EBUSY, "it is open for writing 0 times"),
    ],
)
async def test_what_a_line_has_not_is_said(line: str, number: int, words: str, client: Client) -> None:
    with fails(number):
        await client.write("ttyS0ctl", line)
    assert (await client.read("ttyS0error")).startswith(words)


async def test_it_is_raw_while_it_is_open_and_as_before_afterwards(tmp_path: Path, wire: Wire) -> None:
    before = termios.tcgetattr(wire.fd)  # a pty has one set of modes
    assert before[3] & termios.ECHO
    async with tree(root=str(tmp_path)) as node, mounted(node) as client:
        async with await client.open("ttyS0"):
            assert not termios.tcgetattr(wire.fd)[3] & (termios.ECHO | termios.ICANON)
            await client.write("ttyS0ctl", "b19200")
        await until(lambda: bool(termios.tcgetattr(wire.fd)[3] & termios.ECHO))
        after = termios.tcgetattr(wire.fd)
        assert (after[0], after[1], after[3]) == (before[0], before[1], before[3])
        assert after[5] == termios.B19200  # which was set, and stays


async def test_a_line_that_hangs_up_gives_what_is_left_and_then_eio(wire: Wire, client: Client) -> None:
    async with await client.open("ttyS0", "r+") as file:
        os.write(wire.fd, b"bye")
        assert await file.pread(2, 0) == b"by"
        async with trio.open_nursery() as nursery:

            async def waits() -> None:
                with fails(errno.EIO):
                    await file.pread(100, 3)

            assert await file.pread(1, 2) == b"e"
            nursery.start_soon(waits)
            wire.hang_up()
        with fails(errno.EIO):
            await file.pread(100, 3)
        with fails(errno.EIO):
            await file.write(b"x")
    with pytest.raises(OSError):  # noqa: PT011  # what the kernel says of a slave without a master
        await client.open("ttyS0")


async def test_h_ends_all_uses_and_the_next_one_begins_anew(wire: Wire, client: Client) -> None:
    async with await client.open("ttyS0") as old:
        await client.write("ttyS0ctl", "h")
        with fails(errno.EIO):
            await old.pread(100, 0)
        async with await client.open("ttyS0") as new:
            os.write(wire.fd, b"again")
            assert await new.pread(100, 0) == b"again"
    assert await field(client, "readers") == "0"


def program(wire: Wire) -> subprocess.Popen[bytes]:
    script = "import os, sys; os.setsid(); fd = os.open(sys.argv[1], os.O_RDWR); print(flush=True); sys.stdin.read()"
    return subprocess.Popen([sys.executable, "-c", script, wire.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def test_a_line_that_a_program_uses_is_not_read_but_written_to(tmp_path: Path, wire: Wire) -> None:
    shell = program(wire)
    try:
        assert shell.stdout is not None
        shell.stdout.readline()
        async with tree(root=str(tmp_path)) as node, mounted(node) as client:
            with fails(errno.EBUSY):
                await client.open("ttyS0")
            async with await client.open("ttyS0", "w") as file:
                await file.write(b"wall")
                assert await arrived(wire.fd, 4) == b"wall"
                assert termios.tcgetattr(wire.fd)[3] & termios.ECHO  # it was left as it was
        assert str(shell.pid) in str(user(os.stat(wire.path).st_rdev, "/", opened=True))
    finally:
        shell.communicate()


async def test_a_break_is_sent_and_ends(client: Client) -> None:
    before = time.monotonic()
    await client.write("ttyS0ctl", "k20 f")
    assert time.monotonic() - before >= 0.02


async def test_n_drops_what_has_no_room(wire: Wire, client: Client) -> None:
    async with await client.open("ttyS0", "w") as file:
        await client.write("ttyS0ctl", "n")
        with trio.fail_after(SOON):
            assert await file.pwrite(bytes(1 << 20), 0) == 1 << 20
        fcntl.fcntl(wire.fd, fcntl.F_SETFL, os.O_NONBLOCK)
        got = 0
        try:
            while True:
                got += len(os.read(wire.fd, 1 << 16))
        except BlockingIOError:
            assert 0 < got < 1 << 20


async def test_pseudo_terminals_are_lines(tmp_path: Path, wire: Wire) -> None:
    (tmp_path / "dev/pts").symlink_to("/dev/pts")
    name = "pts" + wire.path.rpartition("/")[2]
    async with tree(root=str(tmp_path)) as node, mounted(node) as client, await client.open(name, "r+") as file:
        os.write(wire.fd, b"hello")
        assert await file.pread(100, 0) == b"hello"


async def test_the_tree_is_a_proper_one(tmp_path: Path, wire: Wire) -> None:
    await check_tree(lambda: tree(root=str(tmp_path)))


async def test_this_kernels_lines() -> None:
    async with tree(root="/") as node, mounted(node) as client:
        for entry in await client.listdir(""):
            assert entry.name.removesuffix("ctl").removesuffix("status").removesuffix("error")[-1].isdecimal()
