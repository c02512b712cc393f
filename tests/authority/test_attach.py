"""What an attach with a capability gives: its subtree with its OPS, by every dialect, here and on other servers, and only while it lives."""

import errno
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mk9p.auth import NONE, Principal, Scope, Told
from mk9p.authority.deciding import Authority
from mk9p.authority.files import Auth
from mk9p.client import connect
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.scope import cleaned, ops_of
from mk9p.server import Server
from mk9p.testing import SOON, Memory, serving, serving_at, until
from mk9p.testing.serving import address_of
from mk9p.tree import Ctl, Dir
from tests.servers.trees import names

HOUR = 3600 * 10**9


@attrs.define
class Written:
    """Takes a capability at its word: `PATH OPS [SECONDS]`, with `_` for the slashes and blanks."""

    known: list[Principal] = attrs.field(factory=list)

    def verify(self, text: str, known: Principal, peer: Told) -> Principal:
        self.known.append(known)
        path, ops, *more = text.split("~") if "~" in text else ("", "")
        if not path:
            raise NineError(errno.EACCES, "not a capability")
        until = time.time_ns() + int(float(more[0]) * 1e9) if more else None
        scope = Scope(cleaned(path.replace("_", "/")), ops_of(ops), until, (text,), as_root=True)
        return Principal("ops", NONE.uid, proof="token", scope=scope)


def tree() -> tuple[Dir, Memory, list[str]]:
    """Return a tree, its stored part, and what was written to its ctl."""
    done: list[str] = []
    stored = Memory({"f": "text", "sub": {"deep": "deep text"}, "my.ctl": "settings"}, mode=0o755)
    return Dir({"data": stored, "ctl": Ctl({"do": done.append}), "other": Memory({"secret": "x"})}), stored, done


@asynccontextmanager
async def served(**more: Any) -> AsyncIterator[tuple[Server, Memory, list[str]]]:
    root, stored, done = tree()
    with trio.fail_after(SOON):
        async with serving(root, authority=Authority(Written()), **more) as server:
            yield server, stored, done


async def refused(what: Any) -> int:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which is looked at by who asks
        await what
    return caught.value.errno or 0


async def test_a_capability_gives_its_subtree_with_its_ops_and_nothing_else() -> None:
    async with served() as (server, stored, _), connect(address_of(server), aname="cap!_data~r") as client:
        assert sorted(await names(client)) == ["f", "my.ctl", "sub"]
        assert await client.read("f") == "text"
        assert await client.read("sub/deep") == "deep text"
        assert await client.read("../../f") == "text"  # `..` of its root is its root
        assert await refused(client.walk("../other")) == errno.ENOENT
        for change in (
            client.write("f", "no"),
            client.write("my.ctl", "no"),
            client.create("new", 0o666),
            client.mkdir("new", 0o777),
            client.remove("f"),
            client.rename("f", "g"),
        ):
            assert await refused(change) in (errno.EROFS, errno.EACCES)
        assert (bytes(stored.at("f").data), sorted(stored.children)) == (b"text", ["f", "my.ctl", "sub"])


async def test_each_letter_allows_what_it_says() -> None:
    async with served() as (server, stored, done):
        async with connect(address_of(server), aname="cap!_~rc") as client:
            await client.write("ctl", "do this")
            assert done == ["this"]
            await client.write("data/my.ctl", "new")
            assert await refused(client.write("data/f", "no")) == errno.EACCES
        async with connect(address_of(server), aname="cap!_data~w") as client:
            await client.write("f", "changed")
            assert await refused(client.read("f")) == errno.EACCES
            assert await refused(client.write("my.ctl", "no")) == errno.EACCES
            assert await refused(client.listdir("sub")) == errno.EACCES
        async with connect(address_of(server), aname="cap!_data~wn") as client:
            async with await client.create("new", 0o644) as file:
                await file.write(b"mine")
            assert await refused(client.remove("new")) == errno.EACCES
            assert await refused(client.rename("new", "newer")) == errno.EACCES
        async with connect(address_of(server), aname="cap!_data~nd") as client:
            await client.rename("new", "sub/moved")
            await client.remove("sub/moved")
        assert bytes(stored.at("f").data) == b"changed"


