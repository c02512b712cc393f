"""A program that is frozen at whatever moment and goes on in a fresh process does what it does undisturbed, byte for byte."""

import random
import time
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio

from mk9p import connect
from mk9p.clients.common import piece
from mk9p.servers.chan import tree as channels
from mk9p.testing import SOON, serving_at
from mk9p.tree import Dir, join
from tests.wasm import foreign
from tests.wasm.conftest import Compiled
from tests.wasm.programs_of import Kernel, giving

MOMENTS, FEW = 125, 4  # for each of eight programs, where there is time: 1,000; else for each of five
OF_ONE_RUN = 25
RUNS = 4  # for each moment, before it is called too short to be frozen


@attrs.define
class Work:
    """A program with its words and input, and how long it takes undisturbed."""

    kernel: Kernel
    words: list[str]
    module: bytes
    input: bytes = b""
    seconds: float = 0
    runs: int = 0
    begins: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(0))  # released whenever it begins or goes on

    async def undisturbed(self) -> tuple[str, str]:
        """Run it, and return its output and ending."""
        async with self.kernel.program(*self.words, module=self.module) as p:
            await p.write("stdin", self.input)
            began = time.monotonic()
            await p.order("start")
            said = await p.read("stdout"), await p.ending()
            self.seconds = time.monotonic() - began
            return said

    async def moved(self, moments: int, wait: float = 0) -> tuple[str, str, int]:
        """Run it, freeze it at up to so many random moments, each time letting a new one go on; return output, ending, and the moments.

        They are spread over all of it, or come within `wait` seconds after one another.
        """
        state, done = b"", 0
        wait = wait or 2 * self.seconds / (moments + 1)
        self.runs += 1
        while True:
            words, module = ([], b"") if state else (self.words, self.module)
            async with self.kernel.program(*words, module=module, state=state) as p:
                if not state:
                    await p.write("stdin", self.input)
                await p.order("start")
                self.begins.release()
                if done < moments:
                    await trio.sleep(random.random() * wait)
                    with suppress(ProcessLookupError):  # it has ended just before
                        state = await p.frozen()
                        await p.order("moved elsewhere")
                        done += 1
                        continue
                output = await p.read("stdout")
                assert await p.read("stderr") == ""
                return output, await p.ending(), done

    async def all(self, moments: int) -> None:
        """Freeze it at so many moments, over as many runs as that takes; what it says must be the same in each."""
        expected, began, left = await self.undisturbed(), time.monotonic(), moments
        while left > 0:
            *said, done = await self.moved(min(left, OF_ONE_RUN))
            assert tuple(said) == expected
            assert self.runs <= RUNS * moments, f"it ends in {self.seconds:.3f} s, before it can be frozen"
            if not done:  # it was quicker than the first time, which other programs may have held up
                self.seconds /= 2
            left -= done
        self.tell(moments, began)

    def tell(self, moments: int, began: float) -> None:
        """Print what was done."""
        took = time.monotonic() - began
        print(f"\n{moments} moments in {self.runs} runs, {took:.1f} s; undisturbed {self.seconds:.2f} s")


@pytest.fixture
def moments(long: bool) -> int:
    return MOMENTS if long else FEW


@pytest.mark.parametrize("words", ["primes 2000000", "sieve 8000000", "deep 4"])
async def test_a_program_that_computes(kernel: Kernel, program: Compiled, words: str, moments: int) -> None:
    await Work(kernel, [f"arg {words}"], program(words.split()[0])).all(moments)


@pytest.mark.minutes
@pytest.mark.parametrize("name", ["sqlite", "lua", "graphviz"])
async def test_a_program_of_other_people(kernel: Kernel, tmp_path: Path, name: str, moments: int) -> None:
    words = {"sqlite": ["sqlite", "20000"], "lua": ["lua", foreign.script(4000)], "graphviz": ["graphviz"]}[name]
    work = Work(kernel, [join(["arg", *words])], foreign.module(name, tmp_path))
    kernel.seconds = 1200
    work.input = foreign.graph(90) if name == "graphviz" else b""
    await work.all(moments)


async def test_a_program_that_copies_files(kernel: Kernel, program: Compiled, given: Path, moments: int) -> None:
    async with giving(given) as address:
        words = [f"namespace {address}", "grant /data /d rw", "arg copy"]
        work = Work(kernel, words, program("copy"))
        expected, began, left = await work.undisturbed(), time.monotonic(), moments
        log = (given / "log").read_bytes()
        assert (given / "out").read_bytes() == (given / "in").read_bytes()
        # it is not in the state: who lets a program go on says where the namespace is
        kernel.namespace = address
        while left > 0:
            (given / "log").unlink()
            *said, done = await work.moved(min(left, OF_ONE_RUN))
            assert tuple(said) == expected
            assert (given / "out").read_bytes() == (given / "in").read_bytes()
            assert (given / "log").read_bytes() == log
            left -= done
        work.tell(moments, began)


async def test_a_filter_between_two_channels(
    kernel: Kernel, program: Compiled, tmp_path: Path, long: bool, moments: int
) -> None:
    lines = [b"line %d of some\n" % n for n in range(5 * (moments + 1))]
    async with serving_at(f"unix!{tmp_path}/s", Dir({"chan": channels()})) as host, connect(host.address) as client:
        await client.mkdir("chan/in")
        await client.mkdir("chan/out")
        got: list[bytes] = []

        async def write() -> None:
            async with await client.open("chan/in/data", "w") as file:
                for n, line in enumerate([*lines, b"end\n"]):
                    if not n % 5 and n < len(lines):  # as much as is left of the moments: it ends in the last run
                        await work.begins.acquire()
                    await file.pwrite(line, 0)
                    await trio.sleep(random.random() * 0.01)

        async def read() -> None:
            async with await client.open("chan/out/data") as file:
                while not got or not got[-1].endswith(b" END\n"):
                    got.append(await piece(file))

        kernel.namespace = host.address
        words = [f"namespace {host.address}", "grant /chan /c rw", "arg filter /c/in/data /c/out/data"]
        work, began = Work(kernel, words, program("filter")), time.monotonic()
        with trio.fail_after(SOON * (100 if long else 1)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                nursery.start_soon(read)
                *said, done = await work.moved(moments, 0.05)
        assert (said, done) == (["", ""], moments)
        assert b"".join(got) == b"".join(b"%d %s" % (n, line.upper()) for n, line in enumerate([*lines, b"end\n"]))
        work.tell(done, began)
