"""Kernels that somebody else started, and QEMU's monitor: a real QEMU without a guest, and monitors that say what none says."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from mk9p.errors import NineError
from mk9p.servers.kernels import attach, backend, bare, channel, qmp
from mk9p.testing import SOON, serving_at, until, until_true
from mk9p.tree import Dir, settle
from tests.kernels.guests import require
from tests.kernels.made_up import Made, lab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.kernels.made_up import Lab


@attrs.define
class ByHand:
    """A QEMU with nothing in it, and two monitors: one for the test, which plays somebody else."""

    process: subprocess.Popen[bytes]
    path: str
    other: Any

    def say(self, word: str) -> None:
        self.other.write(json.dumps({"execute": word}).encode() + b"\n")
        self.other.flush()


@contextmanager
def by_hand(home: Path) -> Iterator[ByHand]:
    require("qemu")
    mine, other = home / "mine", home / "other"
    words = ["qemu-system-x86_64", "-accel", "tcg", "-M", "pc", "-m", "32", "-nodefaults", "-display", "none"]
    for monitor in (mine, other):
        words += ["-qmp", f"unix:{monitor},server=on,wait=off"]
    with subprocess.Popen(words) as process:
        try:
            with socket.socket(socket.AF_UNIX) as end:
                until_true(lambda: not end.connect_ex(str(other)))
                end.settimeout(SOON)
                with end.makefile("rwb") as file:
                    file.readline()
                    one = ByHand(process, str(mine), file)
                    one.say("qmp_capabilities")
                    yield one
        finally:
            process.kill()


@asynccontextmanager
async def attached(home: Path, *words: str) -> AsyncIterator[Lab]:
    async with lab(home) as one:
        one.kernels.backends["attach"] = attach.Attach()
        await one.write("k1/ctl", "\n".join(["backend attach", *words]))
        yield one


@pytest.fixture
def qemu(home: Path) -> Iterator[ByHand]:
    with by_hand(home) as found:
        yield found


async def test_a_qemu_of_somebody_else_obeys_and_is_seen(qemu: ByHand, tmp_path: Path) -> None:
    with trio.fail_after(4 * SOON):
        async with attached(tmp_path, f"qmp {qemu.path}", "start") as one:
            kernel = one.kernel()
            await kernel.ready()
            assert f"qmp {qemu.path}\n" in await one.read("k1/config")
            await one.write("k1/ctl", "freeze")
            assert one.state() == "frozen"
            await one.write("k1/ctl", "thaw")
            assert one.state() == "active"
            qemu.say("stop")
            await until(lambda: one.state() == "frozen")
            qemu.say("cont")
            await until(lambda: one.state() == "active")
            await one.write("k1/ctl", "reset\ndump")
            dump = await one.open("k1/dump")
            assert await settle(dump.read(0, 4)) == b"\x7fELF"
            with pytest.raises(NineError, match="console of an attached kernel is elsewhere"):
                await one.write("k1/console", "x")
            for word in ("start", "dial unix!/x"):
                with pytest.raises(NineError, match="is running"):
                    await one.write("k1/ctl", word)
            await one.write("k1/ctl", "kill")
            assert (one.state(), kernel.reason) == ("loaded", "killed")
            assert qemu.process.wait(SOON) == 0


async def test_a_qemu_without_a_tree_gets_devices_and_nothing_that_needs_asking(qemu: ByHand, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    with trio.fail_after(8 * SOON):
        async with attached(tmp_path, f"qmp {qemu.path}", "start") as one:
            await one.kernel().ready()
            await one.write("pool/ctl", f"cpu add 1\nmem add 2M\ndev add d disk {disk}\ndev add n net closed")
            await one.write("k1/ctl", "dev add d\ndev add n")
            assert "devices d n\n" in await one.read("k1/status")
            for words in ("cpu add 1", "mem add 2M"):
                with pytest.raises(NineError, match="k1 was attached without its tree") as caught:
                    await one.write("k1/ctl", words)
                assert caught.value.errno == errno.EOPNOTSUPP
            await one.write("pool/ctl", f"dev add other disk {disk}")
            with pytest.raises(NineError, match="lock"):
                await one.write("k1/ctl", "dev add other")
            assert await one.read("pool/ctl") == f"cpu add 1\nmem add 2097152\ndev add other disk {disk}\n"


async def test_it_goes_on_when_this_server_ends(qemu: ByHand, tmp_path: Path) -> None:
    with trio.fail_after(4 * SOON):
        for _ in range(2):
            async with attached(tmp_path, f"qmp {qemu.path}", "start") as one:
                await one.kernel().ready()
            assert qemu.process.poll() is None


async def test_its_end_is_seen_with_the_reason(qemu: ByHand, tmp_path: Path) -> None:
    with trio.fail_after(4 * SOON):
        async with attached(tmp_path, f"qmp {qemu.path}", "start") as one:
            await one.kernel().ready()
            qemu.say("quit")
            assert await one.kernel().ended(0) == "killed"
            assert one.state() == "dead"


async def test_halt_presses_the_power_button_and_ends_one_that_does_not_go(
    qemu: ByHand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "HALT_SECONDS", 0.5)  # there is nobody in it to hear the button
    with trio.fail_after(4 * SOON):
        async with attached(tmp_path, f"qmp {qemu.path}", "start") as one:
            await one.kernel().ready()
            await one.write("k1/ctl", "halt")
            assert qemu.process.wait(SOON) == 0


async def test_one_that_is_frozen_already_is_found_frozen(qemu: ByHand, tmp_path: Path) -> None:
    qemu.say("stop")
    with trio.fail_after(4 * SOON):
        async with attached(tmp_path, f"qmp {qemu.path}", "start") as one:
            await until(lambda: one.state() == "frozen")
            await one.write("k1/ctl", "thaw")
            await until(lambda: one.state() == "active")


async def test_a_monitor_talks_with_one_at_a_time(
    qemu: ByHand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "GREETING_SECONDS", 0.5)
    other = qemu.path.removesuffix("mine") + "other"  # which the test has
    async with attached(tmp_path, f"qmp {other}") as one:
        with pytest.raises(TimeoutError, match="has somebody else this monitor"):
            await one.write("k1/ctl", "start")
        assert one.kernel().running is None


async def test_a_tree_without_a_monitor_is_attached_and_let_go(tmp_path: Path) -> None:
    async with (
        serving_at(f"unix!{tmp_path}/s", Dir({})) as host,
        attached(tmp_path, f"dial {host.address}", "start") as one,
    ):
        await one.kernel().ready()
        assert f"dial {host.address}\n" in await one.read("k1/status")
        for word in ("freeze", "reset", "dump"):
            with pytest.raises(NineError, match="attached without its monitor") as caught:
                await one.write("k1/ctl", word)
            assert caught.value.errno == errno.EOPNOTSUPP
        await one.write("k1/ctl", "halt")
        assert (one.state(), one.kernel().reason) == ("loaded", "let go")
        await one.write("k1/ctl", "start")  # and again


async def test_what_cannot_be_attached_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words, told, number in (
        (["start"], "has a tree or a monitor", errno.EINVAL),
        ([f"dial unix!{tmp_path}/absent", "start"], ".", errno.ENOENT),
        ([f"qmp {tmp_path}/absent", "start"], "absent: No such file", errno.ENOENT),
        ([f"qmp {tmp_path}/file", "start"], "file: Connection refused", errno.ECONNREFUSED),
        (["qmp relative"], "want the absolute path", errno.EINVAL),
        (["dial nowhere"], "nowhere", errno.EINVAL),
    ):
        async with attached(tmp_path) as one:
            with pytest.raises(NineError, match=told) as caught:
                await one.write("k1/ctl", "\n".join(words))
        assert caught.value.errno == number, words


@asynccontextmanager
async def talking(*says: bytes) -> AsyncIterator[tuple[qmp.Qmp, socket.socket]]:
    """Give a conversation with a monitor that says something, and the monitor's end."""
    pair = channel.Channel.open()
    talk = qmp.Qmp(pair)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.follow)
            for part in says:
                pair.theirs.sendall(part)
            yield talk, pair.theirs
            nursery.cancel_scope.cancel()
    finally:
        pair.close()


