"""proc: real processes of the kernel that the tests run on, started here. Who may do what is in test_proc_who.py."""

import errno
import os
import pwd
import signal
import sys
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from mk9p.auth import ROOT
from mk9p.errors import NineError
from mk9p.servers.proc import tree
from mk9p.servers.proc.control import cgroup_mount, cpu_list
from mk9p.testing import SOON, until
from mk9p.tree import Dir, settle, split
from tests.leftovers import descriptors as open_now
from tests.server.left_open import nothing_more
from tests.servers.processes import (
    NOBODY,
    Start,
    Started,
    heard,
    reached,
    root_only,
    stat,
    tell,
)
from tests.servers.trees import ls, opened, plant, read, walk, write

NAMES = ["args", "ctl", "cwd", "environ", "error", "exe", "fd", "maps", "mem", "note", "ns", "status", "wait"]
CAT = os.path.realpath("/usr/bin/cat")


async def test_the_files_of_a_process(proc: Dir, cat: Started, tmp_path: Path) -> None:
    n = str(cat.pid)
    assert n in await ls(proc)
    assert str(os.getpid()) in await ls(proc)
    assert await ls(proc, n) == NAMES
    assert await read(proc, f"{n}/args") == "cat -\n"
    assert await read(proc, f"{n}/cwd") == f"{tmp_path}\n"
    assert await read(proc, f"{n}/exe") == f"{CAT}\n"
    assert split(await read(proc, f"{n}/environ")) == ["A=1", "B=it's two\nlines"]
    assert "[heap]" in await read(proc, f"{n}/maps")
    assert f"namespace mnt {os.readlink('/proc/self/ns/mnt')[5:-1]}\n" in await read(proc, f"{n}/ns")
    assert "mount proc /proc proc rw" in await read(proc, f"{n}/ns")


async def test_status_is_the_line_of_proc_3(proc: Dir, cat: Started) -> None:
    await reached(cat, proc, "Sleep")
    words = (await read(proc, f"{cat.pid}/status")).split()
    assert len(words) == 15
    assert words[:3] == ["cat", pwd.getpwuid(os.geteuid()).pw_name, "Sleep"]
    user, system, real, _, _, _, size, nice, priority, parent, threads, cpu = map(int, words[3:])
    assert user + system < 10_000
    assert 0 <= real < SOON * 1000
    assert 100 < size < 100_000
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert (nice, priority, parent, threads) == (mine, 20 + mine, os.getpid(), 1)
    assert cpu < (os.cpu_count() or 1)


async def test_a_name_never_breaks_the_line(proc: Dir, start: Start) -> None:
    script = "import sys; open('/proc/self/comm', 'w').write('a b)\\n\\'c'); print(flush=True); sys.stdin.read()"
    made = start(sys.executable, "-c", script)
    assert heard(made) == "\n"
    line = await read(proc, f"{made.pid}/status")
    assert line.count("\n") == 1
    assert split(line)[0] == "a_b)_'c"
    assert len(line.split()) == len(split(line)) == 15


async def test_the_time_that_was_used_is_in_milliseconds(proc: Dir, start: Start) -> None:
    made = start(sys.executable, "-c", "while True: pass")
    with trio.fail_after(SOON):
        while (user := int((await read(proc, f"{made.pid}/status")).split()[3])) < 100:
            await trio.lowlevel.checkpoint()
    assert user < SOON * 1000


async def test_open_files(proc: Dir, start: Start, tmp_path: Path) -> None:
    for name in ("one file", "two"):
        (tmp_path / name).write_text("0123456789")
    made = start("sh", "-c", "exec 3<'one file' 4>>two 5<>two; read x <&3; echo; read y")
    assert heard(made) == "\n"
    lines = {line[0]: line[1:] for line in map(split, (await read(proc, f"{made.pid}/fd")).splitlines())}
    assert lines["3"] == [f"{tmp_path}/one file", "r", "10"]
    assert lines["4"] == [f"{tmp_path}/two", "w", "0"]
    assert lines["5"] == [f"{tmp_path}/two", "rw", "0"]
    assert lines["0"][0].startswith("pipe:")


