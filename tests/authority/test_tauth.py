"""Tauth, for clients that know it, and the login before a client that does not."""

import errno
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p import testing
from mk9p.authority.grants import Terms, narrow
from mk9p.clients.login import login
from mk9p.dial import SocketLink
from mk9p.errors import NineError
from mk9p.testing import PRIVATE, Line
from mk9p.wire import NOFID, NONUNAME, QTDIR, Dialect
from mk9p.wire import messages as m
from mk9p.wire.const import QTAUTH
from tests.authority.test_capabilities import ANN, STRANGER, Served, composed, served

ALL = list(Dialect)


def line(it: Served, dialect: Dialect, policy: Any = STRANGER) -> Line:
    sock = testing.joined(it.server, policy=policy)
    return Line(trio.SocketStream(trio.socket.from_stdlib_socket(sock)), dialect)


async def version(client: Line) -> None:
    reply = await client.rpc(m.Tversion, 0xFFFF, 8192, client.dialect.version)
    assert isinstance(reply, m.Rversion)


def number(client: Line) -> tuple[int, ...]:
    return () if client.dialect is Dialect.P9 else (NONUNAME,)


async def auth(client: Line, afid: int, aname: str = "cap!", uname: str = "ann") -> Any:
    return await client.rpc(m.Tauth, 1, afid, uname, aname, *number(client))


async def attach(client: Line, fid: int, afid: int = NOFID, aname: str = "cap!", uname: str = "ann") -> Any:
    return await client.rpc(m.Tattach, 1, fid, afid, uname, aname, *number(client))


def refused(reply: Any, code: int, words: str) -> None:
    if isinstance(reply, m.Rlerror):
        assert reply.ecode == code
    else:
        assert isinstance(reply, m.Rerror), reply
        assert words in reply.ename


@pytest.mark.parametrize("dialect", ALL)
async def test_a_client_writes_the_capability_and_attaches_with_the_afid(tmp_path: Path, dialect: Dialect) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r to ann")
        client = line(it, dialect, ANN)
        async with client.stream:
            await version(client)
            told = await auth(client, 5)
            assert told.aqid.type == QTAUTH
            assert (await client.rpc(m.Twrite, 1, 5, 0, text.encode())).count == len(text)
            assert (await client.rpc(m.Tread, 1, 5, 0, 99)).data == b""
            reply = await attach(client, 1, 5)
            assert reply.qid.type == QTDIR
            assert isinstance(await client.rpc(m.Tclunk, 1, 5), m.Rclunk)
            assert isinstance(await client.rpc(m.Twalk, 1, 1, 2, ("status",)), m.Rwalk)
            missing = await client.rpc(m.Twalk, 1, 1, 3, ("..", "fs"))
            assert not isinstance(missing, m.Rwalk) or len(missing.qids) < 2


@pytest.mark.parametrize("dialect", ALL)
async def test_a_text_in_pieces_and_a_tree_below(tmp_path: Path, dialect: Dialect) -> None:
    async with served(tmp_path) as it:
        text = (await it.say("grant /k/k1 r") + "\n").encode()
        client = line(it, dialect)
        async with client.stream:
            await version(client)
            await auth(client, 5, "cap!/cpu")
            for at in range(0, len(text), 100):
                piece = text[at : at + 100]
                assert (await client.rpc(m.Twrite, 1, 5, at, piece)).count == len(piece)
            assert isinstance(await attach(client, 1, 5, "cap!/cpu"), m.Rattach)
            assert isinstance(await client.rpc(m.Twalk, 1, 1, 2, ("status",)), m.Rwalk)


@pytest.mark.parametrize("dialect", ALL)
async def test_for_every_other_tree_none_is_needed(tmp_path: Path, dialect: Dialect) -> None:
    async with served(tmp_path) as it:
        client = line(it, dialect, ANN)
        async with client.stream:
            await version(client)
            for aname in ("", "/", "k/k1", "cap", "cap!x", "x/cap!"):
                refused(await auth(client, 5, aname), errno.ENOENT, "authentication not required")
            assert isinstance(await attach(client, 1, NOFID, ""), m.Rattach)


@pytest.mark.parametrize("dialect", ALL)
async def test_an_afid_gives_nothing_by_itself(tmp_path: Path, dialect: Dialect) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r to ann")
        client = line(it, dialect, ANN)
        async with client.stream:
            await version(client)
            await auth(client, 5)
            refused(await attach(client, 1, 5), errno.EACCES, "no capability was written")
            refused(await attach(client, 1), errno.EACCES, "nobody has shown a capability")
            await client.rpc(m.Twrite, 1, 5, 0, text.encode())
            refused(await attach(client, 1), errno.EACCES, "nobody has shown a capability")
            refused(await attach(client, 1, 5, "cap!/status"), errno.EACCES, "another user, or to another tree")
            refused(await attach(client, 1, 5, uname="bob"), errno.EACCES, "another user, or to another tree")
            refused(await attach(client, 1, 6), errno.EBADF, "unknown fid")
            refused(await attach(client, 5, 5), errno.EEXIST, "fid already in use")
            for names in ((), ("status",), ("..",)):
                walked = await client.rpc(m.Twalk, 1, 5, 7, names)
                if isinstance(walked, m.Rwalk):
                    assert names == ()
                    refused(await attach(client, 1, 7), errno.EBADF, "unknown fid")
            assert isinstance(await attach(client, 1, 5), m.Rattach)
            refused(await attach(client, 2, 1), errno.EBADF, "unknown fid")


