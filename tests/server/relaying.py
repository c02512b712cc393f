"""A server, and a composer in front of it: the fast way (relay.py) between the two, and the general one, made with real sockets and in one run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from mk9p.compose.namespace import Namespace
from mk9p.compose.remote import Remote
from mk9p.composing import namespace
from mk9p.server import Limits, Server
from mk9p.server.connection import Connection
from mk9p.testing import SOON, Host, Memory, until
from mk9p.tree import Node
from mk9p.wire import Dialect, codec
from mk9p.wire import messages as m
from tests.server.talk import Talk, serving, talk_to

ON = 1  # the fid of the mount point, in the tests


def a_tree() -> Memory:
    """Return `x`, and `d` with `f`, `e/g` and `e/h/i`."""
    return Memory({"x": b"on top", "d": {"f": b"0123456789", "e": {"g": b"g's", "h": {"i": b"deep"}}}})


@attrs.define(eq=False)
class Lab:
    """Hosts mounted at /k0, /k1 ... of a namespace that `front` serves."""

    hosts: list[Host]
    ns: Namespace
    front: Server

    async def client(self, *, on: str | None = "k0", uname: str = "root", msize: int = 65536, **more: Any) -> Talk:
        """Return a new client, whose fid 0 is the namespace's root, and ON the mount point."""
        talk = await talk_to(self.front, **more, uname=uname, msize=msize)
        if on is not None:
            await walk(talk, 0, ON, on)
        return talk

    @property
    def crossings(self) -> list[Connection]:
        """The front's connections that have fids elsewhere."""
        return [c for c in self.front.connections if c.relays]


@asynccontextmanager
async def lab(
    tmp_path: Path, *trees: Node, fast: bool = True, flags: str = "-c", msize: int | None = None
) -> AsyncIterator[Lab]:
    """Serve trees, and in front of them a namespace; `fast=False`: as if they could be dialled only once."""
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            limits = Limits(msize=msize) if msize else None
            hosts = [Host(nursery, f"unix!{tmp_path}/{i}", tree, limits=limits) for i, tree in enumerate(trees)]
            ns = namespace(nursery)
            for number, host in enumerate(hosts):
                await host.start()
                await ns.run(f"mount {flags} {host.address} /k{number}\n")
                far = ns.table.points[f"/k{number}"][0].node
                assert isinstance(far, Remote)
                far.server.backoff = 0
                if not fast:
                    far.server.many = False
            async with serving(ns.root) as front:
                yield Lab(hosts, ns, front)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def with_client(tmp_path: Path, *trees: Node, **options: Any) -> AsyncIterator[tuple[Lab, Talk]]:
    """Do as `lab`, and give a client too, which has the first host's mount point as ON."""
    async with lab(tmp_path, *trees, **options) as found:
        yield found, await found.client()


async def only(host: Host, count: int) -> None:
    """Wait until a host has so many connections."""
    await until(lambda: len(host.server.connections) == count)


async def walk(talk: Talk, fid: int, newfid: int, *names: str, tag: int = 1) -> Any:
    reply = await talk.rpc(m.Twalk, tag, fid, newfid, names)
    assert isinstance(reply, m.Rwalk), reply
    assert len(reply.qids) == len(names), reply
    return reply


async def opened(talk: Talk, newfid: int, *names: str, flags: int = 0, fid: int = ON) -> None:
    await walk(talk, fid, newfid, *names)
    reply = await talk.rpc(m.Tlopen, 1, newfid, flags)
    assert isinstance(reply, m.Rlopen), reply


async def read(talk: Talk, fid: int, offset: int = 0, count: int = 8192, tag: int = 1) -> bytes:
    reply = await talk.rpc(m.Tread, tag, fid, offset, count)
    assert isinstance(reply, m.Rread), reply
    return bytes(reply.data)


async def cat(talk: Talk, *names: str, fid: int = ON, newfid: int = 99) -> bytes:
    await opened(talk, newfid, *names, fid=fid)
    data = await read(talk, newfid)
    assert isinstance(await talk.rpc(m.Tclunk, 1, newfid), m.Rclunk)
    return data


async def fails(talk: Talk, cls: type[m.Message], *fields: Any, tag: int = 1) -> int:
    """Return the errno of the refusal of a request."""
    reply = await talk.rpc(cls, tag, *fields)
    assert isinstance(reply, m.Rlerror), reply
    return reply.ecode


def pack(cls: type[m.Message], tag: int, *fields: Any) -> bytes:
    return codec(Dialect.L, cls.type).pack(tag, *fields)


async def replies(talk: Talk, count: int) -> dict[int, Any]:
    """Return the next replies by their tags."""
    found: dict[int, Any] = {}
    for _ in range(count):
        reply: Any = await talk.receive()
        assert reply.tag not in found
        found[reply.tag] = reply
    return found
