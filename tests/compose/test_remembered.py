"""The mount table in a file (`mk9p compose --state`): what a composer that was killed finds of it, whatever happened to the file."""

import errno
import os
from pathlib import Path

import pytest

from mk9p.auth import ROOT
from mk9p.compose.namespace import Namespace
from mk9p.compose.remembered import Remembered, alone
from mk9p.compose.table import Flags
from mk9p.errors import NineError
from mk9p.tree import Open, settle
from tests.compose.helpers_compose import k1, namespace

SCRIPT = "mount k1 /k/k1\n"
WORDS = ["mount k1 /k/k1", "mount -r -w 60 k1 /w", "bind -a /k/k1/cpu /b"]


def fresh() -> Namespace:
    return namespace(k1=k1())


async def write(ns: Namespace, line: str) -> None:
    """Write a line to the ctl, as root."""
    handle = await settle((await settle(ns.root.walk("ctl", ROOT))).open(Open(ROOT, write=True)))
    await settle(handle.write(0, memoryview(line.encode())))
    await settle(handle.close())


async def made(path: Path) -> list[str]:
    """Make a table, and return its commands."""
    ns = fresh()
    await Remembered(path).restore(ns, SCRIPT)
    await write(ns, "mount -rw 60 k1 /w")
    await write(ns, "bind -a /k/k1/cpu /b")
    return ns.table.script()


async def found(path: Path) -> tuple[list[str], list[str]]:
    """Return the commands of the table that a new composer has, and what it was told of the file."""
    ns, it = fresh(), Remembered(path)
    await it.restore(ns, "mount k1 /only/the/first/time\n")
    return ns.table.script(), it.told


async def test_a_composer_starts_again_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert await made(path) == WORDS
    assert await found(path) == (WORDS, [])
    ns = fresh()
    await Remembered(path).restore(ns, "")
    await write(ns, "unmount /w")
    assert await found(path) == ([WORDS[0], WORDS[2]], [])
    assert os.listdir(tmp_path) == ["state"]


async def test_of_a_file_that_was_cut_anywhere_the_part_before_is_used_and_all_of_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state"
    await made(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        commands, told = await found(path)
        assert WORDS[: len(commands)] == commands
        assert len(commands) >= whole[:length].count(b"\n")
        if length < len(whole) - 1:  # the newline at the end says nothing
            assert told, length
            damaged = tmp_path / "state.damaged"
            assert damaged.read_bytes() == whole[:length]
            damaged.unlink()


@pytest.mark.parametrize("garbage", [b"garbage\n", b"\0\xff\n", b"00000000 mount k1 /x\n", b"\n\n"])
async def test_what_comes_before_garbage_is_used(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "state"
    await made(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], garbage, *lines[2:]]))
    commands, told = await found(path)
    assert commands == WORDS[:2]
    assert len(told) == 1
    assert garbage in (tmp_path / "state.damaged").read_bytes()
    path.write_bytes(garbage)
    assert (await found(path))[0] == []
    assert garbage in (tmp_path / "state.damaged1").read_bytes()


async def test_a_change_that_cannot_be_kept_fails_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    ns = fresh()
    await Remembered(path).restore(ns, SCRIPT)
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for words in ("mount k1 /w", "unmount /k/k1", "bind /k/k1/cpu /b"):
        with pytest.raises(NineError) as caught:
            await write(ns, words)
        assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert ns.table.script() == [SCRIPT.strip()]
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state"]
    assert len(ns.events.lines) == 1
    ns.mount("k1", "/w", flags=Flags(wait=5))
    assert b"-w 5" in path.read_bytes()


async def test_a_file_that_others_may_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    await made(path)
    path.chmod(0o666)
    with pytest.raises(NineError) as caught:
        await found(path)
    assert caught.value.errno == errno.EACCES


async def test_a_composer_starts_again_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    await made(path)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert await found(path) == (WORDS, [])


def test_one_composer_has_the_file_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with alone(str(path)):
        with pytest.raises(NineError, match=r"state: another composer has it") as caught, alone(str(path)):
            pass
        assert caught.value.errno == errno.EBUSY
    with alone(str(path)), alone(None), alone(None):
        pass
