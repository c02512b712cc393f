"""Random scripts against a model: what the rules of `table.py` say, evaluated from scratch for every path, with no cache and no short cut.

The model gives a path a list of (tree, the places it is known at). The namespace must list and find the same things, however it was walked and
whatever was changed while somebody stood somewhere; and what `ns` says must make the same namespace again.
"""

from typing import Any

import attrs
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mk9p.compose.namespace import Namespace
from mk9p.compose.table import Item, Table
from mk9p.errors import NineError
from mk9p.tree import split
from mk9p.wire import QTDIR
from tests.compose.helpers_compose import Store, namespace
from tests.servers.trees import ls, read, walk

TREES: dict[str, dict[str, Any]] = {
    "s1": {"a": {"b": "s1ab", "c": {"d": "s1acd"}}, "f": "s1f"},
    "s2": {"a": {"c": {"e": "s2ace"}, "g": "s2ag"}, "b": {"a": {"b": "s2bab"}}},
    "s3": {"b": "s3b", "x": {}},
}
MADE: dict[str, Any] = {"ctl": "", "ns": "", "events": "", "mounts": "", "k": {}, "all": {}, "srv": {}, "error": ""}

Tree = dict[str, Any] | str
View = list[tuple[Tree, list[str]]]


class Missing(Exception):
    """There is nothing of that name."""


@attrs.define
class Model:
    points: dict[str, list[tuple[str, str]]] = attrs.field(factory=dict)

    def run(self, line: str) -> None:
        word, *words = split(line)
        flag = words.pop(0) if words[0].startswith("-") else ""
        old = words[-1].rstrip("/")
        if word == "unmount":
            kept = [i for i in self.points.get(old, []) if len(words) == 2 and not self.named(i, words[0], old)]
        else:
            new = words[0] if word == "mount" else words[0].rstrip("/")
            item = ("under", "") if word == "bind" and new == old else (word, new)
            rest = [] if not flag else [i for i in self.points.get(old, [("under", "")]) if i != item]
            kept = [item, *rest] if flag == "-b" else [*rest, item]
        if not old and ("under", "") not in kept:
            kept = [*kept, ("under", "")]
        if kept in ([], [("under", "")]):
            self.points.pop(old, None)
        else:
            self.points[old] = kept

    @staticmethod
    def named(item: tuple[str, str], what: str, old: str) -> bool:
        kind, name = item
        return what == name if kind == "mount" else what.rstrip("/") == (old if kind == "under" else name)

    def leads(self, path: str) -> bool:
        return any(point.startswith(path + "/") for point in self.points)

    def items(self, path: str, busy: frozenset[tuple[str, str]]) -> list[tuple[str, str]]:
        return [i for i in self.points.get(path, []) if i[0] != "bind" or (path, i[1]) not in busy]

    def view(self, path: str, busy: frozenset[tuple[str, str]] = frozenset()) -> View:
        items = self.items(path, busy)
        if items:
            return self.point(path, items, lambda: self.under(path, busy), busy)
        return self.under(path, busy)

    def point(self, path: str, items: list[tuple[str, str]], under: Any, busy: frozenset[tuple[str, str]]) -> View:
        found: View = []
        for kind, what in items:
            try:
                if kind == "mount":
                    some: View = [(TREES[what], [])]
                elif kind == "under":
                    some = under()
                else:
                    some = self.view(what, busy | {(path, what)})
            except Missing:
                continue
            found += [(tree, list(dict.fromkeys([path, *places]))) for tree, places in some]
        if not found:
            if self.leads(path):
                return [({}, [path])]
            raise Missing
        if not path and isinstance(found[0][0], str):  # what turned out to be a file cannot be the root
            return [(MADE, [""])]
        return found[:1] if isinstance(found[0][0], str) else [(t, p) for t, p in found if not isinstance(t, str)]

    def under(self, path: str, busy: frozenset[tuple[str, str]]) -> View:
        if not path:
            return [(MADE, [""])]
        up, _, name = path.rpartition("/")
        leads: list[str] = []
        for tree, places in self.view(up, busy):
            here = [f"{place}/{name}" for place in places]
            inner = [place for place in here if self.leads(place)]
            leads += inner

            def own(tree: Tree = tree, here: list[str] = here) -> View:
                if isinstance(tree, str) or name not in tree:
                    raise Missing
                return [(tree[name], here)]

            try:
                for place in here:
                    if place != path and self.items(place, busy):
                        view = self.point(place, self.items(place, busy), own, busy)
                        return [(t, list(dict.fromkeys([path, *p]))) for t, p in view]
                found = own()
                if not isinstance(found[0][0], str) or not inner:
                    return found
            except Missing:
                continue
        if leads:
            return [({}, list(dict.fromkeys([path, *leads])))]
        raise Missing

    def listing(self, path: str) -> list[str]:
        view = self.view(path)
        names: dict[str, None] = {}
        for tree, _ in view:
            names |= dict.fromkeys(tree)
        for place in dict.fromkeys([path, *(place for _, places in view for place in places)]):
            below = {point[len(place) + 1 :].split("/")[0] for point in self.points if point.startswith(place + "/")}
            names |= dict.fromkeys(sorted(below))
        return list(names)


