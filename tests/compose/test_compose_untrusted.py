"""A mount of a server that nobody trusts: what it says of a file is what a file can be, or an error; and nothing of it goes over unread."""

import errno
import os
import stat as st
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.auth import ROOT, Principal
from mk9p.client import Client, connect, requests
from mk9p.compose import untrusted
from mk9p.compose.namespace import Namespace
from mk9p.compose.remote import Server as Remote
from mk9p.compose.table import Flags
from mk9p.compose.untrusted import Untrusted, sound
from mk9p.composing import namespace
from mk9p.errors import NineError
from mk9p.server import Server
from mk9p.status import Change
from mk9p.testing import SOON, Memory, odd, serving_at
from mk9p.tree import Dir, Handle, Node, Open, Stat, Text, settle
from mk9p.wire import QTDIR, QTSYMLINK


class Liar(Text):
    """A file that says of itself what it likes."""

    def __init__(self, mode: int, *, qtype: int = 0, rdev: int = 0, target: str = "x") -> None:
        super().__init__("text\n", mode=0o644)
        self.qtype, self.said, self.target = qtype, Stat(mode, rdev=rdev), target
        self.kept: dict[str, bytes] = {"user.note": b"seen", "security.capability": b"all", "trusted.x": b"y"}

    def stat(self) -> Stat:
        return self.said

    def readlink(self) -> str:
        return self.target

    def xattrs(self, who: Principal) -> Iterable[str]:
        return list(self.kept)

    def xattr(self, name: str, who: Principal) -> bytes:
        return self.kept[name]

    def set_xattr(self, name: str, value: bytes, who: Principal, *, flags: int = 0) -> None:
        self.kept[name] = value


