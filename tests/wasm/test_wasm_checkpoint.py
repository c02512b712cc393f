"""Checkpoints: the state of a program is written while it runs, as a whole or not at all, and a program goes on from it byte for byte."""

import errno
from pathlib import Path

import pytest
import trio

from mk9p.errors import NineError
from mk9p.servers.wasm.container import unpacked
from mk9p.testing import SOON, serving_at
from mk9p.tree import Dir, Stream, split
from tests.wasm.conftest import Compiled
from tests.wasm.programs_of import Kernel, Program, giving

OFTEN = "checkpoint every 0.1 to /data/kept"


async def checkpoints(program: Program, count: int) -> list[list[str]]:
    """Wait for so many checkpoints, and return what was told of them."""
    found: list[list[str]] = []
    with trio.fail_after(SOON):
        async with await program.ns.open(f"{program.path}/events") as file:
            async for line in file:
                _, _, what, *words = split(line.decode().strip())
                assert what != "nocheckpoint", words
                if what == "checkpoint":
                    found.append(words)
                if len(found) == count:
                    break
    return found


def carried(state: bytes, stream: str) -> int:
    """Return where in a stream what is in a state begins."""
    found = unpacked(memoryview(state))
    return int(found.head["carried"][stream]) - len(getattr(found, stream))


async def test_a_program_goes_on_from_its_last_checkpoint_byte_for_byte(
    kernel: Kernel, program: Compiled, given: Path
) -> None:
    async with giving(given) as address:
        words = [f"namespace {address}", "grant /data /d rw"]
        async with kernel.program(*words, "arg copy", "start", module=program("copy")) as p:
            expected, ending = await p.read("stdout"), await p.ending()
        (given / "out").unlink()
        async with kernel.program(*words, "arg copy 1500000", OFTEN, "start", module=program("copy")) as p:
            assert f"{OFTEN}\n" in await p.read("ctl")
            async with await kernel.ns.open(f"{p.path}/stdout") as stdout:
                told = await checkpoints(p, 2)
                said = await stdout.pread(4096, 0)
                await p.order("kill")
        state = (given / "kept").read_bytes()
        assert not (given / "kept.part").exists()
        assert [int(size) for size, *_ in told][-1] <= len(state) * 2
        assert (given / "out").read_bytes() != (given / "in").read_bytes()
        kernel.namespace = address
        async with kernel.program("start", state=state) as p:
            rest = await p.read("stdout")
            assert await p.ending() == ending
        at = carried(state, "stdout")
        assert at <= len(said)
        assert (said[:at].decode() + rest) == expected
        assert (given / "out").read_bytes() == (given / "in").read_bytes()


async def test_what_waits_in_its_streams_is_in_a_checkpoint_once(
    kernel: Kernel, program: Compiled, given: Path
) -> None:
    """More is written to it than a socket holds, and it takes one line of that: what it has not taken is in the state, wherever it waits."""
    lines = b"".join(b"%d of some lines\n" % n for n in range(20_000))
    async with (
        giving(given) as address,
        kernel.program(f"namespace {address}", "arg filter", OFTEN, "start", module=program("filter")) as p,
        await kernel.ns.open(f"{p.path}/stdin", "w") as stdin,
        trio.open_nursery() as nursery,
    ):

        async def write() -> None:
            for at in range(0, len(lines), 5000):
                await stdin.write(lines[at : at + 5000])

        nursery.start_soon(write)
        await checkpoints(p, 3)
        nursery.cancel_scope.cancel()
        state = (given / "kept").read_bytes()
        await p.order("kill")
    found = unpacked(memoryview(state))
    taken = found.head["carried"]["stdin"] - len(found.stdin)
    assert lines[taken:].startswith(found.stdin)
    assert len(found.stdin) > 100_000
    assert (
        found.stdout
        == b"".join(b"%d %s" % (n, line.upper()) for n, line in enumerate(lines.splitlines(keepends=True)))[
            : len(found.stdout)
        ]
    )


async def test_what_is_in_the_way_of_a_checkpoint_is_told_and_the_last_one_stays(
    kernel: Kernel, program: Compiled, given: Path
) -> None:
    async with giving(given) as address:
        begun = [f"namespace {address}", "arg greedy spin"]
        async with kernel.program(*begun, module=program("greedy")) as p:
            for words, number, said in (
                ("checkpoint", errno.EINVAL, "usage: checkpoint every SECONDS to PATH|never"),
                ("checkpoint every x to /data/kept", errno.EINVAL, "usage: checkpoint every SECONDS to PATH|never"),
                ("checkpoint every 0 to /data/kept", errno.EINVAL, "checkpoint every 0.1 to 86400 seconds: 0"),
                ("checkpoint every 1 to kept", errno.EINVAL, "usage: checkpoint every SECONDS to PATH|never"),
            ):
                with pytest.raises(NineError, match=f"^.*{said}$".replace("|", r"\|")) as caught:
                    await p.order(words)
                assert caught.value.errno == number
            await p.order("checkpoint every 0.1 to /none/kept")
            with pytest.raises(FileNotFoundError, match="checkpoint /none/kept: No such file or directory"):
                await p.order("start")
            assert await p.state() == "loaded"
            await p.order(OFTEN, "start")
            with pytest.raises(NineError) as caught:
                await p.order("checkpoint never")
            assert caught.value.errno == errno.EBUSY
            await checkpoints(p, 1)
            kept = (given / "kept").read_bytes()
            (given / "kept.part").mkdir()
            with trio.fail_after(SOON):
                async for line in kernel.ns.lines(f"{p.path}/events"):
                    if "nocheckpoint" in line:
                        break
            assert split(line)[3:] == ["checkpoint /data/kept: Is a directory"]
            (given / "kept.part").rmdir()
            assert unpacked(memoryview((given / "kept").read_bytes())).module == unpacked(memoryview(kept)).module
            assert await p.state() == "running"


async def test_a_program_is_frozen_while_its_checkpoint_cannot_be_written(
    kernel: Kernel, program: Compiled, tmp_path: Path
) -> None:
    begun = trio.Event()

    class Stuck:
        """Takes nothing."""

        async def receive(self) -> bytes:
            return b""

        async def send(self, data: bytes) -> int:
            begun.set()
            await trio.sleep_forever()
            raise AssertionError

        def close(self) -> None:
            """Do nothing."""

    stuck = Dir({"kept.part": Stream(per_open=lambda _: Stuck(), mode=0o600)})
    async with serving_at(f"unix!{tmp_path}/s", Dir({"data": stuck})) as host:
        words = [f"namespace {host.address}", "arg filter", OFTEN, "start"]
        async with (
            kernel.program(*words, module=program("filter")) as p,
            await kernel.ns.open(f"{p.path}/stdin", "w") as stdin,
        ):
            await stdin.write(b"one\n")
            with trio.fail_after(SOON):
                await begun.wait()
            state = await p.frozen()
            await p.order("moved elsewhere")
    async with kernel.program("start", state=state) as p:
        await p.write("stdin", b"end\n")
        assert (await p.read("stdout"), await p.ending()) == ("0 ONE\n1 END\n", "")
