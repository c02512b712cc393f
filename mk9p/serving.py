"""`mk9p serve`: a kernel's tree (specs.py), served on any number of listeners. `stats`, what the server itself counts, is always in it."""

import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import trio

from mk9p.auth import Policy
from mk9p.authority.book import Book
from mk9p.authority.deciding import Authority
from mk9p.authority.files import Auth
from mk9p.authority.options import authority_for
from mk9p.dial import RESERVED, Keys, Link, Listener, Transport, listen
from mk9p.dial.keys import tell
from mk9p.lease.gate import Gate
from mk9p.server import Limits, Server, Tally, stats_tree
from mk9p.server.shares import descriptors
from mk9p.specs import Spec, kernel_tree
from mk9p.systemd import notify, passed
from mk9p.tree import Node
from mk9p.usage import parsed
from mk9p.usage.common import SERVED

log = logging.getLogger("mk9p.serve")

STATS: Final = "stats"  # where a server shows what it counts itself
AUTH: Final = "auth"  # where it shows who may do what
RARELY: Final = 100  # rounds of the middle generation between two of the oldest; Python has 10


@attrs.define(eq=False)
class From:
    """A listener of a network that admits only one host, and hangs up on others."""

    inner: Listener
    host: str | None = None
    address: str = attrs.field(init=False)
    transport: Transport = attrs.field(init=False)
    loopback: bool = attrs.field(init=False)
    told: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        inner = self.inner
        self.address, self.transport, self.loopback = inner.address, inner.transport, inner.loopback

    def lets_in(self, host: str, port: int) -> bool:
        """Tell whether a peer from this address is admitted."""
        return host == self.host

    async def accept(self) -> Link:
        """Wait for the next link that is admitted."""
        while True:
            link = await self.inner.accept()
            host, _, port = link.peer.address.rpartition("!")
            if self.lets_in(host, int(port)):
                return link
            # logged once: a host that is not admitted can come as often as it likes
            log.log(
                logging.DEBUG if self.told else logging.WARNING,
                "%s: %s is not admitted",
                self.address,
                link.peer.address,
            )
            self.told = True
            link.close()

    async def aclose(self) -> None:
        """Stop listening."""
        await self.inner.aclose()


class OnlyRoot(From):
    """A listener of a network that admits only root of a machine: a peer whose port not everybody can have (ip(7))."""

    def lets_in(self, host: str, port: int) -> bool:
        """Tell whether a peer from this address is admitted."""
        return port < RESERVED


def policy_for(listener: Listener, *, trust: bool, readonly: bool) -> Policy:
    """Return the policy of a listener. Beyond this machine, and without `trust`, it is read-only whatever the bits say."""
    open_to_all = listener.transport.exposed and not (listener.transport.tells_user or listener.loopback or trust)
    return Policy(trust=trust, readonly=readonly or open_to_all)


def keys_of(chosen: Any) -> Keys:
    """Return the keys for TLS that a command line names."""
    return Keys(chosen.ca, chosen.cert, chosen.key, chosen.crl)


def describe(listener: Listener, policy: Policy) -> str:
    """Return in one line who can do what on a listener."""
    transport = listener.transport
    if transport.private:
        who = "whoever holds the other end is believed to be who they say"
    elif transport.exposed and transport.tells_user:
        who = "whoever comes is cert:NAME, the name in their certificate"
    elif transport.tells_user:
        who = "root and this user attach as anybody, others as themselves"
    elif policy.trust:
        who = "every user is believed to be who they say"
    else:
        who = "everybody is `none` and gets what the permission bits give to others"
        if transport.exposed and not listener.loopback:
            who = "nobody is known here: " + who + " (tls! knows who comes)"
    return who + ("; nothing can be changed" if policy.readonly else "")


