"""`python -m tests.bench.fuse`: `mk9p mount --fuse` beside sshfs, in turn, in one run, as ratios.

Both show one directory in memory: 300 files of 4 KiB, and one of 64 MiB. sshfs talks to sftp-server over a socketpair (`-o passive`), with no ssh
between; mk9p to `mk9p serve fs:` over a unix socket. In each round both are mounted afresh, other files are used, and then each command is run
twice, one right after the other. What is printed is the least time of all rounds, for both runs, and how fast mk9p is beside sshfs.
`bare` is pyfuse3 (bare_fuse.py) with the same files and no server behind it: what no file system of ours could do better.

A live file is read to its end by one `cat` of many names through the mount; beside it, walk, open, read and clunk on an open connection.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from socket import socketpair

import trio

from mk9p.client import connect
from mk9p.clients.mounts import mounted_at
from tests.bench.figures import note as keep

FILES, SMALL, BIG = 300, 4096, 64 << 20
GATE, LATER = 0.7, 250.0  # of sshfs's speed; us that a `cat` of a live file may take more
COMMANDS = {
    "find -ls": "find dir -ls",
    "cat of all": "cat dir/*",
    "dd bs=4k count=4000": "dd if=big bs=4k count=4000",
    "dd bs=1M": "dd if=big bs=1M",
}
CATS = 300
BEFORE = "find other -ls; cat other/*"


def until(what: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait for what a process does."""
    for _ in range(1000):
        if what():
            return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} did not do it")


@contextmanager
def running(argv: list[str], **how: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the block runs."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(argv, **{**quiet, **how}) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def mounted(argv: list[str], where: Path, **how: object) -> Iterator[Path]:
    """Give a mount that a program makes and serves."""
    with running(argv, **how) as process:
        until(lambda: mounted_at(str(where)), process)
        try:
            yield where
        finally:
            subprocess.run(["umount", str(where)], check=True)
            process.wait()


@contextmanager
def sshfs(root: Path, where: Path) -> Iterator[Path]:
    """Mount a directory by sshfs."""
    ours, theirs = socketpair()
    with running(["/usr/lib/openssh/sftp-server"], stdin=theirs, stdout=theirs):
        theirs.close()
        with mounted(["sshfs", "-f", "-o", "passive", f"here:{root}", str(where)], where, stdin=ours, stdout=ours):
            ours.close()
            yield where


def mk9p(*words: str) -> list[str]:
    return [sys.executable, "-m", "mk9p", *words]


def ours(address: str, aname: str, where: Path) -> list[str]:
    """Return the command that mounts a tree by FUSE."""
    return mk9p("mount", "--fuse", "--foreground", "--aname", aname, address, str(where))


def took(command: str, where: Path) -> float:
    """Run a command, and return the seconds that it took."""
    with open(os.devnull, "wb") as null:
        begun = time.perf_counter()
        subprocess.run(["sh", "-c", command], cwd=where, stdout=null, stderr=null, check=True)
        return time.perf_counter() - begun


def fill(root: Path) -> None:
    """Make the files."""
    for name, count in (("dir", FILES), ("other", 5)):
        (root / name).mkdir()
        for number in range(count):
            (root / name / f"file{number:03}").write_bytes(os.urandom(SMALL))
    with (root / "big").open("wb") as file:
        for _ in range(BIG >> 20):
            file.write(os.urandom(1 << 20))


async def on_connection(address: str) -> float:
    """Return how many seconds one read of a live file takes on an open connection."""
    async with connect(address) as client:
        begun = time.perf_counter()
        for _ in range(CATS):
            await client.read_bytes("small")
        return (time.perf_counter() - begun) / CATS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fuse")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-k", dest="only", default="", help="only the rows with this in their names")
    chosen = parser.parse_args()
    times: dict[tuple[str, str], float] = {}
    live: dict[str, float] = {}

    def note(row: str, who: str, seconds: float) -> None:
        times[row, who] = min(times.get((row, who), seconds), seconds)

    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mk9p-", dir="/dev/shm")))
        root, where = top / "root", top / "mnt"
        root.mkdir()
        where.mkdir()
        fill(root)
        stored, made = f"unix!{top}/s", f"unix!{top}/l"
        for argv, socket in (
            (mk9p("serve", "-l", stored, f"fs:{root}"), "s"),
            ([sys.executable, "-m", "tests.bench.served", "plain", made], "l"),
        ):
            until((top / socket).exists, stack.enter_context(running(argv)))
        turns: dict[str, Callable[[], AbstractContextManager[Path]]] = {
            "sshfs": lambda: sshfs(root, where),
            "mk9p": lambda: mounted(ours(stored, "fs/root", where), where),
            "bare": lambda: mounted([sys.executable, "-m", "tests.bench.bare_fuse", str(root), str(where)], where),
        }
        for _ in range(chosen.rounds):
            for who, turn in turns.items():
                for name, command in COMMANDS.items():
                    if chosen.only in name:
                        with turn():
                            took(BEFORE, where)
                            note(f"{name}, first", who, took(command, where))
                            note(f"{name}, again", who, took(command, where))
            with mounted(ours(made, "", where), where):
                took("cat small", where)
                cat = took(f"cat {'small ' * CATS}", where) / CATS
                base = trio.run(on_connection, made)
            live["cat"] = min(live.get("cat", cat), cat)
            live["base"] = min(live.get("base", base), base)
    release, python = platform.release(), platform.python_version()
    busy = os.getloadavg()[0]
    print(f"{chosen.rounds} rounds, Linux {release}, {os.cpu_count()} processors, CPython {python}, load {busy:.1f}")
    for row in dict.fromkeys(row for row, _ in times):
        sshfs_s, mk9p_s, bare_s = (times[row, who] for who in turns)
        ratio = sshfs_s / mk9p_s
        keep(f"fuse: {row}", ratio)
        print(
            f"{row:28} sshfs {sshfs_s * 1e3:7.1f} ms   mk9p {mk9p_s * 1e3:7.1f} ms   ratio {ratio:5.2f}"
            f" gate {GATE} {'ok    ' if ratio >= GATE else 'MISSED'}   bare {bare_s * 1e3:7.1f} ms"
        )
    later = (live["cat"] - live["base"]) * 1e6
    keep("fuse: cat of a live file, more than on a connection", later, "us", lower=True)
    print(
        f"{'cat of a live file':28} connection {live['base'] * 1e6:.0f} us   mk9p {live['cat'] * 1e6:.0f} us"
        f"   {later:.0f} us more gate {LATER:.0f} {'ok' if later <= LATER else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
