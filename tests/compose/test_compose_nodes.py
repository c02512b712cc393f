"""What the nodes of the namespace tell: users, status, paths, events, and servers that are away."""

import errno
from collections.abc import Iterable
from typing import Any

import pytest

from mk9p.auth import NONE, ROOT, Principal
from mk9p.compose.table import Flags
from mk9p.compose.union import lexical
from mk9p.tree import Change, Maybe, Node, Stat, Text, settle
from tests.compose.helpers_compose import Link, Store, k1, k2, namespace
from tests.servers.trees import ls, read, walk
from tests.servers.trees import send as write


async def test_events_tell_what_was_done() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount -c k1 '/k/k 1' bin\nbind -b '/k/k 1' /n\nunmount '/k/k 1' /n\nunmount '/k/k 1'")
    ns.mount("k1", "/k/k1")
    ns.up("k1", "")
    ns.down("k1", "", "connection reset")
    told = [line.decode().split(" ", 2)[2] for line in ns.events.lines]
    assert told == [
        "mount -c k1 '/k/k 1' bin\n",
        "bind -b '/k/k 1' /n\n",
        "unmount '/k/k 1' /n\n",
        "unmount '/k/k 1'\n",
        "mount k1 /k/k1\n",
        "up k1\n",
        "down k1 'connection reset'\n",
    ]
    assert ns.name("elsewhere", "") == "elsewhere"


async def test_the_user_is_handed_on() -> None:
    asked: list[Principal] = []

    class Asked(Store):
        def walk(self, name: str, who: Principal) -> Maybe[Node]:
            asked.append(who)
            return super().walk(name, who)

        def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, Node]]]:
            asked.append(who)
            return super().entries(who)

    ns = namespace(k1=Asked({"a": {"b": "c"}}))
    ns.mount("k1", "/k/k1")
    await ns.bind("/k/k1/a", "/n")
    asked.clear()
    glenda = Principal("glenda", 1000)
    for who in (glenda, NONE, glenda):
        await ls(ns, "k/k1", who)
        await walk(ns, "n", who)
        assert set(asked) == {who}
        asked.clear()


async def test_a_bind_on_the_root_is_resolved_for_each_user() -> None:
    class Mine(Store):
        def walk(self, name: str, who: Principal) -> Node:
            return Store({"whose": who.name})

    ns = namespace(k1=Mine())
    ns.mount("k1", "/k/k1")
    await ns.bind("/k/k1/home", "/", flags=None)
    for name in ("glenda", "none"):
        assert await read(ns, "whose", Principal(name, 1000)) == name


async def test_the_paths_of_qids() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount k1 /k/k1\nmount -b k2 /k/k1/bin bin")
    listed = dict(await settle((await walk(ns, "k")).entries(ROOT)))
    assert (await walk(ns, "k/k1")).path == listed["k1"].path == lexical("/k/k1")
    assert (await walk(ns, "k/k1/bin")).path == lexical("/k/k1/bin")
    assert len({lexical(path) for path in ("", "/k", "/k/k1", "/k1/k", "/k/k2")}) == 5
    tree = k1()
    tree.children["cpu"].path = 77
    ns = namespace(k1=tree)
    await write(ns, "ctl", "mount k1 /k/k1\nmount k1 /k/k1/cpu/0/deep")
    assert (await walk(ns, "k/k1/cpu")).path == 77  # its own, though something is mounted below


async def test_status_and_statfs_are_the_first_elements() -> None:
    one, two = Store({"a": "1"}, mode=0o700), Store({}, mode=0o755)
    ns = namespace(k1=one, k2=two)
    await write(ns, "ctl", "mount k1 /n\nmount -a k2 /n")
    node = await walk(ns, "n")
    stat = await settle(node.stat())
    assert stat.mode & 0o777 == 0o700
    assert (await settle(node.statfs())).blocks == 1
    await settle(node.change(Change(mode=0o711), ROOT))
    assert (one.mode & 0o777, two.mode & 0o777) == (0o711, 0o755)


async def test_files_open_below_are_counted_by_the_tree_that_counts_them() -> None:
    class Counted(Store):
        users = 0

        def hold(self) -> None:
            self.users += 1

        def release(self) -> None:
            self.users -= 1

    tree = Counted({"data": "x"})
    ns = namespace(k1=tree, k2=k2())
    await write(ns, "ctl", "mount k1 /n\nmount -r k1 /r")
    for path in ("n", "r"):
        node = await walk(ns, path)
        assert node.hold is not None
        assert node.release is not None
        node.hold()
        assert tree.users == 1
        await settle(node.release())
        assert tree.users == 0


