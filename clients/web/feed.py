"""One look at the namespace for all who watch the page.

A task looks at each kernel, as for `mk9p top`: a slow or silent one holds up nothing, and its last figures stay with their age. Sections of the
picture are sent when they have changed. The files of events are followed, and each line is sent as it comes. While nobody watches, nothing is read
and no connection is kept.
"""

import errno
import json
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client, connect
from mk9p.client.client import address_of
from mk9p.clients.web import look
from mk9p.errors import NineError
from mk9p.tree import split

EVERY: Final = 2.0  # seconds between two looks at a kernel; many kernels are looked at more rarely
MANY: Final = 40  # kernels a second
AT_FIRST: Final = (
    250  # kernels a second, for the first time: not all at once, or the server answers nobody else meanwhile
)
PATIENCE: Final = 5.0  # seconds for a kernel's answers
AGAIN: Final = 2.0  # seconds between two attempts to reach the namespace
RARELY: Final = 5  # looks between two at what seldom changes: devices, settings
GRACE: Final = 5.0  # seconds that the connection stays when nobody watches any more: a tab is loaded again
KEPT: Final = 200  # lines of events for who comes later
EVENTS: Final = ("events", "kernels/events", "lease/events")
BEHIND: Final = 1000  # messages that somebody has not taken: then they begin anew


@attrs.define(eq=False)
class Watcher:
    """Somebody who watches."""

    queue: deque[tuple[str, str]] = attrs.field(factory=deque)
    bell: trio.Event = attrs.field(factory=trio.Event)
    behind: bool = False

    def put(self, kind: str, text: str) -> None:
        """Give them a message."""
        if len(self.queue) >= BEHIND:
            self.behind = True
            self.queue.clear()
        self.queue.append((kind, text))
        self.bell.set()

    async def get(self) -> list[tuple[str, str]]:
        """Wait for messages, and return all that there are."""
        while not self.queue:
            self.bell = trio.Event()
            await self.bell.wait()
        taken = list(self.queue)
        self.queue.clear()
        return taken


