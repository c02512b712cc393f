"""`mk9p serve`: a kernel's tree, made of resource servers, served on any number of listeners.

A resource server is an entry point of the group `mk9p.servers`: a function that returns a `Dir`, or an async context manager of one where it has
background work. Its tree is at its name; `host` is the top level itself. `NAME:ARG?OPTION=VALUE&...` calls it with an argument and options, and
puts its tree at NAME/LAST. LAST is the last part of the argument's path, or the value of the option `name`: `fs:/srv/data` is `fs/data`. `stats`,
what the server itself counts, is always there too. Without names the command serves every resource server that needs no argument and that this
kernel has. For one that this kernel does not have it prints a line, and leaves it out.
"""

import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import attrs
import trio

from mk9p.auth import Policy
from mk9p.dial import RESERVED, Link, Listener, Transport, listen
from mk9p.errors import NineError
from mk9p.server import Limits, Server, Tally, stats_tree
from mk9p.server.shares import descriptors
from mk9p.tree import Dir, Node
from mk9p.usage import parsed
from mk9p.usage.common import SERVED

log = logging.getLogger("mk9p.serve")

GROUP: Final = "mk9p.servers"
TOP: Final = "host"
STATS: Final = "stats"  # where a server shows what it counts itself
RARELY: Final = 100  # rounds of the middle generation between two of the oldest; Python has 10


@attrs.frozen
class Spec:
    """One resource server as the command line names it."""

    name: str
    argument: str | None = None
    options: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Read `NAME[:ARG][?OPTION=VALUE[&OPTION=VALUE...]]`; an option without a value is "on"."""
        head, _, tail = text.partition("?")
        name, colon, argument = head.partition(":")
        pairs = [pair.partition("=") for pair in tail.split("&") if pair]
        return cls(name, argument if colon else None, {key: value if equals else "on" for key, equals, value in pairs})

    @property
    def place(self) -> str:
        """The path of its tree. Raises EINVAL for an option `name` that is no name."""
        if self.argument is None:
            return self.name
        last = self.options.get("name") or self.argument.rstrip("/").rpartition("/")[2] or "root"
        if "/" in last or last in (".", ".."):
            raise NineError(errno.EINVAL, f"{last!r} is no name: say name=...")
        return f"{self.name}/{last}"


def available() -> dict[str, Any]:
    """Return the entry points of all resource servers that are installed, by name."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


@asynccontextmanager
async def kernel_tree(specs: Sequence[Spec] = (), extra: Mapping[str, Node] | None = None) -> AsyncIterator[Dir]:
    """Make the tree of the given resource servers, or of all that this machine can have, with `extra`; raises ENOENT for an unknown one."""
    known = available()
    async with AsyncExitStack() as stack:
        trees: dict[str, Node] = {}
        for spec in specs or [Spec(name) for name in known]:
            if spec.name not in known:
                raise NineError(errno.ENOENT, f"no resource server {spec.name!r}; there are: {' '.join(sorted(known))}")
            try:
                function = known[spec.name].load()
                if not specs and _needs_argument(function):
                    continue
                if spec.place in trees:
                    raise NineError(errno.EEXIST, f"two trees at {spec.place}: say name=...")
                trees[spec.place] = await _make(stack, function, spec)
            except (OSError, ImportError) as error:
                if specs:
                    raise NineError(
                        getattr(error, "errno", None) or errno.ENODEV, f"{spec.name}: {_words(error)}"
                    ) from error
                print(f"mk9p: without {spec.name}: {_words(error)}", file=sys.stderr)
        top = trees.pop(TOP, None)
        yield Dir(*(top.children if isinstance(top, Dir) else ()), _nested(trees), extra or {})


def _needs_argument(function: Any) -> bool:
    import inspect

    return any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in inspect.signature(function).parameters.values()
    )


async def _make(stack: AsyncExitStack, function: Any, spec: Spec) -> Node:
    named = spec.argument is not None
    options = {key: value for key, value in spec.options.items() if not (named and key == "name")}
    if wrong := _misused(function, spec, options):
        raise NineError(errno.EINVAL, wrong)
    made = function(*((spec.argument,) if named else ()), **options)
    tree = await stack.enter_async_context(made) if hasattr(made, "__aenter__") else made
    assert isinstance(tree, Node)
    return tree


