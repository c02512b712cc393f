"""The control group of an emulator: what it keeps from whoever has taken the emulator over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mk9p import cgroups
from mk9p.servers.kernels import keeper, limits

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_group_nothing_is_limited_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("MOUNTS", "GROUPS"):
        (tmp_path / name).write_text("")
        monkeypatch.setattr(cgroups, name, tmp_path / name)
    group = limits.Group.of("k1", memory=1 << 28, processes=64)
    assert (group.before, group.after, group.holding(["true"])) == ([], [], ["true"])
    assert "k1: nothing limits its memory, cpu, pids" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups")
async def test_whoever_takes_more_than_is_allowed_does_not_get_it(tmp_path: Path) -> None:
    group = limits.Group.of("t1", memory=96 << 20, processes=16)
    assert group.folders, "this machine has no control group of ours to try that"
    said = tmp_path / "said"
    greedy = f"""
import os, time
born = 0
try:
    for _ in range(64):
        if not os.fork():
            time.sleep(60)
            os._exit(0)
        born += 1
except OSError:
    pass
open({str(said)!r}, "w").write(str(born))
held = [bytearray(os.urandom(1 << 20)) for _ in range(512)]
open({str(said)!r}, "a").write(" has it all")
time.sleep(60)
"""
    held = await keeper.keep(tmp_path / "t1", ["python3", "-c", greedy], crowd=True, group=group)
    assert await held.wait() == 137
    await held.close()
    born, *rest = said.read_text().split(" ", 1)
    assert 0 < int(born) < 16
    assert not rest
    assert not any(folder.exists() for folder in group.folders)
