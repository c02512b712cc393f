"""What shows another node says all that the node says: nothing of the contract is left to its default, but for what is named here with its reason."""

from typing import Any

import pytest

from mk9p.auth import ROOT
from mk9p.compose.granted import Granted
from mk9p.compose.readonly import ReadOnly, _ReadOnlyHandle
from mk9p.compose.resolve import Element, Resolver
from mk9p.compose.table import Table
from mk9p.compose.union import Composed
from mk9p.tree import Dir, Handle, Node, Way
from mk9p.tree.qids import Foreign
from mk9p.wire import QTDIR, QTSYMLINK


class Odd(Node):
    """A node of which no attribute is the default."""

    qtype = QTDIR | QTSYMLINK
    path = 7
    dtype = 6
    guards = True
    marks = True
    way = Way("unix!/s", "", (), Foreign(b"secret"))
    descriptors = 3
    weight = 4

    def __init__(self) -> None:
        self.used = 0
        self.hold, self.release = self._hold, self._release

    def _hold(self) -> None:
        self.used += 1

    def _release(self) -> None:
        self.used -= 1


class OddHandle(Handle):
    """A handle of which no attribute is the default."""

    duplex = True
    prompt = True
    locks = 3
    keeps = True
    keeper: Any = object()
    truncates = True


def composed(node: Node) -> Composed:
    return Composed(Resolver(Table(), Dir()), "/here", elements=[Element(node, (("/here", False),))])


SHOWN: dict[type[Node], tuple[Any, dict[str, str]]] = {
    ReadOnly: (
        ReadOnly,
        {"way": "who went there would not be kept from changes"},
    ),
    Granted: (
        lambda node: Granted(node, ROOT),
        {
            "way": "the same place, for another user",
            "home": "its union says it of itself, when it is asked for the second name of a rename",
        },
    ),
    Composed: (
        composed,
        {
            "way": "the same place, of which the mount table may have a part",
            "hold": "for all elements",
            "release": "for all elements",
            "dtype": "a listing says it; the type of a directory is told by qtype",
            "weight": "it is charged twice, on coming and going, and other elements may stand here between",
            "give": "what was made is a node of an element",
        },
    ),
}


def names(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")}


def data(cls: type) -> set[str]:
    """Return the names of a contract's attributes."""
    return {name for name in names(cls) if not callable(getattr(cls, name)) or name in cls.__annotations__}


@pytest.mark.parametrize("cls", SHOWN)
def test_whatever_a_node_can_be_asked_is_asked_of_what_is_shown(cls: type[Node]) -> None:
    left = names(Node) - data(Node) - names(cls)
    assert left == left & SHOWN[cls][1].keys()


@pytest.mark.parametrize("cls", SHOWN)
def test_what_a_node_is_is_said_of_it_where_it_is_shown(cls: type[Node]) -> None:
    show, exempt = SHOWN[cls]
    node = Odd()
    assert not [name for name in data(Node) if getattr(node, name) == getattr(Node, name)], "all are odd"
    shown = show(node)
    other = {name for name in data(Node) if getattr(shown, name) != getattr(node, name)}
    assert other == other & exempt.keys()
    shown.hold()
    assert node.used == 1


@pytest.mark.parametrize("cls", SHOWN)
def test_no_exemption_is_kept_that_is_not_needed(cls: type[Node]) -> None:
    show, exempt = SHOWN[cls]
    node = Odd()
    shown = show(node)
    said = {name for name in data(Node) if getattr(shown, name) == getattr(node, name)}
    assert not exempt.keys() & (said | (names(cls) - data(Node)))


def test_an_open_file_of_a_tree_that_is_read_only_is_as_it_is_but_for_changes() -> None:
    handle = OddHandle()
    assert not [name for name in data(Handle) if getattr(handle, name) == getattr(Handle, name)], "all are odd"
    shown = _ReadOnlyHandle(handle)
    assert names(Handle) - data(Handle) <= names(_ReadOnlyHandle)
    assert {name for name in data(Handle) if getattr(shown, name) != getattr(handle, name)} == {"truncates"}
    handle.locks = 4
    assert shown.locks == 4
    keeper: Any = object()
    shown.keeper = keeper
    assert handle.keeper is keeper


def test_a_union_keeps_marks_if_all_parts_do_and_guards_itself_if_it_is_one() -> None:
    def of(*nodes: Node) -> Composed:
        return Composed(
            Resolver(Table(), Dir()), "/here", elements=[Element(node, (("/here", False),)) for node in nodes]
        )

    two, mixed = of(Odd(), Odd()), of(Odd(), Dir())
    assert (two.marks, two.guards) == (True, False)
    assert (mixed.marks, mixed.guards) == (False, False)