async def test_ctl_stops_starts_and_kills(proc: Dir, cat: Started) -> None:
    await write(proc, f"{cat.pid}/ctl", "stop")
    await reached(cat, proc, "Stopped")
    await write(proc, f"{cat.pid}/ctl", "start")
    await reached(cat, proc, "Sleep")
    await write(proc, f"{cat.pid}/ctl", "kill")
    assert await trio.to_thread.run_sync(cat.wait) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("INT", 2),
        ("SIGTERM", 15),
        ("term", 15),
        ("interrupt", 2),
        ("hangup", 1),
        ("alarm", 14),
        ("kill", 9),
        ("12", 12),
    ],
)
async def test_note_sends_a_signal(proc: Dir, cat: Started, word: str, number: int) -> None:
    await write(proc, f"{cat.pid}/note", word)
    assert await trio.to_thread.run_sync(cat.wait) == -number


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("note", "NOSUCH", "unknown signal 'NOSUCH'"),
        ("note", "0", "unknown signal '0'"),
        ("note", "65", "unknown signal '65'"),
        ("ctl", "nice", "usage: nice N"),
        ("ctl", "nice 20", "nice goes from -20 to 19"),
        ("ctl", "wired", "usage: wired LIST"),
        ("ctl", "wired 0-x", "usage: wired LIST, as in 0-3,8"),
        ("ctl", "sched often", "usage: sched other|batch|idle|fifo|rr [PRIO]"),
        ("ctl", "cgroup ../x", "usage: cgroup /PATH"),
    ],
)
async def test_wrong_words(proc: Dir, cat: Started, file: str, line: str, words: str) -> None:
    with pytest.raises(NineError) as caught:
        await write(proc, f"{cat.pid}/{file}", line)
    assert (caught.value.errno, caught.value.ename) == (errno.EINVAL, words)
    assert cat.poll() is None


async def test_scheduling_takes_all_threads_and_reads_back(proc: Dir, start: Start) -> None:
    script = "import sys, threading as t; [t.Thread(target=t.Event().wait, daemon=True).start() for _ in '123']; print(flush=True); sys.stdin.read()"
    made = start(sys.executable, "-c", script)
    assert heard(made) == "\n"
    ctl, threads = f"{made.pid}/ctl", [int(t) for t in os.listdir(f"/proc/{made.pid}/task")]
    assert len(threads) == 4
    cpu = min(os.sched_getaffinity(0))
    await write(proc, ctl, f"nice 5\nwired {cpu}\nsched batch")
    assert {os.getpriority(os.PRIO_PROCESS, t) for t in threads} == {5}
    assert {tuple(os.sched_getaffinity(t)) for t in threads} == {(cpu,)}
    assert {os.sched_getscheduler(t) for t in threads} == {os.SCHED_BATCH}
    settings = (await read(proc, ctl)).splitlines()
    assert settings[:3] == ["nice 5", f"wired {cpu}", "sched batch 0"]
    await write(proc, ctl, "\n".join(settings[:3]))


@root_only
async def test_real_time_is_roots(proc: Dir, cat: Started) -> None:
    await write(proc, f"{cat.pid}/ctl", "sched fifo 3")
    assert os.sched_getscheduler(cat.pid) == os.SCHED_FIFO
    assert os.sched_getparam(cat.pid).sched_priority == 3
    assert "sched fifo 3\n" in await read(proc, f"{cat.pid}/ctl")


@root_only
async def test_cgroup(proc: Dir, cat: Started) -> None:
    try:
        mount = Path(cgroup_mount("/proc"))
        (group := mount / "mk9p-test").mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        await write(proc, f"{cat.pid}/ctl", "cgroup /mk9p-test")
        assert str(cat.pid) in (group / "cgroup.procs").read_text().split()
        assert "cgroup /mk9p-test\n" in await read(proc, f"{cat.pid}/ctl")
        with pytest.raises(FileNotFoundError, match="no cgroup /mk9p-nosuch"):
            await write(proc, f"{cat.pid}/ctl", "cgroup /mk9p-nosuch")
    finally:
        cat.kill()
        cat.wait()
        group.rmdir()


async def test_memory(proc: Dir, start: Start) -> None:
    script = "import ctypes, sys; b = ctypes.create_string_buffer(b'secret')"
    script += "; print(ctypes.addressof(b), flush=True); input(); print(b.value.decode())"
    made = start(sys.executable, "-c", script)
    at = int(heard(made))
    mem = await opened(proc, f"{made.pid}/mem")
    assert bytes(await settle(mem.read(at, 6))) == b"secret"
    with pytest.raises(OSError, match=r"\[Errno 5\]"):
        await settle(mem.read(4096, 1))
    with pytest.raises(NineError, match="no memory at this address"):
        await settle(mem.read((1 << 64) - 4096, 1))
    await settle(mem.close())
    mem = await opened(proc, f"{made.pid}/mem", "w")
    assert await settle(mem.write(at, memoryview(b"public"))) == 6
    await settle(mem.close())
    assert made.communicate(b"\n")[0] == b"public\n"


