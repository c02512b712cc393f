"""`all/PART`: the same part of every kernel in one directory."""

import pytest
import trio

from mk9p.auth import NONE, ROOT, Principal
from mk9p.client import connect
from mk9p.compose.everyone import AT_ONCE, MOMENT, PATIENCE
from mk9p.compose.namespace import Namespace
from mk9p.testing import SOON, Memory, serving, until
from mk9p.testing.serving import address_of
from mk9p.tree import Node
from mk9p.wire import Qid
from tests.compose.helpers_compose import Link, Store, namespace
from tests.servers.trees import ls, read, walk
from tests.servers.trees import send as write


def lab() -> tuple[Namespace, Link, Link]:
    k0 = Link({"status": "k0", "cpu": {"0": {"status": "k0.0"}, "ctl": "c"}, "proc": {"1": {"status": "init"}}})
    k1 = Link(
        {"status": "k1", "cpu": {"0": {"status": "k1.0"}}, "mem": {"status": "m"}, "proc": {"1": "p", "4321": "q"}}
    )
    ns = namespace(k0=k0, k1=k1)
    ns.mount("k0", "/k/k0")
    ns.mount("k1", "/k/k1")
    return ns, k0, k1


async def test_parts_of_every_kernel() -> None:
    ns, _, _ = lab()
    assert await ls(ns, "all") == ["cpu", "proc", "mem"]
    assert await ls(ns, "all/cpu") == ["k0.0", "k0.ctl", "k1.0"]
    assert await ls(ns, "all/proc") == ["k0.1", "k1.1", "k1.4321"]
    assert await ls(ns, "all/mem") == ["k1.status"]
    assert await read(ns, "all/cpu/k1.0/status") == "k1.0"
    assert await walk(ns, "all/cpu/k1.0") is await walk(ns, "k/k1/cpu/0")


async def test_kinds_of_device_are_parts_too() -> None:
    ns, k0, k1 = lab()
    k0.children["dev"] = Store({"block": {"vda": {"ctl": "k0's"}}, "cons": "c"})
    k1.children["dev"] = Store({"block": {"vda": {"ctl": "k1's"}, "sda": {"ctl": "s"}}, "tty": {"ttyS0": "t"}})
    assert await ls(ns, "all") == ["cpu", "proc", "dev", "block", "mem", "tty"]
    assert await ls(ns, "all/block") == ["k0.vda", "k1.vda", "k1.sda"]
    assert await ls(ns, "all/tty") == ["k1.ttyS0"]
    assert await read(ns, "all/block/k1.vda/ctl") == "k1's"
    assert await walk(ns, "all/block/k1.sda") is await walk(ns, "k/k1/dev/block/sda")
    with pytest.raises(FileNotFoundError):
        await walk(ns, "all/tty/k0.ttyS0")


@pytest.mark.parametrize(
    "path", ["all/none", "all/status", "all/cpu/k1.7", "all/cpu/k7.0", "all/cpu/k1", "all/cpu/0", "all/mem/k0.status"]
)
async def test_what_is_not_there(path: str) -> None:
    ns, _, _ = lab()
    with pytest.raises(FileNotFoundError):
        await walk(ns, path)


async def test_no_kernels_no_parts() -> None:
    ns = namespace()
    assert await ls(ns, "all") == []
    with pytest.raises(FileNotFoundError):
        await walk(ns, "all/cpu")


async def test_the_first_dot_that_ends_a_kernels_name_divides() -> None:
    ns, _, _ = lab()
    ns.mount("k1", "/k/lab.two")
    assert "lab.two.4321" in await ls(ns, "all/proc")
    assert await read(ns, "all/proc/lab.two.4321") == "q"
    ns.mount("k0", "/k/lab")
    assert await read(ns, "all/proc/lab.1/status") == "init"
    with pytest.raises(FileNotFoundError):
        await walk(ns, "all/proc/lab.two.4321")


async def test_what_is_mounted_in_a_kernels_tree_is_in_all() -> None:
    ns, _, _ = lab()
    await write(ns, "ctl", "bind /k/k1/proc /k/k0/guests")
    assert await ls(ns, "all") == ["cpu", "proc", "guests", "mem"]
    assert await read(ns, "all/guests/k0.4321") == "q"


async def test_a_kernel_that_is_down_is_left_out() -> None:
    ns, _, k1 = lab()
    k1.state = "down"
    assert await ls(ns, "all") == ["cpu", "proc"]
    assert await ls(ns, "all/cpu") == ["k0.0", "k0.ctl"]
    with pytest.raises(OSError, match="k1 is down"):
        await walk(ns, "all/cpu/k1.0")
    k1.state = "up"
    assert await ls(ns, "all/cpu") == ["k0.0", "k0.ctl", "k1.0"]