@pytest.mark.parametrize(
    "says",
    [
        *(b"garbage\n", b"\xff\xfe\n", b"[1]\n", b'"text"\n', b'{"event": 3}\n', b'{"event": "X", "data": 3}\n'),
        *(b"[" * 5_000 + b"\n", b'{"a": ' * 5_000 + b"\n"),
    ],
)
async def test_what_is_no_qmp_ends_the_conversation(says: bytes) -> None:
    async with talking(says) as (talk, _):
        with trio.fail_after(SOON):
            await talk.over.wait()
        assert "QEMU says what is no QMP" in talk.broken
        with pytest.raises(NineError, match="no QMP"):
            await talk.order("stop")


async def test_a_line_without_an_end_ends_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "LONGEST", 1000)
    async with talking(b'{"event": "' + b"x" * 2000) as (talk, _):
        with trio.fail_after(SOON):
            await talk.over.wait()
        assert "a line of more than 1000 bytes" in talk.broken


async def test_orders_are_answered_by_their_numbers() -> None:
    async with talking() as (talk, far):
        found: dict[str, Any] = {}

        async def order(word: str) -> None:
            try:
                found[word] = await talk.order(word)
            except NineError as error:
                found[word] = str(error)

        async with trio.open_nursery() as nursery:
            for word in ("a", "b", "c"):
                nursery.start_soon(order, word)
            await trio.testing.wait_all_tasks_blocked()
            numbers = {line["execute"]: line["id"] for line in map(json.loads, far.recv(4096).split(b"\n")[:-1])}
            far.sendall(b'{"event": "STOP", "data": {}}\n')
            far.sendall(json.dumps({"return": 2, "id": numbers["b"]}).encode() + b"\n")
            far.sendall(json.dumps({"error": {"desc": "not\nnow"}, "id": numbers["c"]}).encode() + b"\n")
            far.sendall(json.dumps({"error": 7, "id": numbers["a"]}).encode() + b'\n{"return": 1, "id": 99}\n')
        assert found == {"a": "refused without a reason", "b": 2, "c": "not now"}