async def test_a_path_may_follow_a_capability() -> None:
    async with served() as (server, _, _):
        async with connect(address_of(server), aname="cap!_data~r/sub") as client:
            assert await client.read("deep") == "deep text"
        with pytest.raises(OSError, match="Invalid argument"):
            async with connect(address_of(server), aname="cap!_data~r/../other"):
                pass


async def test_what_is_no_capability_is_refused_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as (server, _, _):
        for aname in ("cap!", "cap!~verysecret"):
            with pytest.raises(PermissionError):
                async with connect(address_of(server), aname=aname):
                    pass
        with pytest.raises(PermissionError):
            async with connect(address_of(server), aname="cap!_data~r~-1"):
                pass
    assert "attach" in caplog.text
    assert "secret" not in caplog.text
    async with serving(Dir({})) as server:
        with pytest.raises(PermissionError):
            async with connect(address_of(server), aname="cap!_data~r"):
                pass


async def test_a_revoked_capability_ends_its_sessions_and_no_others() -> None:
    async with (
        served() as (server, _, _),
        connect(address_of(server), aname="cap!_data~r") as one,
        connect(address_of(server), aname="cap!_data~rw") as two,
        connect(address_of(server)) as three,
    ):
        assert await one.read("f") == "text"
        assert server.authority.end(lambda who: who.scope is not None and who.scope.revoked(["_data~r"]), "x") == 1
        await until(lambda: len(server.connections) == 2)
        assert await refused(one.read("f")) != 0
        assert await two.read("f") == await three.read("data/f") == "text"


async def test_an_expired_capability_ends_its_sessions() -> None:
    async with served() as (server, _, _), connect(address_of(server), aname="cap!_data~r~0.3") as client:
        assert await client.read("f") == "text"
        await until(lambda: not server.connections)


async def test_whoami_tells_who_one_is() -> None:
    authority = Authority(Written())
    auth = Auth(authority)
    async with serving(Dir({"auth": auth.tree(), "data": Memory({})}), authority=authority) as server:
        async with connect(address_of(server), uname="root") as client:
            assert await client.read("auth/whoami") == "principal root\nproof private\nsubtree /\nops rwcnd\n"
        async with connect(address_of(server), aname="cap!_auth~rc") as client:
            assert await client.read("whoami") == "principal ops\nproof token\nsubtree /auth\nops rc\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has the files of others to give")
@pytest.mark.parametrize("ops", ["rwcnd", "r"])
@pytest.mark.parametrize("top", ["_k_k1", "_k_k1_data", "_", "_k_k1_data_sub"])
async def test_a_capability_holds_on_other_servers(tmp_path: Path, ops: str, top: str) -> None:
    root, stored, done = tree()
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            async with serving_at(f"unix!{tmp_path}/k1", Dir({"data": stored, **root.children[0]})) as far:
                ns = namespace(nursery)
                ns.mount(far.address, "/k/k1")
                async with serving(ns.root, authority=Authority(Written())) as server:
                    await held(server, ops, top, stored, done)
            nursery.cancel_scope.cancel()


async def held(server: Server, ops: str, top: str, stored: Memory, done: list[str]) -> None:
    path = top.replace("_", "/").rstrip("/")
    below = "/k/k1/data/sub/deep".removeprefix(path).lstrip("/")
    async with connect(address_of(server), aname=f"cap!{top}~{ops}") as client:
        assert await client.read(below) == "deep text"
        assert any(c.backends for c in server.connections), "what is allowed throughout goes the fast way"
        writing = [client.write(below, "changed"), client.create(f"{below}er", 0o600)]
        for change in writing:
            if ops == "r":
                assert await refused(change) == errno.EROFS
            else:
                await change
        if path.startswith("/k/k1/data"):
            for up in ("..", "../..", "../../.."):
                assert await refused(client.walk(f"{up}/other/secret")) == errno.ENOENT
                assert await refused(client.walk(f"{up}/ctl")) == errno.ENOENT
        elif ops == "rwcnd":
            await client.write("ctl" if path else "k/k1/ctl", "do that")
            assert done == ["that"]
    assert bytes(stored.at("sub/deep").data) == (b"changed" if ops == "rwcnd" else b"deep text")
