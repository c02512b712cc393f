"""`python -m tests.bench.guests [uml] [qemu-6.12]`: v9fs in a guest, on `fs:`, on the same through the composer, and on diod, in turn.

The three serve one directory of the host over the same kind of link: tcp over the tap of user-mode Linux, or a virtio port of QEMU with the relay of
`mk9p mount`. The mounts differ in nothing: msize 64 KiB, which is diod's most, cache=none, noxattr. Each round does each row on each mount. What is
printed is the best of all rounds, how fast it is beside diod (`fs:`) or beside `fs:` (composed), and in brackets what the servers' processes spent,
which a busy machine changes less. guest_work.py says what the rows do.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from mk9p.dial import Listener, SocketLink, listen
from tests.bench.figures import note
from tests.bench.guest_work import BIG, ROWS
from tests.kernels.guests import Guest, booted

GUESTS: Final = {"uml": ("uml", "uml"), "qemu-6.1": ("qemu", "6.1"), "qemu-6.12": ("qemu", "6.12")}
SERVERS: Final = ("diod", "fs", "composed")
BESIDE: Final = {"fs": ("diod", 1.0), "composed": ("fs", 0.6)}  # what each is measured beside, and its gate
MSIZE: Final = 65536
PORT, VPORT = 5640, 11  # of the first server
PATIENCE: Final = 300  # s for one row
LONGEST: Final = 7200  # s for all
WORK: Final = Path(__file__).with_name("guest_work.py")
OPTIONS: Final = f"version=9p2000.L,msize={MSIZE},cache=none,noxattr,uname=root,access=any"


@attrs.define
class Turn:
    """The best that one server did in one row: seconds on the guest's clock, and of its processes, for one operation."""

    seconds: float = float("inf")
    spent: float = float("inf")


@attrs.define
class Bench:
    """A guest with its mounts; `pids` are the processes of each server."""

    guest: Guest
    files: int
    pids: dict[str, list[int]] = attrs.field(factory=lambda: {name: [] for name in SERVERS})
    turns: dict[tuple[str, str], Turn] = attrs.field(factory=dict)

    async def sh(self, script: str) -> str:
        assert self.guest.running.agent is not None
        status, output = await self.guest.running.agent.run(script, seconds=PATIENCE)
        assert status == 0, f"{script}: {output}"
        return output

    def spent(self, server: str) -> float:
        """Return the seconds of processors that the server's processes have used."""
        total = 0
        for pid in self.pids[server]:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    async def turn(self, row: str, server: str) -> None:
        before = self.spent(server)
        said = await self.sh(f"python3 -B {WORK} '{row}' /mnt/{server} {self.files}")
        spent, (seconds, count) = self.spent(server) - before, map(float, said.split())
        best = self.turns.setdefault((row, server), Turn())
        best.seconds = min(best.seconds, seconds / count)
        best.spent = min(best.spent, spent / count)


def place(kind: str, guest: Guest, home: Path, number: int) -> tuple[str, str]:
    """Return where a server listens, and the guest's command that mounts from there, which wants the name in the server and a directory."""
    if kind == "uml":
        address = f"{guest.running.listen.rpartition('!')[0]}!{PORT + number}"
        host = address.split("!")[1]
        return address, f"mount -t 9p -o trans=tcp,port={PORT + number},{OPTIONS},aname=%s {host} %s"
    words = f"{sys.executable} -m mk9p mount --v9fs --user root --msize {MSIZE} --aname"
    return f"unix!{home}/port{number}", f"{words} %s 'char!/dev/vport0p{VPORT + number}' %s"


def devices(kind: str, home: Path) -> tuple[str, ...]:
    """Return the words for QEMU's ports."""
    return tuple(
        word
        for number in range(len(SERVERS) if kind == "qemu" else 0)
        for word in (
            *("-chardev", f"socket,id=port{number},path={home}/port{number},reconnect=1"),
            *("-device", f"virtserialport,chardev=port{number},nr={VPORT + number},name=port{number}"),
        )
    )


async def diods(listener: Listener, root: Path, stack: ExitStack, started: Callable[[int], None]) -> None:
    """Serve each client by a diod of its own: it refuses those of tcp whose address has no name."""
    while True:
        link = await listener.accept()
        assert isinstance(link, SocketLink)
        with link.sock as sock:
            sock.setblocking(True)
            fd = str(sock.fileno())
            argv = ["diod", "-f", "-n", "-c", "/dev/null", "-L", "stderr", "-e", str(root), "-r", fd, "-w", fd]
            process = running(argv, stderr=subprocess.DEVNULL, pass_fds=(sock.fileno(),))
        stack.callback(ended, process)
        started(process.pid)


def running(argv: list[str], **how: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **how)


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


