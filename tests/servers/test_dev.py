"""`dev/` on made-up trees, on pseudoterminals as its console, and on this machine's own kernel where that is harmless."""

import errno
import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from trees import ls, mode, plant, read, walk, write

from mk9p.auth import ROOT
from mk9p.errors import NineError
from mk9p.tree import Dir, Handle, Node, Open, settle
from servers.dev import tree
from servers.dev.clock import parse_time
from servers.dev.kmsg import lost, number

STAT = """cpu  30 0 30 300 0 0 0 0 0 0
cpu0 10 1 20 100 5 2 3 4 0 0
cpu2 20 0 10 200 0 0 0 0 0 0
intr 99 1 2 3
ctxt 4711"""
INTERRUPTS = """           CPU0       CPU2
  1:         10        200   IO-APIC   1-edge      i8042
NMI:          1          2   Non-maskable interrupts
TLB:          5          6   TLB shootdowns
ERR:          7"""
TICK = 10**9 // os.sysconf("SC_CLK_TCK")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    plant(
        tmp_path,
        {
            "proc/sys/kernel/hostname": "made-up",
            "proc/stat": STAT,
            "proc/interrupts": INTERRUPTS,
            "proc/vmstat": "nr_free_pages 1\npgfault 1234",
            "sys/devices/system/cpu/possible": "0-3",
        },
    )
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/console").touch()
    (tmp_path / "dev/kmsg").touch()
    return tmp_path


