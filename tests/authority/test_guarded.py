"""A guarded tree lets nothing through that the rules forbid, whatever a client sends, in every dialect.

The test knows nothing of what a message should do. It looks at the tree before and after each one: what appeared took `n`, what has gone `d`, what
has changed `w` or `c`, and nothing may be allowed more by a name that it got than by one that it had. What comes back took `r`.
"""

import os
import stat as st
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio
from hypothesis import example, given, settings, strategies

from mk9p.authority.book import Book
from mk9p.authority.deciding import Authority
from mk9p.authority.policy import Pattern, Rule, Rules, verdict
from mk9p.compose.aliases import Names
from mk9p.composing import namespace
from mk9p.scope import ALL, C, D, N, R, W, is_ctl
from mk9p.server import Server
from mk9p.testing import SOON, Line, Memory, joined, serving, serving_at
from mk9p.wire import QTDIR, QTSYMLINK, Dialect, Qid, WireStat, unpack_dirents, unpack_stats
from mk9p.wire import messages as m
from tests.authority.rules import NAMES, rules, text

REQUESTS = 150
CLOSED = Rule("deny", "*", ALL, Pattern(("a", "b", "b", "**")))
FIDS = 6
KEEP16, KEEP32, KEEP64 = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def tree(depth: int = 3) -> Memory:
    made = Memory({"a": "text of a", "ctl": "settings"} | ({"b": tree(depth - 1)} if depth else {}), mode=0o755)
    if depth == 2:
        made.children["other"] = Memory({"a": "deep"}, mode=0o777)
        link = made.children["link"] = Memory(mode=st.S_IFLNK | 0o777)
        link.target = "secret target"
    made.at("a").attributes["user.x"] = b"secret value"
    return made


@attrs.frozen
class Seen:
    """A file of the tree at one moment."""

    number: int
    kind: int
    content: object


def snapshot(node: Memory, path: str = "") -> dict[str, Seen]:
    kind = node.qtype
    content = (bytes(node.data), node.mode, node.uid, node.gid, node.target, dict(node.attributes), node.atime)
    found = {path: Seen(id(node), kind, content)}
    for name, child in node.children.items():
        assert isinstance(child, Memory)
        found |= snapshot(child, f"{path}/{name}")
    return found


def up(path: str) -> str:
    return path.rpartition("/")[0]


@attrs.define
class Watch:
    """The rules, and what files were called at some time."""

    given: tuple[Rule, ...]
    root: Memory
    top: str = ""
    ever: dict[int, set[str]] = attrs.field(factory=dict)
    keep: list[Memory] = attrs.field(factory=list)  # so that no number of one that is gone is used again

    def now(self, path: str) -> int:
        return verdict(self.given, path).now

    def look(self) -> dict[str, Seen]:
        found = snapshot(self.root, self.top)
        for path, seen in found.items():
            self.ever.setdefault(seen.number, set()).add(path)
        return found

    def compare(self, before: dict[str, Seen], after: dict[str, Seen], said: object) -> None:
        was: dict[int, set[str]] = {}
        for path, seen in before.items():
            was.setdefault(seen.number, set()).add(path)
        for path in before.keys() | after.keys():
            old, new = before.get(path), after.get(path)
            replaced = old is not None and new is not None and old.number != new.number
            same_parent = up(path) in before and up(path) in after and before[up(path)].number == after[up(path)].number
            if same_parent and (new is None or replaced):
                assert self.now(path) & D, (said, path, "has gone")
            if same_parent and (old is None or replaced):
                assert self.now(path) & N, (said, path, "has appeared")
            if new is not None and new.number in was and path not in was[new.number]:
                allowed = verdict(self.given, path)
                assert any(not (allowed.now | allowed.ask) & ~self.now(q) for q in was[new.number]), (said, path)
        contents = {seen.number: seen.content for seen in before.values()}
        for path, seen in after.items():
            if seen.number in contents and contents[seen.number] != seen.content:
                names = self.ever[seen.number]
                assert any(self.now(q) & (C if is_ctl(q.rpartition("/")[2]) else W) for q in names), (said, path)


