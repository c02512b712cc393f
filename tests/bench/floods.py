"""Floods, and an honest client beside each: `python -m tests.bench.floods`.

Each line is one flood, by one connection and by fifty of one user, over tcp. Beside it root reads stats/status over the unix socket, one request at a
time: how long that took, in ms. Then how many requests of the flood were answered a second, the server's memory before and after, in MiB, and the
longest that root waited while the flooder's connections were closed. The gates are those of root: 50 ms for 99 of 100, 200 ms for the worst.
"""

import argparse
import contextlib
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from mk9p.wire import NOFID, NONUNAME, Dialect, codec
from mk9p.wire import messages as m

FILES: Final = 50_000  # of the large directory
MANY: Final = 50  # connections of one user
NUMBERS: Final = {"none": (0,), "silent": (1, 1000)}  # connections, where there are not one and fifty
PIECE: Final = 256  # requests that are made at once
MSIZE: Final = 1 << 16
P99, WORST = 50.0, 200.0  # ms
ROOT: Final = 0  # the fid of the tree, in all connections


def pack(message: type[m.Message], tag: int, *fields: object) -> bytes:
    packed: bytes = codec(Dialect.L, message.type).pack(tag, *fields)
    return packed


class Line:
    """A client of one request at a time, to prepare a flood, and to be honest."""

    def __init__(self, address: str | int, uname: str) -> None:
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(address)
        else:
            self.sock = socket.create_connection(("127.0.0.1", address))
        self.sock.settimeout(60)
        self._rest = b""
        self.ask(m.Tversion, MSIZE, Dialect.L.version, tag=0xFFFF)
        self.ask(m.Tattach, ROOT, NOFID, uname, "", NONUNAME)

    def ask(self, message: type[m.Message], *fields: object, tag: int = 1) -> None:
        """Ask, and wait for the answer; raises OSError with its errno."""
        self.sock.sendall(pack(message, tag, *fields))
        while len(self._rest) < 4 or len(self._rest) < int.from_bytes(self._rest[:4], "little"):
            data = self.sock.recv(MSIZE)
            if not data:
                raise EOFError("the server hung up")
            self._rest += data
        size = int.from_bytes(self._rest[:4], "little")
        reply, self._rest = self._rest[:size], self._rest[size:]
        if reply[4] == m.Rlerror.type:
            number = int.from_bytes(reply[7:11], "little")
            raise OSError(number, os.strerror(number))

    def open(self, fid: int, *names: str) -> None:
        self.ask(m.Twalk, ROOT, fid, names)
        self.ask(m.Tlopen, fid, 0)


Requests = Callable[[Line], Iterator[bytes]]


@attrs.frozen
class Flood:
    """What is sent: `requests` prepares a connection, and gives pieces of requests without end. `reads`: their replies are taken."""

    name: str
    requests: Requests
    reads: bool = True


def tags() -> Iterator[int]:
    while True:
        yield from range(2, 60_000)


def alike(prepare: Callable[[Line], None], message: type[m.Message], *fields: object) -> Requests:
    """Return the same request, again and again, each with a tag of its own."""

    def requests(line: Line) -> Iterator[bytes]:
        prepare(line)
        pieces = [
            b"".join(pack(message, tag, *fields) for tag in range(at, at + PIECE)) for at in range(2, 4098, PIECE)
        ]
        while True:
            yield from pieces

    return requests


def listings(line: Line) -> Iterator[bytes]:
    for fid in range(1, 151):
        line.open(fid, "fs", "export", "big")
    pieces = [b"".join(pack(m.Treaddir, tag, tag - 1, 0, MSIZE) for tag in range(2, 152))]
    while True:
        yield from pieces


def attributes(line: Line) -> Iterator[bytes]:
    """Begin to set attributes, and write all of their values but the end."""
    line.ask(m.Twalk, ROOT, 1, ("fs", "export", "file"))
    value = bytes(4096)
    while True:
        for fid in range(10, 1010):
            yield (
                pack(m.Twalk, fid, 1, fid, ())
                + pack(m.Txattrcreate, fid, fid, "user.x", 65536, 0)
                + pack(m.Twrite, fid, fid, 0, value)
                + pack(m.Tclunk, fid, fid)
            )


