"""A server that a command starts, as over ssh, has more time for its first answer than one that is there."""

import sys
from pathlib import Path

import pytest
import trio

from mk9p import composing
from mk9p.testing import SOON, mounted


async def test_a_command_that_starts_its_server_has_longer_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composing, "PATIENCE", 0.0)
    (tmp_path / "later").write_text(f"sleep 0.3; exec {sys.executable} -m mk9p serve -l 'fd!0!1' cpu\n")
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            ns = composing.namespace(nursery)
            ns.mount(f"exec!sh {tmp_path}/later", "/k/box")
            async with mounted(ns.root) as tree:
                assert "online" in await tree.read("k/box/cpu/status")
            nursery.cancel_scope.cancel()
