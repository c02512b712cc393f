"""What an emulator tries that its guest has taken over: run as its user, with its rights, in its namespaces. Prints what came of each, as JSON.

The arguments are the paths of files, sockets and the numbers of ports of this machine that others have.
"""

import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, CLONE_NEWNS = 16, 0x20000


def checked(result: int) -> str:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return f"returned {result}"


def processes() -> list[int]:
    """Return all processes that can be seen, except those of our own user."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if os.stat(f"/proc/{pid}").st_uid != os.geteuid()]


def read(path: str) -> str:
    with open(path, "rb") as file:
        return f"read {file.read(64)!r}"


def write(path: str) -> str:
    with open(path, "ab") as file:
        file.write(b"x")
    return "written"


def connect(family: int, address: Any) -> str:
    with socket.socket(family) as sock:
        sock.settimeout(3)
        sock.connect(address)
    return "connected"


def attempts(files: list[str], sockets: list[str], ports: list[str]) -> list[tuple[str, Callable[[], str]]]:
    found: list[tuple[str, Callable[[], str]]] = []

    def add(name: str, do: Callable[..., Any], *arguments: Any) -> None:
        found.append((name, lambda: str(do(*arguments))))

    for pid in processes():
        add(f"ptrace {pid}", lambda pid: checked(_libc.ptrace(PTRACE_ATTACH, pid, 0, 0)), pid)
        add(f"kill {pid}", lambda pid: os.kill(pid, 0), pid)
        for name in ("environ", "mem", "maps"):
            add(f"{name} of {pid}", read, f"/proc/{pid}/{name}")
        for name in ("root/etc/shadow", "root/root", "cwd/etc/shadow"):
            add(f"{name} of {pid}", os.stat, f"/proc/{pid}/{name}")
        add(f"descriptors of {pid}", os.listdir, f"/proc/{pid}/fd")
    for path in (
        "/etc/shadow",
        "/root/.bashrc",
        "/.old/etc/passwd",
        "/dev/mem",
        "/dev/kmsg",
        "/proc/kcore",
        "/proc/kmsg",
        *files,
    ):
        add(f"read {path}", read, path)
    for path in (
        "/etc/passwd",
        "/usr/bin/env",
        "/bin/new",
        "/.see/new",
        "/.see/etc/passwd",
        "/.mk9p/serve.sh",
        "/.mk9p/line/new",
        "/new",
        *files,
    ):
        add(f"write {path}", write, path)
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/1/oom_score_adj"):
        add(f"write {path}", write, path)
    for path in sockets:
        add(f"socket {path}", connect, socket.AF_UNIX, path)
        add(f"abstract {path}", connect, socket.AF_UNIX, "\0" + path)
    for port in ports:
        add(f"port {port}", connect, socket.AF_INET, ("127.0.0.1", int(port)))
    add("mount", lambda: checked(_libc.mount(b"proc", b"/tmp", b"proc", 0, None)))
    add("remount", lambda: checked(_libc.mount(None, b"/", None, 0x1020, None)))  # MS_REMOUNT|MS_BIND: writable
    add("umount", lambda: checked(_libc.umount2(b"/proc", 2)))
    add("unshare", lambda: checked(_libc.unshare(CLONE_NEWNS)))
    add("chroot", os.chroot, "/usr")
    add("mknod", os.mknod, "/tmp/sda", 0o60666, os.makedev(8, 0))
    add("setuid", os.setuid, 0)
    add("setgroups", os.setgroups, [0])
    add("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
    add("host name", socket.sethostname, "taken")
    add("chown", os.chown, "/usr/bin/env", os.geteuid(), -1)
    return found


def main() -> None:
    files, sockets, ports = (list(filter(None, text.split(","))) for text in sys.argv[1:4])
    outcomes = []
    for name, do in attempts(files, sockets, ports):
        try:
            outcomes.append(f"got {name}: {do()}")
        except OSError as error:
            outcomes.append(f"held {name}: {error}")
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
