"""python-9p's client, which is Plan 9 from User Space's own codec in C, on our server."""

import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mk9p.testing import SOON
from tests.interop.peers import Served
from tests.interop.tree_interop import BIG, DISK, MANY, TOP

OREAD, OWRITE, ORDWR, OTRUNC = 0, 1, 2, 16
DMDIR = 0x80000000


@pytest.fixture(scope="session")
def py9p() -> Any:
    """Import python-9p, which calls itself py9p."""
    found = pytest.importorskip("py9p", reason="no python-9p in this environment: pip install python-9p")
    if not hasattr(found, "encode_message"):
        pytest.skip("another py9p than python-9p is in this environment")
    return found


@pytest.fixture
def client(py9p: Any, served: Served) -> Iterator[Any]:
    """Connect and attach as root, fid 0 being the root."""
    with py9p.Client.connect_tcp("127.0.0.1", served.port, timeout=SOON) as client:
        agreed = client.negotiate()
        assert (agreed.version, agreed.msize) == ("9P2000", 8192)
        assert client.attach(0, uname="root").type == 0x80
        yield client


def read(client: Any, fid: int) -> bytes:
    parts: list[bytes] = []
    while part := client.read(fid, offset=sum(map(len, parts))):
        parts.append(part)
    return b"".join(parts)


def cat(client: Any, path: str) -> bytes:
    client.walk(0, 99, path)
    client.open(99, OREAD)
    try:
        return read(client, 99)
    finally:
        client.clunk(99)


def names(py9p: Any, data: bytes) -> list[str]:
    found = []
    while data:
        size = 2 + int.from_bytes(data[:2], "little")
        found.append(py9p.decode_dir(data[:size]).name)
        data = data[size:]
    return found


def renamed(name: str) -> bytes:
    """A stat that leaves all but the name, which python-9p cannot put together: its lengths end at 2**63."""
    fields = (0xFFFF, 0xFFFFFFFF, 0xFF, 0xFFFFFFFF, (1 << 64) - 1, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, (1 << 64) - 1)
    body = struct.pack("<HIBIQIIIQ", *fields) + struct.pack("<H", len(name)) + name.encode() + bytes(6)
    return struct.pack("<H", len(body)) + body


def test_it_walks_and_reads(client: Any) -> None:
    assert [qid.type for qid in client.walk(0, 1, "many/file007")] == [0x80, 0]
    client.clunk(1)
    assert cat(client, "status") == b"value 0\n"
    assert cat(client, "big") == BIG.encode()
    assert cat(client, "disk") == DISK


def test_it_lists(py9p: Any, client: Any) -> None:
    assert sorted(names(py9p, cat(client, "/"))) == TOP
    assert names(py9p, cat(client, "many")) == MANY


def test_it_writes(client: Any, served: Served) -> None:
    client.walk(0, 1, "ctl")
    client.open(1, OWRITE | OTRUNC)
    assert client.write(1, b"add 40\nadd 2\n") == 13
    client.clunk(1)
    assert cat(client, "status") == b"value 42\n"
    client.walk(0, 1, "disk")
    client.open(1, ORDWR)
    assert client.write(1, b"hello", offset=99_998) == 2
    assert client.read(1, offset=99_990) == DISK[99_990:-2] + b"he"
    assert bytes(served.state.disk[-2:]) == b"he"


def test_it_makes_changes_and_removes(py9p: Any, client: Any) -> None:
    client.walk(0, 1, "shelf")
    qid, _ = client.create(1, "new", 0o640, ORDWR)
    assert qid.type == 0
    client.write(1, b"contents")
    stat = client.stat(1)
    assert (stat.name, stat.mode, stat.length) == ("new", 0o640, 8)
    client.wstat(1, renamed("newer"))
    client.walk(0, 2, "shelf/newer")
    assert client.stat(2).name == "newer"
    client.remove(2)
    client.walk(0, 2, "shelf")
    with pytest.raises(py9p.RemoteError, match="No such file or directory"):
        client.walk(2, 3, "newer")


def test_it_stats(client: Any) -> None:
    for path, name, mode, length in [
        ("disk", "disk", 0o600, len(DISK)),
        ("many", "many", DMDIR | 0o555, 0),
        ("ctl", "ctl", 0o644, 0),
        ("events", "events", 0o444, 0),
    ]:
        qids = client.walk(0, 1, path)
        stat = client.stat(1)
        assert (stat.name, stat.mode, stat.length, stat.uid, stat.gid) == (name, mode, length, "root", "root")
        assert stat.qid == qids[-1]
        client.clunk(1)
    assert client.stat(0).name == "/"


def test_errors_are_exceptions_in_our_words(py9p: Any, client: Any, served: Served) -> None:
    def says(words: str, do: Any, *args: Any) -> None:
        with pytest.raises(py9p.RemoteError) as caught:
            do(*args)
        assert str(caught.value) == words

    says("No such file or directory", client.walk, 0, 1, "nowhere")
    says("fid unknown or out of range", client.clunk, 1)
    client.walk(0, 1, "ctl")
    says("fid already in use", client.walk, 0, 1, "status")
    says("fid not open", client.read, 1)
    client.open(1, OWRITE)
    says("fid not open for reading", client.read, 1)
    says("usage: add N", client.write, 1, b"add one\n")
    says("unknown word frobnicate; usage: add N · reset", client.write, 1, b"frobnicate")
    client.clunk(1)
    assert cat(client, "error") == "unknown word frobnicate; usage: add N · reset\n".encode()
    client.walk(0, 1, "many")
    says("Is a directory", client.open, 1, OWRITE)
    says("Operation not permitted", client.create, 1, "new", 0o666, OWRITE)
    with py9p.Client.connect_tcp("127.0.0.1", served.port, timeout=SOON) as other:
        other.negotiate()
        other.attach(0, uname="nobody")
        other.walk(0, 1, "secret")
        says("permission denied", other.open, 1, OREAD)


def test_its_threads_share_a_connection_while_one_of_them_waits(client: Any) -> None:
    client.walk(0, 1, "events")
    client.open(1, OREAD)
    first = client.read(1)
    assert first.split()[2:] == [b"born"]
    came: list[bytes] = []
    waiting = threading.Thread(target=lambda: came.append(client.read(1, offset=len(first))))
    waiting.start()
    done: list[bytes] = []

    def work(fid: int) -> None:
        client.walk(0, fid, "many/file001")
        client.open(fid, OREAD)
        done.append(client.read(fid))
        client.clunk(fid)

    threads = [threading.Thread(target=work, args=(fid,)) for fid in range(10, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == [b"file001\n"] * 20
    assert came == []
    client.walk(0, 2, "ctl")
    client.open(2, OWRITE)
    client.write(2, b"add 7")
    waiting.join(30)
    assert [line.split()[2:] for line in came] == [[b"added", b"7"]]


def test_a_conversation_is_its_clients(py9p: Any, client: Any) -> None:
    client.walk(0, 1, "talks/clone")
    client.open(1, ORDWR)
    assert client.read(1) == b"0\n"
    client.write(1, b"say 'well met'\n")
    assert cat(client, "talks/0/data") == b"well met\n"
    client.clunk(1)
    with pytest.raises(py9p.RemoteError):
        cat(client, "talks/0/data")
