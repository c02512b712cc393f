"""Kernels in this process, each with commands and channels, and the task forces of a namespace of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from mk9p.auth import Principal
from mk9p.client import Client
from mk9p.clients.common import say_to
from mk9p.composing import namespace
from mk9p.loading import available
from mk9p.testing import SOON, mounted, serving_at
from mk9p.testing.serving import Host
from mk9p.tree import Dir, Node, Text, split

FACTS = {"k1": "arch x86_64\ncpus 2\n", "k2": "arch x86_64\ncpus 2\n", "k3": "arch aarch64\ncpus 1\nrelease 6.12.1\n"}


@attrs.define(eq=False)
class Force:
    """One conversation of `tf`."""

    client: Client
    number: str
    ctl: Any
    stack: AsyncExitStack

    async def say(self, words: str) -> None:
        await say_to(self.client, self.ctl, f"tf/{self.number}/ctl", words)

    async def data(self) -> Any:
        return await self.stack.enter_async_context(await self.client.open(f"tf/{self.number}/data"))

    async def read(self, name: str) -> str:
        with trio.fail_after(SOON):
            return await self.client.read(f"tf/{self.number}/{name}")

    async def ended(self) -> str:
        """Return why it ended, "" for the end of all its tasks."""
        return split(await self.read("wait"))[2]

    async def events(self, what: str) -> list[list[str]]:
        """Return the words of the events of a kind, after it has ended."""
        found = []
        async for line in self.client.lines(f"tf/{self.number}/log"):
            _, _, kind, *words = split(line)
            if kind == what:
                found.append(words)
            if kind in ("done", "failed"):
                break
        return found


@attrs.define(eq=False)
class Lab:
    """The kernels by name, and a client of the namespace's `tf`."""

    hosts: dict[str, Host]
    client: Client
    tf: Node

    @asynccontextmanager
    async def force(self, *lines: str, start: bool = True) -> AsyncIterator[Force]:
        """Begin a force of a graph, and start it."""
        async with AsyncExitStack() as stack:
            ctl = await stack.enter_async_context(await self.client.open("tf/clone", "r+"))
            number = (await ctl.pread(99, 0)).decode().strip()
            force = Force(self.client, number, ctl, stack)
            if lines:
                await self.client.write(f"tf/{number}/graph", "\n".join(lines))
            if start:
                with trio.fail_after(SOON):
                    await force.say("start")
            yield force


@asynccontextmanager
async def lab(
    folder: Path,
    names: tuple[str, ...] = ("k1", "k2", "k3"),
    more: Callable[[], AbstractAsyncContextManager[dict[str, Node]]] | None = None,
    **options: Any,
) -> AsyncIterator[Lab]:
    """Give such kernels; `more` are further parts of each."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        ns = namespace(nursery)
        hosts = {}
        for name in names:
            cmd = await stack.enter_async_context(available()["cmd"].load()(grace=0.5))
            parts = await stack.enter_async_context(more()) if more is not None else {}
            tree = Dir({"cmd": cmd, "chan": available()["chan"].load()(), "status": Text(FACTS[name])}, parts)
            hosts[name] = await stack.enter_async_context(serving_at(f"unix!{folder}/{name}", tree))
            ns.mount(hosts[name].address, f"/k/{name}")

        def reach(who: Principal) -> Node:
            return ns.root

        tf = await stack.enter_async_context(available()["tf"].load()(reach, **options))
        yield Lab(hosts, await stack.enter_async_context(mounted(Dir({"tf": tf}))), tf)
        await stack.aclose()
        nursery.cancel_scope.cancel()
