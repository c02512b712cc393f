"""Programs move while they run: from this machine to a real 6.1, to a real 6.12, to user-mode Linux and back, with files, channels and terminal."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from mk9p.client import Client
from mk9p.testing import child
from tests.vm.conftest import require_kernel
from tests.vm.lab_vm import Vm, lab_up, short_folder, until
from tests.wasm import foreign

SERVE = {"serve": ["host", "cmd", "wasm"], "hostroot": "on"}
KERNELS: dict[str, dict[str, Any]] = {
    "k1": {"backend": "qemu", "kernel": "6.1", "memory": "1G", **SERVE},
    "k2": {"backend": "qemu", "kernel": "6.12", "memory": "1G", **SERVE},
    "k3": {"backend": "uml", "kernel": "uml", "memory": "768M", **SERVE},
}
ROAD = ("k1", "k2", "k3", "k0")
SOURCES = Path(__file__).parent.parent / "wasm" / "programs"
# seconds for one step: an emulated processor compiles the module, beside all else that this machine does
STEP = 300
LINES = 5  # for the filter, before each move and after the last


@attrs.frozen
class Moving:
    """A lab, and a folder that is served as /data/fs in its namespace."""

    vm: Vm
    home: Path

    @property
    def given(self) -> Path:
        return self.home / "data"

    def module(self, name: str) -> str:
        """Return the path of a program that is compiled."""
        made = self.home / f"{name}.wasm"
        if not made.exists():
            words = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-O2", "-s"]
            subprocess.run([*words, "-o", str(made), str(SOURCES / f"{name}.c")], check=True, timeout=2 * STEP)
        return str(made)

    def undisturbed(self, words: list[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(words, input=given, capture_output=True, timeout=2 * STEP, check=False)

    def moved(
        self, words: list[str], between: Callable[[], None] = lambda: None, given: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program with an input and move it from kernel to kernel; do something before each move and after the last."""
        with (
            tempfile.TemporaryFile() as file,
            subprocess.Popen(words, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        ):
            file.write(given)
            file.seek(0)
            until(lambda: b"running" in self.vm.mk9p("wasm", "ps").stdout, "the program", STEP)
            at, number, went = "k0", "0", ["k0"]
            for to in ROAD:
                between()
                began = time.monotonic()
                done = self.undisturbed(self.vm.words("wasm", "move", f"{at}/{number}", to))
                assert done.returncode == 0, (went, done.stderr, process.poll())
                print(f"{at} -> {to}: {time.monotonic() - began:.1f} s")
                number, at = done.stdout.decode().strip().rpartition("/")[2], to
                went.append(to)
            between()
            output, errors = process.communicate(timeout=2 * STEP)
        return subprocess.CompletedProcess(words, process.returncode, output, errors)


pytestmark = pytest.mark.minutes


@pytest.fixture(scope="module")
def moving(guests: None) -> Iterator[Moving]:
    require_kernel("qemu", "6.12")
    with short_folder() as home:
        given = home / "data"
        (given / "names").mkdir(parents=True)
        (given / "in").write_bytes(b"".join(b"%d " % (n * n) for n in range(4_000)))
        serving = [sys.executable, "-m", "mk9p", "serve", "-l", f"unix!{home}/fs", f"fs:{given}", "chan"]
        with child(serving, "listening"), lab_up(home, KERNELS) as vm:
            done = vm.mk9p("write", "ctl", f"mount unix!{home}/fs /data")
            assert done.returncode == 0, done.stderr
            yield Moving(vm, home)


# long enough for the moves to meet them: what an emulated processor does of it is little
@pytest.mark.parametrize("words", ["primes 50000000", "sieve 4000000 300", "deep 250"])
def test_a_program_that_computes_goes_through_real_kernels(moving: Moving, words: str) -> None:
    name, *arguments = words.split()
    command = moving.vm.words("wasm", "run", "-n", "--follow", "k0", moving.module(name), *arguments)
    expected = moving.undisturbed(command)
    done = moving.moved(command)
    assert (done.stdout, done.stderr, done.returncode) == (expected.stdout, b"", expected.returncode)
    assert expected.stdout


@pytest.mark.parametrize("name", ["lua", "graphviz"])
def test_a_program_of_other_people_goes_through_real_kernels(moving: Moving, long: bool, name: str) -> None:
    if not long:
        pytest.skip("emulated processors compile them for minutes: MK9P_LONG=1")
    made = moving.home / f"{name}.wasm"
    made.write_bytes(foreign.module(name, moving.home))
    arguments, given = ([foreign.script(200_000)], b"") if name == "lua" else ([], foreign.graph(200))
    command = moving.vm.words("wasm", "run", "--follow", "k0", str(made), *arguments)
    expected = moving.undisturbed(command, given)
    assert expected.returncode == 0, expected.stderr
    done = moving.moved(command, given=given)
    assert (done.stdout, done.stderr, done.returncode) == (expected.stdout, b"", 0)
    assert expected.stdout.count(b"\n") > 10


def test_a_program_goes_through_real_kernels_and_writes_each_byte_once(moving: Moving) -> None:
    given, words = moving.given, ["wasm", "run", "-n", "-g", "/data/fs/data:/d:rw", "k0", moving.module("copy")]
    expected = moving.undisturbed(moving.vm.words(*words))
    assert expected.returncode == 0, expected.stderr
    log = (given / "log").read_bytes()
    assert log
    (given / "log").unlink()

    def so_far() -> None:
        assert (given / "log").read_bytes() == log[: (given / "log").stat().st_size]

    done = moving.moved(moving.vm.words(*words, "400000000"), so_far)
    assert (done.stdout, done.stderr, done.returncode) == (expected.stdout, b"", 0)
    assert (given / "log").read_bytes() == log
    assert (given / "out").read_bytes() == (given / "in").read_bytes()


def test_a_filter_between_two_channels_goes_through_real_kernels(moving: Moving) -> None:
    async def channels(ns: Client) -> None:
        for name in ("in", "out"):
            await ns.mkdir(f"data/chan/{name}")

    moving.vm.client(channels)
    sent: list[bytes] = []

    async def write(ns: Client) -> None:
        async with await ns.open("data/chan/in/data", "w") as file:
            for _ in range(LINES):
                sent.append(b"line %d of some\n" % len(sent))
                await file.pwrite(sent[-1], 0)
            if len(sent) == LINES * (len(ROAD) + 1):
                await file.pwrite(b"end\n", 0)

    reading = moving.vm.words("tail", "/data/chan/out/data")
    words = ["wasm", "run", "-n", "-g", "/data/chan:/c:rw", "k0", moving.module("filter"), "/c/in/data", "/c/out/data"]
    with subprocess.Popen(reading, stdout=subprocess.PIPE) as reader:
        done = moving.moved(moving.vm.words(*words), lambda: moving.vm.client(write))
        assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)
        assert reader.stdout is not None
        got = [reader.stdout.readline() for _ in range(len(sent) + 1)]
        reader.terminate()
    assert got == [b"%d %s" % (n, line.upper()) for n, line in enumerate([*sent, b"end\n"])]
