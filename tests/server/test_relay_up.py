"""`..` of another server's files: whatever the directories above are called by now, it leads where it leads without a composer between."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from mk9p.servers import fs
from mk9p.tree import Node
from mk9p.wire import messages as m
from tests.server.relaying import ON, Lab, cat, fails, lab, walk
from tests.server.talk import Talk, connect, serving

AT = 40  # the fid that is walked up from
OLD, NEW = b"the old", b"another's"
WITHIN = [
    ("f",),
    ("..", "f"),
    ("..", "r", "f"),
    ("..", "..", "q", "f"),
    ("..", "..", "q", "r", "f"),
    ("r", "..", "..", "..", "q", "f"),
    ("..", "..", "q", "..", "q", "..", "q", "r", "f"),
]  # what is named from p/q/r and does not come to the root
BEYOND = [("..",) * 3, (*("..",) * 4, "k0")]  # the mount point


def a_home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "p/q/r/r").mkdir(parents=True)
    for name in ("p/q", "p/q/r"):
        (home / name / "f").write_bytes(OLD)
    return home


def another(home: Path, name: str = "p") -> None:
    """Let a directory have another name, and make another that looks like it."""
    os.rename(home / name, home / (name + "2"))
    below = home / "p/q/r"
    below.mkdir(parents=True)
    for directory in (below, below.parent):
        (directory / "f").write_bytes(NEW)


async def outcome(talk: Talk, *names: str) -> Any:
    """Return what is in the file that is found by names from AT, or the error."""
    reply = await talk.rpc(m.Twalk, 1, AT, 90, names)
    if isinstance(reply, m.Rlerror):
        return reply.ecode
    assert len(reply.qids) == len(names), (names, reply)
    data = await cat(talk, fid=90)
    assert isinstance(await talk.rpc(m.Tclunk, 1, 90), m.Rclunk)
    return data


async def stand(talk: Talk, base: int, *walks: tuple[str, ...]) -> None:
    """Let AT be p/q/r, by so many walks."""
    for number, names in enumerate(walks):
        await walk(talk, base if number == 0 else AT + len(walks) - number, AT + len(walks) - 1 - number, *names)


@pytest.mark.parametrize("flags", ["-c", "-cr"])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("base", "walks"),
    [
        (0, [("k0", "p", "q", "r")]),
        (0, [("k0", "p", "q", "r"), ()]),
        (0, [("k0", "p"), ("q", "r")]),
        (0, [("k0", "p"), ("q",), ("r",)]),
        (ON, [("p", "q", "r")]),
        (ON, [("p",), ("q",), ("r",)]),
        (ON, [("p", "q", "r", "..", "r")]),
    ],
)
async def test_above_a_file_is_what_was_walked_through(
    tmp_path: Path, base: int, walks: list[tuple[str, ...]], fast: bool, flags: str
) -> None:
    home = a_home(tmp_path)
    async with fs.tree(str(home)) as tree, lab(tmp_path, tree, fast=fast, flags=flags) as found:
        talk = await found.client()
        await stand(talk, base, *walks)
        another(home)
        for names in WITHIN:
            assert await outcome(talk, *names) == OLD, names
        for up in BEYOND:
            assert await outcome(talk, *up, "p2", "q", "f") in (OLD, errno.ESTALE), up
            assert await outcome(talk, *up, "p", "q", "f") in (NEW, errno.ESTALE), up
        await walk(talk, AT, AT, "..")
        assert await outcome(talk, "f") == OLD
        assert await outcome(talk, "..", "q", "r", "f") == OLD


@pytest.mark.parametrize("name", ["p", "p/q", "p/q/r"])
@pytest.mark.parametrize("where", ["p", "p/q"])
async def test_above_a_file_in_a_bound_directory_is_never_another(tmp_path: Path, where: str, name: str) -> None:
    home = a_home(tmp_path)
    async with fs.tree(str(home)) as tree, lab(tmp_path, tree) as found:
        await found.ns.run(f"bind /k0/{where} /b\n")
        talk = await found.client(on=None)
        rest = [("q",), ("r",)] if where == "p" else [("r",)]
        await stand(talk, 0, ("b",), *rest)
        another(home, name)
        for names in WITHIN[:3]:
            assert await outcome(talk, *names) in (OLD, errno.ESTALE), names


async def same_as_direct(tree: Node, found: Lab, home: Path, name: str) -> None:
    async with serving(tree) as server:
        direct, talk = connect(server), await found.client()
        await direct.start()
        await walk(direct, 0, ON)
        for each in (direct, talk):
            await stand(each, ON, ("p",), ("q", "r"))
        another(home, name)
        for names in WITHIN:
            assert await outcome(talk, *names) == await outcome(direct, *names), names


@pytest.mark.parametrize("name", ["p", "p/q", "p/q/r"])
async def test_up_is_the_same_as_without_a_composer(tmp_path: Path, name: str) -> None:
    home = a_home(tmp_path)
    async with fs.tree(str(home)) as tree, lab(tmp_path, tree) as found:
        await same_as_direct(tree, found, home, name)


async def test_names_are_those_that_are_left(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    async with fs.tree(str(home)) as tree, lab(tmp_path, tree) as found:
        talk = await found.client()
        await stand(talk, ON, ("p", "q", "r"))
        (c,) = found.crossings
        await walk(talk, AT, 60, "..", "..", "q")
        assert c.relays[60].names == ("p", "q")
        await walk(talk, AT, AT, "..", "r", "r")
        assert c.relays[AT].names == ("p", "q", "r", "r")
        await walk(talk, 60, 61, "..", "..")  # the mount point's qid is the mount table's to say
        assert c.relays[61].crossing
        reply = await talk.rpc(m.Twalk, 1, AT, 62, ("..", "f", ".."))
        assert len(reply.qids) == 2, "a file has nothing above"
        assert await fails(talk, m.Tgetattr, 62, 1) == errno.EBADF