@pytest.mark.parametrize(
    ("script", "ending"), [("exit 0", ""), ("exit 3", "exit 3"), ("kill -TERM $$", "signal SIGTERM")]
)
async def test_wait_of_a_child(proc: Dir, start: Start, nursery: trio.Nursery, script: str, ending: str) -> None:
    made = start("sh", "-c", f"read x; {script}")
    handle = await opened(proc, f"{made.pid}/wait")
    lines: list[bytes] = []

    async def reader() -> None:
        lines.append(bytes(await settle(handle.read(0, 1000))))

    with trio.move_on_after(0.01) as scope:
        await settle(handle.read(0, 1000))
    assert scope.cancelled_caught
    nursery.start_soon(reader)
    await trio.testing.wait_all_tasks_blocked()
    assert not lines
    tell(made)
    await until(lambda: lines)
    pid, user, system, real, status = split(lines[0].decode())
    assert (int(pid), status) == (made.pid, ending)
    assert int(user) + int(system) <= int(real) + 100
    assert bytes(await settle(handle.read(len(lines[0]), 1000))) == b""
    await settle(handle.close())
    if ending:
        assert made.wait() != 0  # it is still its parent's to wait for


async def test_wait_of_a_process_that_somebody_else_waits_for(proc: Dir, start: Start) -> None:
    made = start("sh", "-c", "exec 3<&0; sh -c 'read x <&3; exit 7' & echo $!; wait $!; echo $?; read y")
    child = int(heard(made))
    handle = await opened(proc, f"{child}/wait")
    tell(made)
    assert heard(made) == "7\n"  # so it has been waited for
    with trio.fail_after(SOON):
        line = bytes(await settle(handle.read(0, 1000))).decode()
    await settle(handle.close())
    remembered = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)
    assert split(line)[4] == ("exit 7" if remembered else "-")


async def test_descriptors_are_given_back(proc: Dir, cat: Started) -> None:
    async def all_files() -> None:
        for name in NAMES:
            if name not in ("mem", "note", "wait"):
                await read(proc, f"{cat.pid}/{name}")
        for name in ("mem", "wait"):
            await settle((await opened(proc, f"{cat.pid}/{name}")).close())
        for word in ("nice 0", "stop", "start", "nosuch"):
            try:
                await write(proc, f"{cat.pid}/ctl", word)
            except NineError:
                assert word == "nosuch"

    await all_files()
    before = open_now()
    await all_files()
    await nothing_more(before)


async def test_a_process_that_has_ended(proc: Dir, cat: Started) -> None:
    status, ctl = await opened(proc, f"{cat.pid}/status"), await opened(proc, f"{cat.pid}/ctl", "w")
    process = await walk(proc, str(cat.pid))
    cat.kill()
    cat.wait()
    for call in (
        lambda: status.read(0, 100),
        lambda: ctl.write(0, memoryview(b"kill")),
        process.stat,
        lambda: opened(process, "wait"),
        lambda: read(process, "args"),
    ):
        with pytest.raises(ProcessLookupError, match="process exited"):
            await settle(call())
    for path in (f"{cat.pid}", f"{cat.pid}/status", "0", "nosuch", f"0{os.getpid()}"):
        with pytest.raises(FileNotFoundError):
            await walk(proc, path)


async def test_a_zombie(proc: Dir, start: Start) -> None:
    made = start("true")
    await reached(made, proc, "Moribund")
    for name in ("args", "cwd", "exe", "environ", "fd", "maps", "ns"):
        assert await read(proc, f"{made.pid}/{name}") == ""
    assert split(await read(proc, f"{made.pid}/wait"))[4] == ""


async def test_a_listing_of_hundreds_is_quick(tmp_path: Path) -> None:
    stat_ = "{0} (name) S 1 " + " ".join(["0"] * 17) + " 77 " + " ".join(["0"] * 30)
    for n in range(1, 601):
        plant(tmp_path, {f"proc/{n}/stat": stat_.format(n)})
    proc = tree(root=str(tmp_path))
    begin = time.process_time()
    assert len(await ls(proc)) == 600
    assert time.process_time() - begin < 0.5  # measured: 0.02


def test_cpu_lists() -> None:
    assert cpu_list("0-3,8,10-11") == {0, 1, 2, 3, 8, 10, 11}
    for wrong in ("", "-1", "1-", "a", "0,,1", "99999999"):
        with pytest.raises(NineError):
            cpu_list(wrong)


async def test_kernel_threads(proc: Dir) -> None:
    if "kthreadd" not in await read(proc, "2/status"):
        pytest.skip("no kernel threads are seen here")
    for name in ("args", "exe", "environ", "fd", "maps"):
        assert await read(proc, f"2/{name}") == ""
    with pytest.raises(PermissionError):
        await write(proc, "2/ctl", "kill", NOBODY)
    assert await stat(proc, "2/mem") == (0o600, ROOT.uid)
