"""9P as others speak it, spelled out byte by byte from the manuals, without any code of ours: Plan 9's mount and Linux with 9P2000.u.

What is peculiar to each: Plan 9 asks for Tauth first, knows users by name, reads directories in pieces of 8 KiB less a header, and sends several
requests before the first is answered. Users of 9P2000.u are numbers, with an empty or a useless name.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import pytest

from tests.interop.peers import Served
from tests.interop.tree_interop import BIG, MANY, TOP

NOTAG, NOFID, NONUNAME = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
TVERSION, TAUTH, TATTACH, RERROR, TFLUSH, TWALK, TOPEN, TCREATE = 100, 102, 104, 107, 108, 110, 112, 114
TREAD, TWRITE, TCLUNK, TREMOVE, TSTAT, TWSTAT = 116, 118, 120, 122, 124, 126


def s(text: str) -> bytes:
    """A string of 9P: two bytes of length, and UTF-8."""
    return struct.pack("<H", len(text.encode())) + text.encode()


def walk(fid: int, newfid: int, *names: str) -> bytes:
    return struct.pack("<IIH", fid, newfid, len(names)) + b"".join(map(s, names))


def read(fid: int, offset: int, count: int) -> bytes:
    return struct.pack("<IQI", fid, offset, count)


def write(fid: int, offset: int, data: bytes) -> bytes:
    return struct.pack("<IQI", fid, offset, len(data)) + data


@attrs.define(eq=False)
class Wire:
    """A socket, and frames on it."""

    sock: socket.socket
    buffer: bytes = b""

    def send(self, kind: int, tag: int, body: bytes) -> None:
        self.sock.sendall(struct.pack("<IBH", 7 + len(body), kind, tag) + body)

    def receive(self) -> tuple[int, int, bytes]:
        """Return type, tag and the rest of the next reply."""
        while len(self.buffer) < 4 or len(self.buffer) < struct.unpack("<I", self.buffer[:4])[0]:
            data = self.sock.recv(65536)
            assert data, "the server hung up"
            self.buffer += data
        size, kind, tag = struct.unpack("<IBH", self.buffer[:7])
        body, self.buffer = self.buffer[7:size], self.buffer[size:]
        return kind, tag, body

    def rpc(self, kind: int, body: bytes, tag: int = 1) -> bytes:
        """Send a request and return the body of its reply, which must be its own."""
        self.send(kind, tag, body)
        got, of, answer = self.receive()
        assert (got, of) == (kind + 1, tag), answer
        return answer

    def refused(self, kind: int, body: bytes, tag: int = 1) -> bytes:
        """Send a request and return the body of the Rerror that it brings."""
        self.send(kind, tag, body)
        got, of, answer = self.receive()
        assert (got, of) == (RERROR, tag)
        return answer

    def version(self, version: str, msize: int = 8192 + 24) -> tuple[int, str]:
        answer = self.rpc(TVERSION, struct.pack("<I", msize) + s(version), NOTAG)
        size, length = struct.unpack("<IH", answer[:6])
        assert length == len(answer) - 6
        return size, answer[6:].decode()


@pytest.fixture
def dial(served: Served) -> Iterator[Callable[[], Wire]]:
    socks: list[socket.socket] = []

    def connect() -> Wire:
        socks.append(socket.create_connection(("127.0.0.1", served.port), 30))
        return Wire(socks[-1])

    yield connect
    for sock in socks:
        sock.close()


def whole(wire: Wire, fid: int) -> bytes:
    """Read a file to its end: a read may give less than there is."""
    data = b""
    while piece := wire.rpc(TREAD, read(fid, len(data), 8192))[4:]:
        data += piece
    return data


@contextmanager
def opened(wire: Wire, fid: int, mode: int, *names: str) -> Iterator[None]:
    """Walk from fid 0 and open, as every client does."""
    wire.rpc(TWALK, walk(0, fid, *names))
    wire.rpc(TOPEN, struct.pack("<IB", fid, mode))
    yield
    wire.rpc(TCLUNK, struct.pack("<I", fid))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("9P2000", "9P2000"),
        ("9P2000.u", "9P2000.u"),
        ("9P2000.L", "9P2000.L"),
        ("9P2000.e", "9P2000"),  # Erlang's: what comes after the period is an extension that we have not (version(5))
        ("9P2010", "9P2000"),
        ("9P1999", "unknown"),
        ("8P2000", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_version_is_answered_with_the_best_that_is_not_above_it(
    dial: Callable[[], Wire], asked: str, answered: str
) -> None:
    wire = dial()
    assert wire.version(asked, 8216) == (8216, answered)
    assert wire.version("9P2000", 1 << 30)[0] == (1 << 20) + 24  # ours is the smaller
    assert wire.version("9P2000", 512) == (512, "9P2000")


def test_plan_9_mounts_lists_and_reads(dial: Callable[[], Wire]) -> None:
    wire = dial()
    assert wire.version("9P2000") == (8216, "9P2000")
    refusal = wire.refused(TAUTH, struct.pack("<I", 0) + s("glenda") + s(""))
    assert refusal == s("authentication not required")
    root = wire.rpc(TATTACH, struct.pack("<II", 0, NOFID) + s("glenda") + s(""))
    kind, version, path = struct.unpack("<BIQ", root)
    assert (kind, version) == (0x80, 0)
    assert wire.rpc(TWALK, walk(0, 1)) == b"\0\0"  # the mount driver clones first and walks the clone
    (count,) = struct.unpack("<H", wire.rpc(TWALK, walk(1, 1, "many"))[:2])
    assert count == 1
    qtype, _, _, iounit = struct.unpack("<BIQI", wire.rpc(TOPEN, struct.pack("<IB", 1, 0)))
    assert (qtype, iounit) == (0x80, 0)
    entries, offset = [], 0
    while True:
        answer = wire.rpc(TREAD, read(1, offset, 8192))
        (size,) = struct.unpack("<I", answer[:4])
        data = answer[4:]
        assert len(data) == size <= 8192
        if not data:
            break
        offset += size
        while data:
            (length,) = struct.unpack("<H", data[:2])
            entry, data = data[2 : 2 + length], data[2 + length :]
            kind, dev, qtype, _, _, mode, _, _, size = struct.unpack("<HIBIQIIIQ", entry[:39])
            (named,) = struct.unpack("<H", entry[39:41])
            assert (kind, dev, qtype, mode, size) == (0, 0, 0, 0o444, 0)
            assert entry[41 + named :] == s("root") * 3
            entries.append(entry[41 : 41 + named].decode())
    assert entries == MANY
    assert wire.refused(TREAD, read(1, 1, 8192)) == s("bad offset in directory read")
    wire.rpc(TCLUNK, struct.pack("<I", 1))
    assert path == struct.unpack("<BIQ", wire.rpc(TSTAT, struct.pack("<I", 0))[10:23])[2]


def test_plan_9_sends_on_before_it_is_answered(dial: Callable[[], Wire]) -> None:
    wire = dial()
    wire.version("9P2000")
    wire.rpc(TATTACH, struct.pack("<II", 0, NOFID) + s("glenda") + s(""))
    # `fcp` and venti's readers: many reads of one fid, tags of their own; and the whole life of a fid in one go
    wire.rpc(TWALK, walk(0, 1, "big"))
    wire.send(TOPEN, 2, struct.pack("<IB", 1, 0))
    for n in range(30):
        wire.send(TREAD, 100 + n, read(1, n * 8192, 8192))
    wire.send(TCLUNK, 3, struct.pack("<I", 1))
    wire.send(TWALK, 4, walk(0, 1, "status"))
    got = [wire.receive() for _ in range(33)]
    assert {tag: kind for kind, tag, _ in got if tag < 100} == {2: TOPEN + 1, 3: TCLUNK + 1, 4: TWALK + 1}
    parts = {tag: body[4:] for kind, tag, body in got if kind == TREAD + 1}
    assert b"".join(parts[tag] for tag in sorted(parts)).decode() == BIG[: 30 * 8192]


def test_a_read_that_waits_is_flushed_as_plan_9_does(dial: Callable[[], Wire], served: Served) -> None:
    wire = dial()
    wire.version("9P2000")
    wire.rpc(TATTACH, struct.pack("<II", 0, NOFID) + s("root") + s(""))
    with opened(wire, 1, 0, "events"):
        first = wire.rpc(TREAD, read(1, 0, 8192))[4:]
        wire.send(TREAD, 7, read(1, len(first), 8192))
        assert wire.rpc(TFLUSH, struct.pack("<H", 7), tag=8) == b""
        with opened(wire, 2, 1, "ctl"):
            wire.rpc(TWRITE, write(2, 0, b"add 5\n"))
        # tag 7 is free again, and the event was not lost with it
        assert wire.rpc(TREAD, read(1, len(first), 8192), tag=7)[4:].split()[2:] == [b"added", b"5"]
    assert served.state.value == 5


@pytest.mark.parametrize("version", ["9P2000", "9P2000.u"])
def test_who_is_nobody_may_look_but_not_touch(dial: Callable[[], Wire], version: str) -> None:
    wire = dial()
    wire.version(version)
    number = b"" if version == "9P2000" else struct.pack("<I", NONUNAME)

    def code(errno: int) -> bytes:
        return b"" if version == "9P2000" else struct.pack("<I", errno)

    wire.rpc(TATTACH, struct.pack("<II", 0, NOFID) + s("none") + s("") + number)
    with opened(wire, 1, 0, "status"):
        assert wire.rpc(TREAD, read(1, 0, 100))[4:] == b"value 0\n"
    wire.rpc(TWALK, walk(0, 1, "ctl"))
    assert wire.refused(TOPEN, struct.pack("<IB", 1, 1)) == s("permission denied") + code(13)
    assert wire.refused(TOPEN, struct.pack("<IB", 1, 0x10)) == s("permission denied") + code(13)
    assert wire.refused(TWALK, walk(0, 2, "nowhere")) == s("No such file or directory") + code(2)
    assert wire.refused(TREMOVE, struct.pack("<I", 1)) == s("permission denied") + code(13)
    assert wire.refused(TCLUNK, struct.pack("<I", 1)) == s("fid unknown or out of range") + code(9)  # remove(5) clunks


@pytest.mark.parametrize(("uname", "n_uname", "may"), [("", 0, True), ("nonsense", 0, True), ("root", 65534, False)])
def test_users_of_9p2000_u_are_numbers(
    dial: Callable[[], Wire], served: Served, uname: str, n_uname: int, may: bool
) -> None:
    wire = dial()
    assert wire.version("9P2000.u") == (8216, "9P2000.u")
    refusal = wire.refused(TAUTH, struct.pack("<I", 9) + s(uname) + s("") + struct.pack("<I", n_uname))
    assert refusal == s("authentication not required") + struct.pack("<I", 2)
    wire.rpc(TATTACH, struct.pack("<II", 0, NOFID) + s(uname) + s("") + struct.pack("<I", n_uname))
    wire.rpc(TWALK, walk(0, 1, "ctl"))
    if not may:
        assert wire.refused(TOPEN, struct.pack("<IB", 1, 1)) == s("permission denied") + struct.pack("<I", 13)
        return
    wire.rpc(TOPEN, struct.pack("<IB", 1, 1 | 0x10))  # Linux truncates for `>`
    assert wire.rpc(TWRITE, write(1, 0, b"add 3\n")) == struct.pack("<I", 6)
    assert wire.refused(TWRITE, write(1, 6, b"add x\n")) == s("usage: add N") + struct.pack("<I", 22)
    assert served.state.value == 3


def test_a_stat_of_9p2000_u_has_names_and_numbers(dial: Callable[[], Wire]) -> None:
    wire = dial()
    wire.version("9P2000.u")
    wire.rpc(TATTACH, struct.pack("<II", 0, NOFID) + s("") + s("") + struct.pack("<I", 0))
    wire.rpc(TWALK, walk(0, 1, "disk"))
    answer = wire.rpc(TSTAT, struct.pack("<I", 1))
    outer, inner = struct.unpack("<HH", answer[:4])
    assert (outer, inner) == (len(answer) - 2, len(answer) - 4)
    assert struct.unpack("<HIB", answer[4:11]) == (0, 0, 0)
    assert struct.unpack("<I", answer[23:27]) == (0o600,)
    assert struct.unpack("<Q", answer[35:43]) == (100_000,)
    assert answer[43:] == s("disk") + s("root") * 3 + s("") + struct.pack("<III", 0, 0, 0)


def test_linux_makes_and_renames_with_9p2000_u(dial: Callable[[], Wire]) -> None:
    wire = dial()
    wire.version("9P2000.u")
    wire.rpc(TATTACH, struct.pack("<II", 0, NOFID) + s("") + s("") + struct.pack("<I", 0))
    wire.rpc(TWALK, walk(0, 1, "shelf"))
    wire.rpc(TCREATE, struct.pack("<I", 1) + s("new") + struct.pack("<IB", 0o600, 2) + s(""))
    wire.rpc(TWRITE, write(1, 0, b"x" * 100))
    # v9fs's truncate(2) and rename(2): a stat of all ones, but for what is meant
    ones = struct.pack("<HIBIQIII", 0xFFFF, 0xFFFFFFFF, 0xFF, 0xFFFFFFFF, (1 << 64) - 1, *(0xFFFFFFFF,) * 3)
    numbers = struct.pack("<III", *(0xFFFFFFFF,) * 3)
    shorter = ones + struct.pack("<Q", 5) + s("") * 5 + numbers
    renamed = ones + struct.pack("<Q", (1 << 64) - 1) + s("newer") + s("") * 4 + numbers
    dated = ones[:-4] + struct.pack("<I", 1_234_567_890) + struct.pack("<Q", (1 << 64) - 1) + s("") * 5 + numbers
    for stat in (shorter, renamed, dated):
        assert wire.rpc(TWSTAT, struct.pack("<IHH", 1, len(stat) + 2, len(stat)) + stat) == b""
    with opened(wire, 2, 0, "shelf", "newer"):
        assert wire.rpc(TREAD, read(2, 0, 100))[4:] == b"xxxxx"
        mode, _, mtime, length = struct.unpack("<IIIQ", wire.rpc(TSTAT, struct.pack("<I", 2))[23:43])
        assert (mode, mtime, length) == (0o600, 1_234_567_890, 5)


def test_both_dialects_go_side_by_side_on_one_port(dial: Callable[[], Wire]) -> None:
    plain, unix = dial(), dial()
    plain.version("9P2000")
    unix.version("9P2000.u")
    plain.rpc(TATTACH, struct.pack("<II", 0, NOFID) + s("root") + s(""))
    unix.rpc(TATTACH, struct.pack("<II", 0, NOFID) + s("") + s("") + struct.pack("<I", 0))
    with opened(plain, 1, 0), opened(unix, 1, 0):
        lengths = [len(whole(wire, 1)) for wire in (plain, unix)]
    assert lengths[1] - lengths[0] == len(TOP) * 14  # an empty extension and three numbers, each