NAMES = st.sampled_from(["a", "b", "c", "d", "k"])
PATHS = st.lists(NAMES, max_size=3).map(lambda names: "/" + "/".join(names))
FLAGS = st.sampled_from(["", "-b ", "-a "])
SERVERS = st.sampled_from(sorted(TREES))
LINES = st.one_of(
    st.builds("mount {}{} {}".format, FLAGS, SERVERS, PATHS),
    st.builds("bind {}{} {}".format, FLAGS, PATHS, PATHS),
    st.builds("unmount {}".format, PATHS),
    st.builds("unmount {} {}".format, PATHS | SERVERS, PATHS),
)


def fresh() -> Namespace:
    return namespace(**{name: Store(tree) for name, tree in TREES.items()})


async def accepted(ns: Namespace, line: str) -> bool:
    """Run a line; tell whether it was taken. A script may say things that are wrong, but only in these two ways."""
    try:
        await ns.run(line)
    except NineError as error:
        if "not mounted" not in str(error) and "inconsistent mount" not in str(error):
            raise
        return False
    return True


def paths(model: Model) -> list[str]:
    """Return the paths that can be told apart: three levels deep, and below every mount point."""
    tops = ["", "/a", "/b", "/k", *model.points]
    return sorted(
        {
            t + e
            for t in tops
            for e in ("", "/a", "/b", "/c", "/f", "/a/b", "/a/c", "/a/c/d", "/b/a", "/c/e", "/k", "/none")
        }
    )


async def look(ns: Namespace, path: str) -> object:
    """Return what is at a path: a listing, a text, or None if there is nothing."""
    try:
        node = await walk(ns, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return await (ls(node) if node.qtype & QTDIR else read(node, ""))


def expected(model: Model, path: str) -> object:
    try:
        ways = [path[:at] for at in range(1, len(path)) if path[at] == "/"]
        if any(isinstance(model.view(way)[0][0], str) for way in ways):
            return None  # a file was bound where the way leads through: nobody gets past it
        first = model.view(path)[0][0]
    except Missing:
        return None
    return first if isinstance(first, str) else model.listing(path)


@settings(max_examples=300)
@given(st.lists(LINES, max_size=10))
@example(["mount s1 /a/a", "bind / /a/a/a", "bind / /a", "bind /a /"])
@example(["bind / /a", "mount s1 /a/b", "bind /a /"])
def test_random_scripts_do_what_the_rules_say(script: list[str]) -> None:
    async def main() -> None:
        ns, model = fresh(), Model()
        for line in script:
            before = dict(model.points)
            model.run(line)
            if not await accepted(ns, line):
                assert line.startswith("bind") or model.points == before, line
                model.points = before
        everywhere = paths(model)
        for path in everywhere:
            assert await look(ns, path) == expected(model, path), path
        again = fresh()
        await again.run(ns.script())
        assert again.script() == ns.script()
        assert {p: [i.what for i in items] for p, items in again.table.points.items()} == {
            p: [i.what for i in items] for p, items in ns.table.points.items()
        }
        for path in everywhere:
            assert await look(again, path) == await look(ns, path), path

    trio.run(main)


@settings(max_examples=100)
@given(st.lists(LINES, max_size=6), st.lists(LINES, min_size=1, max_size=4))
def test_from_a_directory_that_is_still_there_the_new_table_is_seen(script: list[str], later: list[str]) -> None:
    """Whoever stands in a made-up directory or mount point that stays sees the same as who comes anew."""

    async def main() -> None:
        ns = fresh()

        for line in script:
            await accepted(ns, line)
        stood = {
            path: await walk(ns, path) for path in ["", *ns.table.points] if isinstance(await look(ns, path), list)
        }
        for line in later:
            await accepted(ns, line)
        for path, node in stood.items():
            if (path in ns.table.points or not path) and isinstance(now := await look(ns, path), list):
                assert await ls(node) == now, path

    trio.run(main)


ITEMS = st.builds(
    Item,
    st.sampled_from(["mount", "bind"]),
    st.sampled_from(["/x y", "/it's", "/z"]),
    st.just(""),
    st.booleans(),
    st.booleans(),
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "/p", "/p q/r"]), ITEMS, st.sampled_from(["replace", "before", "after"])),
        max_size=12,
    )
)
def test_a_tables_script_makes_the_table(puts: list[tuple[str, Item, Any]]) -> None:
    table, again = Table(), namespace(**{name: Store() for name in ("/x y", "/it's", "/z")})
    for old, item, order in puts:
        table.put(old, item, order)
        if item.kind == "bind" and item.create:
            table.put(old, attrs.evolve(item, kind="under", what=""), order)
    trio.run(again.run, "".join(line + "\n" for line in table.script()))
    assert again.table.points == table.points