def locks(line: Line) -> Iterator[bytes]:
    line.open(1, "fs", "export", "file")
    number = tags()
    while True:
        yield b"".join(
            pack(m.Tlock, tag, 1, 0, 0, 2 * tag, 1, 1, "x" * 100) for tag in (next(number) for _ in range(PIECE))
        )


def fids(line: Line) -> Iterator[bytes]:
    for at in range(1, 200_000, PIECE):
        yield b"".join(pack(m.Twalk, 2, ROOT, fid, ("stats",)) for fid in range(at, at + PIECE))


def blocked(line: Line) -> Iterator[bytes]:
    """Read what does not come, as often as may be, take that back, and so on."""
    line.open(1, "events")
    while True:
        yield b"".join(pack(m.Tread, tag, 1, 1 << 40, 100) for tag in range(2, 4098))
        yield b"".join(pack(m.Tflush, tag + 5000, tag) for tag in range(2, 4098))


def silent(line: Line) -> Iterator[bytes]:
    return iter(())


def nothing(line: Line) -> None:
    return


def open_file(line: Line) -> None:
    line.open(1, "fs", "export", "file")


FLOODS: Final = (
    Flood("none", silent),
    Flood("Treaddir of 50,000", listings),
    Flood("Tflush", alike(nothing, m.Tflush, 0xFFF0)),
    Flood("empty Twalk", alike(nothing, m.Twalk, ROOT, ROOT, ())),
    Flood("Tgetattr", alike(open_file, m.Tgetattr, 1, 0x7FF)),
    Flood("Tlock", locks),
    Flood("Txattrcreate", attributes),
    Flood("200,000 fids", fids),
    Flood("silent", silent),
    Flood("blocked readers", blocked),
    Flood("replies not taken", alike(nothing, m.Tgetattr, ROOT, 0x7FF), reads=False),
)


@contextmanager
def served(folder: Path, python: str) -> Iterator[tuple[subprocess.Popen[bytes], int, str]]:
    """Serve an export with a large directory, on the first core; gives the process, its port and its socket."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    path = f"{folder}/socket"
    argv = ["taskset", "-c", "0", python, "-m", "mk9p", "serve", "-l", f"tcp!127.0.0.1!{port}", "-l", f"unix!{path}"]
    argv += [f"fs:{folder}/export", "dev", "host"]
    # not from this directory, of which Python would take its modules
    with subprocess.Popen(argv, stderr=subprocess.PIPE, cwd=folder) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b"listening on unix" in line:
                    break
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield process, port, path
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                print("the server did not end in 10 s")
                process.kill()


def rss(pid: int) -> int:
    """Return a process's memory in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() >> 20