@pytest.fixture
def dev(root: Path) -> Dir:
    return tree(root=str(root))


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudoterminal: the end where a person sits, and the name of the end that is a console."""
    person, other = pty.openpty()
    os.set_blocking(person, False)
    yield person, os.ttyname(other)
    os.close(person)
    os.close(other)


async def opened(tree: Node, path: str, how: str = "r") -> Handle:
    """Open a file for `r`, `w` or `rw`."""
    return await settle((await walk(tree, path)).open(Open(ROOT, read="r" in how, write="w" in how)))


async def next_message(handle: Handle, at: int) -> bytes:
    with trio.fail_after(5):
        return bytes(await settle(handle.read(at, 8192)))


async def seen(person: int, count: int) -> bytes:
    """Return the next `count` bytes that a person sees on the terminal."""
    shown = b""
    with trio.fail_after(5):
        while len(shown) < count:
            await trio.lowlevel.wait_readable(person)
            shown += os.read(person, count - len(shown))
    return shown


# The folder


async def test_the_folder_has_the_files_of_cons(dev: Dir) -> None:
    names = ["cons", "consctl", "kmsg", "time", "sysname", "sysstat", "random", "null", "zero", "conserror"]
    assert await ls(dev) == names
    assert [oct(await mode(dev, n)) for n in ("cons", "consctl", "kmsg", "null", "zero")] == [
        "0o600", "0o644", "0o600", "0o666", "0o666",
    ]  # fmt: skip
    assert [await mode(dev, n) for n in ("sysname", "sysstat", "random")] == [0o644, 0o444, 0o444]
    for name in names:
        assert (await settle((await walk(dev, name)).stat())).length == 0


# null, zero, random


async def test_null_zero_random(dev: Dir) -> None:
    assert await read(dev, "null") == ""
    await write(dev, "null", "x" * 1000)  # which sees to it that all was taken
    await write(dev, "zero", "x" * 1000)
    zero, random = await opened(dev, "zero"), await opened(dev, "random")
    assert await settle(zero.read(1 << 40, 100_000)) == bytes(100_000)
    first, again = await settle(random.read(0, 64)), await settle(random.read(0, 64))
    assert len(first) == len(again) == 64
    assert first != again
    assert len(await settle(random.read(5, 1 << 20))) == 1 << 20


# time


async def test_time_reads_as_four_decimal_fields(dev: Dir) -> None:
    before = time.time_ns(), time.monotonic_ns()
    seconds, ns, ticks, frequency = map(int, (await read(dev, "time")).split())
    assert before[0] <= ns <= time.time_ns()
    assert seconds == ns // 10**9
    assert before[1] <= ticks <= time.monotonic_ns()
    assert frequency == 10**9


async def test_a_time_is_taken_as_it_was_read(dev: Dir) -> None:
    text = await read(dev, "time")
    assert parse_time(text) == int(text.split()[1])
    assert parse_time("1700000000") == 1_700_000_000 * 10**9
    for wrong in ("", "now", "-5", "1 2 3", "1.5"):
        with pytest.raises(NineError, match="usage: SECONDS"):
            parse_time(wrong)


async def test_a_made_up_root_cannot_set_the_real_clock(dev: Dir) -> None:
    assert await mode(dev, "time") == 0o444
    with pytest.raises(PermissionError):
        await write(dev, "time", "1")


# sysname, sysstat


async def test_sysname_is_read_and_set(dev: Dir, root: Path) -> None:
    assert await read(dev, "sysname") == "made-up\n"
    await write(dev, "sysname", "k7")
    assert (root / "proc/sys/kernel/hostname").read_text() == "k7\n"
    assert await read(dev, "sysname") == "k7\n"


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "ü" * 33])
async def test_a_bad_name_is_refused_and_changes_nothing(dev: Dir, name: str) -> None:
    with pytest.raises(NineError, match="one word of 1 to 64 bytes") as caught:
        await write(dev, "sysname", name)
    assert caught.value.errno == errno.EINVAL
    assert await read(dev, "sysname") == "made-up\n"


async def test_sysstat_has_a_line_for_each_online_cpu(dev: Dir) -> None:
    assert await read(dev, "sysstat") == (
        f"0 - 16 - - - 5 {40 * TICK} {105 * TICK} {5 * TICK}\n2 - 208 - - - 6 {30 * TICK} {200 * TICK} 0\n"
    )


async def test_sysstat_of_the_only_cpu_tells_what_is_counted_for_all(dev: Dir, root: Path) -> None:
    (root / "sys/devices/system/cpu/possible").write_text("0\n")
    (root / "proc/stat").write_text("cpu0 1 0 0 1 0 0 0 0 0 0\nctxt 4711\n")
    (root / "proc/interrupts").write_text("  CPU0\n 2: 5 winch\n")
    assert await read(dev, "sysstat") == f"0 4711 5 - 1234 - - {TICK} {TICK} 0\n"


def online_cpus() -> set[int]:
    return {int(n) for n in re.findall(r"^cpu(\d+)", Path("/proc/stat").read_text(), re.MULTILINE)}


async def test_sysstat_of_this_kernel() -> None:
    lines = (await read(tree(), "sysstat")).splitlines()
    assert {int(line.split()[0]) for line in lines} == online_cpus()
    for line in lines:
        fields = line.split()
        assert len(fields) == 10
        assert int(fields[2]) > 0
        assert int(fields[7]) > 0


# kmsg


async def following(handle: Handle, what: bytes, at: int = 0) -> bytes:
    """Read records until one holds `what`, and return it. (Others may write to the log, and boot and earlier runs did.)"""
    while True:
        record = await next_message(handle, at)
        at += len(record)
        if what in record:
            return record


@pytest.fixture
def real() -> Dir:
    """The tree of this kernel, whose log may be read and written."""
    try:
        os.close(os.open("/dev/kmsg", os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        pytest.skip(f"this kernel's log cannot be opened: {error}")
    return tree()


def words_of_mine() -> str:
    return f"mk9p test {os.getpid()} {time.monotonic_ns()}"


async def test_every_reader_of_kmsg_sees_every_record_from_the_oldest_on(real: Dir) -> None:
    words, readers = words_of_mine(), [await opened(real, "kmsg") for _ in range(3)]
    got: list[bytes] = []

    async def reader(handle: Handle) -> None:
        got.append(await following(handle, words.encode()))

    try:
        async with trio.open_nursery() as nursery:
            for handle in readers:
                nursery.start_soon(reader, handle)
            await trio.testing.wait_all_tasks_blocked()  # all have read up to now, and wait
            assert got == []
            await write(real, "kmsg", f"<5>{words}")
        assert len(got) == 3
        assert len(set(got)) == 1
        head, _, text = got[0].partition(b";")
        assert text == words.encode() + b"\n"
        assert int(head.split(b",")[0]) & 7 == 5
        late = await opened(real, "kmsg")
        assert await following(late, words.encode()) == got[0]
        await settle(late.close())
    finally:
        for handle in readers:
            await settle(handle.close())


async def test_a_cancelled_read_of_kmsg_loses_nothing(real: Dir) -> None:
    handle, words = await opened(real, "kmsg", "rw"), words_of_mine()
    try:
        await settle(handle.write(0, memoryview(f"<7>{words} first\n".encode())))
        first = await following(handle, f"{words} first".encode())
        at = 1 << 30  # what is at none of the offsets that were read is the next message
        for _ in range(3):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(settle, handle.read(at, 8192))
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
        await settle(handle.write(0, memoryview(f"<7>{words} second\n<7>{words} third\n".encode())))
        second = await following(handle, words.encode(), at)
        assert second.endswith(b"second\n")
        assert (await following(handle, words.encode(), at + len(second))).endswith(b"third\n")
        assert (number(first) or 0) < (number(second) or 0)
    finally:
        await settle(handle.close())


async def test_a_line_too_long_for_the_kernel_says_so(real: Dir) -> None:
    handle = await opened(real, "kmsg", "w")
    try:
        with pytest.raises(NineError, match="longer than the kernel logs") as caught:
            await settle(handle.write(0, memoryview(b"<7>" + b"x" * 5000)))
        assert caught.value.errno == errno.EINVAL
    finally:
        await settle(handle.close())


async def test_each_written_line_is_one_record(dev: Dir, root: Path) -> None:
    await write(dev, "kmsg", "<3>one\n\n<4>two")
    assert (root / "dev/kmsg").read_text() == "<3>one\n<4>two\n"


def test_a_gap_is_told_with_its_length() -> None:
    assert number(b"6,345,1220993046,-;text\n SUBSYSTEM=x\n") == 345
    assert number(b"no record") is None
    seq, _, word, count = lost(10, 15).split()
    assert (seq, word, count) == (b"14", b"lost", b"5")


@pytest.mark.skipif(
    "MK9P_SCRATCH_KERNEL" not in os.environ,
    reason="overwrites the kernel's whole log: for a guest, with MK9P_SCRATCH_KERNEL set",
)
async def test_overwritten_records_leave_a_mark(real: Dir) -> None:
    slow = await opened(real, "kmsg")
    first = await next_message(slow, 0)
    assert number(first) is not None
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    oldest = 0
    while oldest <= (number(first) or 0) + 1:
        for _ in range(100):  # each write has an open, and with it a rate limit, of its own
            await write(real, "kmsg", f"<7>{'x' * 900}")
        os.lseek(fd, 0, os.SEEK_SET)
        oldest = number(os.read(fd, 8192)) or 0
    os.close(fd)
    gap = await next_message(slow, len(first))
    after = await next_message(slow, len(first) + len(gap))
    seq, _, word, count = gap.split()
    assert word == b"lost"
    assert int(seq) == (number(after) or 0) - 1
    assert int(count) == int(seq) - (number(first) or 0) > 0
    await settle(slow.close())


# cons, consctl


async def test_output_goes_to_the_console(root: Path, terminal: tuple[int, str]) -> None:
    person, console = terminal
    dev = tree(root=str(root), console=console)
    await write(dev, "cons", "hello")
    assert await seen(person, 7) == b"hello\r\n"


async def test_a_full_console_takes_what_it_can_and_then_waits(root: Path, terminal: tuple[int, str]) -> None:
    person, console = terminal
    handle = await opened(tree(root=str(root), console=console), "cons", "w")
    taken = await settle(handle.write(0, memoryview(b"x" * 200_000)))
    assert 0 < taken < 200_000
    total = taken
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def more() -> None:
                nonlocal total
                total += await settle(handle.write(0, memoryview(b"y" * 10)))

            for _ in range(3):
                nursery.start_soon(more)  # several at once on one handle
            await trio.testing.wait_all_tasks_blocked()
            assert await seen(person, taken) == b"x" * taken
    assert await seen(person, total - taken) == b"y" * (total - taken)
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
    from servers.dev.cons import HISTORY

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


async def test_a_console_that_is_no_terminal_refuses_consctl(dev: Dir) -> None:
    with pytest.raises(OSError, match="ioctl") as caught:
        await write(dev, "consctl", "rawon")
    assert caught.value.errno == errno.ENOTTY


async def test_no_descriptor_is_left_open(root: Path, terminal: tuple[int, str]) -> None:
    _, console = terminal
    dev = tree(root=str(root), console=console)
    before = set(os.listdir("/proc/self/fd"))
    for path, how in (("cons", "rw"), ("consctl", "rw"), ("kmsg", "rw"), ("sysstat", "r")):
        handle = await opened(dev, path, how)
        if path == "consctl":
            await settle(handle.write(0, memoryview(b"rawon")))
        await settle(handle.close())
    assert set(os.listdir("/proc/self/fd")) == before
