"""`python -m tests.bench.memory`: what requests cost that nobody ever finishes, each kind against a server of its own.

For each kind a client sends as many as are asked for, and ends none: fids that are never clunked, attributes that are never written to their end,
locks that stay, reads of what never comes. Nobody vouches for it (`none`, over tcp); with `-u UID` it is that user, over a unix socket. What is
printed is the resident memory of the server before and after, how many were taken, and what the others were answered; and the memory when that
client has gone. `MK9P_LONG=1`: a million of each, instead of 100,000.
"""

import argparse
import contextlib
import errno
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from mk9p.auth import Policy
from mk9p.dial import listen
from mk9p.server import Tally, stats_tree
from mk9p.testing import serving_at
from mk9p.tree import Dir, Log, Node, Stream, Text
from mk9p.tree.paths import NAME
from mk9p.wire import NOFID, NONUNAME, NOTAG, Dialect, codec
from mk9p.wire import messages as m
from tests.server.odd_tree import Never

MIB: Final = 1 << 20
MOST: Final = 64 * MIB
NAMES: Final = 20_000  # files in the directory that is listed
LONG: Final = bool(os.environ.get("MK9P_LONG"))


# the server


class Deep(Dir):
    """A directory that is in itself."""

    def walk(self, name: str, who: Any) -> Node:
        return self