async def test_a_server_that_is_down_spoils_only_its_own_branch() -> None:
    down, up = Link({"bin": {"a": "1"}}), k2()
    ns = namespace(k1=down, k2=up)
    await write(
        ns, "ctl", "mount k1 /k/k1\nmount k2 /k/k2\nmount -b k1 /both\nmount -a k2 /both\nmount k2 /k/k1/in/side"
    )
    down.state = "down"
    assert await ls(ns, "k") == ["k1", "k2"]
    assert await ls(ns, "k/k2") == ["name", "cpu", "bin"]
    point = await walk(ns, "k/k1")
    asked: tuple[Any, ...] = (
        point.stat,
        lambda: point.entries(ROOT),
        lambda: point.walk("bin", ROOT),
    )
    for broken in asked:
        with pytest.raises(OSError, match="k1 is down") as caught:
            await settle(broken())
        assert caught.value.errno == errno.EIO
    assert await read(ns, "both/bin/ls") == "k2 ls"
    assert await ls(ns, "both") == ["name", "cpu", "bin"]
    assert isinstance(await settle((await walk(ns, "both")).stat()), Stat)
    assert await read(ns, "k/k1/in/side/name") == "k2"
    with pytest.raises(OSError, match="k1 is down"):
        await walk(ns, "both/none")
    await write(ns, "ctl", "bind /k/k1/bin /later")  # believed, since nobody can say
    down.state = "up"
    assert await read(point, "bin/a") == "1"
    assert await read(ns, "later/a") == "1"


async def test_a_silent_server_holds_no_bind_up(autojump_clock: object) -> None:
    silent = Link({"bin": {"a": "1"}})
    ns = namespace(k1=silent)
    ns.mount("k1", "/k/k1")
    silent.state = "silent"
    await write(ns, "ctl", "bind /k/k1/bin /n")
    silent.state = "up"
    assert await read(ns, "n/a") == "1"


async def test_a_listing_asks_no_server_below() -> None:
    tree = Link({"a": "1"})
    ns = namespace(k1=tree)
    ns.mount("k1", "/k/k1")
    ns.mount("k1", "/deep/in/here")
    tree.state = "silent"
    assert await ls(ns, "k") == ["k1"]
    assert await ls(ns, "deep") == ["in"]
    assert tree.asked == 0


async def test_one_server_mounted_twice_is_one() -> None:
    made: list[str] = []
    from mk9p.compose.namespace import Namespace

    def mounter(address: str, spec: str, flags: Flags) -> Node:
        made.append(address)
        return k1()

    ns = Namespace(mounter)
    ns.mount("a", "/k/k1")
    ns.mount("a", "/n")
    ns.mount("a", "/n", flags=None)
    ns.mount("a", "/m", "spec")
    assert made == ["a", "a"]
    ns.mount("a", "/w", flags=Flags(wait=60))
    ns.mount("a", "/w2", flags=Flags(wait=60))
    assert made == ["a", "a", "a"], "it waits, and the others do not"


async def test_what_was_found_for_one_user_is_not_shown_to_another() -> None:
    class Mine(Store):
        def walk(self, name: str, who: Principal) -> Node:
            return Store({"whose": Text(who.name), "deep": {}})

    ns = namespace(k1=Mine())
    await write(ns, "ctl", "mount k1 /k/k1\nbind /k/k1/home /n\nmount k1 /n/deep/er")
    node = await walk(ns, "n", Principal("glenda", 1000))
    for name in ("glenda", "none", "glenda"):
        assert await read(node, "whose", Principal(name, 1000)) == name


async def test_mounting_over_the_root_leaves_ctl() -> None:
    gone = Link({"a": "1"})
    ns = namespace(k1=gone)
    await write(ns, "ctl", "mount k1 /")
    assert (await ls(ns))[:2] == ["a", "ctl"]
    gone.state = "down"
    assert (await ls(ns))[0] == "ctl"
    assert isinstance(await settle(ns.root.stat()), Stat)
    await write(ns, "ctl", "unmount /")
    assert await read(ns, "ns") == ""


async def test_who_is_where_a_bind_leads_stays_when_its_source_goes() -> None:
    ns = namespace(k1=k1(), k2=k2())
    await write(ns, "ctl", "mount k1 /k/k1\nbind -a /k/k1/bin /n")
    node = await walk(ns, "n")
    ns.unmount("/k/k1")
    assert await read(node, "ls") == "k1 ls"
    with pytest.raises(FileNotFoundError):
        await walk(ns, "n")


async def test_a_listed_node_can_be_used() -> None:
    ns = namespace(k1=k1())
    await write(ns, "ctl", "mount k1 /k/k1\nbind /k/k1/name /f")
    listed = dict(await ns.root.entries(ROOT))
    assert await read(listed["k"], "k1/name") == "k1"
    assert await read(listed["f"], "") == "k1"
    with pytest.raises(NotADirectoryError):
        await settle(listed["f"].walk("x", ROOT))
    with pytest.raises(NotADirectoryError):
        await settle(listed["f"].entries(ROOT))
    ns.unmount("/f")
    late = dict(await settle((await walk(ns, "k")).entries(ROOT)))["k1"]
    ns.unmount("/k/k1")
    with pytest.raises(FileNotFoundError):
        await ls(late)