async def mk9p(stack: ExitStack, *words: str) -> int:
    """Start a server of ours; return its process when it listens."""
    process = running([sys.executable, "-m", "mk9p", *words], stderr=subprocess.PIPE, bufsize=0)
    stack.callback(ended, process)
    assert process.stderr is not None
    said = b""
    while b"listening" not in said:
        await trio.lowlevel.wait_readable(process.stderr)
        data = os.read(process.stderr.fileno(), 4096)
        assert data, f"{words}: {said!r}"
        said += data
    return process.pid


@asynccontextmanager
async def mounted(which: str, files: int) -> AsyncIterator[Bench]:
    """Boot a guest, start the servers, and mount them."""
    kind, kernel = GUESTS[which]
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mk9p-", dir="/run")))
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mk9p-guests-", dir="/var/tmp")))
        fill(root)
        settings = {"kernel": kernel, "memory": 768 << 20, "devices": devices(kind, home), "shown": (home, WORK)}
        async with booted(kind, home, seconds=LONGEST, **settings) as guest, trio.open_nursery() as nursery:
            bench = Bench(guest, files)
            await bench.sh("true")  # when this is done, it has booted
            where = {name: place(kind, guest, home, number) for number, name in enumerate(SERVERS)}
            listener = await listen(where["diod"][0])
            with ExitStack() as servers:
                nursery.start_soon(diods, listener, root, servers, bench.pids["diod"].append)
                near = f"unix!{home}/near"
                fs = await mk9p(servers, "serve", "--trust", "-l", near, "-l", where["fs"][0], f"fs:{root}")
                (home / "names").write_text(f"mount {near} /k/x\n")
                composer = await mk9p(servers, "compose", "--trust", "-l", where["composed"][0], str(home / "names"))
                bench.pids["fs"], bench.pids["composed"] = [fs], [fs, composer]
                tops = {"diod": f"{root}", "fs": f"/fs/{root.name}", "composed": f"/k/x/fs/{root.name}"}
                for name, (_, mount) in where.items():
                    await bench.sh(f"mkdir -p /mnt/{name}; {mount % (f'{tops[name]}/{name}', f'/mnt/{name}')}")
                    await bench.sh(f"python3 -B {WORK} prepare /mnt/{name} {files}")
                try:
                    yield bench
                finally:
                    await guest.running.kill()
                    await listener.aclose()
                    nursery.cancel_scope.cancel()


def fill(root: Path) -> None:
    """Make the files that are read and written, in each server's part of the directory."""
    root.chmod(0o755)
    for name in SERVERS:
        (root / name).mkdir()
        (root / name / "status").write_text("x" * 64)
        with (root / name / "big").open("wb") as big:
            for _ in range(BIG >> 20):
                big.write(os.urandom(1 << 20))


def show(guest: str, bench: Bench, rows: list[str]) -> bool:
    """Print what was found; tell whether all gates are met."""
    good = True
    for row in (row for row in rows if (row, "diod") in bench.turns):
        for server, (other, gate) in BESIDE.items():
            ours, theirs = bench.turns[row, server], bench.turns[row, other]
            ratio = theirs.seconds / ours.seconds
            good = good and ratio >= gate
            print(
                f"{guest:10}{row:22}{server:9}{ours.seconds * 1e6:9.0f} us ({ours.spent * 1e6:6.0f})   {other:5}"
                f"{theirs.seconds * 1e6:9.0f} us ({theirs.spent * 1e6:6.0f})   ratio {ratio:5.2f} gate {gate}"
                f" {'ok' if ratio >= gate else 'MISSED'}",
                flush=True,
            )
            note(f"{guest}, {row}: {server} beside {other}", ratio)
    return good


async def measure(guest: str, chosen: argparse.Namespace) -> bool:
    rows = [row for row in chosen.rows if row != "dbench" or shutil.which("dbench")]
    async with mounted(guest, chosen.files) as bench:
        release = (await bench.sh("uname -r")).strip()
        print(
            f"{guest}: Linux {release}, {chosen.files} files, {chosen.rounds} rounds, on Linux {platform.release()},"
            f" {os.cpu_count()} processors, CPython {platform.python_version()}, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        ends = time.monotonic() + chosen.seconds
        for number in range(chosen.rounds):
            for row in rows:
                if time.monotonic() > ends:
                    break
                for server in (*SERVERS[number % 3 :], *SERVERS[: number % 3]):
                    await bench.turn(row, server)
        return show(guest, bench, rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.guests")
    parser.add_argument("guest", nargs="*", help=f"of {' '.join(GUESTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=3600, help="begin no row after this time")
    parser.add_argument("-k", dest="only", default="", help="only the rows with one of these in their names, a|b")
    chosen = parser.parse_args()
    chosen.rows = [row for row in ROWS if row != "prepare" and any(part in row for part in chosen.only.split("|"))]
    good = True
    for guest in chosen.guest or ["uml", "qemu-6.12"]:
        good = trio.run(partial(measure, guest, chosen)) and good
    return not good


if __name__ == "__main__":
    raise SystemExit(main())
