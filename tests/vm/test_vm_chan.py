"""chan between three kernels: k1 (QEMU) writes by a Python client over its serial line, k2 (UML) with echo over v9fs, and two programs on k0 read.

`MK9P_LONG=1` sends 10^5 messages. The times are printed: `pytest -s`.
"""

import os
import statistics
import sys
import time

import trio

from mk9p.client import Client, connect
from mk9p.clients.chan import bell, channel
from tests.vm.lab_vm import PATIENCE, Vm

LONG = bool(os.environ.get("MK9P_LONG"))
COUNT = 50_000 if LONG else 1000  # from each of two writers
TURNS = 300
CHAN = "k/k0/chan"

WRITE = """
import sys, trio
from mk9p.clients.chan import channel
from mk9p.client import connect

async def main(address, path, count):
    async with connect(address) as ns, channel(ns, path, "w") as out:
        for number in range(int(count)):
            await out.send(f"k1 {number}".encode())

trio.run(main, *sys.argv[1:])
"""
ANSWER = """
import sys, trio
from mk9p.clients.chan import bell, channel
from mk9p.client import connect

async def main(address, path, count):
    async with connect(address) as ns:
        async with channel(ns, path + "/there", "r") as into, channel(ns, path + "/back", "w") as out:
            for _ in range(int(count)):
                await out.send(await into.receive())
        async with bell(ns, path + "/there", "r") as into, bell(ns, path + "/back", "w") as out:
            for _ in range(int(count)):
                await into.wait()
                await out.ring()

trio.run(main, *sys.argv[1:])
"""


def in_python(vm: Vm, kernel: str, script: str, *words: object) -> list[str]:
    """Return the words of `mk9p` that run a Python script in a kernel, with the namespace's address there before its own words."""
    address = vm.field(f"kernels/{kernel}/status", "guest_dial")
    return ["run", kernel, "--", sys.executable, "-c", script, address, *map(str, words)]


def test_messages_of_two_kernels_reach_a_third(vm: Vm, mounted: str) -> None:
    got: list[list[list[str]]] = [[], []]

    async def read(nursery: trio.Nursery, mine: list[list[str]]) -> None:
        async with connect(vm.lab.address) as ns, channel(ns, f"{CHAN}/vm", "r") as into:
            while True:
                mine.append((await into.receive()).decode().split())
                if len(got[0]) + len(got[1]) == 2 * COUNT:
                    nursery.cancel_scope.cancel()

    async def both() -> None:
        with trio.fail_after(PATIENCE * (10 if LONG else 1)):
            async with trio.open_nursery() as nursery:
                for mine in got:
                    nursery.start_soon(read, nursery, mine)

    async def make(ns: Client) -> None:
        await ns.mkdir(f"{CHAN}/vm")

    async def remove(ns: Client) -> None:
        await ns.remove(f"{CHAN}/vm")

    vm.client(make)
    try:
        start = time.monotonic()
        by_hand = f"i=0; while [ $i -lt {COUNT} ]; do echo k2 $i; i=$((i+1)); done > {mounted}/{CHAN}/vm/data"
        with (
            vm.started(*in_python(vm, "k1", WRITE, f"{CHAN}/vm", COUNT)) as one,
            vm.started("run", "k2", "--", "sh", "-c", by_hand) as two,
        ):
            trio.run(both)
            print(f"\n{2 * COUNT} messages from k1 and k2 to two readers on k0: {time.monotonic() - start:.1f} s")
            assert [process.wait(PATIENCE) for process in (one, two)] == [0, 0]
    finally:
        vm.client(remove)
    everything = sorted((who, int(number)) for mine in got for who, number in mine)
    assert everything == [(who, number) for who in ("k1", "k2") for number in range(COUNT)]
    for mine in got:
        for kernel in ("k1", "k2"):
            numbers = [int(number) for who, number in mine if who == kernel]
            assert numbers == sorted(numbers)


def test_the_times_of_a_round_trip_and_of_a_bell(vm: Vm) -> None:
    async def turns(ns: Client) -> None:
        async with channel(ns, f"{CHAN}/there", "w") as out, channel(ns, f"{CHAN}/back", "r") as into:
            times = []
            for number in range(TURNS):
                start = time.perf_counter()
                await out.send(b"%d" % number)
                assert await into.receive() == b"%d" % number
                times.append(time.perf_counter() - start)
            print(f"\nk0 to k1 and back: {statistics.median(times[10:]) * 1e6:.0f} us (median of {TURNS - 10})")
        async with bell(ns, f"{CHAN}/there", "w") as rings, bell(ns, f"{CHAN}/back", "r") as rung:
            times = []
            for _ in range(TURNS):
                start = time.perf_counter()
                await rings.ring()
                assert await rung.wait() == 1
                times.append(time.perf_counter() - start)
            print(f"a bell to k1 and one back: {statistics.median(times[10:]) * 1e6:.0f} us")

    async def make(ns: Client) -> None:
        for name in ("there", "back"):
            await ns.mkdir(f"{CHAN}/{name}")

    async def remove(ns: Client) -> None:
        for name in ("there", "back"):
            await ns.remove(f"{CHAN}/{name}")

    vm.client(make)
    try:
        with vm.started(*in_python(vm, "k1", ANSWER, CHAN, TURNS)) as process:
            vm.client(turns)
            assert process.wait(PATIENCE) == 0
    finally:
        vm.client(remove)


def test_a_shell_speaks_to_a_shell_in_another_kernel(vm: Vm, mounted: str) -> None:
    """By mkdir, echo, head, cat and rmdir alone: k2's v9fs, and a channel in k1."""
    there = f"{mounted}/k/k1/chan/c"
    vm.sh(
        "k2",
        f"mkdir {there}; echo capacity 4 > {there}/ctl; echo one > {there}/data; echo two >> {there}/data; echo > {there}/bell",
    )
    assert vm.sh("k1", "echo here") == "here\n"
    assert vm.cat("k/k1/chan/c/ctl").splitlines()[2] == "capacity 4"
    assert (
        vm.sh("k2", f"head -n1 {there}/data; dd if={there}/data bs=100 count=1 2>/dev/null; head -n1 {there}/bell")
        == "one\ntwo\n1\n"
    )
    with vm.started("run", "k2", "--", "cat", f"{there}/data") as reader:
        vm.mk9p("write", "k/k1/chan/c/data", "three")
        assert reader.stdout is not None
        assert reader.stdout.read(6).startswith(b"three")
        vm.sh("k2", f"rmdir {there}")
        assert reader.wait(PATIENCE) == 0  # the end of the file
    assert vm.sh("k2", f"ls {mounted}/k/k1/chan") == "clone\n"