@attrs.define(eq=False)
class Feed:
    """What is known of the namespace, and who watches. `run` works until it is cancelled."""

    sections: dict[str, str] = attrs.field(factory=dict)
    lines: deque[str] = attrs.field(factory=lambda: deque(maxlen=KEPT))
    watchers: set[Watcher] = attrs.field(factory=set)
    client: Client | None = None
    every: float = EVERY
    _wanted: trio.Event = attrs.field(factory=trio.Event)
    _unwanted: trio.Event = attrs.field(factory=trio.Event)
    _came: trio.Event = attrs.field(factory=trio.Event)  # set when there is a connection
    _reasons: dict[str, str] = attrs.field(factory=dict)  # why a kernel is down, as the composer's events say
    _tasks: dict[str, trio.CancelScope] = attrs.field(factory=dict)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        """Watch while the block runs."""
        watcher = Watcher()
        for key, text in self.sections.items():
            watcher.put(key.partition(" ")[0], text)
        for line in self.lines:
            watcher.put("line", line)
        self.watchers.add(watcher)
        self._wanted.set()
        try:
            yield watcher
        finally:
            self.watchers.discard(watcher)
            if not self.watchers:
                self._wanted = trio.Event()
                self._unwanted.set()
                self._unwanted = trio.Event()

    @asynccontextmanager
    async def using(self) -> AsyncIterator[Client]:
        """Use the connection while the block runs. Raises EIO if there is none, and cannot be one soon."""
        async with self.watching():
            with trio.move_on_after(PATIENCE):
                while self.client is None:
                    await self._came.wait()
            if self.client is None:
                raise NineError(errno.EIO, "the namespace is away")
            yield self.client

    async def run(self) -> None:
        """Look while somebody watches."""
        while True:
            await self._wanted.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_unwanted, nursery.cancel_scope)
                nursery.start_soon(self._connected)

    async def _until_unwanted(self, scope: trio.CancelScope) -> None:
        while self.watchers:
            await self._unwanted.wait()
            with trio.move_on_after(GRACE):
                await self._wanted.wait()
        scope.cancel()

    async def _connected(self) -> None:
        """Look over one connection after the other."""
        address = address_of(None)
        while True:
            reason = ""
            try:
                async with connect() as client, trio.open_nursery() as nursery:
                    self.client, eyes = client, look.Eyes(client)
                    self._came.set()
                    self._came = trio.Event()
                    self._tell("server", {"address": address, "up": True, "who": await self._who(eyes)})
                    nursery.start_soon(self._look, eyes, nursery)
                    for path in EVENTS:
                        nursery.start_soon(self._follow, client, path)
                    reason = await client.wait_closed()
                    nursery.cancel_scope.cancel()
            except OSError as error:
                reason = str(error)
            except BaseExceptionGroup as group:
                if group.split(OSError)[1] is not None:
                    raise
                reason = str(group.exceptions[0])
            finally:
                self.client = None
                self._tasks = {}
            self._tell("server", {"address": address, "up": False, "reason": reason})
            await trio.sleep(AGAIN)

    async def _who(self, eyes: look.Eyes) -> str:
        text = await look.values(eyes, "auth/whoami")
        return text.get("principal", "")

    def _tell(self, kind: str, value: Any, of: str = "") -> None:
        """Tell everybody of a section, or of the part of it that is `of` something, if it has changed."""
        key, text = f"{kind} {of}" if of else kind, json.dumps(value, separators=(",", ":"))
        if self.sections.get(key) != text:
            self.sections[key] = text
            for watcher in self.watchers:
                watcher.put(kind, text)

    async def _follow(self, client: Client, path: str) -> None:
        """Pass on the lines of a file of events."""
        source = path.rpartition("/")[0] or "namespace"
        try:
            async for line in client.lines(path):
                words = split(line)
                if words[2:3] == ["down"] and len(words) == 5:
                    self._reasons[words[3]] = words[4]
                text = json.dumps({"from": source, "path": f"/{path}", "text": line}, separators=(",", ":"))
                if text not in self.lines:
                    self.lines.append(text)
                    for watcher in self.watchers:
                        watcher.put("line", text)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return

    async def _look(self, eyes: look.Eyes, nursery: trio.Nursery) -> None:
        """Look at the table, the lives of kernels and the traffic; start and end the tasks that look at each kernel."""
        before: dict[str, Any] | None = None
        at, count = 0.0, 0
        while True:
            begun = trio.current_time()
            top = set(await look.names(eyes, "/"))
            if "k" in top:
                places = {name: f"k/{name}/" for name in await look.names(eyes, "k")}
            else:
                places = {(await look.values(eyes, "status")).get("name", "kernel"): ""}
            machines = await look.machines(eyes) if "kernels" in top else {}
            self._watch(eyes, nursery, places)
            traffic = await look.traffic(eyes)
            traffic["rates"] = look.rates(before, traffic["counts"], begun - at)
            before, at = traffic["counts"], begun
            if count % RARELY == 0:
                lives = {name: await look.life(eyes, name) for name in machines}
            self._tell(
                "lives",
                {
                    name: {**machine, **lives.get(name, {"given": []}), "path": f"/kernels/{name}/status"}
                    for name, machine in machines.items()
                },
            )
            self._tell("pool", await look.pool(eyes) if machines else {})
            self._tell("leases", await look.leases(eyes) if "lease" in top else [])
            self._tell("traffic", traffic)
            self._tell("mounts", await look.mounts(eyes) if "ns" in top else [])
            self._tell("kernels", list(places))
            count += 1
            await trio.sleep_until(begun + self.every)

    def _watch(self, eyes: look.Eyes, nursery: trio.Nursery, places: dict[str, str]) -> None:
        for name in [name for name in self._tasks if name not in places]:
            self._tasks.pop(name).cancel()
            self.sections.pop(f"kernel {name}", None)
        begin = 0.0
        for name, at in places.items():
            if name not in self._tasks:
                scope = self._tasks[name] = trio.CancelScope()
                nursery.start_soon(self._look_at, eyes, name, at, scope, begin)
                begin += 1 / AT_FIRST

    async def _look_at(self, eyes: look.Eyes, name: str, at: str, scope: trio.CancelScope, begin: float) -> None:
        """Look at one kernel again and again, for the first time after `begin` seconds."""
        seen: dict[str, Any] = {}
        when, count = 0.0, 0
        with scope:
            await trio.sleep(begin)
            while True:
                begun = trio.current_time()
                state, reason = "silent", f"no answer within {PATIENCE:g} s"
                with trio.move_on_after(PATIENCE):
                    try:
                        now = await look.kernel(eyes, at)
                        if count % RARELY == 0 or "devices" not in seen:
                            now["devices"] = await look.devices(eyes, at)
                        else:
                            now["devices"] = seen["devices"]
                        now["rates"] = look.rates(seen.get("counts"), now["counts"], begun - when)
                        seen, when, count = now, begun, count + 1
                        state, reason = "up", ""
                    except OSError as error:
                        if eyes.ns.closed.is_set():
                            return
                        state, reason = "down", self._reasons.get(name, error.strerror or str(error))
                age = 0 if state == "up" else math.floor(trio.current_time() - when) if when else None
                told = {key: value for key, value in seen.items() if key != "counts"}
                self._tell(
                    "kernel",
                    {"name": name, **told, "at": f"/{at}", "state": state, "reason": str(reason), "age": age},
                    name,
                )
                await trio.sleep_until(begun + max(self.every, len(self._tasks) / MANY))
