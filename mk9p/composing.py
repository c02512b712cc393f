"""`mk9p compose`: the composed namespace, served.

A file in namespace(6) words says what is mounted where. With `--kernels` there is also `kernels/`, and each of its kernels is mounted at `k/NAME`
when it first serves its tree. A mount stays when its kernel goes: the branch says EIO until the kernel is back, and is then dialled again. The
composer is the first to learn that a kernel has ended, so it ends its connections then, whatever their transport notices. A forgotten kernel
(`delete`, rmdir) loses its branch.

A kernel can itself reach the namespace, from its start on: the composer listens where the kernel's status says. Whoever comes by that line is the
guest of that name, and gets a tree of its own, which has what the kernel's `config` grants at that moment (compose/granted.py).
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from mk9p import forces
from mk9p.auth import ROOT
from mk9p.authority.capabilities import Capabilities
from mk9p.authority.files import Auth
from mk9p.authority.options import authority_for
from mk9p.client.capability import of_mount
from mk9p.compose.aliases import Names
from mk9p.compose.entering import Entering
from mk9p.compose.far import Far
from mk9p.compose.federation import Federation, far_of
from mk9p.compose.heeded import Heeded, kept_by
from mk9p.compose.line import FRESH
from mk9p.compose.namespace import Namespace
from mk9p.compose.offers import Offers
from mk9p.compose.posted import dial_file, is_path
from mk9p.compose.remembered import Remembered, alone
from mk9p.compose.remote import Server as Remote
from mk9p.compose.resources import beside, find, key_of
from mk9p.compose.revoking import Revoking
from mk9p.compose.secret import kept
from mk9p.compose.sharing import Sharing
from mk9p.compose.table import LONGEST, Flags
from mk9p.compose.untrusted import Untrusted
from mk9p.dial import Link, dial, parse
from mk9p.dial.keys import tell
from mk9p.errors import NineError
from mk9p.kernels import Kernels
from mk9p.lease.entries import RegistryTree
from mk9p.lease.files import LeaseTree
from mk9p.lease.gate import Gate
from mk9p.lease.leases import Leases
from mk9p.lease.opening import kept_in
from mk9p.lease.shared import Shared
from mk9p.lease.stores import Store
from mk9p.loading import available
from mk9p.server import Limits, Server, Tally, stats_tree
from mk9p.serving import AUTH, STATS, keys_of, one_error, serve_tree, start_logging
from mk9p.state import of_folder
from mk9p.stdio import read_text
from mk9p.systemd import passed
from mk9p.tree import Dir, Node
from mk9p.usage import parsed
from mk9p.usage.common import NAMESPACE

log = logging.getLogger("mk9p.compose")

LEASE: Final = "lease"
REGISTRY: Final = "registry"
PATIENCE: Final = 5.0  # seconds for a kernel's first answer: an emulated one on a busy machine takes one or two
STARTING: Final = 20.0  # where a command starts the server: ssh, and then a Python on a small board, take five


def namespace(
    nursery: trio.Nursery, extra: dict[str, Node] | None = None, *, secret: bytes = FRESH, far: Far | None = None
) -> Namespace:
    """Return an empty namespace whose mounts are 9P servers, dialled when somebody uses them; the tasks of their connections run in `nursery`.

    An address is a dial string, or the path of a posted service in the namespace (compose/posted.py). `secret` makes the inode numbers
    (compose/secret.py), `far` has the kernels of other machines.
    """

    def mount(address: str, spec: str, flags: Flags) -> Node:
        def changed(_: Remote, up: bool, reason: str) -> None:
            if up:
                ns.up(address, spec)
            else:
                ns.down(address, spec, reason)

        async def through(path: str) -> Link:
            return await dial_file(lambda: ns.resolver, path, nursery)

        # refuses now, and not at the first walk, what is no dial string
        starts = not is_path(address) and parse(address).transport.starts
        shared = not is_path(address) and not parse(address).transport.redial
        if shared and (address, spec) in lines:  # a line that only one can dial: it takes the new flags
            server = lines[address, spec]
            server.waits(flags.wait)
            return Untrusted(server.tree(ROOT), flags.wait) if flags.untrusted else server.tree(ROOT)
        dialler = through if is_path(address) else dial
        server = Remote(
            address,
            nursery,
            aname=of_mount(spec),
            called=lambda: ns.name(address, spec),
            secret=secret,
            deadline=STARTING if starts else PATIENCE,
            wait=flags.wait,
            on_change=[changed],
            on_failure=[lambda reason: ns.failed(address, spec, reason)],
            dialler=dialler,
        )
        if shared:
            lines[address, spec] = server
        tree = server.tree(ROOT)
        return Untrusted(tree, flags.wait) if flags.untrusted else tree

    lines: dict[tuple[str, str], Remote] = {}
    posted = {"srv": available()["srv"].load()()} if "srv" in available() else {}
    ns = Namespace(mount, {**posted, **(extra or {})}, far=far)
    return ns


@asynccontextmanager
async def kernels_tree(run: str, reach: Callable[[str], Node | None] | None = None) -> AsyncIterator[Dir]:
    """Make `kernels/` of the resource server of that name, with its sockets in the directory `run`. What must outlive this process lies where the
    secret for inode numbers does. `reach` gives that server the root of a kernel's tree, as soon as that is mounted."""
    async with available()["kernels"].load()(run, state=str(of_folder("kernels", run)), reach=reach) as tree:
        yield tree


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p compose`."""
    chosen = parsed(arguments)
    start_logging(chosen.verbose)
    tell(keys_of(chosen))
    script = read_text(chosen.file) if chosen.file else ""

    async def run(auth: Auth) -> None:
        async with trio.open_nursery() as nursery:
            mounted: list[Kernels] = []  # one, as soon as there is a namespace

            async def heed() -> None:
                with trio.move_on_after(PATIENCE):  # who holds the kernels may have ended, and they with it
                    for kernels in mounted:
                        await kernels.heed()

            if chosen.kernels and "!" in chosen.kernels:
                await compose(nursery, script, chosen, Heeded(kept_by(chosen.kernels, nursery), heed), auth, mounted)
            elif chosen.kernels:
                async with kernels_tree(chosen.kernels, lambda name: mounted[0].own(name) if mounted else None) as tree:
                    await compose(nursery, script, chosen, tree, auth, mounted)
            else:
                await compose(nursery, script, chosen, None, auth, mounted)
            nursery.cancel_scope.cancel()

    with authority_for(chosen.policy, chosen.audit) as auth:
        one_error(partial(run, auth))
    return 0


async def compose(
    nursery: trio.Nursery, script: str, chosen: Any, kernels: Node | None, auth: Auth, mounted: "list[Kernels]"
) -> None:
    """Serve a namespace until a signal comes. `mounted` gets what mounts the kernels."""
    async with kept_in(chosen.store) as store:
        with alone(chosen.state):
            await compose_with(store, nursery, script, chosen, kernels, auth, mounted)


async def compose_with(
    store: Store,
    nursery: trio.Nursery,
    script: str,
    chosen: Any,
    kernels: Node | None,
    auth: Auth,
    mounted: "list[Kernels]",
) -> None:
    """Serve a namespace whose leases and registry are in a store, until a signal comes."""
    tally = Tally()
    own: dict[str, Node] = {STATS: stats_tree(tally), AUTH: auth.tree()}
    leases = Leases(store)
    registry = RegistryTree(store)
    lease = LeaseTree(leases, lambda path, who: find(ns, path, who), lambda claims, who: offers(claims, who))
    gate = Gate(leases, key_of, lambda key: beside(ns, key))
    tasks = await forces.begin(nursery, lambda who: auth.authority.view(who, ns.root, forces.NAME), gate)
    own |= {LEASE: lease, REGISTRY: registry, forces.NAME: tasks}
    secret = kept()
    far = far_of(store, nursery, secret, lambda: ns) if isinstance(store, Shared) else None
    ns = namespace(nursery, own | ({"kernels": kernels} if kernels else {}), secret=secret, far=far)
    entering = Entering(ns, registry, nursery, came=lease.stir)
    offers = Offers(ns, lambda: entering.entries)
    if isinstance(store, Shared) and far is not None:
        federation = Federation(store, far, ns, entering)
        nursery.start_soon(federation.run)
        offers.known = federation.known
        nursery.start_soon(Sharing(ns, store).run)
        if isinstance(verifier := auth.authority.verifier, Capabilities):
            nursery.start_soon(Revoking(verifier.ledger, store).run)
    nursery.start_soon(leases.run)
    auth.authority.names = Names(ns.table, far)
    ns.table.on_change.append(auth.authority.renamed)
    try:
        if chosen.state:
            await Remembered(Path(chosen.state)).restore(ns, script)
        else:
            await ns.run(script)
    except NineError as error:
        raise NineError(error.errno, f"{chosen.file}: {error}") from None

    def ready(server: Server) -> None:
        if kernels is not None:
            waits = kept_by(chosen.kernels, nursery, wait=LONGEST) if "!" in chosen.kernels else kernels
            mounted.append(Kernels(waits, ns, server, nursery, wait=chosen.wait))
            nursery.start_soon(mounted[0].watch)

    await serve_tree(
        ns.root,
        [*(chosen.listen or []), *passed()] or [NAMESPACE],
        trust=chosen.trust,
        readonly=chosen.readonly,
        come_from=chosen.come_from,
        limits=Limits.parse(chosen.limit),
        tally=tally,
        ready=ready,
        authority=auth.authority,
        gate=gate,
    )
