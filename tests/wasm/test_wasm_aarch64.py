"""A program goes on on a machine of another kind and comes back: its process is an aarch64 one there, which qemu-user runs.

The Python is Debian's for arm64, and the engine PyPI's wheel for it. Only the program's process is of the other kind: its server is not.
"""

import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from mk9p import connect
from mk9p.clients.common import piece
from mk9p.servers.chan import tree as channels
from mk9p.servers.wasm import process
from mk9p.testing import serving_at
from mk9p.tree import Dir, join
from tests.wasm import foreign
from tests.wasm.conftest import Compiled
from tests.wasm.programs_of import Kernel, giving

PYTHON = "python3.11"  # Debian 12's; a wheel of the engine fits each
PACKAGES = (
    *(f"{PYTHON}-minimal", f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libc6", "libgcc-s1", "libstdc++6", "zlib1g"),
    *("libexpat1", "libssl3", "libffi8", "libbz2-1.0", "liblzma5", "libcrypt1", "libuuid1", "libsqlite3-0"),
)
WHEELS = ("wasmtime==50.0.1", "attrs")
MOVES = 6  # there and back, and so on
PATIENCE = 900.0  # seconds for a word: an emulated processor starts a Python and compiles a module, beside all else that this machine does


pytestmark = pytest.mark.minutes


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give a Python of another kind; skip where it cannot be had."""
    folder = tmp_path_factory.mktemp("aarch64")
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "status").touch()
    options = {"APT::Architecture": "arm64", "APT::Architectures": "arm64", "Dir::State::lists": str(folder / "lists")}
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    words += ["-o", f"Dir::State::status={folder}/status"]
    foreign.got(folder, "apt-get", "-q", *words, "update")
    foreign.got(folder, "apt-get", "-q", *words, "download", *PACKAGES)
    foreign.got(folder, "apt-get", "-q", "download", "qemu-user-static")
    for package in folder.glob("*.deb"):
        into = folder / ("qemu" if package.name.startswith("qemu") else "root")
        subprocess.run(["dpkg", "-x", str(package), str(into)], check=True)
    kind = ["--only-binary=:all:", "--platform", "manylinux2014_aarch64", "--python-version", "3.11"]
    foreign.got(folder, sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, "-d", str(folder), *WHEELS)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    made = folder / "python"
    qemu = f"{folder}/qemu/usr/bin/qemu-aarch64-static -L {folder}/root -E PYTHONPATH={folder}/site"
    made.write_text(f'#!/bin/sh\nexec {qemu} {folder}/root/usr/bin/{PYTHON} "$@"\n')
    made.chmod(0o755)
    said = subprocess.run([made, "-c", "import platform; print(platform.machine())"], capture_output=True, check=True)
    assert said.stdout == b"aarch64\n"
    return str(made)


async def there_and_back(
    kernel: Kernel,
    words: list[str],
    module: bytes,
    other: str,
    monkeypatch: pytest.MonkeyPatch,
    begins: Callable[[], None] = lambda: None,
    given: bytes = b"",
) -> tuple[str, str]:
    """Run a program, with an input, that changes between this machine and the other at random moments, and return its output and ending.

    `begins` is called whenever it begins or goes on.
    """
    state = b""
    for move in range(MOVES + 1):
        monkeypatch.setattr(process, "PYTHON", other if move % 2 else sys.executable)
        async with kernel.program(*([] if state else words), module=b"" if state else module, state=state) as p:
            if not state:
                await p.write("stdin", given)
            await p.order("start")
            begins()
            if move == MOVES:
                return await p.read("stdout"), await p.ending()
            await trio.sleep(random.random())
            state = await p.frozen()
            await p.order("moved elsewhere")
    raise AssertionError


@pytest.mark.parametrize("words", ["primes 20000000", "sieve 4000000 100", "deep 60"])
async def test_a_program_that_computes_changes_between_machines(
    kernel: Kernel, program: Compiled, words: str, aarch64: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, kernel.seconds = program(words.split()[0]), PATIENCE
    async with kernel.program(f"arg {words}", "start", module=module) as p:
        expected = await p.read("stdout"), await p.ending()
    assert await there_and_back(kernel, [f"arg {words}"], module, aarch64, monkeypatch) == expected


async def test_open_files_go_with_it(
    kernel: Kernel, program: Compiled, given: Path, aarch64: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = program("copy")
    async with giving(given) as address:
        kernel.seconds = PATIENCE
        words = [f"namespace {address}", "grant /data /d rw", "arg copy 3000000"]
        async with kernel.program(*words, "start", module=module) as p:
            expected = await p.read("stdout"), await p.ending()
        log = (given / "log").read_bytes()
        (given / "log").unlink()
        kernel.namespace = address
        assert await there_and_back(kernel, words, module, aarch64, monkeypatch) == expected
        assert (given / "out").read_bytes() == (given / "in").read_bytes()
        assert (given / "log").read_bytes() == log


async def test_a_filter_between_two_channels_changes_between_machines(
    kernel: Kernel, program: Compiled, tmp_path: Path, aarch64: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [b"line %d of some\n" % n for n in range(5 * (MOVES + 1))]
    lives, got = trio.Semaphore(0), list[bytes]()
    async with serving_at(f"unix!{tmp_path}/s", Dir({"chan": channels()})) as host, connect(host.address) as client:
        await client.mkdir("chan/in")
        await client.mkdir("chan/out")

        async def write() -> None:
            async with await client.open("chan/in/data", "w") as file:
                for n, line in enumerate(lines):
                    if not n % 5:
                        await lives.acquire()
                    await file.pwrite(line, 0)
                    await trio.sleep(random.random() * 0.2)
                await file.pwrite(b"end\n", 0)

        async def read() -> None:
            async with await client.open("chan/out/data") as file:
                while not got or not got[-1].endswith(b" END\n"):
                    got.append(await piece(file))

        kernel.seconds, kernel.namespace = PATIENCE, host.address
        words = [f"namespace {host.address}", "grant /chan /c rw", "arg filter /c/in/data /c/out/data"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(read)
            module = program("filter")
            assert await there_and_back(kernel, words, module, aarch64, monkeypatch, lives.release) == ("", "")
    assert b"".join(got) == b"".join(b"%d %s" % (n, line.upper()) for n, line in enumerate([*lines, b"end\n"]))


@pytest.mark.parametrize("name", ["sqlite", "lua", "graphviz"])
async def test_a_program_of_other_people_changes_between_machines(
    kernel: Kernel, tmp_path: Path, aarch64: str, monkeypatch: pytest.MonkeyPatch, long: bool, name: str
) -> None:
    if not long:
        pytest.skip("an emulated processor compiles it for minutes: MK9P_LONG=1")
    arguments = {"sqlite": ["200000"], "lua": [foreign.script(200_000)], "graphviz": []}[name]
    given = foreign.graph(200) if name == "graphviz" else b""
    words, module = [join(["arg", name, *arguments])], foreign.module(name, tmp_path)
    kernel.seconds = 2 * PATIENCE
    async with kernel.program(*words, module=module) as p:
        await p.write("stdin", given)
        await p.order("start")
        expected = await p.read("stdout"), await p.ending()
    assert expected[1] == ""
    assert expected[0].count("\n") > 5
    assert await there_and_back(kernel, words, module, aarch64, monkeypatch, given=given) == expected