@attrs.frozen
class Served:
    """A tree that is served: the engine, and its listeners, each with its policy."""

    server: Server
    listeners: tuple[Listener, ...]
    policies: tuple[Policy, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The dial strings of the listeners, with the real port where `tcp!…!0` was asked for."""
        return tuple(listener.address for listener in self.listeners)


@asynccontextmanager
async def serve(
    root: Node,
    *addresses: str,
    trust: bool = False,
    readonly: bool = False,
    come_from: str | None = None,
    limits: Limits | None = None,
    tally: Tally | None = None,
    authority: Authority | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[Served]:
    """Serve a tree on listeners for the time of a block: `async with mk9p.serve(tree, "unix:/tmp/counter") as served`.

    Clients can dial `served.addresses` when the block begins. `trust` believes the names that come over networks, `readonly` refuses every change,
    `come_from` is the only host that may come by a network, if it is given. Raises NineError as listening does. Leaving the block, or cancelling it,
    ends every connection; whatever the block raises comes out as it is, in no group.
    """
    server = Server(root, limits=limits, tally=tally, authority=authority, gate=gate)
    descriptors(server.limits)
    listeners: list[Listener] = []
    policies: list[Policy] = []
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(server.run)
                for address in addresses:
                    listener = await listen(address)
                    if come_from is not None and listener.transport.exposed:
                        listener = From(listener, come_from)
                    listeners.append(listener)
                    policies.append(policy_for(listener, trust=trust, readonly=readonly))
                    nursery.start_soon(server.listen, listener, policies[-1])
                yield Served(server, tuple(listeners), tuple(policies))
            except Exception as error:  # raised below, outside of the nursery, which would put it into a group
                failure = error
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            for listener in listeners:
                await listener.aclose()
    if failure is not None:
        raise failure


async def serve_tree(root: Node, addresses: Sequence[str], *, ready: Any = None, **options: Any) -> None:
    """Serve a tree as `serve` does until cancelled, or until SIGINT or SIGTERM. When clients can dial, print on stderr where.

    Where there are rules, SIGHUP reads their file again.
    """
    authority: Authority | None = options.get("authority")
    book = None if authority is None else authority.book
    hears = (signal.SIGINT, signal.SIGTERM, *(() if book is None else (signal.SIGHUP,)))
    with trio.open_signal_receiver(*hears) as signals:
        async with serve(root, *addresses, **options) as served, trio.open_nursery() as nursery:
            for listener, policy in zip(served.listeners, served.policies, strict=True):
                print(f"mk9p: listening on {listener.address}", file=sys.stderr, flush=True)
                print(f"mk9p: {listener.address}: {describe(listener, policy)}", file=sys.stderr, flush=True)
            if book is not None:
                print(f"mk9p: {book}", file=sys.stderr, flush=True)
            if ready is not None:
                ready(served.server)
            notify("READY=1")
            collect_rarely()
            if all(listener.transport.once for listener in served.listeners):
                nursery.start_soon(_end_with, served.server, nursery.cancel_scope)
            async for number in signals:
                if number != signal.SIGHUP or book is None:
                    break
                await reload_rules(book)
            nursery.cancel_scope.cancel()


async def reload_rules(book: Book) -> None:
    """Read the file of the rules again; log in one line what is wrong with it, and then nothing has changed."""
    try:
        await book.reload()
    except OSError as error:
        log.error("the rules stay as they are: %s", error)
    else:
        print(f"mk9p: {book}", file=sys.stderr, flush=True)


def collect_rarely() -> None:
    """Let Python search for cycles more rarely, and not among the objects that the program began with."""
    # All clients wait during a search: 20 ms for the modules alone, 100 ms with thousands of requests that wait. Nothing of a request is part of a
    # cycle, and Python still searches young objects as usual.
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, RARELY)


async def _end_with(server: Server, scope: trio.CancelScope) -> None:
    """End when the inherited descriptors have ended: nobody else can come."""
    await server.deserted.wait()
    scope.cancel()


def start_logging(verbose: int) -> None:
    """Log to stderr, one line each: warnings, or more."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="mk9p: %(levelname)s: %(message)s")


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p serve`."""
    chosen = parsed(arguments)
    start_logging(chosen.verbose)
    tell(keys_of(chosen))
    limits, tally = Limits.parse(chosen.limit), Tally()

    async def run(auth: Auth) -> None:
        own = {STATS: stats_tree(tally), AUTH: auth.tree()}
        async with kernel_tree([Spec.parse(text) for text in chosen.specs], own) as tree:
            await serve_tree(
                tree,
                [*(chosen.listen or []), *passed()] or [SERVED],
                trust=chosen.trust,
                readonly=chosen.readonly,
                come_from=chosen.come_from,
                limits=limits,
                tally=tally,
                authority=auth.authority,
            )

    if os.geteuid() != 0:
        print("mk9p: not root: the kernel will refuse what only root may change", file=sys.stderr)
    with authority_for(chosen.policy, chosen.audit) as auth:
        one_error(partial(run, auth))
    return 0


def one_error(run: Any) -> None:
    """Run a trio program. Raise only the first of the errors that left it in groups: when one connection breaks, all tasks that use it fail at
    once."""
    try:
        trio.run(run)
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        interrupts = [error for error in errors if isinstance(error, KeyboardInterrupt)]
        if all(isinstance(error, OSError | KeyboardInterrupt) for error in errors):
            raise (interrupts or errors)[0] from None
        raise


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
