"""`python -m tests.bench.wasm`: what it costs a program that it can be frozen, and what freezing, saving, copying and thawing take.

Three tables. Programs: seconds of a processor in plain wasmtime, freezable, and as a native program of the same compiler; the least of `-r`
runs. Moves: from the word to the stopped program, from there to its snapshot; from the word `freeze` of a served program to its answer, reading
its state and writing it to another, from `start` to the answer; how large the state is. Calls: how many calls of WASI a second a program makes,
without and with 9P. `--foreign` adds SQLite, Lua and Graphviz, if they can be had.
"""

import argparse
import os
import random
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import trio
import wasmtime

from mk9p.servers.wasm import tree
from mk9p.servers.wasm.container import State, unpacked
from mk9p.servers.wasm.instrument.checkpoints import FLAG, LIMIT
from mk9p.servers.wasm.loading import prepared
from mk9p.servers.wasm.machine import PAGE, engine
from mk9p.servers.wasm.process import memfd
from mk9p.servers.wasm.runner import Run
from mk9p.servers.wasm.settings import MEMORY
from mk9p.servers.wasm.snapshot import take
from mk9p.testing import mounted
from mk9p.tree import join
from tests.bench.figures import note
from tests.wasm import foreign
from tests.wasm.programs_of import Kernel, giving

PROGRAMS: Final = {"primes": ["2000000"], "sieve": ["16000000"], "deep": ["4"]}
FOREIGN: Final = {"sqlite": ["20000"], "lua": [foreign.script(4000)], "graphviz": []}


