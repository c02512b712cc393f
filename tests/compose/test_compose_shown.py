"""What shows another node says all that the node says: nothing of the contract is left to its default, but for what is named here with its reason."""

import errno
import inspect
from typing import Any

import pytest

from mk9p.auth import Principal
from mk9p.compose.readonly import ReadOnly, _ReadOnlyHandle
from mk9p.compose.resolve import Element, Resolver
from mk9p.compose.rights import Granted, Holder, Right
from mk9p.compose.table import Table
from mk9p.compose.union import Composed
from mk9p.compose.untrusted import Untrusted
from mk9p.errors import NineError
from mk9p.scope import ALL
from mk9p.tree import Change, Dir, Handle, Node, Open, ThroughHandle, Way, settle
from mk9p.tree.qids import Foreign
from mk9p.tree.shown import Shown, Through
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
    route: Any = len
    below: Any = len
    ahead: Any = len

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


RIGHT = Right("/granted", Holder("guest:k1", 0, frozenset({0}), by="/granted"), ALL)


SHOWN: dict[type[Node], tuple[Any, dict[str, str]]] = {
    ReadOnly: (
        ReadOnly,
        {
            "way": "who went there would not be kept from changes",
            "route": "the same",
            "below": "it shows what is there",
            "ahead": "the same",
        },
    ),
    Untrusted: (
        Untrusted,
        {
            "way": "what goes there would not be read here",
            "route": "the same",
            "below": "it shows what is there",
            "ahead": "the same",
            "dtype": "it is not another kind than qtype says",
        },
    ),
    Granted: (
        lambda node: Granted(node, RIGHT),
        {
            "way": "the same place, for another user",
            "route": "a walk there would be another user's",
            "below": "it shows what is there",
            "ahead": "the same",
        },
    ),
    Composed: (
        composed,
        {
            "way": "the same place, of which the mount table may have a part",
            "route": "the mount table's",
            "below": "what is below may be the mount table's",
            "hold": "for all elements",
            "release": "for all elements",
            "dtype": "a listing says it; the type of a directory is told by qtype",
            "weight": "it is charged twice, on coming and going, and other elements may stand here between",
        },
    ),
}


def names(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")}


def data(cls: type) -> set[str]:
    """Return the names of a contract's attributes."""
    return {name for name in names(cls) if not callable(getattr(cls, name)) or name in cls.__annotations__}


METHODS = sorted(names(Node) - data(Node))


def test_every_method_of_a_node_is_passed_on_by_the_base_of_what_shows_another() -> None:
    assert set(METHODS) <= names(Through)
    for cls in SHOWN:
        assert issubclass(cls, Through)


HANDLE = Handle()


class Asked(Node):
    """A node that keeps what it was asked, and answers as each method has to."""

    asked: tuple[str, dict[str, Any]] = ("", {})


def _answer(method: str) -> Any:
    signature = inspect.signature(getattr(Node, method))

    def answer(self: Asked, *args: Any, **named: Any) -> Any:
        bound = signature.bind(self, *args, **named)
        bound.apply_defaults()
        self.asked = (method, {name: value for name, value in bound.arguments.items() if name != "self"})
        return {"entries": [("name", self)], "create": (self, HANDLE), "open": HANDLE}.get(method, self)

    return answer


for each in METHODS:
    setattr(Asked, each, _answer(each))

ANOTHER = Node()
ARGUMENTS: dict[str, Any] = {
    "name": "a",
    "newname": "b",
    "target": ANOTHER,
    "to": ANOTHER,
    "who": Principal("ann", 1000),
    "how": Open(Principal("ann", 1000)),
    "change": Change(mode=0o600),
    "perm": 0o640,
    "mode": 0o20600,
    "rdev": 7,
    "gid": 8,
    "value": b"v",
    "flags": 2,
    "directory": True,
    "replace": False,
    "data": True,
}


@pytest.mark.parametrize("method", METHODS)
async def test_a_method_passed_on_has_all_its_arguments_and_what_it_returns(method: str) -> None:
    node = Asked()
    wanted = [name for name in inspect.signature(getattr(Node, method)).parameters if name != "self"]
    given = {name: ARGUMENTS[name] for name in wanted}
    answer = await settle(getattr(Shown(node), method)(**given))
    assert node.asked == (method, given)
    said = answer[0] if method == "create" else answer[0][1] if method == "entries" else answer
    assert said is (HANDLE if method == "open" else node)


@pytest.mark.parametrize("method", METHODS)
async def test_read_only_passes_on_what_changes_nothing_and_refuses_the_rest(method: str) -> None:
    node = Asked()
    given = {name: ARGUMENTS[name] for name in inspect.signature(getattr(Node, method)).parameters if name != "self"}
    passed = {"stat", "walk", "entries", "open", "sync", "readlink", "born", "life", "statfs", "xattr", "xattrs"}
    if method in passed:
        await settle(getattr(ReadOnly(node), method)(**given))
        assert node.asked == (method, given)
        return
    with pytest.raises(NineError) as error:
        await settle(getattr(ReadOnly(node), method)(**given))
    assert (error.value.errno, node.asked) == (errno.EROFS, ("", {}))


@pytest.mark.parametrize(
    "method", sorted({m for m in METHODS if "who" in inspect.signature(getattr(Node, m)).parameters})
)
async def test_what_is_granted_is_asked_as_root_there_with_the_group_of_who_asks(method: str) -> None:
    node = Asked()
    given = {name: ARGUMENTS[name] for name in inspect.signature(getattr(Node, method)).parameters if name != "self"}
    given |= {"who": Principal("guest", 1000, gid=5)}
    given |= {name: Granted(ANOTHER, RIGHT) for name in ("to", "target") if isinstance(given.get(name), Node)}
    await settle(getattr(Granted(node, RIGHT), method)(**given))
    who = node.asked[1]["who"]
    assert (who, who.group) == (RIGHT.who, 5)


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
    assert not exempt.keys() & said


def test_whatever_an_open_file_can_be_asked_is_asked_of_what_is_shown() -> None:
    handle = OddHandle()
    assert not [name for name in data(Handle) if getattr(handle, name) == getattr(Handle, name)], "all are odd"
    shown = ThroughHandle(handle)
    assert names(Handle) - data(Handle) <= names(ThroughHandle)
    assert not [name for name in data(Handle) if getattr(shown, name) != getattr(handle, name)]
    handle.locks = 4
    assert shown.locks == 4
    keeper: Any = object()
    shown.keeper = keeper
    assert handle.keeper is keeper


def test_a_handle_that_closes_in_its_own_way_is_not_prompt() -> None:
    class Waits(ThroughHandle):
        async def close(self) -> None:
            pass

    assert not Waits(OddHandle()).prompt


def test_an_open_file_of_a_tree_that_is_read_only_is_as_it_is_but_for_changes() -> None:
    shown = _ReadOnlyHandle(OddHandle())
    assert not shown.truncates
    for refused in (lambda: shown.write(0, memoryview(b"")), lambda: shown.change(Change())):
        with pytest.raises(NineError) as error:
            refused()
        assert error.value.errno == errno.EROFS


def test_a_union_keeps_marks_if_all_parts_do_and_guards_itself_if_it_is_one() -> None:
    def of(*nodes: Node) -> Composed:
        return Composed(
            Resolver(Table(), Dir()), "/here", elements=[Element(node, (("/here", False),)) for node in nodes]
        )

    two, mixed = of(Odd(), Odd()), of(Odd(), Dir())
    assert (two.marks, two.guards) == (True, False)
    assert (mixed.marks, mixed.guards) == (False, False)