class Honest(threading.Thread):
    """Root, who reads stats/status again and again until told to stop; `took`: how many ms each request did."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.line, self.took, self.stop = Line(path, "root"), list[float](), threading.Event()
        self.line.open(1, "stats", "status")
        self.start()

    def run(self) -> None:
        while not self.stop.wait(0.002):
            begun = time.perf_counter()
            self.line.ask(m.Tread, 1, 0, 4096)
            self.took.append(1e3 * (time.perf_counter() - begun))

    def end(self) -> list[float]:
        """Stop; returns the times in order of size."""
        self.stop.set()
        self.join()
        self.line.sock.close()
        return sorted(self.took)


def pour(flood: Flood, lines: list[Line], sources: list[Iterator[bytes]], left: list[bytes], seconds: float) -> int:
    """Send all that is taken for a while, first what is `left`, then what the sources give; returns how many replies came."""
    rest, count = [b""] * len(lines), 0
    poller = select.epoll()
    where = {line.sock.fileno(): i for i, line in enumerate(lines)}
    for fd in where:
        poller.register(fd, select.EPOLLOUT | (select.EPOLLIN if flood.reads else 0))
    until = time.perf_counter() + seconds
    while (now := time.perf_counter()) < until:
        for fd, event in poller.poll(until - now):
            i = where[fd]
            with contextlib.suppress(BlockingIOError):
                if event & select.EPOLLIN:
                    data = rest[i] + lines[i].sock.recv(1 << 18, socket.MSG_DONTWAIT)
                    at = 0
                    while (
                        len(data) - at >= 4
                        and len(data) - at >= (size := int.from_bytes(data[at : at + 4], "little")) > 0
                    ):
                        at += size
                        count += 1
                    rest[i] = data[at:]
                    if not data:
                        raise EOFError("the server hung up on the flood")
                if event & select.EPOLLOUT:
                    left[i] = left[i] or next(sources[i], b"")
                    if not left[i]:
                        poller.modify(fd, select.EPOLLIN)
                        continue
                    left[i] = left[i][lines[i].sock.send(left[i], socket.MSG_DONTWAIT) :]
    poller.close()
    return count


def attacker(flood: Flood, port: int, number: int, seconds: float) -> None:
    """Be the flooder, in a process of its own: says when it is ready, begins when told, and says how many replies it got."""
    lines, sources, first = list[Line](), list[Iterator[bytes]](), list[bytes]()
    with contextlib.suppress(OSError, EOFError):  # it has all connections that it can get
        while len(lines) < number:
            line = Line(port, "nobody")
            source = flood.requests(line)
            first.append(next(source, b""))
            lines.append(line)
            sources.append(source)
    print("ready", flush=True)
    sys.stdin.readline()
    print(pour(flood, lines, sources, first, seconds), flush=True)
    sys.stdin.readline()


def row(flood: Flood, number: int, seconds: float, folder: Path, python: str) -> bool:
    """Print one line; returns whether its gates were reached."""
    with served(folder, python) as (server, port, path):
        argv = [sys.executable, "-m", "tests.bench.floods", "--be", flood.name, str(port), str(number), str(seconds)]
        before = rss(server.pid)
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as flooder:
            assert flooder.stdin is not None
            assert flooder.stdout is not None
            flooder.stdout.readline()
            honest = Honest(path)
            print("go", file=flooder.stdin, flush=True)
            answered = int(flooder.stdout.readline())
            took, after = honest.end(), rss(server.pid)
            honest = Honest(path)
            flooder.kill()
            time.sleep(seconds / 2)
            closing = honest.end()[-1]
        middle, most = took[len(took) // 2], took[int(len(took) * 0.99)]
        good = most < P99 and max(took[-1], closing) < WORST
        print(
            f"{flood.name:20}{number:>5} {middle:8.1f} {most:8.1f} {took[-1]:8.1f} {len(took):>6} {answered / seconds:>10.0f}"
            f" {before:>6} {after:>6} {closing:8.1f}  {'ok' if good else 'MISSED'}",
            flush=True,
        )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.floods")
    parser.add_argument("-t", "--seconds", type=float, default=2.0)
    parser.add_argument("-k", "--only", default="", help="floods whose name holds this")
    parser.add_argument(
        "--python", default=sys.executable, help="the interpreter of the server, to measure another mk9p"
    )
    parser.add_argument("--be", nargs=4, metavar=("FLOOD", "PORT", "NUMBER", "SECONDS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.be:
        name, port, number, seconds = chosen.be
        (flood,) = (flood for flood in FLOODS if flood.name == name)
        attacker(flood, int(port), int(number), float(seconds))
        return 0
    missed = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        (folder / "export/big").mkdir(parents=True)
        (folder / "export/file").touch()
        for path in (folder, folder / "export", folder / "export/big"):
            path.chmod(0o755)
        (folder / "export/file").chmod(0o666)
        for number in range(FILES):
            (folder / f"export/big/f{number:060d}").touch()
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the clients; the server has the first core
        print("flood               links   p50 ms   p99 ms   max ms  asked answered/s  MiB before/after closing ms")
        for flood in FLOODS:
            if chosen.only in flood.name:
                for number in NUMBERS.get(flood.name, (1, MANY)):
                    missed += not row(flood, number, chosen.seconds, folder, chosen.python)
    print(f"\n{missed} gates missed" if missed else "\nall gates reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
