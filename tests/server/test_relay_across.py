"""Walks that cross into another server and are done again here: nothing of the first attempt is left, and the client sees one answer."""

from pathlib import Path
from typing import Any

import pytest

from mk9p.testing import Memory, until
from mk9p.wire import messages as m
from tests.server.relaying import a_tree, lab, pack, replies, walk
from tests.server.test_relay_owed import owing


async def test_no_answer_follows_the_answer_to_a_flush(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree(), Memory({"y": b"second"})) as found:
        await found.ns.run("bind /k0 /u\nbind -a /k1 /u\n")
        talk = await found.client(on=None)
        for part, name in (("k0", "x"), ("k1", "y"), ("u", "x")):
            await walk(talk, 0, 5, part, name)
            await talk.rpc(m.Tclunk, 1, 5)
        # the first part says that it has no `y`, and then that the flush is done
        await talk.raw(pack(m.Twalk, 1, 0, 5, ("u", "y")) + pack(m.Tflush, 2, 1) + pack(m.Tgetattr, 3, 5, 0x7FF))
        got: list[Any] = [await talk.receive() for _ in range(2)]
        assert {type(reply) for reply in got} == {m.Rflush, m.Rlerror}
        await walk(talk, 0, 5, "u", "y")  # the number is free, and nothing else comes


async def test_the_answer_has_the_clients_tag_when_an_old_answer_to_that_is_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mk9p.server.engine.PATIENCE", 0.05)
    async with owing(tmp_path) as (found, talk, _):
        await found.ns.run("bind /k0 /u\nbind -a /k0/d /u\n")
        for name in ("x", "f"):
            await walk(talk, 0, 6, "u", name)
            await talk.rpc(m.Tclunk, 1, 6)
        await talk.send(m.Tread, 10, 5, 0, 10)
        assert isinstance(await talk.rpc(m.Tflush, 11, 10), m.Rflush)
        reply = await talk.rpc(m.Twalk, 10, 0, 6, ("u", "f"))
        assert (type(reply), reply.tag) == (m.Rwalk, 10)


async def test_a_mount_point_that_is_to_be_removed_is_clunked_at_its_server(tmp_path: Path) -> None:
    async with lab(tmp_path, a_tree()) as found:
        talk = await found.client(on=None)
        await walk(talk, 0, 5, "k0")
        await talk.raw(pack(m.Twalk, 1, 0, 6, ("k0",)) + pack(m.Tremove, 2, 6))
        got = await replies(talk, 2)
        assert isinstance(got[2], m.Rlerror)
        await until(lambda: not any(6 in c.session.fids for c in found.hosts[0].server.connections))
        await walk(talk, 5, 6, "d")  # the number is free there