@attrs.define
class Client:
    """Sends what makes some sense, and knows to which path it has walked with each fid."""

    random: Random
    line: Line
    watch: Watch
    fids: dict[int, str] = attrs.field(factory=lambda: {0: ""})
    kinds: dict[int, int] = attrs.field(factory=lambda: {0: QTDIR})
    attributes: set[int] = attrs.field(factory=set)

    def message(self) -> tuple[Any, ...]:
        r, dialect = self.random, self.line.dialect
        fid = r.choice([*self.fids, r.randrange(FIDS)])
        other, name = r.choice([*self.fids, 9]), r.choice((*NAMES, "other", "link", "new"))
        walk = tuple(r.choice((*NAMES, "..", "b", "b", ".", "other", "link")) for _ in range(r.randrange(4)))
        start = r.choice((0, fid))
        if start == 0 and self.watch.top and r.random() < 0.8:
            walk = (self.watch.top[1:], *walk)
        common: list[tuple[Any, ...]] = [
            *[(m.Twalk, start, r.randrange(1, FIDS), walk)] * 4,
            *[(m.Tclunk, fid or 9)] * 2,
            *[(m.Tread, fid, 0, 4096)] * 2,
            *[(m.Twrite, fid, 0, memoryview(b"written"))] * 2,
            (m.Tremove, fid or 9),
        ]
        if dialect is Dialect.L:
            flags = r.choice((0, 0, 1, 2, 0x200, 0x201, 0x202, 0x400))
            more: list[tuple[Any, ...]] = [
                *[(m.Tlopen, fid, flags)] * 4,
                *[(m.Treaddir, fid, 0, 4096)] * 2,
                (m.Tlcreate, fid, name, flags | 0x40, 0o777, 0),
                (m.Tgetattr, fid, 0x7FF),
                (m.Tsetattr, fid, r.choice((1, 8, 0x10, 0x1A8)), 0o700, 0, 0, 3, 7, 0, 7, 0),
                (m.Tmkdir, fid, name, 0o777, 0),
                (m.Tsymlink, fid, name, "target", 0),
                (m.Tmknod, fid, name, st.S_IFIFO | 0o777, 0, 0, 0),
                (m.Tlink, fid, other, name),
                (m.Trename, fid, other, name),
                (m.Trenameat, fid, r.choice((*NAMES, "link")), other, name),
                (m.Tunlinkat, fid, name, r.choice((0, 0x200))),
                (m.Treadlink, fid),
                (m.Txattrwalk, fid, r.randrange(1, FIDS), r.choice(("", "user.x"))),
                (m.Txattrcreate, fid, "user.x", 7, 0),
                (m.Tfsync, fid, 0),
            ]
        else:
            kind = r.choice((0, 0, 1 << 31, 1 << 25, 1 << 24)) if dialect is Dialect.U else r.choice((0, 1 << 31))
            extension = str(other) if kind == 1 << 24 else "target"
            mode = r.choice((0, 0, 1, 2, 3, 0x10, 0x11, 0x13, 0x40))
            create = (m.Tcreate, fid, name, kind | 0o777, mode, *([extension] if dialect is Dialect.U else []))
            keep = WireStat(
                KEEP16, KEEP32, Qid(0xFF, KEEP32, KEEP64), KEEP32, KEEP32, KEEP32, KEEP64, "", "", "", "", ""
            )
            change = r.choice(({"name": name}, {"length": 3}, {"mode": 0o700}, {"mtime": 7}))
            more = [
                *[(m.Topen, fid, mode)] * 4,
                create,
                create,
                (m.Tstat, fid),
                (m.Twstat, fid, keep._replace(**change)),
            ]
        return r.choice(common + more)

    async def one(self) -> None:
        cls, *fields = self.message()
        before = self.watch.look()
        reply = await self.line.rpc(cls, 1, *fields)
        after = self.watch.look()
        self.watch.compare(before, after, (cls.__name__, fields))
        if isinstance(reply, m.Rlerror | m.Rerror):
            if cls is m.Tremove:
                self.fids.pop(fields[0], None)
            return
        self.learn(cls, fields, reply)

    def learn(self, cls: Any, fields: list[Any], reply: Any) -> None:
        fid = fields[0]
        if cls is m.Twalk:
            if len(reply.qids) == len(fields[2]):
                self.fids[fields[1]] = path = walked(self.fids[fid], fields[2])
                self.kinds[fields[1]] = reply.qids[-1].type if reply.qids else self.kinds[fid]
                self.attributes.discard(fields[1])
                assert not path or verdict(self.watch.given, path).some, (path, "was walked to")
            return
        path = self.fids.get(fid, "")
        if cls in (m.Tclunk, m.Tremove):
            self.fids.pop(fid, None)
            self.attributes.discard(fid)
        elif cls in (m.Tcreate, m.Tlcreate):
            self.fids[fid], self.kinds[fid] = f"{path}/{fields[1]}", reply.qid.type
        elif cls is m.Txattrwalk:
            self.fids[fields[1]], self.kinds[fields[1]] = path, 0
            self.attributes.add(fields[1])
        elif cls is m.Txattrcreate:
            self.attributes.add(fid)
        elif cls is m.Treadlink:
            assert self.watch.now(path) & R, (path, "was read as a link")
        elif cls is m.Treaddir:
            self.listed(path, [name for _, _, _, name in unpack_dirents(reply.data)])
        elif cls is m.Tread and reply.data:
            if self.kinds[fid] & QTDIR and fid not in self.attributes:
                self.listed(path, [each.name for each in unpack_stats(self.line.dialect, reply.data)])
            else:
                assert self.watch.now(path) & R, (path, "was read")
        elif cls is m.Tstat and self.kinds[fid] & QTSYMLINK and self.line.dialect is Dialect.U:
            assert self.watch.now(path) & R or "secret" not in str(reply), (path, "told its target")

    def listed(self, path: str, names: list[str]) -> None:
        for name in names:
            if name not in (".", ".."):
                allowed = verdict(self.watch.given, f"{path}/{name}").some
                assert allowed & R or (allowed and self.watch.now(path) & R), (path, name, "was listed")


