"""Moves between made-up kernels and the pool: both halves or neither, the kernel asked first, and everything still there in the end."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from mk9p.auth import ROOT
from mk9p.errors import NineError
from mk9p.testing import until
from mk9p.tree import settle
from tests.kernels.moving import PLACES, Inner, moving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernels.moving import Moving

MB = 1 << 20
MOVES = 20_000 if os.environ.get("MK9P_LONG") else 300


async def tx(here: Moving, number: int) -> dict[str, str]:
    lines = (await here.read(f"tx/{number}/status")).rstrip("\n").split("\n")
    return dict(line.partition(" ")[::2] for line in lines)


async def test_a_cpu_moves_with_its_number_or_gets_the_lowest_free_one(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2") as here:
        await here.say("pool/ctl", "cpu add 4-5")
        await here.say("ctl", "move cpu 1 k1 k2")
        assert (here.inner["k1"].online, here.inner["k2"].online) == ({0}, {0, 1, 2})
        await here.say("k1/ctl", "cpu add 4")  # which is no place in k1
        assert here.inner["k1"].online == {0, 1}
        await here.say("k2/ctl", "cpu del 1-2")
        assert await here.read("pool/cpus") == "1\n2\n5\n"
        assert [here.lab.kernel(name).spec.cpus for name in ("k1", "k2")] == [2, 1]  # and so they start again
        assert await tx(here, 2) | {"began": "", "took": ""} == {
            "state": "applied",
            "what": "move cpu 1 k1 k2",
            "steps": "2",
            "done": "2",
            "began": "",
            "took": "",
        }


async def test_memory_moves_if_it_can_be_spared(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2") as here:
        await here.say("pool/ctl", "mem add 1G")
        await here.say("k1/ctl", "mem add 512M")
        assert (await here.read("pool/memory"), here.inner["k1"].size) == (f"{512 * MB}\n", 512 * MB)
        await here.say("ctl", "move mem 256M k1 k2")
        assert (here.inner["k1"].size, here.inner["k2"].size) == (256 * MB, 256 * MB)
        assert f"extra_memory {256 * MB}\n" in await here.read("k2/status")
        before = here.all()
        here.inner["k1"].used = 600 * MB
        with pytest.raises(
            NineError, match="k1 cannot spare 268435456 bytes: 176160768 bytes are available to it"
        ) as caught:
            await here.say("ctl", "move mem 256M k1 k2")
        assert caught.value.errno == errno.EBUSY
        with pytest.raises(NineError, match="k1 has 268435456 bytes that can move, and not 536870912"):
            await here.say("ctl", "move mem 512M k1 pool")
        with pytest.raises(NineError, match="the pool has 536870912 bytes, and not 1073741824"):
            await here.say("k2/ctl", "mem add 1G")
        assert here.all() == before


async def test_a_device_moves(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2") as here:
        await here.say("pool/ctl", "dev add usb0 usb /srv/stick.img\ndev add net0 net closed")
        assert await here.read("pool/devices") == "usb0 usb /srv/stick.img\nnet0 net closed\n"
        await here.say("k1/ctl", "dev add usb0")
        await here.say("ctl", "move dev usb0 k1 k2")
        assert (list(here.inner["k1"].devices), list(here.inner["k2"].devices)) == ([], ["usb0"])
        assert "devices usb0\n" in await here.read("k2/status")
        here.inner["k2"].mounted = {"usb0"}
        with pytest.raises(NineError, match="k2: /dev/usb01 is mounted at /mnt") as caught:
            await here.say("ctl", "move dev usb0 k2 pool")
        assert caught.value.errno == errno.EBUSY
        assert list(here.inner["k2"].devices) == ["usb0"]
        here.inner["k2"].mounted = set()
        await here.say("k2/ctl", "dev del usb0")
        assert (await here.read("pool/status")).endswith("devices net0 usb0\n")


async def test_a_kernel_refuses_in_its_own_words_and_all_is_as_before(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2") as here:
        await here.say("pool/ctl", "cpu add 7\nmem add 256M\ndev add d0 disk /srv/disk.img")
        await here.say("k1/ctl", "mem add 128M\ndev add d0")
        before = here.all()
        for words in ("move cpu 1 k1 k2", "move mem 64M k1 k2", "move dev d0 k1 k2", "move cpu 1 k1 pool"):
            for name in ("k1", "k2"):
                for late in (False, True):
                    inner = here.inner[name]
                    inner.refuse, inner.late = f"{name} would rather not", late
                    if name == "k2" and words.endswith("pool"):
                        continue
                    with pytest.raises(NineError, match=f"{name}: {name} would rather not") as caught:
                        await here.say("ctl", words)
                    assert caught.value.errno == errno.EBUSY
                    assert here.all() == before, words
                    last = max(here.lab.kernels.moves.txs.txs)
                    assert (await tx(here, last))["state"] == "failed"
                    assert await here.read(f"tx/{last}/error") == f"{name}: {name} would rather not\n"


REFUSED = [
    ("move cpu 0-1 k1 k2", "k1: no CPU would be left", errno.EBUSY),
    ("move cpu 3 k1 k2", "CPU 3 of k1 is offline", errno.ENODEV),
    ("move cpu 9 k1 k2", "k1 has no CPU 9", errno.ENODEV),
    ("move cpu 9 pool k1", "CPU 9 is not in the pool", errno.ENODEV),
    ("move cpu 1 k1 k3", "k3 has places for 4 CPUs, and 4 are online", errno.ENOSPC),
    ("move cpu 1 k1 k1", "from k1 to k1 nothing moves", errno.EINVAL),
    ("move cpu 1 k1 k9", "no kernel k9", errno.ENOENT),
    ("move cpu one k1 k2", "one: want CPUs, as 1 or 2-3,5", errno.EINVAL),
    ("move cpu 1- k1 k2", "want CPUs", errno.EINVAL),
    ("move cpu 3-1 k1 k2", "want CPUs", errno.EINVAL),
    ("move cpu 0-999999 k1 k2", "want CPUs", errno.EINVAL),
    ("move mem 1 k1 k2", "memory moves in pieces of 2097152 bytes", errno.EINVAL),
    ("move mem 0 k1 k2", "memory moves in pieces", errno.EINVAL),
    ("move mem -2M k1 k2", "want bytes", errno.EINVAL),
    ("move mem 99999999999999999999G k1 k2", "want bytes", errno.EINVAL),
    ("move mem 64M k1 k2", "k1 has 0 bytes that can move", errno.ENOMEM),
    ("move dev usb0 k1 k2", "k1 has no device usb0", errno.ENODEV),
    ("move dev usb0 pool k2", "usb0 is not in the pool", errno.ENODEV),
    ("move disk usb0 pool k2", "usage: move cpu|mem|dev WHAT FROM TO", errno.EINVAL),
    ("move cpu 1 k1", "usage: ", errno.EINVAL),
]


async def test_what_cannot_move_is_told_and_nothing_has(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2", "k3") as here:
        await here.say("pool/ctl", "cpu add 7-8")
        await here.say("k3/ctl", "cpu add 7-8")
        before = here.all()
        for words, told, number in REFUSED:
            with pytest.raises(NineError, match=told) as caught:
                await here.say("ctl", words)
            assert (caught.value.errno, here.all()) == (number, before), words
        here.inner["k1"].isolated = {1}
        with pytest.raises(NineError, match="CPU 1 of k1 is isolated: join it first"):
            await here.say("ctl", "move cpu 1 k1 k2")
        for words in (
            "cpu del 1",
            "mem add 1",
            "dev add x disk",
            "dev add -x net",
            "dev add n net open",
            "dev del x",
        ):
            with pytest.raises(NineError):
                await here.say("pool/ctl", words)
        with pytest.raises(NineError, match="CPU 9 is in the pool"):
            await here.say("pool/ctl", "cpu add 9\ncpu add 9")


async def test_removing_an_applied_one_undoes_it(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2") as here:
        before = here.all()
        await here.say("pool/ctl", "cpu add 5\nmem add 512M\ndev add u usb /srv/stick.img")
        for number, words in enumerate(
            ("move cpu 5 pool k1", "move mem 128M pool k2", "move dev u pool k2", "move cpu 1 k1 k2"), 4
        ):
            await here.say("ctl", words)
            assert (await tx(here, number))["state"] == "applied"
        here.inner["k2"].refuse = "not now"
        with pytest.raises(NineError, match="k2: not now"):
            await settle((await settle(here.lab.top.walk("tx", ROOT))).remove("7", ROOT))
        assert (await tx(here, 7))["state"] == "applied"
        for number in range(7, 0, -1):
            await settle((await settle(here.lab.top.walk("tx", ROOT))).remove(str(number), ROOT, directory=True))
            assert (await tx(here, number))["state"] == "undone"
        assert here.all() == before


async def test_a_kernel_that_starts_again_gets_what_it_had(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2") as here:
        await here.say("pool/ctl", "cpu add 5\nmem add 512M\ndev add u usb /srv/stick.img")
        await here.say("k1/ctl", "cpu add 5\nmem add 256M\ndev add u")
        before = here.all()
        await here.end("k1")
        await here.start("k1")
        assert here.all() == before
        await here.say("k1/ctl", "kill\ndelete")
        pool = here.lab.kernels.moves.world.pool
        assert (pool.cpus, pool.memory, list(pool.devices)) == ({2}, 512 * MB, ["u"])


async def test_what_is_given_to_a_kernel_that_does_not_run_it_has_when_it_starts(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2") as here:
        await here.say("k2/ctl", "kill")
        await here.say("pool/ctl", "cpu add 5\nmem add 512M\ndev add u usb /srv/stick.img")
        await here.say("k2/ctl", "cpu add 5\nmem add 256M\ndev add u")
        await here.start("k2")
        inner = here.inner["k2"]
        assert (inner.online, inner.size, list(inner.devices)) == ({0, 1, 2}, 256 * MB, ["u"])


async def test_what_a_kernel_could_never_have_it_is_not_given_for_its_next_start(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2") as here:
        await here.say("k2/ctl", "kill\nbackend uml")
        here.lab.backend.grows = False
        await here.say("pool/ctl", "cpu add 5\nmem add 512M\ndev add u usb /srv/stick.img")
        for words in ("cpu add 5", "mem add 256M", "dev add u"):
            with pytest.raises(NineError, match="k2: a uml kernel has what it begins with, and gets no more") as caught:
                await here.say("k2/ctl", words)
            assert caught.value.errno == errno.EOPNOTSUPP


async def test_a_kernel_that_ends_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    class Falling(Inner):
        async def set_memory(self, wanted: int) -> None:
            await here.end("k2")
            raise NineError(errno.EIO, "the kernel is not running")

    async with moving(tmp_path, "k1", "k2") as here:
        await here.say("pool/ctl", "mem add 512M")
        await here.say("k1/ctl", "mem add 256M")
        assert here.lab.kernel("k2").running is not None
        here.lab.kernel("k2").running.machine = Falling(online={0, 1})  # type: ignore[union-attr]
        with pytest.raises(NineError, match="k2: the kernel is not running"):
            await here.say("ctl", "move mem 128M k1 k2")
        assert here.inner["k1"].size == 256 * MB
        await here.start("k2")
        assert here.inner["k2"].size == 0


@pytest.mark.parametrize("seed", range(3))
async def test_random_moves_lose_and_double_nothing(seed: int, tmp_path: Path) -> None:
    """Also where kernels refuse, early and late, end, and start again."""
    chance = random.Random(seed)
    places = ["k1", "k2", "k3", "pool"]
    async with moving(tmp_path, "k1", "k2", "k3") as here:
        await here.say(
            "pool/ctl", "cpu add 1,5,9\nmem add 1G\ndev add a usb /srv/a\ndev add b disk /srv/b\ndev add c net closed"
        )
        everything = here.counts()
        applied = 0
        for _ in range(MOVES):
            source, target = chance.choice(places), chance.choice(places)
            what = chance.choice(
                [
                    f"cpu {chance.choice(['0', '1', '2', '3', '5', '9', '1-2'])}",
                    f"mem {chance.choice([64, 128, 512])}M",
                    f"dev {chance.choice('abc')}",
                ]
            )
            if chance.random() < 0.3:
                inner = here.inner[chance.choice(places[:3])]
                inner.refuse, inner.late = "not now", chance.random() < 0.5
            before, told = here.all(), ""
            try:
                await here.say("ctl", f"move {what} {source} {target}")
                applied += 1
            except OSError as error:
                told = str(error)
            assert not told or here.all() == before, told
            assert "cannot be undone" not in told
            for inner in here.inner.values():
                inner.refuse = ""
                assert inner.online
                assert len(inner.online) <= PLACES
            assert here.counts() == everything
            if chance.random() < 0.05:
                name = chance.choice(places[:3])
                before = here.counts()
                await here.end(name)
                await here.start(name)
                assert here.counts() == before
        assert applied > MOVES // 20


class Killed(BaseException):
    """This server is no more."""


@pytest.mark.parametrize("survives", [True, False])
async def test_what_was_half_moved_when_the_server_was_killed_is_undone_if_the_machine_still_is_there(
    survives: bool, tmp_path: Path
) -> None:
    class Deadly(Inner):
        async def set_memory(self, wanted: int) -> None:
            if wanted:
                raise Killed
            await super().set_memory(wanted)

    pid = os.getpid() if survives else 0
    k1, k2 = Inner(), Deadly()

    async def until_killed() -> None:
        async with moving(tmp_path, "k1", "k2") as here:
            for name, inner in (("k1", k1), ("k2", k2)):
                running = here.lab.kernel(name).running
                assert running is not None
                running.machine, running.pid = inner, pid  # type: ignore[misc]
                here.lab.backend.trees[name] = inner.tree()
            await here.say("pool/ctl", "mem add 512M")
            await here.say("k1/ctl", "mem add 256M")
            await here.say("ctl", "move mem 128M k1 k2")

    with pytest.raises(BaseExceptionGroup) as caught:
        await until_killed()
    assert caught.value.subgroup(Killed) is not None
    assert (k1.size, k2.size) == (128 * MB, 0)
    async with moving(tmp_path) as here:
        assert (await tx(here, 3))["state"] == "interrupted"
        here.inner["k1"], here.inner["k2"] = k1, Inner()
        if not survives:
            k1.size = 0
        await here.say("ctl", "create k2")
        await here.say("k2/ctl", "cpus 2\nload")
        for name in ("k1", "k2"):
            size = here.inner[name].size
            await here.say(f"{name}/ctl", "cpus 2\nload\nstart")
            running = here.lab.kernel(name).running
            assert running is not None
            running.pid, running.machine = pid, here.inner[name]  # type: ignore[misc]
            here.inner[name].size = size
            here.lab.backend.trees[name] = here.inner[name].tree()
            await here.lab.guest.says.send(b"mk9p: listening on x\n")
        await until(lambda: here.lab.kernels.moves.txs.txs[3].state == "failed")
        assert (k1.size, here.inner["k2"].size) == (256 * MB if survives else 0, 0)
        assert here.lab.kernels.moves.world.pool.memory == 256 * MB


async def test_a_device_that_a_kernel_lets_go_by_itself_goes_to_the_pool(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1") as here:
        await here.say("pool/ctl", "dev add u usb /srv/stick.img")
        await here.say("k1/ctl", "dev add u")
        inner = here.inner["k1"]
        device = inner.devices.pop("u")
        inner.lost("u")
        inner.lost("other")
        await until(lambda: "u" in here.lab.kernels.moves.world.pool.devices)
        assert "devices\n" in await here.read("k1/status")
        assert here.lab.happened().count("lost") == 1
        # one that is back again before anybody looked stays
        await here.say("k1/ctl", "dev add u")
        for _ in range(1000):  # whoever has taken its QEMU over may say so for ever
            inner.lost("u")
        assert len(here.lab.kernels.nursery.child_tasks) < 50
        await trio.testing.wait_all_tasks_blocked()
        assert inner.devices == {"u": device}


async def test_moves_at_the_same_time_come_one_after_the_other(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1", "k2") as here:
        await here.say("pool/ctl", "cpu add 5")
        outcome: list[str] = []

        async def take(name: str) -> None:
            try:
                await here.say(f"{name}/ctl", "cpu add 5")
                outcome.append(name)
            except NineError as error:
                outcome.append(str(error))

        async with trio.open_nursery() as nursery:
            for name in ("k1", "k2"):
                nursery.start_soon(take, name)
        assert sorted(outcome)[0] == "CPU 5 is not in the pool"
        assert sorted(outcome)[1] in ("k1", "k2")


async def test_a_kernel_is_deleted_once(tmp_path: Path) -> None:
    failed: list[int] = []
    async with moving(tmp_path, "k1") as here:
        await here.say("pool/ctl", "cpu add 4")
        await here.say("k1/ctl", "cpu add 4\nkill")

        async def delete() -> None:
            try:
                await here.say("ctl", "delete k1")
            except NineError as error:
                failed.append(error.errno)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(delete)
            nursery.start_soon(delete)
        assert failed == [errno.ENOENT]
        events = b"".join(here.lab.kernels.events.lines)
        assert events.count(b" deleted k1") == 1
        assert (await here.read("pool/cpus"), await here.read("status")) == ("2\n", "")


async def test_a_setting_takes_nothing_from_the_pool(tmp_path: Path) -> None:
    async with moving(tmp_path, "k1") as here:
        await here.say("pool/ctl", "cpu add 4-5")
        await here.say("k1/ctl", "kill\ncpu add 4-5")
        for words, number in (
            ("cpus 1", errno.EBUSY),
            ("cpus 2", errno.EBUSY),
            ("cpus -3", errno.EINVAL),
            ("memory 0", errno.EINVAL),
        ):
            with pytest.raises(NineError) as caught:
                await here.say("k1/ctl", words)
            assert caught.value.errno == number, words
        await here.say("k1/ctl", "cpus 3")
        await here.say("ctl", "delete k1")
        assert await here.read("pool/cpus") == "1\n2\n"
