"""Bad input, one test each: its defined end is an error reply, or the end of that connection alone; another client never notices."""

import errno
import struct

import pytest

from mk9p.testing import until
from mk9p.tree import Dir, Text
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m
from tests.server.talk import Talk, connect, serving, talk_to, talking

TREE = Dir({"f": Text("x"), "d": Dir({})})


def frame(type_: int, body: bytes, tag: int = 7, size: int | None = None) -> bytes:
    return struct.pack("<IBH", 7 + len(body) if size is None else size, type_, tag) + body


async def answer(data: bytes, dialect: Dialect = Dialect.L) -> tuple[m.Message | None, Talk]:
    """Send bytes on a connection of their own; check that another one still works; return the reply, None if the server hung up."""
    async with serving(TREE) as server:
        other, talk = await talk_to(server), await talk_to(server, dialect, msize=8192)
        await talk.raw(data)
        reply = await talk.receive()
        assert isinstance(await other.open(1, "f"), m.Rlopen)
        if reply is not None:
            assert isinstance(await talk.rpc(m.Tgetattr, 9, 0, 0x7FF), m.Rgetattr)
        else:
            await until(lambda: len(server.connections) <= 1)
        return reply, talk


@pytest.mark.parametrize("size", [0, 1, 6, 8193, 0xFFFFFFFF])
async def test_a_frame_of_impossible_size_ends_its_connection(size: int) -> None:
    reply, _ = await answer(frame(m.Tread.type, b"", size=size))
    assert reply is None


@pytest.mark.parametrize("type_", [0, 99, 101, 103, 106, 128, 255])
async def test_an_unknown_type_is_an_error_and_no_more(type_: int) -> None:
    reply, _ = await answer(frame(type_, b"whatever"))
    assert isinstance(reply, m.Rlerror)
    assert (reply.tag, reply.ecode) == (7, errno.EOPNOTSUPP)


BAD = {
    "string past its end": frame(m.Twalk.type, struct.pack("<IIHH", 0, 1, 1, 50) + b"short"),
    "names past the end": frame(m.Twalk.type, struct.pack("<IIH", 0, 1, 16)),
    "too many names": frame(m.Twalk.type, struct.pack("<IIH", 0, 1, 17) + struct.pack("<H", 1) * 17 + b"a" * 17),
    "no fields at all": frame(m.Tread.type, b""),
    "fields left over": frame(m.Tclunk.type, struct.pack("<I", 5) + b"more"),
    "name that is not UTF-8": frame(m.Twalk.type, struct.pack("<IIHH", 0, 1, 1, 2) + b"\xff\xfe"),
    "data past its end": frame(m.Twrite.type, struct.pack("<IQI", 0, 0, 4000) + b"x"),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
async def test_a_bad_body_is_an_error_and_no_more(data: bytes) -> None:
    reply, _ = await answer(data)
    assert isinstance(reply, m.Rlerror)
    assert (reply.tag, reply.ecode) == (7, errno.EBADMSG)


@pytest.mark.parametrize("name", ["a/b", "/", "", "a\0b"])
async def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    body = struct.pack("<IIHH", 0, 1, 1, len(name)) + name.encode()
    reply, _ = await answer(frame(m.Twalk.type, body))
    assert isinstance(reply, m.Rlerror)
    assert reply.ecode in (errno.EINVAL, errno.EBADMSG)


async def test_an_unknown_and_a_doubled_fid_are_refused() -> None:
    async with talking(TREE) as talk:
        assert (await talk.rpc(m.Twalk, 1, 99, 5, ())).ecode == errno.EBADF
        assert isinstance(await talk.rpc(m.Twalk, 1, 0, 5, ("f",)), m.Rwalk)
        assert (await talk.rpc(m.Twalk, 1, 0, 5, ("d",))).ecode == errno.EEXIST
        assert (await talk.rpc(m.Tattach, 1, 5, 0xFFFFFFFF, "root", "", 0)).ecode == errno.EEXIST
        assert isinstance(await talk.rpc(m.Tlopen, 1, 5, 0), m.Rlopen)
        assert (await talk.rpc(m.Tlopen, 1, 5, 0)).ecode == errno.EBADF


async def test_nothing_comes_before_a_version() -> None:
    async with serving(TREE) as server:
        talk = connect(server, Dialect.P9)
        assert (await talk.rpc(m.Tattach, 1, 0, 0xFFFFFFFF, "root", "")).ename == "Tversion comes first"
        await talk.start()


async def test_half_a_frame_and_silence_is_cleaned_up_when_the_peer_goes() -> None:
    async with serving(TREE) as server:
        talk = await talk_to(server)
        await talk.raw(codec(Dialect.L, m.Tread.type).pack(1, 0, 0, 10)[:9])
        await talk.stream.aclose()
        await until(lambda: not server.connections)


async def test_a_write_to_what_is_not_open_for_it_is_refused() -> None:
    async with talking(TREE) as talk:
        await talk.open(1, "f")
        assert (await talk.rpc(m.Twrite, 1, 1, 0, b"x")).ecode == errno.EBADF
        assert (await talk.rpc(m.Tread, 1, 0, 0, 10)).ecode == errno.EBADF
        assert (await talk.open(2, "d", mode=1)).ecode == errno.EISDIR
        for cls, fields in (
            (m.Tmkdir, (0, "new", 0o755, 0)),
            (m.Tunlinkat, (0, "f", 0)),
            (m.Tsymlink, (0, "l", "f", 0)),
            (m.Trenameat, (0, "f", 0, "g")),
            (m.Tlcreate, (0, "new", 1, 0o644, 0)),
        ):
            assert (await talk.rpc(cls, 1, *fields)).ecode == errno.EPERM, (
                cls
            )  # EOPNOTSUPP would make v9fs try older messages
        assert (await talk.rpc(m.Txattrwalk, 1, 0, 9, "security.capability")).ecode == errno.EOPNOTSUPP
        assert isinstance(await talk.rpc(m.Tsetattr, 1, 1, 0x68, 0, 0, 0, 0, 0, 0, 0, 0), m.Rsetattr)
        assert (await talk.rpc(m.Tsetattr, 1, 1, 1, 0o777, 0, 0, 0, 0, 0, 0, 0)).ecode == errno.EPERM