async def test_an_order_without_an_answer_fails_in_time_or_with_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with talking() as (talk, far):
        with pytest.raises(TimeoutError, match="QEMU does not answer to stop"):
            await talk.order("stop", seconds=5)
        with pytest.raises(TimeoutError):
            await talk.order_until(["X"], lambda data: True, "stop", seconds=5)
        async with trio.open_nursery() as nursery:

            async def gone() -> None:
                with pytest.raises(NineError, match="the kernel is not running") as caught:
                    await talk.order("stop")
                assert caught.value.errno == errno.EIO

            nursery.start_soon(gone)
            await trio.testing.wait_all_tasks_blocked()
            far.close()
        with pytest.raises(NineError, match="the kernel is not running"):
            await talk.order("stop")


async def test_a_qemu_that_does_not_end_is_told_and_what_nobody_asked_for_is_still_seen(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking() as (talk, far):
        one = attach.Attached("", bare.Bare("x", 1), talk=talk)
        for word in (one.kill, one.halt):
            with pytest.raises(TimeoutError, match="its QEMU does not end in 10 s"):
                await word()
        assert b"quit" in far.recv(4096)

    async def refuse(*_: object) -> None:
        raise NineError(errno.ETIMEDOUT, "its QEMU does not end in 10 s")

    async with lab(tmp_path) as here:
        await here.write("k1/ctl", "load\nrestart on-failure\nwatch 5 kill")
        await here.boot()
        here.kernel().probe = refuse
        with monkeypatch.context() as patch:
            patch.setattr(Made, "kill", refuse)
            with pytest.raises(TimeoutError):
                await here.write("k1/ctl", "kill")
            await trio.sleep(20)
        assert here.state() == "silent"
        here.guest.end("panicked")
        await trio.sleep(1)
        assert len(here.backend.guests) == 2
