"""What our server says, and our client, is 9P to tshark's dissector: each message, to its last byte, with the values that were meant.

The dissector of Wireshark 4.0 has gaps, which are listed with their reasons, and must be these and no others.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import socket
from typing import Any, Final

import pytest
import trio
import trio.testing

from mk9p.client import Client, connect
from mk9p.testing import Line
from mk9p.wire import MESSAGES, Dialect, Qid, decode
from tests.interop.dissect import Dissected, dissect
from tests.interop.every_message import everything, never
from tests.interop.recording import Recording, recorded
from tests.interop.tree_interop import MANY, Everything
from tests.server.talk import serving
from tests.servers.trees import names

P9, U, L = Dialect
NAMES: Final = {cls.type: cls.__name__ for cls in MESSAGES}

# (dialect, message) -> why tshark 4.0 calls it malformed.
MALFORMED: Final = {
    (
        U,
        "Tcreate",
    ): "reads four bytes of an extension, however long it is; a longer one is cut, a shorter one is not there",
    (L, "Tgetlock"): "reads the flags of a Tlock, which a Tgetlock has not",
}
# (dialect, message, bytes) -> why tshark 4.0 leaves so many bytes at its end that it does not understand.
LEFT: Final = {
    **{(dialect, "Tflush", 2): "shows the old tag, and then the same bytes again" for dialect in Dialect},
    (U, "Tauth", 4): "does not know n_uname here, as it does in Tattach",
    (U, "Rerror", 4): "does not show the errno",
    (U, "Rstat", 14): "knows only the stat entry of 9P2000, without extension and numbers",
    (U, "Twstat", 14): "the same",
    (L, "Tauth", 4): "does not know n_uname here, as it does in Tattach",
    (L, "Rlerror", 4): "does not show the errno",
    (L, "Rstat", 14): "knows only the stat entry of 9P2000, without extension and numbers",
    (L, "Twstat", 14): "the same",
    (L, "Tcreate", 2): "takes only .u to have an extension",
    (L, "Tcreate", 15): "the same, where there is one",
    (L, "Tfsync", 4): "does not know datasync, which Linux sends",
}
# a field of ours -> tshark's, for those that mean one thing in all messages
FIELDS: Final = {
    "msize": "9p.maxsize",
    "version": "9p.version",
    "fid": "9p.fid",
    "newfid": "9p.newfid",
    "afid": "9p.afid",
    "dfid": "9p.dfid",
    "uname": "9p.uname",
    "aname": "9p.aname",
    "names": "9p.wname",
    "qid": "9p.qidpath",
    "qids": "9p.qidpath",
    "iounit": "9p.iounit",
    "offset": "9p.offset",
    "count": "9p.count",
    "oldtag": "9p.oldtag",
    "ename": "9p.ename",
    "ecode": "9p.enum",
    "errno": "9p.enum",
    "size": "9p.size",
    "perm": "9p.perm",
    "target": "9p.wname",
    "request_mask": "9p.getattr.flags",
}


async def record(dialect: Dialect, capture: Path, converse: Callable[[int], Awaitable[None]]) -> Recording:
    """Serve the tree, let `converse` talk with it, and write what was said."""
    async with serving(Everything().tree()) as server, recorded(server) as (fd, recording):
        await converse(fd)
    recording.write(capture)
    return recording


def shown(value: Any) -> list[str]:
    """Return a value of ours as tshark shows it, numbers in decimal."""
    if isinstance(value, Qid):
        return [str(value.path)]
    if isinstance(value, tuple):
        return [each for item in value for each in shown(item)]
    return [str(value)]


def compare(dialect: Dialect, recording: Recording, found: list[Dissected]) -> None:
    """Check that tshark saw the messages that were sent, and in them the values that were meant."""
    for side in (True, False):
        frames = recording.frames(side)
        seen = [each for each in found if each.from_client is side]
        assert [(each.name, each.tag) for each in seen] == [
            (NAMES[frame[4]], int.from_bytes(frame[5:7], "little")) for frame in frames
        ]
        at = dialect
        for frame, each in zip(frames, seen, strict=True):
            message = decode(at, frame)
            for name, tsharks in FIELDS.items():
                if hasattr(message, name) and tsharks in each.fields:
                    got = [str(int(text, 0)) if text.startswith("0x") else text for text in each.fields[tsharks]]
                    assert got == shown(getattr(message, name)), (message, tsharks)


def gaps(dialect: Dialect, found: list[Dissected]) -> tuple[set[Any], set[Any]]:
    """Return the messages that tshark called malformed, and those of which it left something; nothing else may be complained of."""
    malformed = {(dialect, each.name) for each in found if "malformed" in each.complaints}
    assert [each for each in found if set(each.complaints) - {"malformed"}] == []
    return malformed, {(dialect, each.name, len(each.left) // 2) for each in found if each.left}


@pytest.mark.parametrize("dialect", list(Dialect), ids=lambda dialect: dialect.version)
async def test_every_message_of_the_server_is_understood(tshark: str, tmp_path: Path, dialect: Dialect) -> None:
    async def converse(fd: int) -> None:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(socket(fileno=fd))) as stream:
            await everything(Line(stream, dialect))

    capture = tmp_path / "every.pcap"
    recording = await record(dialect, capture, converse)
    found = await trio.to_thread.run_sync(dissect, tshark, capture)

    sent = {NAMES[frame[4]] for side in (True, False) for frame in recording.frames(side)}
    assert sent == {cls.__name__ for cls in MESSAGES if dialect in cls.dialects} - never(dialect)
    compare(dialect, recording, found)
    assert gaps(dialect, found) == (
        {gap for gap in MALFORMED if gap[0] is dialect},
        {gap for gap in LEFT if gap[0] is dialect},
    )


@pytest.mark.parametrize("dialect", list(Dialect), ids=lambda dialect: dialect.version)
async def test_what_our_client_says_is_understood(tshark: str, tmp_path: Path, dialect: Dialect) -> None:
    async def work(c: Client) -> None:
        assert await names(c, "many") == MANY
        assert (await c.stat("disk")).length == 100_000
        await c.write("ctl", "add 1\nadd 2\n")
        assert await c.read("status") == "value 3\n"
        assert len(await c.read("big")) > 1 << 18
        with pytest.raises(OSError, match="usage: add N"):
            await c.write("ctl", "add")
        async with await c.open("shelf/new", "w") as file:
            await file.write(b"x" * 100_000)
            await file.truncate(7)
        await c.mkdir("shelf/dir")
        await c.rename("shelf/new", "shelf/old")
        await c.remove("shelf/old")
        async with await c.open("events") as events:
            await events.read(1000)

            async def read_on() -> None:
                while True:
                    await events.read(1000)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_on)
                await trio.testing.wait_all_tasks_blocked()  # nothing more comes: it waits, and is flushed
                nursery.cancel_scope.cancel()

    async def converse(fd: int) -> None:
        async with connect(f"fd!{fd}!{fd}", version=dialect.version, uname="root", msize=65536) as c:
            await work(c)

    capture = tmp_path / "client.pcap"
    recording = await record(dialect, capture, converse)
    found = await trio.to_thread.run_sync(dissect, tshark, capture)
    sent = {NAMES[frame[4]] for frame in recording.frames(True)}
    assert {"Tversion", "Tattach", "Twalk", "Tread", "Twrite", "Tflush", "Tclunk"} <= sent
    assert len(recording.frames(False)) > 20
    compare(dialect, recording, found)
    malformed, left = gaps(dialect, found)
    assert malformed <= set(MALFORMED)
    assert left <= set(LEFT)