@attrs.frozen
class Program:
    """A program: its module, that module made freezable, and the same sources as a native program, where there is one."""

    name: str
    words: list[str]
    module: bytes
    ready: bytes
    making: float
    native: Path | None
    input: bytes = b""

    @classmethod
    def of(cls, name: str, words: list[str], folder: Path) -> "Program":
        native = None
        if name == "graphviz":
            module = foreign.module(name, folder)
        else:
            found = foreign.SOURCES_OF.get(name)
            sources = found(folder) if found else [str(foreign.SOURCES / f"{name}.c")]
            module = foreign.compiled(folder, f"{name}.wasm", *sources)
            native = foreign.compiled_here(folder, name, *sources, "-lm")
        began = time.process_time()
        ready, reason = prepared(module, "")
        assert not reason, reason
        given = foreign.graph(90) if name == "graphviz" else b""
        return cls(name, words, module, ready, time.process_time() - began, native, given)

    def in_engine(self, folder: Path, module: bytes, made: wasmtime.Engine) -> float:
        """Return how long it takes in an engine, with wasmtime's own WASI."""
        (folder / "stdin").write_bytes(self.input)
        store, linker = wasmtime.Store(made), wasmtime.Linker(made)
        wasi = wasmtime.WasiConfig()
        wasi.argv = [self.name, *self.words]
        wasi.stdin_file, wasi.stdout_file = str(folder / "stdin"), str(folder / "stdout")
        store.set_wasi(wasi)
        linker.define_wasi()
        nothing = wasmtime.FuncType([], [])
        for what in ("checkpoint", "memory"):
            linker.define_func("mk9p", what, nothing, lambda: None)
        compiled = wasmtime.Module(made, module)
        exports = linker.instantiate(store, compiled).exports(store)
        if any(each.name == FLAG for each in compiled.exports):
            exports[FLAG].write(store, bytearray((MEMORY // PAGE).to_bytes(4, "little")), LIMIT)  # type: ignore[union-attr]
        began = time.process_time()
        with suppress(wasmtime.ExitTrap):
            exports["_start"](store)  # type: ignore[operator]
        return time.process_time() - began

    def natively(self, folder: Path) -> float | None:
        """Return how long it takes as a native program."""
        if self.native is None:
            return None
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (folder / "stdout").open("wb") as out:
            subprocess.run([self.native, *self.words], stdout=out, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def times(program: Program, folder: Path, rounds: int) -> None:
    """Print a line of the first table."""
    plain = min(program.in_engine(folder, program.module, wasmtime.Engine()) for _ in range(rounds))
    freezable = min(program.in_engine(folder, program.ready, engine(fuel=False)) for _ in range(rounds))
    native = [took for _ in range(rounds) if (took := program.natively(folder)) is not None]
    note(f"wasm: {program.name}: freezable to plain", freezable / plain, lower=True)
    there = f"native {min(native):7.3f} s  plain to native {plain / min(native):5.2f}" if native else ""
    print(
        f"{program.name:9} plain {plain:7.3f} s  freezable {freezable:7.3f} s  ratio {freezable / plain:5.2f}  {there}  "
        f"module {len(program.module):8} -> {len(program.ready):8} bytes in {program.making:6.2f} s",
        flush=True,
    )


def stops(program: Program, count: int) -> tuple[list[float], list[float]]:
    """Return how many ms it took from asking to the stopped program, and from there to its snapshot."""
    asked: list[float] = []
    saved: list[float] = []
    for _ in range(count):
        with tempfile.TemporaryFile() as given, open(os.devnull, "w") as out:
            given.write(program.input)
            given.seek(0)
            streams = [os.dup(given.fileno()), os.dup(out.fileno()), os.dup(out.fileno())]
            spec: dict[str, Any] = {
                "args": [program.name, *program.words],
                "env": [],
                "grants": [],
                "namespace": "",
                "cache": "",
                "limits": {"memory": MEMORY},
                "state": None,
                "module": memfd("m", [program.ready]),
                "streams": streams,
                "out": -1,
                "checkpoint": None,
            }
            run = Run(spec)
            thread = threading.Thread(target=run.machine.run)
            thread.start()
            time.sleep(random.random() * 0.1)
            began = time.perf_counter()
            run.machine.ask()
            thread.join()
            stopped, used = time.perf_counter(), time.thread_time()
            if run.machine.unwinding:
                take(run.machine, {})
                asked.append((stopped - began) * 1e3)
                saved.append((time.thread_time() - used) * 1e3)
            for fd in streams:
                os.close(fd)
    return asked, saved


async def moves(program: Program, count: int, cache: str) -> None:
    """Print a line of the second table."""
    threading.stack_size(32 << 20)
    asked, saved = stops(program, count)
    threading.stack_size(0)
    took: dict[str, list[float]] = {"freeze": [], "copy": [], "thaw": []}
    size, pages = 0, 0
    async with tree(cache=cache) as made, mounted(made) as ns:
        kernel = Kernel(ns)
        for _ in range(count):
            async with kernel.program(join(["arg", program.name, *program.words]), module=program.module) as p:
                await p.write("stdin", program.input)
                await p.order("start")
                await trio.sleep(random.random() * 0.1)
                began = time.perf_counter()
                try:
                    await p.order("freeze")
                except OSError:  # it has ended
                    continue
                frozen = time.perf_counter()
                state = await ns.read_bytes(f"{p.path}/state")
                async with kernel.program(state=state) as q:
                    copied = time.perf_counter()
                    await q.order("start")
                    took["thaw"].append((time.perf_counter() - copied) * 1e3)
                took["freeze"].append((frozen - began) * 1e3)
                took["copy"].append((copied - frozen) * 1e3)
                whole: State = unpacked(memoryview(state))
                size, pages = max(size, len(state)), max(pages, len(whole.snapshot))
    columns = {"ask to stopped": asked, "snapshot": saved, **took}
    for what, ms in columns.items():
        if ms:
            note(f"wasm: {program.name}: {what}", statistics.median(ms), "ms", lower=True)
    told = "  ".join(
        f"{what} {statistics.median(ms):6.1f} (most {max(ms):6.1f}) ms" for what, ms in columns.items() if ms
    )
    print(f"{program.name:9} {told}  state {size} bytes, without its module {pages}", flush=True)


async def calls(folder: Path, cache: str) -> None:
    """Print the third table."""
    (folder / "given").mkdir()
    module = foreign.compiled(folder, "calls.wasm", str(foreign.SOURCES / "calls.c"))
    async with giving(folder / "given") as address, tree(cache=cache) as made, mounted(made) as ns:
        words = [f"namespace {address}", "grant /data /d rw", "arg calls", "start"]
        async with Kernel(ns).program(*words, module=module) as p:
            for line in (await p.read("stdout")).splitlines():
                what, _, rate = line.rpartition(" ")
                note(f"wasm: {what} a second", float(rate))
                print(f"{what:24} {int(rate):9} /s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-r", type=int, default=3, help="rounds")
    parser.add_argument("-m", type=int, default=20, help="moments at which each program is frozen")
    parser.add_argument("--foreign", action="store_true", help="SQLite, Lua and Graphviz too")
    chosen = parser.parse_args()
    work: dict[str, list[str]] = {**PROGRAMS, **(FOREIGN if chosen.foreign else {})}
    with tempfile.TemporaryDirectory(prefix="mk9p-bench-", dir="/var/tmp") as name:
        cache = Path(name, "cache")
        cache.mkdir(mode=0o700)
        programs = []
        for what, words in work.items():
            folder = Path(name, what)
            folder.mkdir()
            programs.append(Program.of(what, words, folder))
            times(programs[-1], folder, chosen.r)
        print()
        for program in programs:
            trio.run(moves, program, chosen.m, str(cache))
        print()
        trio.run(calls, Path(name), str(cache))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
