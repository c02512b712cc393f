"""Replies of a server without manners against all that take replies: nothing but its connection ends, nothing is left. `--long`: a million."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio

import mk9p.sync
from mk9p.client import connect
from mk9p.compose.remote import Remote
from mk9p.composing import namespace
from mk9p.errors import is_errno
from mk9p.server import Server, asking
from mk9p.testing import SOON, Host, odd, serving_at, until
from mk9p.testing.odd import Oddity
from mk9p.wire import Dialect
from tests.server.raw import ask_for_a_while
from tests.server.relaying import a_tree
from tests.server.using import PATIENCE, is_well, nothing_held, use_blocking_for_a_while, use_for_a_while

Share = Callable[[int, int], int]


@pytest.fixture
def most(long: bool) -> Share:
    return lambda little, much: much if long else little


@pytest.fixture(autouse=True)
def _our_bugs_are_failures(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.ERROR)
    yield
    assert not caplog.get_records("call"), caplog.text


def tell(capsys: pytest.CaptureFixture[str], who: str, server: Oddity, start: float) -> None:
    with capsys.disabled():
        print(
            f"\n{who}: {server.replies} replies, {server.odd} of them odd, {server.connections} connections, "
            f"{time.monotonic() - start:.1f} s"
        )


async def _use(address: str, enough: Callable[[], bool]) -> None:
    await use_for_a_while(address, Random(1), enough)


async def _check(address: str, dialect: Dialect) -> None:
    async with connect(address) as client:
        assert client.connection.dialect is dialect
        await is_well(client)


async def _use_blocking(address: str, enough: Callable[[], bool]) -> None:
    await trio.to_thread.run_sync(use_blocking_for_a_while, address, Random(1), enough)


async def _check_blocking(address: str, dialect: Dialect) -> None:
    def check() -> None:
        with mk9p.sync.connect(address) as client:
            assert client.inner.connection.dialect is dialect
            client.run(is_well(client.inner))

    await trio.to_thread.run_sync(check)


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(("use", "check"), [(_use, _check), (_use_blocking, _check_blocking)], ids=["waits", "blocks"])
async def test_no_reply_breaks_a_client(
    use: Callable[[str, Callable[[], bool]], Awaitable[None]],
    check: Callable[[str, Dialect], Awaitable[None]],
    dialect: Dialect,
    tmp_path: Path,
    most: Share,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = time.monotonic()
    async with nothing_held(), odd(f"unix!{tmp_path}/odd", 1, dialect=dialect, often=50) as server:
        wanted = most(4_000, 150_000)
        await use(server.address, lambda: server.replies >= wanted)
        server.often = 0
        await check(server.address, dialect)
    tell(capsys, f"client that {'waits' if use is _use else 'blocks'}, {dialect.version}", server, start)


@attrs.define(eq=False)
class Composed:
    """A namespace with an odd server at /k/odd and a good one at /k/good, and where it is served."""

    odd: Oddity
    front: Server
    address: str


@asynccontextmanager
async def composed(
    path: Path, dialect: Dialect, monkeypatch: pytest.MonkeyPatch, *, fast: bool, silent: bool = True
) -> AsyncIterator[Composed]:
    monkeypatch.setattr(asking, "PATIENCE", 4 * PATIENCE)
    monkeypatch.setattr(asking, "REST", 0)
    async with (
        odd(f"unix!{path}/odd", 2, dialect=dialect, often=50, silent=silent) as server,
        trio.open_nursery() as nursery,
    ):
        good = Host(nursery, f"unix!{path}/good", a_tree())
        await good.start()
        ns = namespace(nursery)
        await ns.run(f"mount -c {server.address} /k/odd\nmount {good.address} /k/good\n")
        far = ns.table.points["/k/odd"][0].node
        assert isinstance(far, Remote)
        far.server.backoff, far.server.deadline, far.server.silence = 0, 4 * PATIENCE, 4 * PATIENCE
        if not fast:
            far.server.many = False
        async with serving_at(f"unix!{path}/front", ns.root) as front:
            yield Composed(server, front.server, front.address)
        nursery.cancel_scope.cancel()


async def ends_well(found: Composed) -> None:
    """Check that the composer has forgotten all clients, and serves both servers when the odd one has manners."""
    with trio.fail_after(SOON):
        await until(lambda: not found.front.connections)
        found.odd.reform()
        async with connect(found.address, uname="root") as client:
            assert await client.read("k/good/d/e/g") == "g's"
            while True:  # until the composer has heard that its connection from before has ended
                try:
                    await is_well(client, "k/odd/")
                except (OSError, AssertionError):
                    await trio.sleep(0.01)
                else:
                    break


WAYS = [(Dialect.L, True), (Dialect.L, False), (Dialect.U, False), (Dialect.P9, False)]


@pytest.mark.parametrize(("dialect", "fast"), WAYS)
@pytest.mark.parametrize("version", ["9P2000.L", "9P2000"])
async def test_no_reply_breaks_a_composer(
    dialect: Dialect,
    fast: bool,
    version: str,
    tmp_path: Path,
    most: Share,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = time.monotonic()
    async with nothing_held(), composed(tmp_path, dialect, monkeypatch, fast=fast) as found:
        wanted = most(1_500, 60_000)
        async with connect(found.address, uname="root") as neighbour:
            scope = trio.CancelScope()

            async def look() -> None:
                with scope:
                    while True:
                        assert await neighbour.read("k/good/d/f") == "0123456789"
                        await trio.sleep(0.01)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await use_for_a_while(
                    found.address, Random(2), lambda: found.odd.replies >= wanted, version=version, below="k/odd/"
                )
                scope.cancel()
            assert neighbour.connection.gone is None
        await ends_well(found)
    way = "relay" if fast and version == "9P2000.L" else "general way"
    tell(capsys, f"composer, {way}, {version} to {dialect.version}", found.odd, start)


async def test_no_reply_goes_through_the_relay_that_answers_nothing_or_too_much(
    tmp_path: Path, most: Share, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.monotonic()
    async with nothing_held(), composed(tmp_path, Dialect.L, monkeypatch, fast=True, silent=False) as found:
        wanted = most(4_000, 150_000)
        errors = await ask_for_a_while(found.address, Random(3), lambda: found.odd.replies >= wanted)
        assert all(map(is_errno, errors))
        await ends_well(found)
    tell(capsys, "relay, as it is", found.odd, start)
