"""Generated frames against a live server: valid, mutated, hostile, in all dialects. Nothing crashes, nothing is left. `--long`: a million."""

import logging
import time
from pathlib import Path

import pytest
import trio

from mk9p.server.closing import in_use
from mk9p.servers.fs import tree as exported
from mk9p.testing import rude
from mk9p.testing.rude import Frames
from mk9p.tree import Node
from mk9p.wire import Dialect
from mk9p.wire import messages as m
from tests.server.odd_tree import PATHS, World, alone, nothing_left, tasks
from tests.server.talk import serving, talk_to

ROUND = 2_500  # frames of one client


async def throw(root: Node, world: World, frames: int, caplog: pytest.LogCaptureFixture, paths: tuple[str, ...]) -> str:
    """Let clients of all dialects throw frames at a tree, several at a time; check that none of them broke it, and return what was seen."""
    caplog.set_level(logging.ERROR)
    start, counts, seeds = time.monotonic(), [], iter(range(frames // ROUND))
    async with serving(root) as server:
        good = await talk_to(server)
        before = tasks()
        with nothing_left(world):

            async def client() -> None:
                for seed in seeds:
                    dialect = list(Dialect)[(2, 2, 1, 0)[seed % 4]]
                    counts.append(await rude(server, seed, frames=ROUND, paths=paths, dialect=dialect))
                    world.log.emit("round", seed)

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(client)
            await alone(server, 1)
        (c,) = server.connections
        assert (len(c.session.fids), c.session.tags, c.session.claims, c.session.held) == (1, {}, {}, 0)
        assert tasks() <= before + 32  # workers that are kept for the next request that waits
        assert not server.links.turns.users
        assert not in_use
        assert isinstance(await good.rpc(m.Tgetattr, 9, 0, 0x7FF), m.Rgetattr)  # somebody else never noticed
    assert not caplog.records, caplog.text
    took = time.monotonic() - start
    asked, got = sum(count.frames for count in counts), sum(count.replies for count in counts)
    bad = sum(count.errors for count in counts)
    return (
        f"{asked} frames, {got} replies, {bad} of them errors, {sum(c.connections for c in counts)} connections, "
        f"{took:.1f} s"
    )


async def test_no_frame_breaks_a_server(
    long: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    seen = await throw(world.root, world, 1_000_000 if long else 20_000, caplog, PATHS)
    with capsys.disabled():
        print(f"\nmade-up files: {seen}")


async def test_no_frame_breaks_a_server_of_stored_files(
    long: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    (tmp_path / "a").mkdir()
    (tmp_path / "text").write_text("text\n" * 1000)
    async with exported(str(tmp_path)) as root:
        seen = await throw(root, world, 100_000 if long else 5_000, caplog, ("a", "a/b", "text", "new", "a/new"))
    with capsys.disabled():
        print(f"\nstored files: {seen}")


def test_the_frames_are_the_same_for_the_same_seed() -> None:
    one, two, other = (Frames(seed, PATHS) for seed in (1, 1, 2))
    some = [one.next() for _ in range(500)]
    assert some == [two.next() for _ in range(500)]
    assert some != [other.next() for _ in range(500)]