def _misused(function: Any, spec: Spec, options: Mapping[str, str]) -> str:
    """Return what is wrong with an argument or with options that a resource server does not take, or with a missing argument."""
    import inspect

    taken = inspect.signature(function).parameters.values()
    first = next((p.name for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)), None)
    if spec.argument is not None and first is None:
        return f"it takes no argument: say {spec.name} alone"
    if spec.argument is None and first not in options and _needs_argument(function):
        return f"it wants an argument, {spec.name}:{(first or '').upper()}"
    known = [p.name for p in taken if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if spec.argument is not None:
        known = [name for name in known if name != first]
    unknown = next((option for option in options if option not in known), None)
    if unknown is None or any(p.kind is p.VAR_KEYWORD for p in taken):
        return ""
    return f"no option {unknown!r}; there are: {' '.join(known) or 'none'}"


def _words(error: Exception) -> str:
    """Return an error in words, without its number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename or repr('')}: {error.strerror}"
    return str(error)


def _nested(trees: Mapping[str, Node]) -> dict[str, Node]:
    """Put trees at their names; a name with a slash, such as dev/block, goes into the directory that it names."""
    top: dict[str, Node] = {name: tree for name, tree in trees.items() if "/" not in name}
    below: dict[str, dict[str, Node]] = {}
    for name, tree in trees.items():
        if "/" in name:
            first, _, rest = name.partition("/")
            below.setdefault(first, {})[rest] = tree
    for first, some in below.items():
        there = top.get(first)
        top[first] = Dir(*(there.children if isinstance(there, Dir) else ()), _nested(some))
    return top


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


def describe(listener: Listener, policy: Policy) -> str:
    """Return in one line who can do what on a listener."""
    transport = listener.transport
    if transport.private:
        who = "whoever holds the other end is believed to be who they say"
    elif transport.tells_user:
        who = "root and this user attach as anybody, others as themselves"
    elif policy.trust:
        who = "every user is believed to be who they say"
    else:
        who = "everybody is `none` and gets what the permission bits give to others"
    return who + ("; nothing can be changed" if policy.readonly else "")


async def serve_tree(
    root: Node,
    addresses: Sequence[str],
    *,
    trust: bool = False,
    readonly: bool = False,
    come_from: str | None = None,
    limits: Limits | None = None,
    tally: Tally | None = None,
    ready: Any = None,
) -> None:
    """Serve a tree on listeners until cancelled, or until SIGINT or SIGTERM. When clients can dial them, print on stderr where they are.

    `come_from` is the only host that may come by a network, if it is given.
    """
    server = Server(root, limits=limits, tally=tally)
    descriptors(server.limits)
    listeners: list[Listener] = []
    try:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                await nursery.start(server.run)
                for address in addresses:
                    listener = await listen(address)
                    if come_from is not None and listener.transport.exposed:
                        listener = From(listener, come_from)
                    listeners.append(listener)
                    policy = policy_for(listener, trust=trust, readonly=readonly)
                    nursery.start_soon(server.listen, listener, policy)
                    print(f"mk9p: listening on {listener.address}", file=sys.stderr, flush=True)
                    print(f"mk9p: {listener.address}: {describe(listener, policy)}", file=sys.stderr, flush=True)
                if ready is not None:
                    ready(server)
                collect_rarely()
                if all(listener.transport.once for listener in listeners):
                    nursery.start_soon(_end_with, server, nursery.cancel_scope)
                async for _ in signals:
                    break
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            for listener in listeners:
                await listener.aclose()


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
    limits, tally = Limits.parse(chosen.limit), Tally()

    async def run() -> None:
        async with kernel_tree([Spec.parse(text) for text in chosen.specs], {STATS: stats_tree(tally)}) as tree:
            await serve_tree(
                tree,
                chosen.listen or [SERVED],
                trust=chosen.trust,
                readonly=chosen.readonly,
                come_from=chosen.come_from,
                limits=limits,
                tally=tally,
            )

    if os.geteuid() != 0:
        print("mk9p: not root: the kernel will refuse what only root may change", file=sys.stderr)
    one_error(run)
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
