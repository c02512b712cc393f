"""A server while a block runs: for clients that a test adds by hand (`serving`), at an address (`serving_at`), and in a thread (`in_thread`)."""

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from socket import AF_UNIX, SOCK_STREAM, socket, socketpair
from typing import Any, Final, TypeVar

import trio

from mk9p.auth import Policy
from mk9p.authority.deciding import Authority
from mk9p.dial import TRANSPORTS, Keys, Peer, SocketLink, listen
from mk9p.lease.gate import Gate
from mk9p.server import Limits, Server, Tally
from mk9p.tree import Node

PRIVATE: Final = Peer(TRANSPORTS["fd"], "in memory", loopback=True)
T = TypeVar("T")


@asynccontextmanager
async def serving(
    tree: Node,
    *,
    limits: Limits | None = None,
    tally: Tally | None = None,
    authority: Authority | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[Server]:
    """Run a server of a tree. Clients are `joined`, or come to an `address_of` it. Leaving the block closes everything that they had open."""
    server = Server(tree, limits=limits, tally=tally, authority=authority, gate=gate)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield server
        nursery.cancel_scope.cancel()


def joined(server: Server, peer: Peer = PRIVATE, policy: Policy | None = None, *, lossy: bool = False) -> socket:
    """Add a client to a running server, and return its end of the line: a non-blocking socket, which the caller closes.

    `lossy`: the server takes it for a line that may lose bytes, and does not hang up, as a terminal.
    """
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    server.add(SocketLink(theirs, peer, lossy=lossy), policy)
    return ours


def address_of(server: Server, peer: Peer = PRIVATE, policy: Policy | None = None) -> str:
    """Return an address of a running server, which can be dialled once."""
    number = joined(server, peer, policy).detach()
    return f"fd!{number}!{number}"


class Host:
    """A tree served at an address. A test can stop it and start it again as a machine. `server` is another one after each start.

    `options` are those of `serving`.
    """

    server: Server

    def __init__(
        self, nursery: trio.Nursery, address: str, tree: Node, policy: Policy | None = None, **options: Any
    ) -> None:
        self.address, self.tree, self.policy, self.options = address, tree, policy, options
        self.keys: Keys | None = None
        self._nursery = nursery
        self._scope, self._ended = trio.CancelScope(), trio.Event()

    async def start(self) -> None:
        """Listen, and serve. `address` is then the dial string: a port 0 has become the real port. Raises as `listen`."""
        await self._nursery.start(self._run)

    async def stop(self) -> None:
        """Hang up on all clients, and leave the address."""
        self._scope.cancel()
        await self._ended.wait()

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        listener = await listen(self.address, keys=self.keys)
        self.address = listener.address
        try:
            with self._scope:
                async with serving(self.tree, **self.options) as self.server, trio.open_nursery() as nursery:
                    nursery.start_soon(self.server.listen, listener, self.policy)
                    task_status.started()
        finally:
            with trio.CancelScope(shield=True):
                await listener.aclose()
            self._ended.set()


@asynccontextmanager
async def serving_at(
    address: str, tree: Node, policy: Policy | None = None, *, keys: Keys | None = None, **options: Any
) -> AsyncIterator[Host]:
    """Serve a tree at an address while the block runs: `async with serving_at("tcp!127.0.0.1!0", tree) as host`; clients dial `host.address`.

    Without a `policy`, users are those that auth.py says. `keys` are for `tls!`. `options` are those of `serving`. Raises as `mk9p.dial.listen`.
    """
    async with trio.open_nursery() as nursery:
        host = Host(nursery, address, tree, policy, **options)
        host.keys = keys
        await host.start()
        yield host
        nursery.cancel_scope.cancel()


@contextmanager
def in_thread(block: AbstractAsyncContextManager[T]) -> Iterator[tuple[T, Callable[..., Any]]]:
    """Be in an `async with` block, in a thread that runs trio: `with in_thread(serving_at(address, tree)) as (host, call)`.

    `call(function, *arguments)` calls a function in that thread, and returns what it returns. Raises what entering and leaving the block raise.
    """
    begun: Future[trio.lowlevel.TrioToken] = Future()
    entered: Future[tuple[T, trio.Event]] = Future()
    scope = trio.CancelScope()

    async def main() -> None:
        over = trio.Event()
        begun.set_result(trio.lowlevel.current_trio_token())
        with scope:
            async with block as value:
                entered.set_result((value, over))
                await over.wait()

    def stop(begun: Future[trio.lowlevel.TrioToken]) -> None:
        with suppress(trio.RunFinishedError):
            begun.result().run_sync_soon(scope.cancel)

    with ThreadPoolExecutor(1) as thread:
        try:
            ended = thread.submit(trio.run, main)
            both: list[Future[Any]] = [entered, ended]
            wait(both, return_when=FIRST_COMPLETED)
            if not entered.done():
                ended.result()
            value, over = entered.result()
            token = begun.result()
            try:
                yield value, partial(trio.from_thread.run_sync, trio_token=token)
            finally:
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(over.set)
                ended.result()
        except (
            BaseException
        ):  # maybe an interrupt, which comes to this thread alone, at any moment: the other one would go on for ever
            begun.add_done_callback(stop)
            raise
