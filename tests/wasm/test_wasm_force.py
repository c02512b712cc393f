"""Programs of wasm as tasks of a force: they are in pipes as commands are."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mk9p.errors import NineError
from mk9p.servers.fs import tree as exported
from mk9p.servers.wasm import tree as programs
from mk9p.testing import SOON
from mk9p.tree import Dir, Node, split
from tests.servers.forces import lab
from tests.wasm.conftest import Compiled

LINES = 2000


async def test_a_program_is_a_filter_between_two_commands_and_moves_under_way(
    tmp_path: Path, program: Compiled, cache: str
) -> None:
    """It moves while lines go through it, and again while it waits for more: each line comes once, and nothing is left where it was."""
    given, gate, out = tmp_path / "given", tmp_path / "gate", tmp_path / "out"
    given.mkdir()
    (given / "filter.wasm").write_bytes(program("capitals"))

    @asynccontextmanager
    async def more() -> AsyncIterator[dict[str, Node]]:
        async with programs(cache=cache) as wasm, exported(str(given)) as files:
            kernels.append(wasm)  # the third has no programs
            yield {"wasm": wasm, "fs": Dir({"given": files})} if len(kernels) < 3 else {}

    kernels: list[Node] = []
    script = f"""
        n=0
        while [ $n -lt {LINES} ]; do
            echo line $n
            n=$((n+1))
            [ $((n % 100)) -gt 0 ] || sleep 0.1
            while [ $n -eq {LINES // 2} -a ! -e {gate} ]; do sleep 0.05; done
        done"""
    lines = (
        f"from k2 sh -c '{script}'",
        "filter k1 wasm /k/k1/fs/given/filter.wasm",
        f"to k2 sh -c 'exec cat > {out}'",
        "from | filter | to",
    )
    async with lab(tmp_path, ("k1", "k2", "k3"), more) as made, made.force(*lines) as force:
        for words, number, said in (
            ("move from k1", errno.EOPNOTSUPP, "from: a command: only a program of wasm moves to k1 while it runs"),
            ("move filter k7", errno.ENOENT, "filter: no kernel k7 that answers; there are: k1 k2 k3"),
            ("move filter k3", errno.ENOENT, "filter: k3 has no wasm"),
            ("move filter k1", errno.EINVAL, "filter: it is in k1 already"),
        ):
            with pytest.raises(NineError, match=said) as caught:
                await force.say(words)
            assert caught.value.errno == number
        with trio.fail_after(SOON):
            for to in ("k2", "k1", "k2"):
                await force.say(f"move filter {to}")
                assert split((await force.read("status")).split("\n")[1])[1] == to
        gate.touch()
        assert await force.ended() == ""
        moved = await force.events("moved")
    assert moved == [["filter", "k1", "k2"], ["filter", "k2", "k1"], ["filter", "k1", "k2"]]
    assert out.read_text() == "".join(f"{n} LINE {n}\n" for n in range(LINES))