class Silent(Node):
    """A file that never answers."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("stat", "change", "sync", "walk", "entries", "xattr", "statfs", "mkdir", "remove", "readlink"):
            return self._never
        return super().__getattribute__(name)

    async def _never(self, *_: Any, **__: Any) -> Any:
        await trio.sleep_forever()


@asynccontextmanager
async def mounted(tmp_path: Path, tree: Node, flags: str = "-u") -> AsyncIterator[tuple[Client, Server, Namespace]]:
    far, here = f"unix!{tmp_path}/far", f"unix!{tmp_path}/ns"
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery, serving_at(far, tree):
            ns = namespace(nursery)
            await ns.run(f"mount {flags} {far} /k/k1\n")
            async with serving_at(here, ns.root) as host, connect(here) as client:
                yield client, host.server, ns
            nursery.cancel_scope.cancel()


async def refused(what: Any) -> int:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which is looked at by who asks
        await what
    return caught.value.errno or 0


async def test_nothing_of_an_untrusted_tree_goes_over_unread_and_all_of_it_works(tmp_path: Path) -> None:
    tree = Memory({"dir": {"file": b"text\n"}})
    for flags, relayed in (("-u", False), ("-c", True)):
        home = tmp_path / flags
        home.mkdir()
        async with mounted(home, tree, flags) as (client, server, _):
            top = "k/k1/dir"
            assert await client.read(f"{top}/file") == "text\n"
            await client.mkdir(f"{top}/new", 0o755)
            async with await client.create(f"{top}/new/made") as file:
                await file.write(b"made\n")
                await file.sync()
            await client.rename(f"{top}/new/made", f"{top}/moved")
            assert sorted(entry.name for entry in await client.listdir(top)) == ["file", "moved", "new"]
            await client.remove(f"{top}/moved")
            await client.remove(f"{top}/new")
            assert any(c.backends for c in server.connections) == relayed


async def test_no_file_there_lets_somebody_become_another_user_or_is_a_device_of_ours(tmp_path: Path) -> None:
    tree = Dir(
        {
            "suid": Liar(st.S_IFREG | 0o6755),
            "disk": Liar(st.S_IFBLK | 0o666, rdev=os.makedev(8, 0)),
            "dir": Dir({}, mode=0o755),
        }
    )
    async with mounted(tmp_path, tree) as (client, _, _):
        assert (await client.stat("k/k1/suid")).mode == st.S_IFREG | 0o755
        disk = await client.stat("k/k1/disk")
        assert (disk.mode, disk.rdev) == (st.S_IFBLK | 0o666, 0)
    home = tmp_path / "trusted"
    home.mkdir()
    async with mounted(home, tree, "-c") as (client, _, _):
        assert (await client.stat("k/k1/suid")).mode == st.S_IFREG | 0o6755


@pytest.mark.parametrize(
    ("mode", "qtype"),
    [
        (st.S_IFDIR | 0o755, 0),
        (st.S_IFREG | 0o755, QTDIR),
        (st.S_IFLNK | 0o777, 0),
        (st.S_IFREG | 0o644, QTSYMLINK),
        (st.S_IFDIR | 0o755, QTSYMLINK),
    ],
)
def test_a_file_of_two_kinds_is_an_error(mode: int, qtype: int) -> None:
    with pytest.raises(NineError, match="of two kinds") as caught:
        sound(Stat(mode), qtype)
    assert caught.value.errno == errno.EIO


def test_a_status_that_harms_nobody_stays_the_same_object() -> None:
    for stat, qtype in (
        (Stat(st.S_IFREG | 0o644), 0),
        (Stat(st.S_IFDIR | 0o2755), QTDIR),
        (Stat(st.S_IFLNK), QTSYMLINK),
    ):
        assert sound(stat, qtype) is stat


async def test_a_name_that_nobody_had_asked_for_is_of_the_kind_that_it_turns_out_to_be(tmp_path: Path) -> None:
    far = f"unix!{tmp_path}/far"
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery, serving_at(far, Memory({"file": b"text\n", "dir": {}})):
            root = Untrusted(Remote(far, nursery).tree(ROOT))
            assert root.below is not None
            assert st.S_ISREG((await settle(root.below("file", ROOT).stat())).mode)
            handle = await settle(root.below("file", ROOT).open(Open(ROOT)))
            assert await settle(handle.read(0, 9)) == b"text\n"
            await settle(handle.close())
            assert st.S_ISDIR((await settle(root.below("dir", ROOT).stat())).mode)
            nursery.cancel_scope.cancel()


async def test_an_open_file_has_the_status_of_its_file(tmp_path: Path) -> None:
    """Also one of our own kinds, whose handle leaves that to the node."""
    handle = await Untrusted(Liar(st.S_IFREG | 0o6644)).open(Open(ROOT))
    assert handle.stat() is None
    async with (
        mounted(tmp_path, Dir({"suid": Liar(st.S_IFREG | 0o6755)})) as (client, _, _),
        await client.open("k/k1/suid") as file,
    ):
        assert (await requests.stat(client.connection, file.fid)).mode == st.S_IFREG | 0o755


async def test_attributes_that_give_rights_are_neither_seen_nor_set() -> None:
    liar = Liar(st.S_IFREG | 0o644)
    shown = Untrusted(liar)
    assert list(await shown.xattrs(ROOT)) == ["user.note"]
    assert await shown.xattr("user.note", ROOT) == b"seen"
    for name in ("security.capability", "system.posix_acl_access", "trusted.x"):
        for ask in (shown.xattr(name, ROOT), shown.set_xattr(name, b"", ROOT), shown.remove_xattr(name, ROOT)):
            assert await refused(ask) == errno.EOPNOTSUPP
    assert set(liar.kept) == {"user.note", "security.capability", "trusted.x"}


@pytest.mark.parametrize("target", ["", "a\0b", "x" * 5000])
async def test_a_link_leads_to_a_path_or_is_an_error(target: str) -> None:
    assert await refused(Untrusted(Liar(st.S_IFLNK, qtype=QTSYMLINK, target=target)).readlink()) == errno.EIO
    assert await Untrusted(Liar(st.S_IFLNK, qtype=QTSYMLINK, target="../x")).readlink() == "../x"


@pytest.mark.parametrize("number", [512, 524, 4095, 133337])
async def test_an_error_that_linux_keeps_for_itself_is_eio(number: int) -> None:
    class Fails(Text):
        def open(self, how: Open) -> Handle:
            raise NineError(number, "so")

        def stat(self) -> Stat:
            raise NineError(number, "so")

    shown = Untrusted(Fails(""))
    assert await refused(shown.open(Open(ROOT))) == errno.EIO
    assert await refused(shown.stat()) == errno.EIO


async def test_what_need_not_wait_is_answered_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "SECONDS", 0.01)
    monkeypatch.setattr(untrusted, "SYNC", 0.01)
    shown = Untrusted(Silent())
    with trio.fail_after(SOON):
        asked: list[Any] = [
            *(shown.stat(), shown.walk("x", ROOT), shown.entries(ROOT), shown.statfs(), shown.readlink()),
            *(shown.mkdir("x", 0o755, ROOT), shown.remove("x", ROOT), shown.change(Change(mode=0o600), ROOT)),
            *(shown.xattr("user.x", ROOT), shown.sync(ROOT)),
        ]
        for ask in asked:
            assert await refused(settle(ask)) == errno.EIO


async def test_where_requests_wait_for_a_server_that_is_down_it_has_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrusted, "SECONDS", 0.01)
    far = f"unix!{tmp_path}/far"

    async def walked(root: Node, *names: str) -> Node:
        for name in names:
            root = await settle(root.walk(name, ROOT))
        return root

    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            ns = namespace(nursery)
            ns.mount(far, "/k/k1", flags=Flags(untrusted=True, wait=int(SOON)))
            ns.mount(far, "/k/k2", flags=Flags(untrusted=True))

            async def later() -> None:
                assert await refused(walked(ns.root, "k", "k2", "file")) == errno.EIO
                await trio.sleep(0.2)
                async with serving_at(far, Memory({"file": b"text\n"})):
                    await trio.sleep_forever()

            nursery.start_soon(later)
            assert (await settle((await walked(ns.root, "k", "k1", "file")).stat())).length == 5
            nursery.cancel_scope.cancel()


async def test_what_waits_for_an_event_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "SECONDS", 0.01)

    class Waits(Text):
        async def open(self, how: Open) -> Handle:
            await trio.sleep(0.1)
            return Handle()

    await Untrusted(Waits("")).open(Open(ROOT))


@pytest.mark.parametrize("seed", range(4))
async def test_a_server_without_manners_harms_nobody_else(tmp_path: Path, seed: int) -> None:
    """Whatever it answers, the composer goes on, and each request of its clients ends."""
    far, here = f"unix!{tmp_path}/far", f"unix!{tmp_path}/ns"
    with trio.fail_after(6 * SOON):
        async with trio.open_nursery() as nursery, odd(far, seed, often=4, silent=False):
            ns = namespace(nursery)
            ns.mount(far, "/k/k1", flags=Flags(untrusted=True))
            async with serving_at(here, ns.root), connect(here) as client:
                numbers: set[int] = set()
                for at in range(80):
                    path = ("k/k1/d1/f1", "k/k1/d1", "k/k1/d2/d1/l1", "k/k1/f2")[at % 4]
                    for ask in (client.stat, client.read_bytes, client.listdir):
                        with trio.move_on_after(0.2):
                            try:
                                await ask(path)
                            except OSError as error:
                                numbers.add(error.errno or 0)
                assert numbers <= errno.errorcode.keys()
                assert "mount -u" in await client.read("ns")
            nursery.cancel_scope.cancel()
