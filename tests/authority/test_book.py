"""Rules while a server runs: they change for those who are there, whole or not at all; and an operator is asked."""

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.auth import Policy, Principal
from mk9p.authority.book import Book
from mk9p.authority.confirm import EACH, MOST, Ask, Confirm
from mk9p.authority.deciding import Authority
from mk9p.authority.files import Auth
from mk9p.authority.policy import Rules
from mk9p.client import Client, connect
from mk9p.compose.aliases import Names
from mk9p.composing import namespace
from mk9p.dial import TRANSPORTS, Peer
from mk9p.errors import NineError
from mk9p.server import Server
from mk9p.testing import SOON, Memory, serving, serving_at, until
from mk9p.testing.serving import address_of
from mk9p.tree import Ctl, Dir, Node
from tests.servers.trees import names

STRANGER = Peer(TRANSPORTS["tcp"], "10.0.0.7!5")


async def refused(what: Any) -> int:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which is looked at by who asks
        await what
    return caught.value.errno or 0


def written(path: Path, text: str) -> Book:
    path.write_text(text)
    path.chmod(0o640)
    return Book.read(str(path))


@asynccontextmanager
async def ruled(path: Path | None, text: str, files: dict[str, Node]) -> AsyncIterator[tuple[Server, Book]]:
    """Give a server with rules, and `auth` beside the files."""
    book = Book(Rules.parse(text, lambda name: 0)) if path is None else written(path, text)
    auth = Auth(Authority(book=book))
    with trio.fail_after(SOON):
        async with serving(Dir({"auth": auth.tree(), **files}), authority=auth.authority) as server:
            yield server, book


@asynccontextmanager
async def bob(server: Server, **more: Any) -> AsyncIterator[Client]:
    async with connect(address_of(server), uname="nobody", **more) as client:
        yield client


def data() -> dict[str, Node]:
    return {"data": Memory({"f": "text", "g": "other"}, mode=0o777), "ctl": Ctl({"do": lambda what: None}, mode=0o666)}


async def test_rules_that_are_written_hold_at_once_and_are_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "policy"
    async with (
        ruled(file, "deny nobody rwcnd /ctl\n", data()) as (server, book),
        bob(server) as client,
        connect(address_of(server), uname="root") as root,
    ):
        assert await client.read("data/f") == "text"
        assert await refused(client.write("ctl", "do it")) == errno.EACCES
        await root.write("auth/policy", "allow nobody c /ctl\ndeny nobody rwcnd /data/**\n")
        await client.write("ctl", "do it")
        assert await refused(client.read("data/f")) == errno.EACCES
        assert sorted(await names(client)) == ["auth", "ctl", "error"]
        assert file.read_text() == await root.read("auth/policy") == book.rules.text
        assert file.stat().st_mode & 0o777 == 0o640
        assert os.listdir(tmp_path) == ["policy"]
        assert await refused(client.read("auth/policy")) == errno.EACCES
        assert await refused(client.write("auth/policy", "")) == errno.EACCES


async def test_a_wrong_line_changes_nothing_and_is_told_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "policy"
    good = "deny nobody rwcnd /ctl\n"
    async with (
        ruled(file, good, data()) as (server, _),
        bob(server) as client,
        connect(address_of(server), uname="root", version="9P2000.u") as root,
    ):
        with pytest.raises(NineError, match="line 2: unknown word nonsense"):
            await root.write("auth/policy", "allow nobody rwcnd /ctl\nnonsense\n")
        file.write_text("allow nobody rwcnd /ctl\nallow * y /\n")
        with pytest.raises(NineError, match="policy: line 2: OPS are letters"):
            await root.write("auth/ctl", "reload")
        assert "line 2" in await root.read("auth/error")
        assert await root.read("auth/policy") == good
        assert await refused(client.write("ctl", "do it")) == errno.EACCES
        file.write_text("allow nobody rwcnd /ctl\n")
        await root.write("auth/ctl", "reload")
        await client.write("ctl", "do it")
        file.unlink()
        with pytest.raises(FileNotFoundError):
            await root.write("auth/ctl", "reload")
        with pytest.raises(FileNotFoundError):
            await root.write("auth/policy", "")
        await client.write("ctl", "do that")
        assert await refused(client.write("auth/ctl", "reload")) == errno.EPERM


async def test_a_policy_that_may_be_a_part_of_a_longer_one_is_refused() -> None:
    async with (
        ruled(None, "deny nobody rwcnd /ctl\n", data()) as (server, book),
        connect(address_of(server), uname="root", msize=8192) as root,
    ):
        assert await refused(root.write("auth/policy", "allow * r /\n" * 2000)) == errno.EFBIG
        assert book.rules.text == "deny nobody rwcnd /ctl\n"


