"""A program that is frozen at whatever moment and goes on in a fresh process does what it does undisturbed, byte for byte."""

import errno
import os
import time
from pathlib import Path

import pytest
import trio
import wasmtime

from mk9p.errors import NineError
from mk9p.servers.wasm.keeping import Stored
from mk9p.testing import SOON
from tests.wasm.conftest import Compiled
from tests.wasm.programs_of import Kernel, giving


async def test_a_program_that_waits_for_its_input_is_frozen_with_what_it_has_not_read(
    kernel: Kernel, program: Compiled
) -> None:
    async with kernel.program("arg filter", "start", module=program("filter")) as p:
        async with await kernel.ns.open(f"{p.path}/stdin", "w") as stdin:
            await stdin.write(b"one\ntw")
            async with await kernel.ns.open(f"{p.path}/stdout") as stdout:
                assert await stdout.pread(100, 0) == b"0 ONE\n"
                assert await stdout.pread(100, 6) == b""  # the end of that record
                began = time.monotonic()
                state = await p.frozen()
                print(f"frozen in {time.monotonic() - began:.3f} s")
                with trio.move_on_after(0.2) as blocked:  # neither side goes on while it is frozen
                    await stdin.write(b"never taken\n")
                assert blocked.cancelled_caught
                with trio.move_on_after(0.2) as blocked:
                    await stdout.pread(100, 6)
                assert blocked.cancelled_caught
        await p.order("moved elsewhere")
    async with kernel.program(state=state) as p:
        async with await kernel.ns.open(f"{p.path}/stdin", "w") as stdin:
            await p.order("start")
            await stdin.write(b"o\nend\n")
            assert await p.read("stdout") == "1 TWO\n2 END\n"
        assert await p.ending() == ""


async def test_it_goes_on_where_it_is_if_nobody_takes_it(kernel: Kernel, program: Compiled) -> None:
    async with kernel.program("arg primes 500000", "start", module=program("primes")) as p:
        expected = await p.read("stdout"), await p.ending()
    async with kernel.program("arg primes 500000", "start", module=program("primes")) as p:
        for _ in range(3):
            await p.order("freeze", "start")
        assert (await p.read("stdout"), await p.ending()) == expected


