"""A program from its module to its end: what it gets, what it says, how it ends, and what is refused."""

import errno
from pathlib import Path

import pytest
import trio
import wasmtime

from mk9p.errors import NineError
from mk9p.testing import SOON
from mk9p.tree import split
from tests.wasm.conftest import Compiled
from tests.wasm.programs_of import Kernel, giving


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


async def test_a_program_from_clone_to_wait(kernel: Kernel, program: Compiled) -> None:
    async with kernel.program("arg primes 30000", module=program("primes")) as p:
        assert split(await p.read("status")) == ["0", "loaded", "primes", "0", "-", "0"]
        await p.order("start")
        assert await p.read("stdout") == "3245 primes below 30000, the last 29989\n"
        pid, user, system, real, status = split(await p.read("wait"))
        assert status == "exit 7"
        assert int(pid) > 1
        assert int(user) + int(system) > 0
        assert int(real) > 0
        assert await p.state() == "done"
        assert (await kernel.ns.read("status")).startswith("0 done primes ")
        assert [split(line)[2] for line in (await kernel.ns.read("0/events")).splitlines()] == [
            "loaded",
            "running",
            "done",
        ]
    assert [entry.name for entry in await kernel.ns.listdir("")] == ["clone", "status"]


async def test_what_wasi_has_is_all_there(kernel: Kernel, program: Compiled, given: Path) -> None:
    async with giving(given) as address:
        words = [f"namespace {address}", "grant /data /d rw", "grant /data /r ro", "arg wasi one 'two words'"]
        async with kernel.program(*words, "env GREETING='good day'", module=program("wasi")) as p:
            assert await p.read("ns") == "grant /data /d rw\ngrant /data /r ro\n"
            await p.order("start")
            await p.write("stdin", b"input\n")
            assert await p.read("stdout") == "right\n"
            assert await p.read("stderr") == "to stderr\n"
            assert await p.ending() == ""


@pytest.mark.parametrize(
    ("limit", "what", "ending"),
    [
        ("memory 33554432", "memory", "limit memory"),
        ("memory 65536", "memory", "limit memory"),
        ("fuel 1000000", "spin", "limit fuel"),
        ("time 300", "spin", "limit time"),
        ("time 300", "sleep", "limit time"),
        ("cpu 300", "spin", "limit cpu"),
        ("output 100000", "output", "limit output"),
        ("files 10", "files", "limit files"),
    ],
)
async def test_each_limit_ends_a_program_with_its_own_words(
    kernel: Kernel, program: Compiled, given: Path, limit: str, what: str, ending: str
) -> None:
    async with giving(given) as address:
        words = [f"namespace {address}", "grant /data /d ro", f"limit {limit}", f"arg greedy {what}"]
        async with kernel.program(*words, module=program("greedy")) as p:
            await p.order("start")
            written = await p.read("stdout")
            assert len(written) == (100_000 if what == "output" else 0)
            assert await p.ending() == ending
            assert await p.state() == "failed"
            if limit == "memory 33554432":
                assert 24 << 20 < int(split(await p.read("status"))[3]) <= 32 << 20, "up to it, it gets what it wants"


@pytest.mark.parametrize(
    ("what", "ending"),
    [("abort", "trap unreachable"), ("wild", "trap memory out of bounds")],
)
async def test_what_no_program_may_do_ends_it(kernel: Kernel, program: Compiled, what: str, ending: str) -> None:
    async with kernel.program(f"arg greedy {what}", "start", module=program("greedy")) as p:
        assert await p.ending() == ending
        assert await p.state() == "failed"


async def test_a_program_is_killed_by_a_signal_of_any_name(kernel: Kernel, program: Compiled) -> None:
    for word, ending in (("kill", "signal SIGKILL"), ("kill INT", "signal SIGINT")):
        async with kernel.program("arg greedy spin", "start", word, module=program("greedy")) as p:
            assert await p.ending() == ending
            with pytest.raises(NineError, match="the program has ended") as caught:
                await p.order("kill")
            assert caught.value.errno == errno.ESRCH


