"""What the text files of a process say: functions of its open /proc directory, which belongs to this one process (procfs.py).

Names, paths and arguments are bytes on Linux: what is not UTF-8 goes through unchanged. A kernel thread has no arguments, no image and no current
directory, and a zombie has lost them: those files are then empty.
"""

import os
import time
from typing import Final

from mk9p.ktext import field, mounts
from mk9p.servers.proc.procfs import TICK_MS, Pid, Times, read_at
from mk9p.tree import join, quote

STATES: Final = {
    "R": "Running",  # on a CPU or waiting for one: Linux does not tell which
    "S": "Sleep",
    "D": "Disk",  # sleeps, and no signal can wake it
    "T": "Stopped",
    "t": "Traced",
    "Z": "Moribund",  # ended, and nobody has waited for it
    "X": "Dead",
    "I": "Idle",
    "P": "Parked",
}
POLICIES: Final = ("other", "fifo", "rr", "batch", "iso", "idle", "deadline", "ext")  # by their numbers, sched(7)
_PAGE_KIB: Final = os.sysconf("SC_PAGESIZE") // 1024
_O_PATH: Final = 0o10000000


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def plain(name: bytes) -> str:
    """Return a process's name as one word without blanks, so the shell's `read` can split a status line: each blank becomes `_`."""
    text = name.decode("utf-8", "replace")
    return quote("".join(c if c.isprintable() and not c.isspace() else "_" for c in text))


def status(pid: Pid) -> str:
    """Render the one line of proc(3): name, user, state, six times in ms, KiB of memory, two priorities; and parent, threads, CPU."""
    with pid.directory() as directory:
        times, uid = Times.parse(read_at(directory, "stat")), os.fstat(directory).st_uid
    real = max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 - times.start * TICK_MS)
    words = (
        *(times.field(k) * TICK_MS for k in (14, 15)),
        real,
        *(times.field(k) * TICK_MS for k in (16, 17)),
        0,  # Plan 9's real time of children, which Linux does not keep
        times.field(24) * _PAGE_KIB,
        times.field(19),  # nice: the base
        times.field(18),  # the kernel's priority, derived from it
        times.field(4),
        times.field(20),
        times.field(39),
    )
    state = STATES.get(times.state, times.state)
    return f"{plain(times.name)} {quote(pid.procfs.user(uid))} {state} {' '.join(map(str, words))}\n"


def args(directory: int) -> bytes:
    """Render the arguments as one line, quoted as rc does."""
    line = read_at(directory, "cmdline")
    words = line.removesuffix(b"\0").split(b"\0") if line else []
    return _bytes(join([os.fsdecode(word) for word in words]) + "\n") if words else b""


def environ(directory: int) -> bytes:
    """Render the environment that the process started with, a quoted `KEY=VALUE` on each line."""
    words = _of_memory(directory, "environ").split(b"\0")
    return _bytes("".join(quote(os.fsdecode(word)) + "\n" for word in words if word))


def maps(directory: int) -> bytes:
    """Return the memory map as Linux shows it (proc_pid_maps(5))."""
    return _of_memory(directory, "maps")


def _of_memory(directory: int, name: str) -> bytes:
    """Return a file that shows the process's memory; empty where there is none, which newer kernels report as ESRCH."""
    try:
        return read_at(directory, name)
    except ProcessLookupError:
        read_at(directory, "stat")  # raises if the process itself is gone
        return b""


def link(directory: int, name: str) -> bytes:
    """Return where a link points to, as a line; empty where a kernel thread or a zombie has none."""
    try:
        return _bytes(os.readlink(name, dir_fd=directory) + "\n")
    except FileNotFoundError:
        return b""


def cwd(directory: int) -> bytes:
    return link(directory, "cwd")


def exe(directory: int) -> bytes:
    return link(directory, "exe")


def fd(directory: int) -> bytes:
    """Render the open files, a line for each: number, target, `r`, `w`, `rw` or `-` (O_PATH), offset."""
    lines = []
    table = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        for name in sorted(os.listdir(table), key=int):
            try:
                target = os.readlink(name, dir_fd=table)
                info = read_at(directory, f"fdinfo/{name}")
            except FileNotFoundError:
                continue  # closed meanwhile
            flags = int(field(info, b"flags"), 8)
            mode = "-" if flags & _O_PATH else ("r", "w", "rw", "-")[flags & 3]
            lines.append(f"{name} {quote(target)} {mode} {field(info, b'pos').decode()}\n")
    finally:
        os.close(table)
    return _bytes("".join(lines))


def ns(directory: int) -> bytes:
    """Render what the process sees: `namespace KIND NUMBER` lines, then its mounts in order, `mount SOURCE TARGET TYPE OPTIONS`."""
    lines = []
    spaces = os.open("ns", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        for kind in sorted(os.listdir(spaces)):
            number = os.readlink(kind, dir_fd=spaces).partition("[")[2].rstrip("]")
            lines.append(f"namespace {kind} {number}\n")
        seen = list(mounts(read_at(directory, "mountinfo")))
    except FileNotFoundError:
        return b""  # a zombie has left its namespaces
    finally:
        os.close(spaces)
    lines += [f"mount {join([m.source, m.target, m.kind, m.options])}\n" for m in seen]
    return _bytes("".join(lines))
