"""Kernels that are frozen, dumped, watched and started again, on a made-up backend and a virtual clock."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from mk9p.errors import NineError
from mk9p.restart import Restart
from mk9p.servers.kernels import backend, inside
from mk9p.tree import Dir, Node, Text
from tests.kernels.made_up import MadeMachine, lab
from tests.tree.test_slices import turns_beside

if TYPE_CHECKING:
    from pathlib import Path

    from mk9p.auth import Principal
    from tests.kernels.made_up import Lab


def done(one: Lab) -> list[str]:
    assert isinstance(one.guest.machine, MadeMachine)
    return one.guest.machine.done


async def test_what_it_does_before_it_serves_and_how_long_it_is_waited_for(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        lines = "modules ext4 vfat\nboot 'mount /dev/sda /mnt; :'\nwait 60\n"
        await one.write("k1/ctl", "modules ext4\n" + lines.replace("ext4 ", ""))
        assert lines in await one.read("k1/config")
        assert "\nwait 60\n" in await one.read("k1/status")
        for wrong in ("wait -1", "wait 86401"):
            with pytest.raises(NineError, match="requests wait for 0 to 86400 seconds"):
                await one.write("k1/ctl", wrong)
        script = one.kernel().spec.lay(tmp_path, "fd!0!1")[0][4]
        here = ["sh", "-c", runs_here(script, tmp_path)]
        said = [(await trio.run_process(here, capture_stdout=True)).stdout for _ in range(2)]
        assert said == [b"mounted\nserves\n", b"serves\n"]  # its serving may begin again
        await one.write("k1/ctl", "boot\nwait 0\n")
        assert "boot" not in await one.read("k1/config")
        assert "if mkdir" not in one.kernel().spec.lay(tmp_path, "fd!0!1")[0][4]


def runs_here(script: str, home: Path) -> str:
    """Return a guest's script that tells what it would do, and does nothing."""
    there = script.replace(backend.BEGUN, str(home / "begun")).replace("mount /dev/sda /mnt", "echo mounted")
    return re.sub(r"exec .*", "echo serves", there)


