"""`dev/` but its console, on made-up trees, and on this machine's own kernel where that is harmless."""

import errno
import os
import re
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.errors import NineError
from mk9p.servers.dev import tree
from mk9p.servers.dev.clock import parse_time
from mk9p.servers.dev.kmsg import lost, number
from mk9p.testing import SOON
from mk9p.tree import Dir, Handle, settle
from tests.servers.trees import ls, mode, opened, plant, read, walk, write

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


async def next_message(handle: Handle, at: int) -> bytes:
    with trio.fail_after(SOON):
        return bytes(await settle(handle.read(at, 8192)))


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


async def test_no_descriptor_is_left_open(dev: Dir) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for path, how in (("kmsg", "rw"), ("kmsg", "w"), ("sysstat", "r"), ("sysname", "w")):
        await settle((await opened(dev, path, how)).close())
    assert set(os.listdir("/proc/self/fd")) == before
