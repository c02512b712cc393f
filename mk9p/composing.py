"""`mk9p compose`: the composed namespace, served.

A file in namespace(6) words says what is mounted where. With `--kernels` there is also `kernels/`, and each of its kernels is mounted at `k/NAME`
when it first serves its tree. A mount stays when its kernel goes: the branch says EIO until the kernel is back, and is then dialled again. The
composer is the first to learn that a kernel has ended, so it ends its connections then, whatever their transport notices. A forgotten kernel
(`delete`, rmdir) loses its branch.

A kernel can itself reach the namespace, from its start on: the composer listens where the kernel's status says. Whoever comes by that line is the
guest of that name, and gets a tree of its own, which has what the kernel's `config` grants (compose/granted.py).
"""

import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import attrs
import trio

from mk9p.auth import ROOT, GuestPolicy
from mk9p.compose.granted import Grant, View
from mk9p.compose.namespace import Namespace
from mk9p.compose.posted import dial_file, is_path
from mk9p.compose.remote import FRESH
from mk9p.compose.remote import Server as Remote
from mk9p.compose.secret import kept
from mk9p.dial import Link, Listener, dial, hang_up, listen, parse
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.server import Limits, Server, Tally, stats_tree
from mk9p.serving import STATS, OnlyRoot, available, one_error, serve_tree, start_logging
from mk9p.tree import Dir, Handle, Node, Open, settle
from mk9p.tree import split as words_of
from mk9p.usage import parsed
from mk9p.usage.common import NAMESPACE

log = logging.getLogger("mk9p.compose")

# events of a kernel that is gone
_ENDED: Final = frozenset({"dead", "failed", "halted", "killed", "panicked", "rebooted"})
PATIENCE: Final = 5.0  # seconds for a kernel's first answer: an emulated one on a busy machine takes one or two


def namespace(nursery: trio.Nursery, extra: dict[str, Node] | None = None, *, secret: bytes = FRESH) -> Namespace:
    """Return an empty namespace whose mounts are 9P servers, dialled when somebody uses them; the tasks of their connections run in `nursery`.

    An address is a dial string, or the path of a posted service in the namespace (compose/posted.py). `secret` makes the inode numbers
    (compose/secret.py).
    """

    def mount(address: str, spec: str) -> Node:
        def changed(_: Remote, up: bool, reason: str) -> None:
            if up:
                ns.up(address, spec)
            else:
                ns.down(address, spec, reason)

        async def through(path: str) -> Link:
            return await dial_file(lambda: ns.resolver, path, nursery)

        if not is_path(address):
            parse(address)  # refuses now, and not at the first walk, what is no dial string
        dialler = through if is_path(address) else dial
        server = Remote(
            address, nursery, aname=spec, secret=secret, deadline=PATIENCE, on_change=[changed], dialler=dialler
        )
        return server.tree(ROOT)

    posted = {"srv": available()["srv"].load()()} if "srv" in available() else {}
    ns = Namespace(mount, {**posted, **(extra or {})})
    return ns


@asynccontextmanager
async def kernels_tree(run: str) -> AsyncIterator[Dir]:
    """Make `kernels/` of the resource server of that name, with its sockets in the directory `run`."""
    async with available()["kernels"].load()(run) as tree:
        yield tree


async def read_text(tree: Node, path: str) -> str:
    """Return the text of a file of a tree in this process, as root."""
    node = tree
    for name in path.split("/"):
        node = await settle(node.walk(name, ROOT))
    handle = await settle(node.open(Open(ROOT)))
    try:
        return bytes(await settle(handle.read(0, 1 << 20))).decode()
    finally:
        await settle(handle.close())


