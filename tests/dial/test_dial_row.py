"""A new transport is a file and a row: card.py, and `CARD`, which all of mk9p then serves, dials, relays, posts and judges as it does the others."""

import errno
import time
from pathlib import Path

import pytest
import trio

from mk9p.auth import NO_ID
from mk9p.client import connect
from mk9p.clients.trace import check
from mk9p.dial import TRANSPORTS, Transport, blocking, dial, listen, parse
from mk9p.errors import NineError
from mk9p.server.shares import whose
from mk9p.servers import srv
from mk9p.serving import describe, policy_for
from mk9p.testing import SOON, mounted, serving
from mk9p.tree import Dir, Handle, Maybe, Open, Text
from tests.server.composed import composed

CARD = Transport("card", "tests.dial.card", redial=True, exposed=True, tells_user=True, netns=True)


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORTS, CARD.name, CARD)


class WhoAmI(Text):
    """Who has opened it."""

    def __init__(self) -> None:
        super().__init__("")

    def open(self, how: Open) -> Maybe[Handle]:
        return Text(f"{how.who.name} {how.who.uid}\n").open(how)


def test_dial_strings_know_it() -> None:
    assert parse("/run/netns/k1/card!h!1").address == "/run/netns/k1/card!h!1"
    with pytest.raises(NineError, match="want one of tcp tls unix vsock fd char exec card"):
        parse("il!h!1")
    with pytest.raises(NineError, match="only tcp and tls and card can be in another network namespace, not unix"):
        parse("/run/netns/k1/unix!/a")


async def test_it_is_served_dialled_relayed_and_posted_and_its_users_are_who_it_tells(tmp_path: Path) -> None:
    services = srv.tree()
    with trio.fail_after(SOON):
        async with serving(Dir({"whoami": WhoAmI()})) as server, trio.open_nursery() as nursery:
            listener = await listen("card!*!0")
            policy = policy_for(listener, trust=False, readonly=False)
            assert not policy.readonly, "others can reach it, but it tells who they are"
            assert "whoever comes is cert:NAME" in describe(listener, policy)
            nursery.start_soon(server.listen, listener, policy)
            address = listener.address.replace("*", "127.0.0.1")

            async with connect(address, uname="root", n_uname=0) as client:
                assert await client.read("whoami") == f"cert:ann {NO_ID}\n"
                assert [user.key for user in server.shares.users.values()] == [("user", "cert:ann", NO_ID)]

            async with composed(tmp_path, {}) as front, connect(front) as client, connect(front) as other:
                await client.write("ctl", f"mount {address} /n/there")
                for each in (client, other):
                    assert await each.read("n/there/whoami") == f"cert:ann {NO_ID}\n"
                assert server.shares.total >= 2, "each client's own: it can be dialled again"

            async with mounted(services) as client, await client.create("mine", 0o600) as file:
                await file.pwrite(address.encode(), 0)
                assert await client.read("mine") == address + "\n"
            nursery.cancel_scope.cancel()
        await listener.aclose()


async def test_whoever_dials_a_trace_by_it_or_to_it_would_be_somebody_else(tmp_path: Path) -> None:
    everywhere, here = await listen("card!*!0"), await listen("tcp!127.0.0.1!0")
    try:
        for listener, address in ((everywhere, "tcp!h!1"), (here, "card!h!1")):
            with pytest.raises(NineError) as refused:
                check(listener, address)
            assert refused.value.errno == errno.EPERM
        check(here, "tcp!h!1")
    finally:
        await everywhere.aclose()
        await here.aclose()


async def test_a_stranger_by_it_is_told_by_host_until_they_attach() -> None:
    listener = await listen("card!127.0.0.1!0")
    link = await dial(listener.address)
    other = await listener.accept()
    assert (link.peer.transport, other.peer.user, other.peer.private) == (CARD, "cert:ann", False)
    assert whose(other.peer) == ("card", "127.0.0.1")
    link.close()
    other.close()
    now = blocking.dial(listener.address, time.monotonic() + SOON)
    other = await listener.accept()
    assert other.peer.user == "cert:ann"
    now.close()
    other.close()
    await listener.aclose()