async def test_frozen_it_stands_still_and_thawed_it_is_as_before(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        for word in ("freeze", "thaw", "reset", "dump"):
            with pytest.raises(NineError, match="k1 is not running"):
                await one.write("k1/ctl", word)
        await one.write("k1/ctl", "load")
        await one.boot()
        with pytest.raises(NineError, match="k1 is not frozen"):
            await one.write("k1/ctl", "thaw")
        await one.write("k1/ctl", "freeze")
        assert one.state() == "frozen"
        with pytest.raises(NineError, match="k1 is frozen") as caught:
            await one.write("k1/ctl", "freeze")
        assert caught.value.errno == errno.EBUSY
        await one.write("k1/ctl", "thaw")
        assert (one.state(), done(one)) == ("active", ["freeze", "thaw"])
        await one.write("k1/ctl", "freeze\nhalt")  # to go down it must go on
        assert (one.state(), one.guest.reason, done(one)) == ("loaded", "halted", ["freeze", "thaw", "freeze", "thaw"])
        assert one.happened()[-5:] == ["frozen", "thawed", "frozen", "thawed", "halted"]


async def test_what_its_console_says_while_it_is_frozen_holds_when_it_goes_on(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "load\nstart\nfreeze")
        await one.guest.says.send(b"mk9p: listening on x\n")
        await trio.testing.wait_all_tasks_blocked()
        assert one.state() == "frozen"
        await one.write("k1/ctl", "thaw")
        assert one.state() == "active"


async def test_what_a_machine_cannot_do_is_said_and_nothing_changes(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "load")
        await one.boot()
        with pytest.raises(NineError, match="a made-up kernel has no reset") as caught:
            await one.write("k1/ctl", "reset")
        assert caught.value.errno == errno.EOPNOTSUPP
        assert one.state() == "active"


async def test_a_dump_is_kept_until_the_next_one(tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "load")
        await one.boot()
        assert await one.read("k1/dump") == ""
        await one.write("k1/ctl", "dump")
        assert await one.read("k1/dump") == "\x7fELF and more"
        assert one.happened()[-1] == "dumped"
        await one.write("k1/ctl", "kill")
        assert await one.read("k1/dump") == "\x7fELF and more"  # it is of use when the kernel is gone


async def test_a_crash_loop_is_slowed_told_and_stopped(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "restart on-failure max 4 in 100\nload")
        assert "restart on-failure max 4 in 100\n" in await one.read("k1/config")
        await one.boot()
        for n, wait in enumerate((0, 1, 2, 4), 1):
            one.guest.end("panicked")
            if wait:
                await trio.sleep(wait - 0.1)
                assert len(one.backend.guests) == n
            await trio.sleep(0.2)
            assert len(one.backend.guests) == n + 1
        one.guest.end("panicked")
        await trio.sleep(1000)
        assert len(one.backend.guests) == 5
        assert one.state() == "failed"
        assert one.happened()[-1] == "crash-loop"
        assert "panicked; started again 4 times in 100 s" in await one.read("k1/status")
        await one.boot()  # and whoever starts it begins to count anew
        one.guest.end("panicked")
        await trio.testing.wait_all_tasks_blocked()
        assert len(one.backend.guests) == 7


async def test_restarts_long_ago_do_not_count(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "restart always max 2 in 10\nload")
        await one.boot()
        for n in range(10):
            await trio.sleep(11)
            one.guest.end("halted")
            await trio.testing.wait_all_tasks_blocked()
            assert len(one.backend.guests) == 2 + n


@pytest.mark.parametrize("word", ["kill", "halt", "start", "delete"])
async def test_a_kernel_that_waits_for_its_next_start_obeys(
    word: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "restart on-failure\nload")
        await one.boot()
        for _ in range(2):
            one.guest.end("panicked")
            await trio.testing.wait_all_tasks_blocked()
        assert (one.state(), len(one.backend.guests)) == ("failed", 2)
        await one.write("k1/ctl", word)
        await trio.sleep(100)
        assert len(one.backend.guests) == (3 if word == "start" else 2)


async def test_one_that_never_served_does_not_start_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with lab(tmp_path) as one:
        await one.write("k1/ctl", "restart always\nload\nstart")
        one.guest.end("qemu: no such device")
        await trio.sleep(1000)
        assert len(one.backend.guests) == 1


async def test_one_that_serves_no_cpu_has_answered() -> None:
    class Gone(Dir):
        def walk(self, name: str, who: Principal) -> Node:
            raise NineError(errno.EIO, "gone")

    reach = inside.Reach({"k1": Dir({"net": Dir({})}), "k2": Gone({})}.get)
    await reach.answers("k1")
    with pytest.raises(NineError, match="k2: gone"):
        await reach.answers("k2")


async def test_a_status_with_very_many_lines_holds_up_nobody() -> None:
    reach = inside.Reach(lambda name: Dir({"cpu": Dir({"status": Text("\n" * int(name))})}))
    assert await turns_beside(reach.lines(str(inside.TABLE), "cpu/status")) > 5
    with pytest.raises(NineError) as caught:
        await reach.lines(str(inside.TABLE + 1), "cpu/status")
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize(
    ("then", "guests", "state"), [("tell", 1, "silent"), ("kill", 1, "dead"), ("restart", 2, "loaded")]
)
async def test_one_that_is_watched_must_answer(
    then: str, guests: int, state: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    asked, silent = [], False

    async def probe(name: str) -> None:
        asked.append(name)
        if silent:
            await trio.sleep_forever()

    async with lab(tmp_path) as one:
        one.kernel().probe = probe
        await one.write("k1/ctl", f"watch 3 {then}\nload")
        assert f"watch 3 {then}\n" in await one.read("k1/config")
        await one.boot()
        await trio.sleep(10)
        assert asked == ["k1"] * 3
        silent = True
        await one.write("k1/ctl", "freeze")  # a frozen one is not expected to answer
        await trio.sleep(10)
        assert one.state() == "frozen"
        await one.write("k1/ctl", "thaw")
        await trio.sleep(7)
        assert (len(one.backend.guests), one.state()) == (guests, state)
        assert "silent" in one.happened()
        if then == "tell":
            assert "no answer in 3 s" in await one.read("k1/status")
            silent = False
            await trio.sleep(7)
            assert one.state() == "active"
        if then == "restart":
            silent = False
            await one.guest.says.send(b"mk9p: listening on x\n")
            await trio.sleep(10)
            assert one.state() == "active"
            await one.write("k1/ctl", "watch 0 tell")
            count = len(asked)
            await trio.sleep(10)
            assert len(asked) == count


@pytest.mark.parametrize(
    "word",
    [
        *(
            "restart sometimes",
            "restart always max",
            "restart always max 0",
            "restart always in -1",
            "restart always most 3",
        ),
        *(
            "restart always max 1 max 2",
            "restart never max x",
            "watch 3",
            "watch 0.1 tell",
            "watch -1 kill",
            "watch 3 pray",
        ),
    ],
)
async def test_what_is_no_policy_is_refused(word: str, tmp_path: Path) -> None:
    async with lab(tmp_path) as one:
        with pytest.raises(NineError) as caught:
            await one.write("k1/ctl", word)
        assert caught.value.errno == errno.EINVAL


def test_the_waits_grow_to_a_minute() -> None:
    restart = Restart("always", 50, 1000)
    waits = [restart.wait([0.0] * n, 1.0) for n in (0, 1, 2, 7, 49, 50)]
    assert waits == [0.0, 1.0, 2.0, 60.0, 60.0, None]
    assert Restart.parse("always", restart.words[1:]) == restart