def test_a_policy_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Book.read(str(tmp_path / "none"))
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(NineError, match="bytes: it is not UTF-8"):
        Book.read(str(tmp_path / "bytes"))
    (tmp_path / "wrong").write_text("\nx\n")
    with pytest.raises(NineError, match="wrong: line 2: unknown word x"):
        Book.read(str(tmp_path / "wrong"))


async def opens(client: Client, path: str, said: list[str]) -> None:
    try:
        said.append(await client.read(path))
    except OSError as error:
        said.append(errno.errorcode[error.errno or 0])


ASK = "ask nobody r /data/**\n"


@pytest.mark.parametrize(("answer", "said"), [("allow 1 once", "text"), ("deny 1", "EACCES")])
async def test_an_open_waits_for_an_operator(answer: str, said: str) -> None:
    heard: list[str] = []
    async with ruled(None, ASK, data()) as (server, book), bob(server) as client:
        async with (
            connect(address_of(server), uname="root") as root,
            await root.open("auth/confirm", "r") as file,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(opens, client, "data/f", heard)
            assert await file.read(1000) == b"1 nobody r /data/f\n"
            assert not heard
            assert await client.stat("data/f")  # nothing else of this user waits
            await root.write("auth/confirm", answer)
            await until(lambda: heard)
        assert heard == [said]
        assert not book.confirm.pending
        assert book.rules.text == ASK


async def test_an_operator_allows_always(tmp_path: Path) -> None:
    heard: list[str] = []
    async with (
        ruled(tmp_path / "policy", ASK, data()) as (server, book),
        bob(server) as client,
        connect(address_of(server), uname="root") as root,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(opens, client, "data/f", heard)
        await until(lambda: book.confirm.pending)
        for wrong in ("allow 1", "allow 1 twice", "allow 2 once", "deny 2", "forbid 1", "deny"):
            assert await refused(root.write("auth/confirm", wrong)) in (errno.EINVAL, errno.ENOENT)
        await root.write("auth/confirm", "allow 1 always\n")
        await until(lambda: heard)
        assert await client.read("data/f") == "text"  # nobody is asked
        assert (tmp_path / "policy").read_text() == "allow nobody r /data/f\n" + ASK
        assert await refused(root.write("auth/confirm", "allow 1 once")) == errno.ENOENT


@pytest.mark.parametrize("name", ["*", "@root"])
async def test_nobody_is_allowed_always_under_a_name_that_is_also_others(name: str) -> None:
    async with (
        ruled(None, "ask * r /data/f\n", data()) as (server, book),
        connect(address_of(server), uname=name) as client,
        connect(address_of(server), uname="root") as root,
        trio.open_nursery() as nursery,
    ):
        heard: list[str] = []
        nursery.start_soon(opens, client, "data/f", heard)
        await until(lambda: book.confirm.pending)
        assert await refused(root.write("auth/confirm", "allow 1 always")) == errno.EINVAL
        assert book.rules.text == "ask * r /data/f\n"
        await root.write("auth/confirm", "allow 1 once")
        await until(lambda: heard)


async def test_no_answer_is_no() -> None:
    async with ruled(None, "patience 0.05\n" + ASK, data()) as (server, book), bob(server) as client:
        assert await refused(client.read("data/f")) == errno.EACCES
        assert not book.confirm.pending


async def test_an_open_that_is_given_up_asks_no_more() -> None:
    async with ruled(None, ASK, data()) as (server, book), bob(server) as client:
        with trio.move_on_after(0.1):
            await client.read("data/f")
        await until(lambda: not book.confirm.pending)
        assert await client.stat("data/f")


def test_an_ask_is_one_line_whatever_a_file_is_called() -> None:
    line = Ask(7, ("guest:k1", 2, "/k/k0/x\n8 root r /etc/motd\x1b[2J\u202e")).line
    assert line == "7 guest:k1 w '/k/k0/x\\n8 root r /etc/motd\\x1b[2J\\u202e'\n"


async def asks(confirm: Confirm, said: list[bool], who: str, path: str) -> None:
    said.append(await confirm.ask(who, 1, path, 60.0))


async def test_nobody_buries_an_operator_in_asks() -> None:
    confirm, said = Confirm(lambda key: None), list[bool]()
    async with trio.open_nursery() as nursery:
        for number in range(3 * EACH):
            nursery.start_soon(asks, confirm, said, "bob", f"/{number % (EACH + 1)}")
        await until(lambda: said)
        assert len(confirm.pending) == EACH
        assert not any(said)
        for number in range(MOST):
            nursery.start_soon(asks, confirm, list[bool](), f"user{number}", "/x")
        await trio.testing.wait_all_tasks_blocked()
        assert len(confirm.pending) == MOST
        shared = next(ask for ask in confirm.pending.values() if ask.waiting > 1)
        before = len(said)
        confirm.allow(shared.number, "once")
        await until(lambda: len(said) > before)
        await trio.testing.wait_all_tasks_blocked()
        assert sum(said) == len(said) - before > 1
        nursery.cancel_scope.cancel()
    assert not confirm.pending


@asynccontextmanager
async def composed(tmp_path: Path, text: str, *script: str) -> AsyncIterator[tuple[Server, Book, Memory]]:
    stored = Memory({"f": "text", "dir": {"deep": "deep text"}}, mode=0o777)
    for name in ("f", "dir", "dir/deep"):
        stored.at(name).mode |= 0o666 | (0o111 if name == "dir" else 0)
    book = Book(Rules.parse(text, lambda name: 0))
    auth = Auth(Authority(book=book))
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            far_tree = Dir(
                {"fs": stored, "ctl": Ctl({"do": lambda what: None}), "proc": Dir({"1": Memory({"x": "1"})})}
            )
            async with serving_at(f"unix!{tmp_path}/k1", far_tree) as far:
                ns = namespace(nursery, {"auth": auth.tree()})
                auth.authority.names = Names(ns.table)
                ns.table.on_change.append(auth.authority.renamed)
                ns.mount(far.address, "/k/k1")
                ns.mount(far.address, "/again")
                await ns.run("\n".join(script))
                async with serving(ns.root, authority=auth.authority) as server:
                    yield server, book, stored
            nursery.cancel_scope.cancel()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root attaches to another server as anybody")


@needs_root
async def test_new_rules_take_back_what_was_left_to_another_server(tmp_path: Path) -> None:
    async with composed(tmp_path, "") as (server, book, _), bob(server) as client:
        assert await client.read("k/k1/fs/dir/deep") == "deep text"
        open_there, other = await client.open("k/k1/fs/dir/deep", "r"), await client.open("k/k1/fs/f", "r")
        assert any(not b.dead for c in server.connections for b in c.backends.values())
        await book.write("deny nobody r /k/k1/fs/dir/**")
        assert await refused(client.read("k/k1/fs/dir/deep")) == errno.EACCES
        assert await refused(open_there.pread(100, 0)) == errno.EACCES
        assert await other.pread(100, 0) == b"text"
        assert await client.read("k/k1/fs/f") == "text"
        await book.write("")
        assert await client.read("k/k1/fs/dir/deep") == "deep text"


@needs_root
@pytest.mark.parametrize(
    "way",
    ["k/k1/proc/1/x", "all/proc/k1.1/x", "n/1/x", "m/n/1/x", "again/proc/1/x", "one"],
)
async def test_what_is_denied_is_denied_by_every_name(tmp_path: Path, way: str) -> None:
    script = ("bind /k/k1/proc /n", "bind / /m", "bind /k/k1/proc/1/x /one")
    async with composed(tmp_path, "", *script) as (server, _, _), bob(server) as client:
        assert await client.read(way) == "1"
    (tmp_path / "k1").unlink(missing_ok=True)
    rules = "allow nobody r /k/k1/proc/2/**\ndeny nobody r /k/k1/proc/**\n"
    async with composed(tmp_path, rules, *script) as (server, _, _), bob(server) as client:
        assert await refused(client.read(way)) == errno.EACCES
        assert await client.read("k/k1/fs/f") == "text"


@needs_root
@pytest.mark.parametrize(
    "way", ["k/k1/proc/1/x", "all/proc/k1.1/x", "n/1/x", "m/n/1/x", "m/all/proc/k1.1/x", "part/1/x"]
)
@pytest.mark.parametrize("rule", ["/n/1/**", "/part/*/x", "/all/proc/k1.1/**", "/n/**"])
async def test_a_name_that_was_given_may_stand_in_a_rule_and_all_names_are_denied(
    tmp_path: Path, way: str, rule: str
) -> None:
    script = ("bind /k/k1/proc /n", "bind / /m", f"mount unix!{tmp_path}/k1 /part proc")
    async with composed(tmp_path, f"deny nobody rwcnd {rule}\n", *script) as (server, _, _), bob(server) as client:
        assert await refused(client.read(way)) == errno.EACCES
        assert await client.read("k/k1/fs/f") == "text"


@needs_root
async def test_a_ctl_file_takes_c_whatever_name_a_bind_gives_it(tmp_path: Path) -> None:
    rules = "deny nobody c /**\n"
    async with (
        composed(tmp_path, rules, "bind /k/k1/ctl /plain", "bind /k/k1/fs/f /my.ctl") as (server, _, stored),
        bob(server) as client,
    ):
        for path in ("plain", "k/k1/ctl", "my.ctl"):
            assert await refused(client.write(path, "do it")) == errno.EACCES
        await client.write("k/k1/fs/f", "changed")
        assert bytes(stored.at("f").data) == b"changed"


@needs_root
async def test_a_rule_for_all_names_is_not_one_for_names_that_were_given(tmp_path: Path) -> None:
    rules = "allow nobody r /k/k1/proc/1/**\nallow nobody r /again/proc/1/**\ndeny nobody rwcnd /**\n"
    async with composed(tmp_path, rules, "bind /k/k1/proc /n") as (server, _, _), bob(server) as client:
        assert await client.read("k/k1/proc/1/x") == "1"
        assert await refused(client.read("k/k1/proc/2/x")) == errno.EACCES
        assert await refused(client.read("n/1/x")) == errno.EACCES


@needs_root
async def test_rules_hold_on_another_server_by_whatever_way(tmp_path: Path) -> None:
    rules = "deny nobody w /k/k1/fs/dir/**\nallow nobody rwcnd /k/k1/fs/**\ndeny nobody rwcnd /k/**\n"
    async with composed(tmp_path, rules) as (server, _, stored), bob(server) as client:
        assert await names(client, "k/k1") == ["fs"]
        assert await refused(client.write("k/k1/fs/dir/deep", "no")) == errno.EACCES
        await client.write("k/k1/fs/f", "changed")
        assert await refused(client.write("k/k1/ctl", "do it")) == errno.EACCES
        assert await refused(client.rename("k/k1/fs/dir/deep", "k/k1/fs/deep")) == errno.EXDEV
        await client.mkdir("k/k1/fs/new", 0o777)
        assert (bytes(stored.at("f").data), bytes(stored.at("dir/deep").data)) == (b"changed", b"deep text")


class Slow(Memory):
    """A directory whose listing takes until `go` is set: then listings of one user at the same time are one."""

    go: trio.Event

    async def entries(self, who: Principal) -> list[tuple[str, Node]]:
        await self.go.wait()
        return list(self.children.items())


async def test_nobody_gets_the_listing_of_another_who_has_the_same_name() -> None:
    """One is `none` because they say so on a line that is believed, the other because nobody knows them."""
    slow = Slow({"open": "x", "hidden": "x", "third": "x"})
    slow.go = trio.Event()
    found: dict[str, list[str]] = {}

    async def lists(client: Client, who: str) -> None:
        found.setdefault(who, []).extend(await names(client, "slow"))

    async with ruled(None, "allow none r /slow\ndeny none rwcnd /slow/hidden\nallow none r /**", {"slow": slow}) as (
        server,
        book,
    ):
        await book.write("deny root rwcnd /slow/third\nallow none r /slow/open\n")
        stranger = address_of(server, STRANGER, Policy())
        async with (
            connect(stranger) as one,
            connect(address_of(server), uname="none") as two,
            trio.open_nursery() as nursery,
        ):
            for _ in range(3):
                nursery.start_soon(lists, two, "local")
                nursery.start_soon(lists, one, "stranger")
            await trio.testing.wait_all_tasks_blocked()
            slow.go.set()
    assert set(found["stranger"]) == {"open"}
    assert set(found["local"]) == {"open", "hidden", "third"}


async def test_remote_users_get_nothing_without_a_rule() -> None:
    async with ruled(None, "allow none r /data/f\n", data()) as (server, _):
        address = address_of(server, STRANGER, Policy())
        async with connect(address, uname="root") as client:
            assert await client.read("data/f") == "text"
            assert await names(client) == ["auth", "data"]
            assert await names(client, "data") == ["f"]
            assert (await client.read("auth/whoami")).startswith("principal none\nproof none\n")
            for path in ("data/g", "ctl", "auth/policy", "auth/log"):
                assert await refused(client.read(path)) == errno.EACCES
    async with ruled(None, "deny none rwcnd /**\n", data()) as (server, _):
        with pytest.raises(PermissionError):
            async with connect(address_of(server, STRANGER, Policy())):
                pass