async def test_what_is_written_must_be_a_capability_that_holds(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r to ann")
        client = line(it, Dialect.U, ANN)
        async with client.stream:
            await version(client)
            await auth(client, 5)
            refused(await client.rpc(m.Twrite, 1, 5, 9, b"x"), errno.EMSGSIZE, "so long")
            refused(await client.rpc(m.Twrite, 1, 5, 0, b"\xff"), errno.EINVAL, "ASCII")
            refused(await client.rpc(m.Twrite, 1, 5, 0, b"x" * 5000), errno.EMSGSIZE, "so long")
            for wrong, said in (
                (b"x", "no capability"),
                (f"{text}/..".encode(), "no capability"),
                (b"cap!x", "no cap"),
            ):
                await client.rpc(m.Twrite, 1, 5, 0, wrong)
                refused(await attach(client, 1, 5), errno.EACCES, said)
            await client.rpc(m.Twrite, 1, 5, 0, narrow(text, Terms(to="ann", ops="r")).encode())
            assert isinstance(await attach(client, 1, 5), m.Rattach)
            it.ledger.revoke(text, "root")
            refused(await attach(client, 2, 5), errno.EACCES, "is revoked")


async def test_afids_are_few(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        client = line(it, Dialect.U, ANN)
        async with client.stream:
            await version(client)
            assert isinstance(await auth(client, 5), m.Rauth)
            refused(await auth(client, 6), errno.EMFILE, "Too many open files")
            refused(await auth(client, 5), errno.EEXIST, "in use")
            await attach(client, 0, NOFID, "")
            for afid in (6, 7, 8):
                assert isinstance(await auth(client, afid), m.Rauth)
            refused(await auth(client, 9), errno.EMFILE, "Too many open files")
            await client.rpc(m.Tclunk, 1, 5)
            assert isinstance(await auth(client, 9), m.Rauth)
            refused(await auth(client, NOFID), errno.EBADF, "unknown fid")


async def test_a_login_holds_for_the_conversation_that_follows_on_the_same_line(tmp_path: Path) -> None:
    """As v9fs begins one: Tversion, and an attach to `cap!` without an afid, and another for each user."""
    async with composed(tmp_path) as (it, _):
        text = it.ledger.grant(Terms.of("/k/k1", "r"), "root", 0).text
        sock = testing.joined(it.server, policy=STRANGER)
        link = SocketLink(sock, PRIVATE)
        await login(link, text, None)
        client = Line(trio.SocketStream(trio.socket.from_stdlib_socket(sock.dup())), Dialect.L)
        async with client.stream:
            await version(client)
            for fid, uname, number in ((0, "root", NONUNAME), (1, "", 41001), (2, "", 0)):
                assert isinstance(await client.rpc(m.Tattach, 1, fid, NOFID, uname, "cap!", number), m.Rattach)
                assert isinstance(await client.rpc(m.Twalk, 1, fid, fid + 9, ("cpu", "status")), m.Rwalk)
            assert isinstance(await client.rpc(m.Tattach, 1, 3, NOFID, "root", "cap!/cpu", 0), m.Rattach)
            refused(await client.rpc(m.Tattach, 1, 4, NOFID, "root", "cap!/..", 0), errno.EINVAL, "")
            await version(client)  # another program has the line, perhaps
            refused(await client.rpc(m.Tattach, 1, 5, NOFID, "root", "cap!", 0), errno.EACCES, "")
            await login(link, text, None)
            await version(client)
            assert isinstance(await client.rpc(m.Tattach, 1, 5, NOFID, "root", "cap!", 0), m.Rattach)
            it.ledger.revoke(text, "root")
            refused(await client.rpc(m.Tattach, 1, 6, NOFID, "root", "cap!", 0), errno.EACCES, "")
        link.close()


async def test_a_login_that_is_refused_says_why(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        text = await it.say("grant /k/k1/cpu r for 60")
        it.clock.now += 60
        for wrong, said in ((text, "it ended at"), ("x", "it is no capability")):
            link = SocketLink(testing.joined(it.server, policy=STRANGER), PRIVATE)
            with pytest.raises(NineError, match=said):
                await login(link, wrong, None)
            link.close()
        it.server.authority.verifier = None
        link = SocketLink(testing.joined(it.server, policy=STRANGER), PRIVATE)
        with pytest.raises(NineError, match="the server takes no capability"):
            await login(link, text, None)
        link.close()
