"""What tests of servers share: the tree of a made-up machine, a client of it, and processes for the tests of `proc`."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.client import Client
from mk9p.servers.cmd import tree as commands
from mk9p.servers.proc import tree
from mk9p.testing import mounted
from mk9p.tree import Dir, Node
from tests.servers.processes import Start, Started, heard, tell


@pytest.fixture
async def node(root: Path, request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    """Give the tree that the module tests, of the machine that its `root` makes up."""
    async with request.module.tree(root=str(root)) as node:
        yield node


@pytest.fixture
async def client(node: Node) -> AsyncIterator[Client]:
    async with mounted(node) as client:
        yield client


@pytest.fixture
async def cmd(nursery: trio.Nursery) -> AsyncIterator[Dir]:
    async with commands(grace=0.2) as made:
        yield made


@pytest.fixture
def proc() -> Dir:
    return tree()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a program in the test's directory, with pipes for its input and output; end them all."""
    started: list[Started] = []

    def start(*argv: str, **options: Any) -> Started:
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(argv, stdin=pipe, stdout=pipe, cwd=tmp_path, **options))
        return started[-1]

    yield start
    for made in started:
        made.kill()
        made.communicate()


@pytest.fixture
def cat(start: Start) -> Started:
    """Start a process that runs as long as the test."""
    made = start("cat", "-", env={"A": "1", "B": "it's two\nlines"})
    tell(made)
    assert heard(made) == "\n"
    return made
