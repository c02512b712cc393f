"""`Routes`: where walks from one directory of the namespace cross into other servers, as far as the
mount table tells.

Theory
* What is at a path is found as always (resolve.py), but without asking any server: it assumes that what is on a server exists. The walk finds out,
  in the one message that also walks the rest.
* This happens once for each mount point, and the result is kept while the mount table stays the same. Nothing that a server has said is kept. It
  asks our own tree each time for what it said on the way (the directory `k`).
* A directory of ours may know more (`all`, whose names are other names on the kernels' servers): the route goes on as that says.
* Only a plain path has a route: local directories, then a mount point. A directory on another server that only leads to mount points further down
  has none, and neither has `..`: there the walk goes name by name.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

import attrs

from mk9p.auth import Principal
from mk9p.compose.resolve import Element, Resolver
from mk9p.tree import Node, Route, Way

KEPT: Final = 4096  # routes from one directory: one for each mount point and user


class Directory(Protocol):
    """What stands at a path of the namespace, for one user (union.py)."""

    resolver: Resolver
    bare: bool

    @property
    def at(self) -> str:
        """Where its names are looked up."""

    def now(self, who: Principal) -> list[Element] | None:
        """Return what it is made of, as far as that is known at once."""

    def child(self, name: str, who: Principal, elements: list[Element]) -> Any:
        """Return what stands at a name in it."""


@attrs.frozen(eq=False)
class _Known:
    """A route, and the directory that it ends in."""

    route: Route
    end: Directory


class Routes:
    """The routes from one directory."""

    def __init__(self, start: Directory) -> None:
        self._start = start
        self._table = start.resolver.table
        self._generation = -1
        self._known: dict[tuple[tuple[str, ...], Principal], _Known] = {}
        self._depths: list[int] = []

    def find(self, names: tuple[str, ...], who: Principal) -> Route | None:
        """Return where a walk by these names crosses; None if it must go name by name."""
        if self._table.generation != self._generation or len(self._known) >= KEPT:
            self._generation = self._table.generation
            self._known.clear()
            self._depths.clear()
        for depth in self._depths:
            known = self._known.get((names[:depth], who))
            if known is not None and depth < len(names) and known.route.stands():
                end = known.end
                elements = end.now(who)
                if elements and (end.bare or not end.resolver.special(elements, end.at, names[depth])):
                    return known.route
        return self._new(names, who)

    def _new(self, names: tuple[str, ...], who: Principal) -> Route | None:
        at, nodes = self._start, list[Any]()
        said: list[tuple[Node, str, Node | None]] = []
        certain = True
        for name in names:
            elements = at.now(who)
            if elements is None or name == "..":
                return None
            if at.bare or not at.resolver.special(elements, at.at, name):
                own = elements[0].node
                if len(elements) == 1 and own.below is None:
                    return self._onward(own, nodes, names, said, who)
                break
            found = at.resolver.presumed(elements, at.at, name, who)
            if found is None:
                return None
            here, surely = found
            path = f"{at.at}/{name}"
            items = at.resolver.table.points.get(path, ())
            if any(item.kind == "under" for item in items):
                return None
            if not items:
                own = elements[0].node
                if len(elements) > 1 or own.below is not None:
                    return None
                said.append((own, name, _said(own, name, who)))
            certain = certain and surely
            at = at.child(name, who, here)
            nodes.append(at)
        else:
            return None
        elements = at.now(who)
        if elements is None or not all(_is_local(node) for node in nodes[:-1]):
            return None
        if any(e.node.below is None for e in elements):
            return None
        stands = self._stands(said, who)
        route = Route(tuple(nodes), tuple(e.node for e in elements), _ways(elements), certain, stands)
        self._known[names[: len(nodes)], who] = _Known(route, at)
        if len(nodes) not in self._depths:
            self._depths.append(len(nodes))
        return route

    def _stands(self, said: list[tuple[Node, str, Node | None]], who: Principal) -> Callable[[], bool]:
        table, generation = self._table, self._table.generation

        def stands() -> bool:
            return table.generation == generation and all(_said(node, name, who) is child for node, name, child in said)

        return stands

    def _onward(
        self,
        at: Node,
        nodes: list[Node],
        names: tuple[str, ...],
        said: list[tuple[Node, str, Node | None]],
        who: Principal,
    ) -> Route | None:
        """Return the route that goes on from a directory of ours, or from one in it, as that says. It is not kept: each name goes its own way."""
        if at.route is None and len(names) > len(nodes):
            name = names[len(nodes)]
            child = _said(at, name, who)
            if child is None or child.route is None:
                return None
            said.append((at, name, child))
            nodes.append(child)
            at = child
        rest = None if at.route is None else at.route(names[len(nodes) :], who)
        if rest is None or not all(_is_local(node) for node in nodes):
            return None
        stands = self._stands(said, who)
        return attrs.evolve(rest, nodes=(*nodes, *rest.nodes), stands=lambda: stands() and rest.stands())


def _ways(elements: list[Element]) -> tuple[Way, ...]:
    ways = tuple(way for e in elements if (way := e.node.way) is not None)
    return ways if len(ways) == len(elements) else ()


def _said(node: Node, name: str, who: Principal) -> Node | None:
    """Return what a tree says of a name at once: None if there is nothing, or the tree waits."""
    try:
        found: Node | None = _at_once(node.walk(name, who))
    except OSError:
        return None
    return found


def _is_local(node: Node) -> bool:
    return _at_once(node.stat()) is not None


def _at_once(found: Any) -> Any:
    if isinstance(found, Coroutine):
        found.close()
    return None if isinstance(found, Awaitable) else found
