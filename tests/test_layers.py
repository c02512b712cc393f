"""The rooms' one rule: an import only goes down. Without it a house has no floors."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEVELS = {
    "mk9p.errors": 0,
    "mk9p.itself": 0,
    "mk9p.lazy": 0,
    "mk9p.places": 0,
    "mk9p.said": 0,
    "mk9p.scope": 1,
    "mk9p.state": 1,
    "mk9p.stdio": 1,
    "mk9p.systemd": 1,
    "mk9p.usage": 1,
    "mk9p.wire": 1,
    "mk9p.status": 2,
    "mk9p.recovery": 3,
    "mk9p.restart": 3,
    "mk9p.session": 2,
    "mk9p.tree": 2,
    "mk9p.auth": 2,
    "mk9p.signals": 2,
    "mk9p.terminals": 2,
    "mk9p.ktext": 2,
    "mk9p.contexts": 2,
    "mk9p.affinity": 3,
    "mk9p.cgroups": 3,
    "mk9p.authority": 3,
    "mk9p.dial": 3,
    "mk9p.lease": 3,
    "mk9p.etcd": 3,
    "mk9p.certificates": 3,
    "mk9p.sysfs": 3,
    "mk9p.devices": 3,
    "mk9p.uevents": 3,
    "mk9p.pcap": 3,
    "mk9p.page": 3,
    "mk9p.server": 4,
    "mk9p.client": 4,
    "mk9p.sync": 5,
    "mk9p.aio": 5,
    "mk9p.compose": 5,
    "mk9p.testing": 6,
    "mk9p.specs": 7,
    "mk9p.serving": 7,
    "mk9p.kernels": 7,
    "mk9p.loading": 6,
    "mk9p.composing": 7,
    "mk9p.forces": 7,
    "mk9p.__main__": 7,
}
PEERS = {("mk9p.server", "mk9p.client"), ("mk9p.client", "mk9p.server"), ("mk9p.compose", "mk9p.server")}
# waiting, threads and turns are trio's, and a file that waits is a kind of file
KNOWS_TRIO = {"mk9p/tree/waiting.py", "mk9p/tree/aside.py", "mk9p/tree/slices.py"}


SERVERS, CLIENTS = "mk9p.servers", "mk9p.clients"


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def module_of(path: Path) -> str:
    """Return a file's import name: what stands in servers/ and clients/ is below mk9p too, by a link there."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name if name.split(".")[0] == "mk9p" else f"mk9p.{name}"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            if node.module == "mk9p":
                yield from (f"mk9p.{alias.name}" for alias in node.names)


FILES = sorted(path for top in ("mk9p", "servers", "clients") for path in (ROOT / top).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    me = module_of(path)
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in ("servers", "clients"), f"{me} uses {name}: what is installed has one name, mk9p"
        if room(me) == SERVERS:
            closed = ("mk9p.server", "mk9p.client", "mk9p.compose", "mk9p.session", CLIENTS)
            assert room(name) not in closed, f"{me} uses {name}"
            assert room(name) != SERVERS or name.split(".")[2:3] == me.split(".")[2:3], f"{me} uses {name}"
        elif room(me) in LEVELS:
            assert room(name) not in (SERVERS, CLIENTS), f"{me} uses {name}"
            if top == "mk9p" and room(name) in LEVELS:
                assert LEVELS[room(name)] <= LEVELS[room(me)], f"{me} uses {name}"
                assert (room(me), room(name)) not in PEERS, f"{me} uses {name}"
            if top == "trio" and LEVELS[room(me)] <= 2:
                assert str(path.relative_to(ROOT)) in KNOWS_TRIO, f"{me} uses trio"


def needs() -> dict[str, set[str]]:
    """Return what each module imports of the others: a module of a package, or else the package; for type checkers alone, too."""
    modules = {module_of(path): path for path in FILES}
    found: dict[str, set[str]] = {}
    for me, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                below = (f"{node.module}.{alias.name}" for alias in node.names)
                names |= {name if name in modules else node.module for name in below}
        found[me] = (names & modules.keys()) - {me}
    return found


def test_no_module_needs_one_that_needs_it() -> None:
    """No circle of imports, not even of those for annotations: what is left when all that needs nothing else is taken away is one, or behind one."""
    left = needs()
    while free := {name for name, wanted in left.items() if not wanted & left.keys()}:
        left = {name: wanted for name, wanted in left.items() if name not in free}
    assert not left, {name: sorted(wanted & left.keys()) for name, wanted in left.items()}


def test_every_room_has_its_level() -> None:
    rooms = {room(module_of(path)) for path in FILES} - {"mk9p"}
    assert rooms == {*LEVELS, SERVERS, CLIENTS}


def test_servers_and_clients_are_below_mk9p() -> None:
    for name in ("servers", "clients"):
        link = ROOT / "mk9p" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


DOCUMENTS = (
    "mk9p/testing/",
    "mk9p/page.py",
    "clients/help",
    "clients/explain",
)  # they read pages of the manual, which are prose


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_is_divided_by_ktext_alone(path: Path) -> None:
    if str(path.relative_to(ROOT)).startswith(DOCUMENTS):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            divides = node.func.attr == "splitlines" or (node.func.attr == "split" and not node.args)
            assert not divides, f"{path.name}:{node.lineno}: Python's idea of lines and blanks: see mk9p/ktext.py"