async def test_silent_kernels_cost_a_second_once(autojump_clock: trio.testing.MockClock) -> None:
    ns, _, k1 = lab()
    for number in range(2, 2 + 3 * AT_ONCE):
        ns.mount("k1", f"/k/k{number}")
    k1.state = "silent"
    lines = ["k0.0", "k0.ctl"]
    node = await walk(ns, "all/cpu")
    for most in (3 * MOMENT + PATIENCE, MOMENT):  # there are four turns of those that are asked at once, and then one
        began = trio.current_time()
        assert [name for name, _ in await node.entries(ROOT)] == lines  # type: ignore[misc]
        assert trio.current_time() - began == pytest.approx(most)
    k1.state = "up"
    assert len(list(await node.entries(ROOT))) == len(lines) + 1 + 3 * AT_ONCE  # type: ignore[misc]
    k1.state = "silent"
    began = trio.current_time()
    await node.entries(ROOT)  # type: ignore[misc]
    assert trio.current_time() - began >= PATIENCE


async def test_a_listing_that_is_cancelled_while_several_are_silent_leaves_the_line_as_it_was() -> None:
    ns, _, k1 = lab()
    ns.mount("k1", "/k/k2")
    with trio.fail_after(SOON):
        async with serving(ns.root) as server, connect(address_of(server)) as client:
            assert len(await client.listdir("all/cpu")) == 4
            k1.state = "silent"
            with trio.move_on_after(2 * MOMENT):
                await client.listdir("all/cpu")
            await until(lambda: not any(c.session.tags for c in server.connections))
            k1.state = "up"
            assert len(await client.listdir("all/cpu")) == 4


async def test_a_kernel_that_is_slow_among_many_is_not_left_out(autojump_clock: trio.testing.MockClock) -> None:
    """No kernel is left out while others still answer, however long all of them take together."""

    class Slow(Link):
        async def _there(self) -> None:
            await trio.sleep(MOMENT)

    ns, many = namespace(slow=Slow({"cpu": {"0": "s"}})), 20 * AT_ONCE
    for number in range(many):
        ns.mount("slow", f"/k/s{number}")
    assert len(await ls(ns, "all/cpu")) == many
    assert trio.current_time() > PATIENCE


async def test_a_part_that_was_there_stays_and_a_walk_to_it_asks_nobody() -> None:
    ns, k0, k1 = lab()
    await walk(ns, "all/proc")
    asked = k0.asked, k1.asked
    k0.state = k1.state = "down"
    assert await ls(ns, "all/proc") == []
    assert (k0.asked, k1.asked) == asked
    with pytest.raises(FileNotFoundError):
        await walk(ns, "all/mem")
    with pytest.raises(FileNotFoundError):
        await walk(ns, "all/proc", NONE)


@pytest.mark.parametrize("name", ["k1.", "k1..", "k1..."])
async def test_no_name_leads_up_from_a_part(name: str) -> None:
    ns, _, _ = lab()
    with pytest.raises(FileNotFoundError):
        await walk(ns, f"all/proc/{name}")


async def test_a_part_that_one_kernel_has_is_there_at_once(autojump_clock: trio.testing.MockClock) -> None:
    ns, _, k1 = lab()
    k1.state = "silent"
    await walk(ns, "all/cpu")
    assert trio.current_time() == 0


async def test_directories_that_a_user_may_not_search_are_left_out() -> None:
    ns, k0, _ = lab()
    secret = k0.children["proc"]
    assert isinstance(secret, Memory)
    secret.mode = 0o700
    assert await ls(ns, "all/proc", NONE) == ["k1.1", "k1.4321"]
    with pytest.raises(PermissionError):
        await walk(ns, "all/proc/k0.1", NONE)
    assert "k0.1" in await ls(ns, "all/proc", ROOT)


class Ahead(Link):
    """A server that walks several names at once, as far as there are any."""

    async def ahead(self, names: tuple[str, ...], who: Principal, here: bool) -> list[tuple[Node, Qid]]:
        at: Node = self
        found: list[tuple[Node, Qid]] = []
        for name in names:
            if not isinstance(at, Memory) or name not in at.children:
                break
            at = at.children[name]
            found.append((at, Qid(at.qtype, 0, len(found))))
        if not found:
            raise FileNotFoundError(names[0])
        return found


async def test_the_part_at_the_top_comes_before_the_kind_of_device_in_one_message_too() -> None:
    ns = namespace(k=Ahead({"net": {"tcp": "t"}, "dev": {"net": {"eth0": "e"}, "tty": {"ttyS0": "s"}}}))
    ns.mount("k", "/k/k1")
    net, tty = await walk(ns, "all/net"), await walk(ns, "all/tty")
    assert net.ahead is not None
    assert tty.ahead is not None
    assert len(await net.ahead(("k1.tcp",), ROOT, False)) == 1
    assert len(await tty.ahead(("k1.ttyS0",), ROOT, False)) == 1
    with pytest.raises(FileNotFoundError):
        await net.ahead(("k1.eth0",), ROOT, False)
    with pytest.raises(FileNotFoundError):
        await walk(ns, "all/net/k1.eth0")
