"""`Kernels`: the kernels of `kernels/` in a namespace. Each is mounted when it serves, and let in to what it was granted."""

import logging
import time
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from typing import Final

import attrs
import trio

from mk9p.auth import ROOT, GuestPolicy
from mk9p.compose.granted import Grant, View
from mk9p.compose.heeded import read_text
from mk9p.compose.namespace import Namespace
from mk9p.compose.rights import Held, Right
from mk9p.compose.table import Flags
from mk9p.dial import Listener, hang_up, listen
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.server import Server
from mk9p.serving import OnlyRoot
from mk9p.tree import Handle, Log, Node, Open, settle
from mk9p.tree import split as words_of
from mk9p.tree.words import lines as whole_lines
from mk9p.wire import QTDIR

log = logging.getLogger("mk9p.compose")

AGAIN: Final = 5.0  # seconds until a kernel that could not be mounted is tried again
RESTARTED: Final = "restarted"  # the event of events that begin anew (recovery/again.py)
RUNS: Final = frozenset({"loaded", "active", "silent", "frozen"})  # states of a kernel that may have a process
# events of a kernel that is gone
_ENDED: Final = frozenset({"dead", "failed", "halted", "killed", "panicked", "rebooted"})


@attrs.define(eq=False)
class Kernels:
    """What the composer does for kernels that come: it mounts them, and admits them."""

    tree: Node
    ns: Namespace
    server: Server
    nursery: trio.Nursery
    wait: int = 0  # seconds that requests wait for a kernel that is down
    listening: dict[str, trio.CancelScope] = attrs.field(factory=dict)
    dialled: dict[str, str] = attrs.field(factory=dict)  # by kernel: where its present life serves
    mounted: dict[str, str] = attrs.field(factory=dict)  # by kernel: what the composer mounted for it
    views: dict[str, View] = attrs.field(factory=dict)  # by kernel: what its present life sees
    roots: dict[str, Node] = attrs.field(factory=dict)  # … and the root of that
    heeding: trio.Lock = attrs.field(factory=trio.Lock)  # grants are taken as they were read

    async def watch(self) -> None:
        """Follow the events of `kernels/` until cancelled."""
        node = await settle(self.tree.walk("events", ROOT))
        if isinstance(node, Log):
            node.heard.append(self._heard)
        events: Handle = await settle(node.open(Open(ROOT)))
        offset = since = 0
        if not isinstance(node, Log):  # of another process, whose kernels may have begun long before this one
            since = time.time_ns()
            await self._look()
        while data := bytes(await settle(events.read(offset, 1 << 16))):
            offset += len(data)
            for line in split_lines(data.decode()):
                _, when, what, *args = words_of(line)
                if int(when) < since:
                    continue
                if what in ("granted", "ungranted") and not isinstance(node, Log):
                    await self.heed()
                if what == RESTARTED:
                    self._forget()
                    await self._look()
                elif what in ("started", "active") and args:
                    await self._came(what, args[0])
                elif what in _ENDED and args:
                    self._leave(args[0])
                    if args[0] in self.dialled:
                        hang_up(self.dialled.pop(args[0]))
                elif what == "deleted" and args and args[0] in self.mounted:
                    with suppress(NineError):  # somebody has unmounted it
                        self.ns.unmount(f"/k/{args[0]}", self.mounted.pop(args[0]))

    async def _look(self) -> None:
        """Take the kernels that are there already."""
        for name, node in await settle(self.tree.entries(ROOT)):
            if not node.qtype & QTDIR:
                continue
            with suppress(OSError):  # it has no life, or has just been deleted
                text = await read_text(self.tree, f"{name}/status")
                state = dict(line.partition(" ")[::2] for line in split_lines(text)).get("state")
                for what in ("started", "active") if state in RUNS else ():
                    if what == "started" or state == "active":
                        await self._came(what, name)
                if any(item.what == self.dialled.get(name) for item in self.ns.table.points.get(f"/k/{name}", ())):
                    self.mounted[name] = self.dialled[name]  # by this composer, before it was killed

    def _forget(self) -> None:
        """Hang up on all kernels: what held them has ended, and they with it."""
        for name in [*self.listening, *self.dialled]:
            self._leave(name)
            if name in self.dialled:
                hang_up(self.dialled.pop(name))

    def _heard(self, what: str, args: tuple[object, ...]) -> None:
        """Take a change of grants before the word that makes it is answered: when it is, the guest has what it says, and no more."""
        view = self.views.get(str(args[0])) if args else None
        if view is None:
            return
        if what == "granted":
            view.allow(Grant.parse(map(str, args[1:])))
        elif what == "ungranted":
            view.withdraw(str(args[1]))

    async def heed(self) -> None:
        """Take what the guests are granted now: an event may be late, and then it tells what was granted before."""
        async with self.heeding:
            for name, view in list(self.views.items()):
                try:
                    view.become(await self._grants(name))
                except FileNotFoundError:
                    pass  # it was deleted just now
                except NineError as error:
                    log.warning("what %s is granted is not known: %s", name, error)

    async def _came(self, what: str, name: str) -> None:
        try:
            text = await read_text(self.tree, f"{name}/status")
            status = dict(line.partition(" ")[::2] for line in split_lines(text))
            if what == "started" and status.get("listen"):
                await self._let_in(name, status["listen"])
        except FileNotFoundError:
            return  # deleted meanwhile
        if what == "active" and status.get("dial"):
            self.dialled[name] = status["dial"]
            if not self.ns.table.points.get(f"/k/{name}"):
                wait = int(status.get("wait") or 0) or self.wait
                flags = Flags(wait=wait, untrusted=status.get("trust") != "on")
                try:
                    self.ns.mount(status["dial"], f"/k/{name}", flags=flags)
                except NineError as error:  # a full disk, where the table is kept: that is no reason to end
                    log.warning("%s cannot be mounted yet: %s", name, error)
                    self.nursery.start_soon(self._come_later, name)
                    return
                self.mounted[name] = status["dial"]

    async def _come_later(self, name: str) -> None:
        await trio.sleep(AGAIN)
        await self._came("active", name)

    async def _grants(self, name: str) -> list[Grant]:
        """Return what a kernel's settings grant it now."""
        config = await read_text(self.tree, f"{name}/config")
        # a script of `boot` may have several lines, and none of them grants anything
        found = [words_of(line) for line in whole_lines(config)]
        return [Grant.parse(words[1:]) for words in found if words[:1] == ["grant"]]

    def own(self, name: str) -> Node | None:
        """Return the root of a kernel's tree, if it is mounted where the composer mounted it; that of the namespace for no name."""
        if not name:
            return self.ns.root
        address = self.mounted.get(name)
        items = self.ns.table.points.get(f"/k/{name}", ())
        return next((item.node for item in items if item.kind == "mount" and item.what == address), None)

    def _leave(self, name: str) -> None:
        """End what a life of a kernel had here: its listener, and its sessions, whatever their transport notices."""
        self.views.pop(name, None)
        listening, root = self.listening.pop(name, None), self.roots.pop(name, None)
        if listening is not None:
            listening.cancel()
        for c in [c for c in self.server.connections if root is not None and c.root is root]:
            c.hang_up("its kernel has ended")

    async def _let_in(self, name: str, address: str) -> None:
        """Listen for one kernel on its private link: it proves which guest it is, and nothing more."""
        self._leave(name)
        policy = GuestPolicy(kernel=name)
        view = self.views[name] = View(self.ns, name, policy.guest, [], partial(self.own, name))
        root = self.roots[name] = view.tree()
        view.on_less = partial(self._withdraw, root)
        try:
            for grant in await self._grants(name):
                view.allow(grant)
            listener = await listen(address)
        except OSError as error:
            log.warning("%s cannot reach the namespace: %s", name, error)
            return
        # A listener that is no network is an emulator's socket, which stays when the program in the guest that had the port open is gone. Every user
        # of the guest can come by a network, but only its root can come from a port that is root's.
        network = listener.transport.exposed
        guarded: Listener = OnlyRoot(listener) if network else listener
        scope = self.listening[name] = trio.CancelScope()

        async def accept() -> None:
            with scope:
                try:
                    await self.server.listen(guarded, policy, lossy=not network, root=root)
                finally:
                    with trio.CancelScope(shield=True):
                        await listener.aclose()

        self.nursery.start_soon(accept)

    def _withdraw(self, root: Node, right: Right) -> None:
        """End what a guest, whose tree is `root`, has open by a right that is less now."""

        def ended(handle: Handle) -> Awaitable[None] | None:
            return handle.close_ended() if isinstance(handle, Held) and handle.ended_by(right) else None

        self.server.withdraw(root, right.who, ended)