async def test_a_program_ends_with_its_last_open_file_unless_it_is_kept(kernel: Kernel, program: Compiled) -> None:
    async with kernel.program("arg greedy spin", "start", module=program("greedy")):
        pass
    assert await kernel.ns.read("status") == ""
    async with kernel.program("arg greedy sleep 0", "start", "keep", module=program("greedy")):
        pass
    with trio.fail_after(SOON):
        assert await kernel.ns.read("0/stdout") == "enough\n"
    await kernel.ns.write("0/ctl", "unkeep")
    assert await kernel.ns.read("status") == ""


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (b"\x7fELF and so on", "not a wasm module"),
        (b"\0asm\1\0\0\0\1\x40", "cut short"),
        (b"\0asm\x0d\0\1\0" + bytes(8), "a component, for WASI preview 2"),
        (wat('(module (import "wasi_unstable" "fd_read" (func)))'), "another WASI, 'wasi_unstable'"),
        (wat('(module (import "env" "emscripten" (func)))'), "env.emscripten, which is not here"),
        (wat('(module (import "wasi_snapshot_preview1" "fd_new" (func)))'), "fd_new, which is not here"),
        (wat("(module (func))").replace(b"\x02\0\x0b", b"\x02\xff\x0b"), "not a valid module"),
    ],
)
async def test_what_is_no_program_is_told_at_load_and_another_can_be_written(
    kernel: Kernel, program: Compiled, module: bytes, words: str
) -> None:
    async with kernel.program() as p:
        with pytest.raises(NineError, match="write the module first"):
            await p.order("load")
        await p.write("module", module)
        with pytest.raises(NineError, match=words) as caught:
            await p.order("load")
        assert caught.value.errno == errno.ENOEXEC
        await p.write("module", program("greedy"))
        await p.order("load", "start")
        assert await p.read("stdout") == "enough\n"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (wat('(module (memory (export "memory") 1))'), "a program exports `memory` and `_start`"),
        (wat('(module (func (export "_start")))'), "a program exports `memory` and `_start`"),
        (
            wat(
                '(module (import "wasi_snapshot_preview1" "fd_read" (func $f (param i64)))'
                '(memory (export "memory") 1) (func (export "_start") (call $f (i64.const 0))))'
            ),
            "it cannot begin: ",
        ),
    ],
)
async def test_what_cannot_begin_is_told_at_start(kernel: Kernel, module: bytes, words: str) -> None:
    async with kernel.program(module=module) as p:
        with pytest.raises(NineError, match=words) as caught:
            await p.order("start")
        assert caught.value.errno == errno.ENOEXEC
        assert await p.state() == "loaded"


async def test_nobody_who_has_no_grant_sees_anything(
    kernel: Kernel, program: Compiled, given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mk9p.servers.wasm.program.LINE", 0.1)
    async with kernel.program("arg copy", "start", module=program("copy")) as p:
        assert await p.read("stderr") == "open: No such file or directory\n"
        assert await p.ending() == "exit 1"
    async with giving(given) as address:
        for grant, words, number in (
            ("/data", "nobody serves what was granted", errno.ENOTCONN),
            ("/none", "grant /none: No such file", errno.ENOENT),
            ("/data/in", "grant /data/in: not a directory", errno.ENOTDIR),
        ):
            said = [] if number == errno.ENOTCONN else [f"namespace {address}"]
            async with kernel.program(*said, f"grant {grant} /d ro", module=program("copy")) as p:
                with pytest.raises(NineError, match=words) as caught:
                    await p.order("start")
                assert caught.value.errno == number


async def test_settings_are_refused_once_it_runs_and_what_is_wrong_is_told(kernel: Kernel, program: Compiled) -> None:
    async with kernel.program(module=program("greedy")) as p:
        for line in (
            *("limit memory 0", "limit memory 4294967297", "limit what 3", "grant data ro", "grant /data", "env x"),
            *("grant /data/../etc ro", "grant /data d ro", "kill NOSUCH", "moved there", "freeze"),
        ):
            with pytest.raises(NineError) as caught:
                await p.order(line)
            assert caught.value.errno in (errno.EINVAL, errno.EBUSY, errno.ESRCH), line
        await p.order("arg greedy spin", "start")
        for line in ("arg more", "env A=b", "limit time 1", "load", "grant /data ro", "start", "moved k2"):
            with pytest.raises(NineError) as caught:
                await p.order(line)
            assert caught.value.errno == errno.EBUSY, line
        with pytest.raises(OSError, match="busy"):
            await p.write("module", b"x")
        assert await p.read("ctl") == "arg greedy spin\nlimit memory 268435456\n"


async def test_a_program_whose_grants_end_gets_errors_and_goes_on(
    kernel: Kernel, program: Compiled, given: Path
) -> None:
    async with kernel.program("grant /data /d rw", "arg copy 2000000", module=program("copy")) as p:
        async with giving(given) as address:
            await p.order(f"namespace {address}", "start")
        assert await p.read("stderr") in ("read: I/O error\n", "write: I/O error\n", "open: I/O error\n")
        assert await p.ending() == "exit 1"