async def serve(directory: str) -> None:
    """Serve a tree of all that can be waited for, kept or filled; says where on standard error."""
    from mk9p.servers.fs import tree as stored

    async def deaf() -> bytes:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
        raise AssertionError

    log, tally = Log(), Tally()
    for _ in range(1024):
        log.emit("line", "x" * 100)
    tree: dict[str, Node] = {
        "text": Text("text\n"),
        "big": Text("x" * (1 << 16)),
        "events": Never(),
        "deaf": Stream(deaf, mode=0o666),
        "log": log,
        "deep": Deep(),
        "stats": stats_tree(tally),
    }
    async with stored(directory) as files:
        everything = Dir(tree, {"fs": files})
        async with (
            serving_at("tcp!127.0.0.1!0", everything, Policy(), tally=tally) as host,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(host.server.listen, await listen(f"unix!{directory}.socket"), Policy())
            print(host.address, file=sys.stderr, flush=True)


@attrs.frozen
class At:
    """Where a client connects, and as whom: over tcp nobody is vouched for, over a unix socket root may say that it asks for a user."""

    port: int
    path: str
    uid: int | None

    def connect(self) -> socket.socket:
        if self.uid is None:
            sock = socket.create_connection(("127.0.0.1", self.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.path)
        return sock


@attrs.frozen
class Measured:
    """A running server."""

    pid: int
    at: At

    @property
    def resident(self) -> int:
        """Bytes of memory that it has, once that has been the same for a moment."""
        before = -1
        while abs((now := self._resident()) - before) > MIB // 4:
            before = now
            time.sleep(0.3)
        return now

    def _resident(self) -> int:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024


@contextlib.contextmanager
def measured(directory: Path, uid: int | None) -> Iterator[Measured]:
    """Run the server in a process of its own."""
    argv = [sys.executable, "-m", "tests.bench.memory", "--serve", str(directory)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline()
            yield Measured(process.pid, At(int(address.rpartition("!")[2]), f"{directory}.socket", uid))
        finally:
            process.kill()
            Path(f"{directory}.socket").unlink(missing_ok=True)


# the client


class Client:
    """One connection: sends without waiting, and counts what comes back, if it is to read that: a walk by how many names it went."""

    def __init__(self, at: At, dialect: Dialect = Dialect.L, *, attach: bool = True, read: bool = True) -> None:
        self.dialect = dialect
        self.sock = at.connect()
        self.answers: Counter[str] = Counter()
        self.sent = self.received = 0
        self.ended = False
        self.tag = 0
        self.read_tag = 0  # of the read that is flushed
        self._waiting: list[bytes] = []
        self._size = 0
        if read:
            threading.Thread(target=self._count, daemon=True).start()
        if attach:
            self.frame(m.Tversion, NOTAG, 1 << 20, dialect.version)
            self.settle()
            self.attach(at)
            self.settle()
            self.answers.clear()
            self.sent = self.received = 0

    def attach(self, at: At) -> None:
        more = () if self.dialect is Dialect.P9 else (NONUNAME if at.uid is None else at.uid,)
        self.frame(m.Tattach, 1, 0, NOFID, "none" if at.uid is None else "" if more else str(at.uid), "", *more)

    def _count(self) -> None:
        buffer = b""
        with contextlib.suppress(OSError):
            while data := self.sock.recv(1 << 20):
                buffer += data
                at = 0
                while len(buffer) - at >= 7 and len(buffer) - at >= (
                    size := int.from_bytes(buffer[at : at + 4], "little")
                ):
                    kind = buffer[at + 4]
                    if kind == m.Rlerror.type:
                        number = int.from_bytes(buffer[at + 7 : at + 11], "little")
                        self.answers[errno.errorcode.get(number, str(number))] += 1
                    elif kind == m.Rerror.type:
                        self.answers[bytes(buffer[at + 9 : at + size]).decode()] += 1
                    elif kind == m.Rwalk.type:
                        self.answers[f"walk/{buffer[at + 7]}"] += 1
                    else:
                        self.answers["ok"] += 1
                    self.received += 1
                    at += size
                buffer = buffer[at:]
        self.ended = True

    def frame(self, cls: type[m.Message], tag: int | None, *fields: Any) -> None:
        """Send a message; without a tag it gets the next one."""
        if tag is None:
            self.tag = (self.tag + 1) % NOTAG
            tag = self.tag
        self.raw(codec(self.dialect, cls.type).pack(tag, *fields))
        self.sent += 1

    def raw(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size > 1 << 16:
            self.flush()

    def flush(self) -> None:
        data, self._waiting, self._size = b"".join(self._waiting), [], 0
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def settle(self, unanswered: int = 0, seconds: float = 120) -> None:
        """Wait for the replies to all but some, or until no more come."""
        self.flush()
        until, before = time.monotonic() + seconds, -1
        while self.received < self.sent - unanswered and not self.ended and time.monotonic() < until:
            if unanswered and self.received == before:
                break
            before = self.received
            time.sleep(0.5 if unanswered else 0.01)

    def walk(self, fid: int, *names: str) -> None:
        self.frame(m.Twalk, 1, 0, fid, names)


Flood = Callable[[At, int], list[Client]]
FLOODS: Final[dict[str, Flood]] = {}


def flood(name: str) -> Callable[[Flood], Flood]:
    def enter(function: Flood) -> Flood:
        FLOODS[name] = function
        return function

    return enter


def on_fids(at: At, count: int, names: Callable[[int], tuple[str, ...]], *more: Any, **kwargs: Any) -> list[Client]:
    """Walk to a new fid each time, and then ask what `more` says of it."""
    c = Client(at, **kwargs)
    for fid in range(1, count + 1):
        c.walk(fid, *names(fid))
        for cls, *fields in more:
            c.frame(cls, None, fid, *fields)
    c.settle()
    return [c]


@flood("fids")
def fids(at: At, count: int) -> list[Client]:
    return on_fids(at, count, lambda n: ("text",))


@flood("fids, asked for attributes")
def with_attributes(at: At, count: int) -> list[Client]:
    return on_fids(at, count, lambda n: ("text",), (m.Tgetattr, 0x7FF))


@flood("fids of stored files")
def stored_fids(at: At, count: int) -> list[Client]:
    return on_fids(at, count, lambda n: ("fs", f"{n % NAMES:05}"), (m.Tgetattr, 0x7FF))


@flood("the same, walked to from their directory")
def stored_names(at: At, count: int) -> list[Client]:
    """As Linux's client does that keeps a fid for each name (cache=loose)."""
    c = Client(at)
    c.walk(count + 1, "fs")
    for fid in range(1, count + 1):
        c.frame(m.Twalk, 1, count + 1, fid, (f"{fid % NAMES:05}",))
        c.frame(m.Tgetattr, 1, fid, 0x7FF)
    c.settle()
    return [c]


@flood("the same, and then one more is walked and clunked, as often")
def churned(at: At, count: int) -> list[Client]:
    """A table in which things come and go is larger than one that only grew."""
    [c] = stored_names(at, min(count, 200_000))
    c.frame(m.Tclunk, 1, 1)
    for _ in range(count):
        c.walk(NOFID - 1, "text")
        c.frame(m.Tclunk, 1, NOFID - 1)
    c.settle()
    return [c]


@flood("fids at the end of 16 long names")
def long_names(at: At, count: int) -> list[Client]:
    return on_fids(at, count, lambda n: ("deep",) + ("n" * 255,) * 15)


@flood("fids walked from each other, the one before clunked")
def chains(at: At, count: int) -> list[Client]:
    c = Client(at)
    for n in range(count):
        fid, new = n % 2 + 2 * (n // 120) + 1, (n + 1) % 2 + 2 * (n // 120) + 1
        if n % 120 == 0:
            c.settle()
            c.walk(fid, "deep")
        if c.answers["ENOMEM"]:  # then there is nothing to go on from
            c.walk(n + (1 << 24), "deep", *("d",) * 15)
        else:
            c.frame(m.Twalk, 1, fid, new, ("d",) * 16)
            c.frame(m.Tclunk, 1, fid)
    c.settle()
    return [c]


@flood("open files")
def opened(at: At, count: int) -> list[Client]:
    return on_fids(at, count, lambda n: ("text",), (m.Tlopen, 0), (m.Tread, 0, 100))


@flood("open stored files")
def stored_opened(at: At, count: int) -> list[Client]:
    return on_fids(at, count, lambda n: ("fs", f"{n % NAMES:05}"), (m.Tlopen, 0), (m.Tread, 0, 100))


@flood("texts of 64 KiB, of which the client read one byte")
def texts(at: At, count: int) -> list[Client]:
    return on_fids(at, count, lambda n: ("big",), (m.Tlopen, 0), (m.Tread, 0, 1))


@flood("messages of a log, of which the client read one byte")
def messages(at: At, count: int) -> list[Client]:
    return on_fids(at, count, lambda n: ("log",), (m.Tlopen, 0), (m.Tread, 0, 1))


@flood("attributes that are never written to their end")
def attributes(at: At, count: int) -> list[Client]:
    part = bytes(65535)
    return on_fids(
        at, min(count, 20_000), lambda n: ("fs", "00001"), (m.Txattrcreate, "user.x", 65536, 0), (m.Twrite, 0, part)
    )


@flood("locks of one range, each by another long name")
def lock_names(at: At, count: int) -> list[Client]:
    c = Client(at)
    c.walk(1, "fs", "00001")
    c.frame(m.Tlopen, 1, 1, 0)
    for n in range(count):
        c.frame(m.Tlock, 1, 1, 0, 0, 0, 10, n, f"{n:0{NAME}}")
    c.settle()
    return [c]


@flood("locks of a range each, in many files")
def lock_ranges(at: At, count: int) -> list[Client]:
    c = Client(at)
    for n in range(count // 100):
        c.walk(n + 1, "fs", f"{n % NAMES:05}")
        c.frame(m.Tlopen, 1, n + 1, 0)
        for start in range(0, 200, 2):
            c.frame(m.Tlock, 1, n + 1, 0, 0, start, 1, 1, "c" * 255)
    c.settle()
    return [c]


@flood(f"listings of {NAMES:,} names, of which the client read a part")
def listings(at: At, count: int) -> list[Client]:
    return on_fids(at, min(count, 300), lambda n: ("fs",), (m.Tlopen, 0), (m.Treaddir, 0, 100))


@flood(f"the same in 9P2000, of {NAMES:,} names")
def plan9_listings(at: At, count: int) -> list[Client]:
    return on_fids(at, min(count, 100), lambda n: ("fs",), (m.Topen, 0), (m.Tread, 0, 200), dialect=Dialect.P9)


def on_connections(
    at: At, count: int, ask: Callable[[Client, int], None], each: int = 60_000, name: str = "events"
) -> list[Client]:
    """Ask for what waits, on as many connections as it takes; all have a file open of which that is asked."""
    clients = []
    for _ in range(min(-(-count // each), 16)):
        c = Client(at)
        c.walk(1, name)
        c.frame(m.Tlopen, 1, 1, 2 if name == "events" else 0)
        c.settle()
        c.answers.clear()
        for n in range(min(each, count)):
            ask(c, n)
        c.settle(unanswered=each)
        clients.append(c)
    return clients


@flood("reads that wait")
def reads(at: At, count: int) -> list[Client]:
    return on_connections(at, count, lambda c, n: c.frame(m.Tread, None, 1, 0, 1000))


@flood("writes of 64 KiB that wait")
def writes(at: At, count: int) -> list[Client]:
    data = bytes(65_000)
    return on_connections(at, count, lambda c, n: c.frame(m.Twrite, None, 1, 0, data), each=1500)


@flood("walks with long names that wait for a fid")
def walks(at: At, count: int) -> list[Client]:
    def ask(c: Client, n: int) -> None:
        if n == 0:
            c.frame(m.Twrite, None, 1, 0, b"x")
            c.frame(m.Tclunk, None, 1)
        c.frame(m.Twalk, None, 1, 1, ("n" * NAME,) * 15)

    return on_connections(at, count, ask, each=3000)


@flood("flushes that wait")
def flushes(at: At, count: int) -> list[Client]:
    """Of a read that is not ended by that: nobody who is flushed has to hear it at once."""

    def ask(c: Client, n: int) -> None:
        if n == 0:
            c.frame(m.Tread, None, 1, 0, 1000)
            c.read_tag = c.tag
        else:
            c.frame(m.Tflush, None, c.read_tag)

    return on_connections(at, count, ask, name="deaf")


@flood("replies that are not taken")
def replies(at: At, count: int) -> list[Client]:
    clients = []
    for _ in range(64):
        c = Client(at, attach=False, read=False)
        c.frame(m.Tversion, NOTAG, 1 << 20, "9P2000.L")
        c.attach(at)
        c.walk(1, "big")
        c.frame(m.Tlopen, 1, 1, 0)
        for _ in range(200):
            c.frame(m.Tread, 1, 1, 0, 65536)
        c.flush()
        clients.append(c)
    return clients


def half(at: At, connections: int, *, attach: bool) -> list[Client]:
    clients = []
    for _ in range(connections):
        try:
            c = Client(at, attach=attach)
        except OSError:
            break
        frame = codec(Dialect.L, m.Twrite.type if attach else m.Tversion.type)
        data = frame.pack(1, 0, 0, bytes(1_000_000)) if attach else frame.pack(NOTAG, 8192, "9" * 8000)
        with contextlib.suppress(OSError):
            for begin in range(0, len(data), 65536):
                piece = data[begin : begin + 65536]
                c.sock.send(piece[:-1] if begin + 65536 >= len(data) else piece, socket.MSG_DONTWAIT)
                time.sleep(0.001)
        clients.append(c)
    return clients


@flood("half a frame before an attach, on 250 connections")
def half_before(at: At, count: int) -> list[Client]:
    return half(at, 250, attach=False)


@flood("half a frame of 1 MB after an attach, on 250 connections")
def half_after(at: At, count: int) -> list[Client]:
    return half(at, 250, attach=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory")
    parser.add_argument("-n", "--count", type=int, default=1_000_000 if LONG else 100_000)
    parser.add_argument("-k", "--only", default="", help="kinds whose name holds this")
    parser.add_argument(
        "-u", "--uid", type=int, help="a user who is vouched for, over a unix socket; to be run by root"
    )
    parser.add_argument("--serve", metavar="DIRECTORY", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        trio.run(serve, chosen.serve)
        return 0
    over = 0
    with tempfile.TemporaryDirectory(prefix="mk9p-memory-", dir="/var/tmp") as home:
        directory = Path(home) / "d"
        directory.mkdir()
        directory.chmod(0o777)
        for n in range(NAMES):
            path = directory / f"{n:05}"
            path.write_bytes(b"x" * 100)
            path.chmod(0o666)
        for name, function in FLOODS.items():
            if chosen.only not in name:
                continue
            with measured(directory, chosen.uid) as server:
                Client(server.at).sock.close()
                before, began = server.resident, time.monotonic()
                clients = function(server.at, chosen.count)
                took, after = time.monotonic() - began, server.resident
                answers: Counter[str] = sum((c.answers for c in clients), Counter())
                ended = sum(c.ended for c in clients)
                for c in clients:
                    with contextlib.suppress(OSError):
                        c.sock.shutdown(socket.SHUT_RDWR)
                    c.sock.close()
                last = server.resident
                over += after - before > MOST
                said = " ".join(f"{key}:{n}" for key, n in answers.most_common())
                print(
                    f"{name:58} {sum(c.sent for c in clients):>9,} {took:6.1f} s  {before / MIB:5.1f} -> {after / MIB:6.1f} MiB"
                    f" ({(after - before) / MIB:+6.1f}), gone {last / MIB:6.1f}  {said}"
                    + (f"  ended:{ended}" if ended else ""),
                    flush=True,
                )
    print(f"\n{over} kinds took more than {MOST >> 20} MiB" if over else f"\nnone took more than {MOST >> 20} MiB")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
