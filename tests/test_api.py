"""docs/api.md names what is public, and nothing else: so it can be believed, and no module becomes public unnoticed."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.test_layers import FILES, ROOT, SERVERS, module_of, room

PAGE = (ROOT / "docs" / "api.md").read_text()


def named() -> dict[str, set[str]]:
    """Return the names that the page gives to each module: the last paragraph of its section."""
    found: dict[str, set[str]] = {}
    for module, section in re.findall(r"^### `([\w.]+)`\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE):
        names = section.strip().split("\n\n")[-1]
        assert re.fullmatch(r"(`\w+`\s*)+", names), f"{module}: its names stand last, by themselves"
        found[module] = set(re.findall(r"\w+", names))
    return found


NAMED = named()


def public(module: str) -> set[str]:
    if module == "mk9p.wire":  # beside the manual's numbers and the messages
        lines = ast.parse((ROOT / "mk9p" / "wire" / "__init__.py").read_text()).body
        return {n.asname for each in lines if isinstance(each, ast.ImportFrom) for n in each.names if n.asname}
    return set(import_module(module).__all__)


def says(path: Path) -> bool:
    """Tell whether a module says what is public of it."""
    return any(
        isinstance(target, ast.Name) and target.id == "__all__"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    )


def test_every_module_that_lists_names_is_on_the_page() -> None:
    listing = {module_of(path) for path in FILES if says(path)} | {"mk9p.wire"}
    assert {module for module in listing if room(module) != SERVERS} == set(NAMED)


@pytest.mark.parametrize("module", NAMED)
def test_the_page_has_the_names_that_the_module_has(module: str) -> None:
    assert NAMED[module] == public(module)
    for name in NAMED[module]:
        assert hasattr(import_module(module), name)


def used(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


AUTHORS = [path for path in FILES if path.is_relative_to(ROOT / "servers")]
AUTHORS += sorted((ROOT / "examples").rglob("*.py"))


@pytest.mark.parametrize("path", AUTHORS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_server_uses_public_names(path: Path) -> None:
    for module, name in used(path):
        if room(module) not in ("mk9p", SERVERS) and module.startswith("mk9p."):
            assert module in NAMED, f"{module} is private"
            assert name in NAMED[module] or module == "mk9p.wire", f"{name} of {module} is private"


def test_an_old_python_is_told_what_is_needed_in_one_line() -> None:
    old = "import sys; sys.version_info = (3, 9, 2)"
    for begun, said in (("", "ImportError: this is Python 3.9"), ("; sys.argv = ['-m']", "mk9p: this is Python 3.9")):
        words = [sys.executable, "-c", f"{old}{begun}; import mk9p"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"{said}, and mk9p needs 3.11 or newer")
    assert len(done.stderr.splitlines()) == 1