async def test_what_cannot_be_saved_stays_frozen_and_goes_on_where_it_is(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    spins = wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start") (loop br 0)))')
    async with kernel.program("start", module=bytes(spins)) as p:
        assert await p.frozen()
        await p.order("start")
        with monkeypatch.context() as patch:
            patch.setattr(Stored, "replace", full)
            with pytest.raises(NineError, match="it is frozen, and has no state") as caught:
                await p.order("freeze")
        assert caught.value.errno == errno.EMFILE
        assert await p.state() == "frozen"
        assert await kernel.ns.read_bytes(f"{p.path}/state") == b"", "not the one of before"
        await p.order("start")
        assert await p.state() == "running"
        assert await p.frozen()


UNLINKS = """
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "gone") (data (i32.const 200) "\\64\\00\\00\\00\\04\\00\\00\\00")
  (func (export "_start")
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 4) (i32.const 1) (i64.const 66) (i64.const 66)
      (i32.const 0) (i32.const 0)) (then unreachable))
    (if (call $unlink (i32.const 3) (i32.const 100) (i32.const 4)) (then unreachable))
    (if (call $write (i32.const 1) (i32.const 200) (i32.const 1) (i32.const 0)) (then unreachable))
    (loop br 0)))
"""


async def test_what_could_go_on_nowhere_is_not_frozen_and_goes_on(kernel: Kernel, tmp_path: Path) -> None:
    async with giving(tmp_path) as address:
        kept = "checkpoint every 0.1 to /data/kept"
        words = (f"namespace {address}", "grant /data /d rw", kept, "limit cpu 60000", "start")
        async with kernel.program(*words, module=bytes(wasmtime.wat2wasm(UNLINKS))) as p:
            async with await kernel.ns.open(f"{p.path}/stdout") as out:
                with trio.fail_after(SOON):
                    assert await out.pread(100, 0) == b"gone"
            for _ in range(2):
                with pytest.raises(NineError, match="it has /d/gone open, which was removed") as caught:
                    await p.order("freeze")
                assert caught.value.errno == errno.ESTALE
                assert await p.state() == "running"
            async with await kernel.ns.open(f"{p.path}/events") as events:
                with trio.fail_after(SOON):
                    async for line in events:
                        if b" nocheckpoint " in line:
                            break
            (tmp_path / "gone").touch()
            with pytest.raises(NineError, match="or is another file now"):
                await p.order("freeze")
            assert await p.state() == "running"


async def test_a_sleep_has_as_much_time_left_as_it_had(kernel: Kernel, program: Compiled) -> None:
    began = time.monotonic()
    async with kernel.program("arg greedy sleep 3", "start", module=program("greedy")) as p:
        await trio.sleep(1)
        state = await p.frozen()
        run = time.monotonic() - began
        await p.order("moved elsewhere")
    await trio.sleep(3)
    again = time.monotonic()
    async with kernel.program("start", state=state) as p:
        assert await p.read("stdout") == "enough\n"
    rest = time.monotonic() - again
    assert run + rest > 3, "it must sleep on"
    assert rest < SOON


async def test_what_is_left_of_limits_goes_with_it(kernel: Kernel, program: Compiled) -> None:
    words = [
        "limit time 3000000",
        "limit cpu 60000",
        "limit fuel 100000000000",
        "limit output 5000",
        "arg primes 90000000",
    ]
    async with kernel.program(*words, "start", module=program("primes")) as p:
        await trio.sleep(0.3)
        state = await p.frozen()
    async with kernel.program("start", state=state) as p:
        await p.order("freeze")
        left = dict(line.split()[1:] for line in (await p.read("ctl")).splitlines() if line.startswith("limit"))
        assert int(left["time"]) < 3000000
        assert int(left["cpu"]) < 60000
        assert 0 < int(left["fuel"]) < 100000000000
        await p.order("kill")
        assert await p.ending() == "signal SIGKILL"


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        (
            "(table 1 funcref) (elem declare func $s) (func $t (table.set (i32.const 0) (ref.func $s)))",
            "changes tables",
        ),
        ("(func $t (result i32) (return_call $u)) (func $u (result i32) (i32.const 1))", "tail calls"),
        ("(tag $e) (func $t (throw $e))", "exceptions"),
        ("(func $i) (start $i)", "start section"),
    ],
)
async def test_what_cannot_be_frozen_runs_and_says_why(kernel: Kernel, inside: str, words: str) -> None:
    text = f'(module (memory (export "memory") 1) {inside} (func $s (export "_start") (loop (br 0))))'
    async with kernel.program("start", module=bytes(wasmtime.wat2wasm(text))) as p:
        with pytest.raises(NineError, match=f"it cannot be frozen: it .*{words}") as caught:
            await p.order("freeze")
        assert caught.value.errno == errno.EOPNOTSUPP
        assert await p.state() == "running"


async def test_an_open_file_that_is_no_longer_the_same_is_stale(kernel: Kernel, program: Compiled, given: Path) -> None:
    async with giving(given) as address:
        orders = [f"namespace {address}", "grant /data /d rw", "arg copy 3000000", "start"]
        async with kernel.program(*orders, module=program("copy")) as p:
            await trio.sleep(0.1)
            state = await p.frozen()
            await p.order("moved elsewhere")
        kernel.namespace = address
        (given / "in").rename(given / "kept")
        (given / "in").write_bytes((given / "kept").read_bytes())
        for words in ("/d/in: it is another file now", "/d/in: No such file or directory"):
            async with kernel.program(state=state) as p:
                with pytest.raises(NineError, match=words) as caught:
                    await p.order("start")
                assert caught.value.errno == errno.ESTALE
                assert await p.state() == "frozen"
            (given / "in").unlink(missing_ok=True)
        (given / "kept").rename(given / "in")
        async with kernel.program("start", state=state) as p:
            assert (await p.read("stdout")).endswith(" pieces\n")
            assert await p.ending() == ""
        assert (given / "out").read_bytes() == (given / "in").read_bytes()
