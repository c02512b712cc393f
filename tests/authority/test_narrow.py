"""What is passed on to another server for somebody who may do only some things there, also when requests come before the answers to earlier ones."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.authority.book import Book
from mk9p.authority.deciding import Authority
from mk9p.authority.policy import Rules
from mk9p.compose.aliases import Names
from mk9p.composing import namespace
from mk9p.server import Server
from mk9p.testing import SOON, Line, Memory, joined, serving, serving_at
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root attaches to another server as anybody")
TRUNCATE = 8  # of Tsetattr: the size
Request = tuple[type[m.Message], tuple[Any, ...]]


@asynccontextmanager
async def far(folder: Path, rules: str) -> AsyncIterator[tuple[Server, Line, Memory]]:
    """Yield a composer with rules, a client of it that has walked to the mount point `a` by fid 1, and what is on the other server."""
    stored = Memory({"f": "text", "ctl": "settings", "clone": "0", "sub": {"ctl": "deep"}}, mode=0o777)
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery, serving_at(f"unix!{folder}/far", stored) as host:
            ns = namespace(nursery)
            ns.mount(host.address, "/a")
            book = Book(Rules.parse(rules, lambda name: 0))
            async with (
                serving(ns.root, authority=Authority(book=book, names=Names(ns.table))) as server,
                trio.SocketStream(trio.socket.from_stdlib_socket(joined(server))) as stream,
            ):
                line = Line(stream)
                await line.start()
                await line.rpc(m.Twalk, 1, 0, 1, ("a",))
                yield server, line, stored
            nursery.cancel_scope.cancel()


async def at_once(line: Line, *requests: Request) -> list[int]:
    """Send requests before any of them is answered; return the type of each answer."""
    packed = [codec(Dialect.L, cls.type).pack(10 + i, *fields) for i, (cls, fields) in enumerate(requests)]
    await line.raw(b"".join(packed))
    types = dict[int, int]()
    for _ in requests:
        frame = await line.frame()
        types[int.from_bytes(frame[5:7], "little")] = frame[4]
    return [types[10 + i] for i in range(len(requests))]


def setattr_(fid: int, size: int) -> Request:
    return m.Tsetattr, (fid, TRUNCATE, 0, 0, 0, size, 0, 0, 0, 0)


def writes(fid: int) -> tuple[Request, Request]:
    return (m.Tlopen, (fid, os.O_WRONLY)), (m.Twrite, (fid, 0, memoryview(b"evil")))


@pytest.mark.parametrize("place", ["", "sub"])
async def test_data_is_written_and_commands_are_not(tmp_path: Path, place: str) -> None:
    async with far(tmp_path, "deny * c /a/**\n") as (server, line, stored):
        if place:
            await line.rpc(m.Twalk, 1, 1, 1, (place,))
        name = "f" if not place else "ctl"
        types = await at_once(line, (m.Twalk, (1, 2, (name,))), *writes(2))
        assert any(c.relays for c in server.connections)
        if place:
            assert types == [m.Rwalk.type, m.Rlerror.type, m.Rlerror.type]
            assert bytes(stored.at("sub/ctl").data) == b"deep"
        else:
            assert types == [m.Rwalk.type, m.Rlopen.type, m.Rwrite.type]
            assert bytes(stored.at("f").data) == b"evil"


async def test_no_fid_is_opened_by_a_name_that_it_does_not_have(tmp_path: Path) -> None:
    async with far(tmp_path, "deny * c /a/**\n") as (server, line, stored):
        for attempt in (
            # a walk that fails leaves the fid at the ctl file
            [(m.Twalk, (1, 5, ("ctl",))), (m.Twalk, (5, 5, ("f",))), *writes(5), (m.Tclunk, (5,))],
            # a number that is in use when the second walk arrives
            [(m.Twalk, (1, 6, ("ctl",))), (m.Twalk, (1, 6, ("f",))), *writes(6), (m.Tclunk, (6,))],
            [(m.Twalk, (1, 7, ("sub",))), (m.Twalk, (7, 7, ("ctl",))), (m.Twalk, (7, 7, ("x",))), *writes(7)],
            # what it is opened or made as, and changed before that is answered
            [(m.Twalk, (1, 8, ())), (m.Tlcreate, (8, "ctl", os.O_RDONLY, 0o666, 0)), setattr_(8, 0)],
            [(m.Twalk, (1, 9, ("ctl",))), (m.Twalk, (9, 9, ("f",))), setattr_(9, 0)],
        ):
            await at_once(line, *attempt)
            assert any(c.relays for c in server.connections)
            assert bytes(stored.at("ctl").data) == b"settings"
            assert bytes(stored.at("sub/ctl").data) == b"deep"


async def test_what_needs_more_than_is_allowed_is_refused_here_and_written_down(tmp_path: Path) -> None:
    async with far(tmp_path, "deny * wcnd /a/**\n") as (server, line, stored):
        types = await at_once(line, (m.Twalk, (1, 2, ("f",))), (m.Tlopen, (2, os.O_RDONLY)), (m.Tread, (2, 0, 99)))
        assert types == [m.Rwalk.type, m.Rlopen.type, m.Rread.type]
        lines = list[str]()
        server.authority.audit.sinks.append(lines.append)
        for cls, fields in list[Request](
            [
                (m.Tlopen, (3, os.O_RDWR)),
                (m.Tlopen, (3, os.O_RDONLY | os.O_TRUNC)),
                setattr_(3, 0),
                (m.Tunlinkat, (1, "f", 0)),
                (m.Tmkdir, (1, "new", 0o777, 0)),
                (m.Tsymlink, (1, "new", "target", 0)),
                (m.Tmknod, (1, "new", 0o10777, 0, 0, 0)),
                (m.Tlink, (1, 3, "new")),
                (m.Trename, (3, 1, "new")),
                (m.Trenameat, (1, "f", 1, "new")),
                (m.Tremove, (3,)),
            ],
        ):
            await line.rpc(m.Twalk, 1, 1, 3, ("f",))
            said = await line.rpc(cls, 2, *fields)
            assert isinstance(said, m.Rlerror), cls
            assert said.ecode in (errno.EACCES, errno.EROFS, errno.EXDEV)
            await line.rpc(m.Tclunk, 3, 3)
            assert errno.errorcode[said.ecode] in lines.pop()
        assert sorted(stored.children) == ["clone", "ctl", "f", "sub"]
        assert bytes(stored.at("f").data) == b"text"


async def test_clone_takes_what_a_command_takes(tmp_path: Path) -> None:
    for rules, type_ in (("deny * wcnd /a/**\n", m.Rlerror.type), ("deny * wnd /a/**\n", m.Rlopen.type)):
        async with far(tmp_path, rules) as (_, line, _):
            types = await at_once(line, (m.Twalk, (1, 2, ("clone",))), (m.Tlopen, (2, os.O_RDONLY)))
            assert types == [m.Rwalk.type, type_]
        (tmp_path / "far").unlink(missing_ok=True)
