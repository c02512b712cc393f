"""Programs for the tests, compiled once a session; and a kernel's `wasm` to try them on."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mk9p.servers.wasm import tree
from mk9p.testing import mounted
from tests.wasm.programs_of import SOURCES, Kernel

Compiled = Callable[[str], bytes]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Give a function that returns the module of one of the C programs here."""
    folder = tmp_path_factory.mktemp("modules")
    made: dict[str, bytes] = {}

    def compiled(name: str) -> bytes:
        if name not in made:
            out = folder / f"{name}.wasm"
            words = [
                "-m",
                "ziglang",
                "cc",
                "-target",
                "wasm32-wasi",
                "-O2",
                "-s",
                "-o",
                str(out),
                f"{SOURCES / name}.c",
            ]
            subprocess.run([sys.executable, *words], check=True, timeout=600)
            made[name] = out.read_bytes()
        return made[name]

    return compiled


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a cache for what is made of modules, so that each is made freezable once."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
async def kernel(cache: str) -> AsyncIterator[Kernel]:
    async with tree(cache=cache) as made, mounted(made) as ns:
        yield Kernel(ns)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Give a directory with what the programs read."""
    (tmp_path / "names").mkdir()
    for n in range(40):
        (tmp_path / "names" / f"file{n}").touch()
    (tmp_path / "in").write_bytes(b"".join(b"%d " % (n * n) for n in range(30_000)))
    return tmp_path
