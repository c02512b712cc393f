"""Keepers: everything is undone, in whatever way the guest or its owner ends."""

# ruff: noqa: ASYNC221, ASYNC240 - what blocks here is memory (/proc, tmpfs)

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from mk9p.errors import NineError
from mk9p.servers.kernels import backend, bare, channel, guest, keeper
from mk9p.testing import SOON
from tests.kernels.guests import ended, owner, processes_of, watched


async def test_a_command_and_its_status(tmp_path: Path) -> None:
    after = tmp_path / "after"
    held = await keeper.keep(tmp_path / "d", ["sh", "-c", "exit 7"], after=[["touch", str(after)]])
    assert await held.wait() == 7
    assert after.exists()
    assert not (tmp_path / "d").exists()
    await held.close()


async def test_end_kills_and_waits_until_all_is_undone(tmp_path: Path) -> None:
    before = [["touch", str(tmp_path / "d/made")]]
    held = await keeper.keep(tmp_path / "d", ["sleep", "1000"], before=before)
    assert (tmp_path / "d/made").exists()
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    pid = held.pid
    assert os.getsid(pid) != os.getsid(0)
    await held.end()
    assert await held.wait() == 137
    assert not Path(f"/proc/{pid}").exists()
    assert held.pid == 0
    await held.close()


async def test_what_cannot_be_made_is_told_and_undone(tmp_path: Path) -> None:
    after = tmp_path / "after"
    with pytest.raises(NineError, match="no-such-file"):
        await keeper.keep(
            tmp_path / "d", ["sleep", "1000"], before=[["cat", "/no-such-file"]], after=[["touch", str(after)]]
        )
    assert after.exists()
    assert not (tmp_path / "d").exists()


async def test_a_guest_that_never_answers_halt_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "HALT_SECONDS", 0.3)
    asked: list[bool] = []

    async def ask() -> None:
        asked.append(True)

    with channel.Channels() as pairs:
        console = pairs.open()
        held = await keeper.keep(tmp_path / "d", ["sleep", "1000"], descriptors=pairs.numbers)
    one = guest.Guest(
        held,
        console,
        None,
        dial="",
        listen="",
        guest_dial="",
        go_down=ask,
        judge=lambda status: "",
        machine=bare.Bare("a sleeper"),
        channels=pairs,
    )
    pid = one.pid
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.halt)
        with trio.fail_after(SOON):
            assert await one.wait() == "killed"
    assert asked == [True]
    assert not Path(f"/proc/{pid}").exists()
    assert not (tmp_path / "d").exists()
    await one.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
async def test_a_crowd_dies_as_one(tmp_path: Path) -> None:
    crowd = "for i in 1 2 3; do setsid sleep 1000 & done; wait"  # each in a session of its own
    held = await keeper.keep(tmp_path / "d", ["sh", "-c", crowd], crowd=True)
    children = Path(f"/proc/{held.pid}/task/{held.pid}/children")
    with trio.fail_after(SOON):
        while not (inside := children.read_text().split()):
            await trio.lowlevel.checkpoint()
        namespace = os.readlink(f"/proc/{inside[0]}/ns/pid")
        while len(_members(namespace)) < 5:  # the shell that is PID 1, this one, three sleepers
            await trio.lowlevel.checkpoint()
    await held.end()
    assert _members(namespace) == []
    await held.close()


def _members(namespace: str) -> list[str]:
    found = []
    for directory in Path("/proc").iterdir():
        try:
            if directory.name.isdigit() and os.readlink(directory / "ns/pid") == namespace:
                found.append(directory.name)
        except OSError:
            continue
    return found


async def test_a_killed_keeper_takes_its_guest_along_and_we_undo(tmp_path: Path) -> None:
    after = tmp_path / "after"
    held = await keeper.keep(tmp_path / "d", ["sleep", "1000"], after=[["touch", str(after)]])
    with watched([held.pid]) as guest:
        os.kill(held.process.pid, signal.SIGKILL)
        assert await held.wait() == 137
        assert after.exists()
        assert not (tmp_path / "d").exists()
        await ended(guest)
    await held.close()


OWNER = """
    import sys, trio
    from pathlib import Path
    from mk9p.servers.kernels import backend, bare, channel, guest, keeper

    async def main():
        held = await keeper.keep(Path(sys.argv[1]))
        await held.unmount_at_end(sys.argv[2])
        print("held", flush=True)
        await trio.sleep_forever()

    trio.run(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_without_a_command_it_holds_for_its_owner(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    async with owner(OWNER, tmp_path / "d", mounted, lines=1) as process:
        keepers = [pid for pid in processes_of(tmp_path / "d") if pid != process.pid]
        assert len(keepers) == 1
        subprocess.run(["mount", "-t", "tmpfs", "none", str(mounted)], check=True)
        assert mounted.is_mount()
        with watched(keepers) as keeping:
            process.kill()
            await ended(keeping)
    assert not mounted.is_mount()
    assert not (tmp_path / "d").exists()