@attrs.define(eq=False)
class Kernels:
    """What the composer does for kernels that come: it mounts them, and admits them."""

    tree: Dir
    ns: Namespace
    server: Server
    nursery: trio.Nursery
    listening: dict[str, trio.CancelScope] = attrs.field(factory=dict)
    dialled: dict[str, str] = attrs.field(factory=dict)  # by kernel: where its present life serves
    mounted: dict[str, str] = attrs.field(factory=dict)  # by kernel: what the composer mounted for it

    async def watch(self) -> None:
        """Follow the events of `kernels/` until cancelled."""
        events: Handle = await settle((await settle(self.tree.walk("events", ROOT))).open(Open(ROOT)))
        offset = 0
        while data := bytes(await settle(events.read(offset, 1 << 16))):
            offset += len(data)
            for line in split_lines(data.decode()):
                _, _, what, *args = words_of(line)
                if what in ("started", "active") and args:
                    await self._came(what, args[0])
                elif what in _ENDED and args and args[0] in self.dialled:
                    hang_up(self.dialled.pop(args[0]))
                elif what == "deleted" and args and args[0] in self.mounted:
                    with suppress(NineError):  # somebody has unmounted it
                        self.ns.unmount(f"/k/{args[0]}", self.mounted.pop(args[0]))

    async def _came(self, what: str, name: str) -> None:
        try:
            text = await read_text(self.tree, f"{name}/status")
            status = dict(line.partition(" ")[::2] for line in split_lines(text))
            if what == "started" and status.get("listen"):
                await self._let_in(name, status["listen"], await self._grants(name))
        except FileNotFoundError:
            return  # deleted meanwhile
        if what == "active" and status.get("dial"):
            self.dialled[name] = status["dial"]
            if not self.ns.table.points.get(f"/k/{name}"):
                self.ns.mount(status["dial"], f"/k/{name}")
                self.mounted[name] = status["dial"]

    async def _grants(self, name: str) -> list[Grant]:
        """Return what a kernel's settings grant it; they cannot change while it runs."""
        config = await read_text(self.tree, f"{name}/config")
        return [Grant.parse(words) for what, *words in map(words_of, split_lines(config)) if what == "grant"]

    def _own(self, name: str) -> Node | None:
        """Return the root of a kernel's tree, if it is mounted where the composer mounted it."""
        address = self.mounted.get(name)
        items = self.ns.table.points.get(f"/k/{name}", ())
        return next((item.node for item in items if item.kind == "mount" and item.what == address), None)

    async def _let_in(self, name: str, address: str, grants: list[Grant]) -> None:
        """Listen for one kernel on its private link: it proves which guest it is, and nothing more."""
        old = self.listening.pop(name, None)
        if old is not None:
            old.cancel()
        policy = GuestPolicy(kernel=name)
        try:
            view = View(self.ns, name, policy.guest, grants, partial(self._own, name))
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
                    await self.server.listen(guarded, policy, lossy=not network, root=view.tree())
                finally:
                    with trio.CancelScope(shield=True):
                        await listener.aclose()

        self.nursery.start_soon(accept)


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p compose`."""
    chosen = parsed(arguments)
    start_logging(chosen.verbose)

    async def run() -> None:
        script = ""
        if chosen.file:
            script = sys.stdin.read() if chosen.file == "-" else await trio.Path(chosen.file).read_text()
        async with trio.open_nursery() as nursery:
            if chosen.kernels:
                async with kernels_tree(chosen.kernels) as tree:
                    await compose(nursery, script, chosen, tree)
            else:
                await compose(nursery, script, chosen, None)
            nursery.cancel_scope.cancel()

    one_error(run)
    return 0


async def compose(nursery: trio.Nursery, script: str, chosen: Any, kernels: Dir | None) -> None:
    """Serve a namespace until a signal comes."""
    tally = Tally()
    ns = namespace(nursery, {STATS: stats_tree(tally), **({"kernels": kernels} if kernels else {})}, secret=kept())
    try:
        await ns.run(script)
    except NineError as error:
        raise NineError(error.errno, f"{chosen.file}: {error}") from None

    def ready(server: Server) -> None:
        if kernels is not None:
            nursery.start_soon(Kernels(kernels, ns, server, nursery).watch)

    await serve_tree(
        ns.root,
        chosen.listen or [NAMESPACE],
        trust=chosen.trust,
        readonly=chosen.readonly,
        come_from=chosen.come_from,
        limits=Limits.parse(chosen.limit),
        tally=tally,
        ready=ready,
    )