def walked(path: str, names: tuple[str, ...]) -> str:
    for name in names:
        path = up(path) if name == ".." else path if name == "." else f"{path}/{name}"
    return path


async def requests(server: Server, given: Rules, root: Memory, seed: int, dialect: Dialect, top: str) -> bool:
    """Send them to a server with the tree at `top`; tell whether some were passed on to another server."""
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(joined(server)))
    line = Line(stream, dialect)
    passed = False
    await line.start()
    client = Client(Random(seed), line, Watch(given.rules, root, top))
    for _ in range(REQUESTS):
        await client.one()
        passed = passed or any(c.relays for c in server.connections)
    await stream.aclose()
    return passed


def read(given: list[Rule]) -> Rules:
    return Rules.parse("patience 0.001\n" + text(given), lambda name: 0)


async def run(given_rules: list[Rule], seed: int, dialect: Dialect) -> None:
    rules_of, root = read(given_rules), tree()
    with trio.fail_after(SOON):
        async with serving(root, authority=Authority(book=Book(rules_of))) as server:
            await requests(server, rules_of, root, seed, dialect, "")


async def run_composed(given_rules: list[Rule], seed: int, dialect: Dialect, place: str) -> bool:
    rules_of, root = read(given_rules), tree()
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            async with serving_at(f"unix!{place}", root) as far:
                ns = namespace(nursery)
                ns.mount(far.address, "/a")
                authority = Authority(book=Book(rules_of), names=Names(ns.table))
                async with serving(ns.root, authority=authority) as server:
                    passed = await requests(server, rules_of, root, seed, dialect, "/a")
            nursery.cancel_scope.cancel()
    return passed


@pytest.mark.parametrize("dialect", list(Dialect))
@settings(max_examples=40)
@given(given_rules=rules(), seed=strategies.integers(0, 1 << 32))
def test_nothing_is_let_through_that_the_rules_forbid(dialect: Dialect, given_rules: list[Rule], seed: int) -> None:
    trio.run(run, given_rules, seed, dialect)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root attaches to another server as anybody")
@pytest.mark.parametrize("dialect", [Dialect.L, Dialect.U])
@settings(max_examples=25)
@given(given_rules=rules(), seed=strategies.integers(0, 1 << 32))
@example(given_rules=[CLOSED], seed=0)
@example(given_rules=[CLOSED], seed=1)
@example(given_rules=[CLOSED], seed=2)
@example(given_rules=[CLOSED], seed=3)
def test_nothing_is_let_through_to_another_server_that_the_rules_forbid(
    dialect: Dialect, given_rules: list[Rule], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(run_composed, given_rules, seed, dialect, f"{folder}/s")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root attaches to another server as anybody")
def test_the_fast_way_is_among_what_is_tried(tmp_path: Path) -> None:
    """Where all is allowed below a path, requests are passed on, though other paths are closed."""
    rule = Rule("deny", "*", ALL, Pattern(("a", "other", "**")))
    for number, ops in enumerate((R, R | W, R | W | N | D, ALL & ~C, ALL & ~R)):
        below = Rule("deny", "*", ALL & ~ops, Pattern(("a", "**")))
        for seed in range(4):
            assert trio.run(run_composed, [below], seed, Dialect.L, f"{tmp_path}/{number}.{seed}")
    assert trio.run(run_composed, [rule], 7, Dialect.L, f"{tmp_path}/1")
    assert (
        trio.run(run_composed, [Rule("deny", "*", D, Pattern(("**", "a"))), rule], 7, Dialect.L, f"{tmp_path}/2")
        is False
    )
