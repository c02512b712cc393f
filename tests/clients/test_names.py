"""A name that a command is given and that the namespace has not: the command says which one, and what there is."""

import sys
from pathlib import Path

import pytest
import trio

from mk9p.composing import namespace
from mk9p.testing import serving_at
from mk9p.tree import Dir, Text

KERNELS = Dir({"status": Text(""), "pool": Dir({}), "k1": Dir({"console": Text("")}), "k2": Dir({"console": Text("")})})


@pytest.mark.parametrize(
    ("words", "kernels", "said"),
    [
        (["ps", "no"], True, "mk9p ps: no kernel no; there are: k1"),
        (["console", "no"], True, "mk9p console: no console kernels/no/console; there are: k1 k2"),
        (["console", "k1"], False, "mk9p console: no console kernels/k1/console, and this namespace has no kernels/"),
        (["tail", "no/events"], True, "mk9p tail: no/events: No such file or directory"),
    ],
)
async def test_it_is_told(words: list[str], kernels: bool, said: str, tmp_path: Path) -> None:
    address = f"unix!{tmp_path}/ns"
    async with trio.open_nursery() as nursery:
        ns = namespace(nursery, {"kernels": KERNELS} if kernels else {})
        await ns.run(f"mount unix!{tmp_path}/gone /k/k1\n")
        async with serving_at(address, ns.root):
            done = await trio.run_process(
                [sys.executable, "-m", "mk9p", "-a", address, *words], capture_stderr=True, check=False, stdin=b""
            )
        nursery.cancel_scope.cancel()
    assert done.returncode == 1
    assert done.stderr.decode().startswith(said)
