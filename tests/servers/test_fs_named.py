"""A fid is of a file: what is done by its name is done to that file, or not at all."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mk9p.wire import ORCLOSE, Dialect
from mk9p.wire import messages as m
from tests.servers.plan9 import Plan9, served

ALL = pytest.mark.parametrize("dialect", list(Dialect))


async def remove(files: Plan9, fid: int) -> None:
    await files.ask(m.Tremove, fid)


async def rename(files: Plan9, fid: int) -> None:
    if files.talk.dialect is Dialect.L:
        await files.ask(m.Trename, fid, await files.walk(), "h")
    else:
        await files.wstat(fid, name="h")


def contents(path: Path) -> dict[str, str]:
    return {name: (path / name).read_text() for name in sorted(os.listdir(path))}


@ALL
@pytest.mark.parametrize("act", [remove, rename])
async def test_a_file_that_took_the_name_of_a_fid_s_is_left_alone(
    tmp_path: Path, dialect: Dialect, act: Callable[[Plan9, int], Awaitable[None]]
) -> None:
    (tmp_path / "f").write_text("the fid's")
    (tmp_path / "d").mkdir()
    async with served(tmp_path, dialect) as files:
        gone, early, directory = await files.walk("f"), await files.walk("f"), await files.walk("d")
        os.rename(tmp_path / "f", tmp_path / "g")
        with pytest.raises(OSError, match=r"No such file|not found|does not exist"):
            await act(files, early)
        (tmp_path / "f").write_text("somebody's")
        with pytest.raises(OSError, match=r"Stale|another file"):
            await act(files, gone)
        (tmp_path / "d").rmdir()
        (tmp_path / "d").write_text("no directory")
        with pytest.raises(OSError, match=r"Stale|another file"):
            await act(files, directory)
    assert contents(tmp_path) == {"d": "no directory", "f": "somebody's", "g": "the fid's"}


@pytest.mark.parametrize("dialect", [Dialect.P9, Dialect.U])
async def test_remove_on_close_removes_the_file_that_was_opened(tmp_path: Path, dialect: Dialect) -> None:
    for name in ("f", "other"):
        (tmp_path / name).write_text(name)
    async with served(tmp_path, dialect) as files:
        fid, other = await files.walk("f"), await files.walk("other")
        await files.ask(m.Topen, fid, ORCLOSE)
        await files.ask(m.Topen, other, ORCLOSE)
        os.rename(tmp_path / "f", tmp_path / "g")
        (tmp_path / "f").write_text("somebody's")
        await files.clunk(fid)
        await files.clunk(other)
    assert contents(tmp_path) == {"f": "somebody's", "g": "f"}


@ALL
async def test_all_fids_of_a_file_know_the_name_that_their_session_gave_it(tmp_path: Path, dialect: Dialect) -> None:
    (tmp_path / "f").write_text("f")
    (tmp_path / "f2").write_text("another")
    async with served(tmp_path, dialect) as files:
        first, second, another = await files.walk("f"), await files.walk("f"), await files.walk("f2")
        await rename(files, first)
        if dialect is not Dialect.L:
            assert [(await files.stat(fid)).name for fid in (first, second, another)] == ["h", "h", "f2"]
        await remove(files, second)
        with pytest.raises(OSError, match=r"No such file|not found|does not exist"):
            await remove(files, first)
    assert contents(tmp_path) == {"f2": "another"}


async def test_a_rename_into_another_directory_is_known_to_all_fids(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    (tmp_path / "d").mkdir()
    async with served(tmp_path, Dialect.L) as files:
        first, second = await files.walk("f"), await files.walk("f")
        await files.ask(m.Trename, first, await files.walk("d"), "g")
        await remove(files, second)
        assert os.listdir(tmp_path / "d") == []
        with pytest.raises(OSError, match=r"busy|root"):
            await files.ask(m.Trename, 0, await files.walk("d"), "g")


async def test_a_rename_by_directory_and_name_is_found_again(tmp_path: Path) -> None:
    """As often as it happens, and no further than to the same file."""
    for name in ("f", "g"):
        (tmp_path / name).write_text(name)
    (tmp_path / "d").mkdir()
    async with served(tmp_path, Dialect.L) as files:
        first, second, other = await files.walk("f"), await files.walk("f"), await files.walk("g")
        directory = await files.walk("d")
        await files.ask(m.Trenameat, 0, "f", directory, "one")
        await files.ask(m.Trenameat, directory, "one", 0, "two")
        await files.ask(m.Trenameat, 0, "g", 0, "f")
        await files.ask(m.Trename, first, 0, "three")
        assert contents(tmp_path / "d") == {}
        await remove(files, second)
        (tmp_path / "g").write_text("somebody's")
        await files.ask(m.Tunlinkat, 0, "f", 0)
        with pytest.raises(OSError, match=r"No such file|Stale"):
            await remove(files, other)
        for name, newname in (("g", "a"), ("a", "b"), ("b", "a")):
            await files.ask(m.Trenameat, 0, name, 0, newname)
        left = await files.walk("a")
        os.unlink(tmp_path / "a")
        with pytest.raises(FileNotFoundError):
            await remove(files, left)
    assert sorted(os.listdir(tmp_path)) == ["d"]
