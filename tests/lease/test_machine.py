"""Leases of one composer with a file, and of two that have one etcd, through any history of words, time, faults of the store, and crashes: never do
two hold what only one may, and what was granted could have been granted one after the other (history.py). The seed of a failure reproduces it."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mk9p.lease.wish import SECOND, Mode
from mk9p.testing import in_thread
from tests.etcd.cluster import Cluster, running
from tests.lease.machine_lab import ALWAYS, Composer, Fate, Line, on_etcd, on_file, wish

PATHS = ["/9p/k1", "/9p/k1/disk", "/9p/k1/disk/data", "/9p/k2", "/9p"]
TOTAL: dict[str, int] = {}

numbers = st.integers(0, 3)
who = st.integers(0, 1)
modes: st.SearchStrategy[Mode] = st.sampled_from(["shared", "exclusive"])
terms = st.sampled_from([1, 2.5, 10, 60])


class Machine(RuleBasedStateMachine):
    """What may happen. `make` gives the block of a lab."""

    make: ClassVar[Callable[[Path], Any]]

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="mk9p-machine-", dir="/dev/shm"))
        self.stack.callback(shutil.rmtree, folder)
        self.lab, call = self.stack.enter_context(in_thread(type(self).make(folder)))
        self.token = call(trio.lowlevel.current_trio_token)

    def do(self, work: Callable[..., Awaitable[object]], *args: object) -> None:
        self.lab.count("steps")
        trio.from_thread.run(work, *args, trio_token=self.token)

    def it(self, at: int) -> Composer:
        composers: list[Composer] = self.lab.composers
        return composers[at % len(composers)]

    def had(self, it: Composer, number: int) -> int:
        """Return the number of a lease that is had, if there is one: most words are about those."""
        mine = [] if it.leases is None else sorted(number for number in it.leases.book.leases if number >= 0)
        return mine[number % len(mine)] if mine and number else number

    def free(self, it: Composer, number: int) -> bool:
        return it.leases is not None and number not in it.leases.book.leases and (it.name, number) not in self.lab.busy

    @rule(at=who, number=numbers, path=st.sampled_from(PATHS), mode=modes, term=terms, wait=st.booleans())
    def take(self, at: int, number: int, path: str, mode: Mode, term: float, wait: bool) -> None:
        it = self.it(at)
        if self.free(it, number):
            what = wish(number, path, mode, f"u{number}", term)
            self.do(self.lab.run, self.lab.take, it, what, 1e6 if wait else None)

    @rule(path=st.sampled_from(PATHS), modes=st.tuples(modes, modes), term=terms)
    def race(self, path: str, modes: tuple[Mode, Mode], term: float) -> None:
        """Both composers are asked at once."""

        async def both() -> None:
            async with trio.open_nursery() as nursery:
                for at, mode in enumerate(modes):
                    number = 4 + at
                    it = self.it(at)
                    if self.free(it, number):
                        nursery.start_soon(self.lab.take, it, wish(number, path, mode, "r", term), None)

        self.do(both)

    @rule(at=who, number=numbers, term=st.none() | terms)
    def renew(self, at: int, number: int, term: float | None) -> None:
        it = self.it(at)
        self.do(self.lab.run, self.lab.renew, it, self.had(it, number), None if term is None else round(term * SECOND))

    @rule(at=who, number=st.integers(0, 5))
    def give(self, at: int, number: int) -> None:
        it = self.it(at)
        self.do(self.lab.run, self.lab.give, it, self.had(it, number))

    @rule(seconds=st.sampled_from([0.5, 1, 2, 9]))
    def go(self, seconds: float) -> None:
        async def passing() -> None:
            self.lab.go(seconds)
            await trio.testing.wait_all_tasks_blocked(0.001)

        self.do(passing)

    @rule(
        at=who, fate=st.sampled_from(["well", "unasked", "unanswered", "late"]), times=st.sampled_from([1, 3, ALWAYS])
    )
    def fail(self, at: int, fate: Fate, times: int) -> None:
        if (line := self.it(at).line) is not None:
            line.fate, line.left = fate, times
            self.lab.said.append(f"{self.it(at).name} {fate} {times} times")
            self.lab.unsettled = True  # what it leaves is there until all is quiet
            self.lab.count(fate)

    @rule(at=who)
    def arrive(self, at: int) -> None:
        line = self.it(at).line
        if isinstance(line, Line):
            self.lab.said.append(f"{len(line.late)} arrive")
            self.do(line.arrive)

    @rule(at=who, known=st.booleans())
    def crash(self, at: int, known: bool) -> None:
        if self.it(at).leases is not None:
            self.do(self.lab.crash, self.it(at), known)

    @rule(at=who)
    def again(self, at: int) -> None:
        if self.it(at).leases is None:
            self.do(self.lab.begin, self.it(at))

    @rule()
    def quiet(self) -> None:
        self.do(self.lab.quiet)

    @invariant()
    def nobody_is_beside_another(self) -> None:
        async def look() -> None:
            self.lab.check()

        if hasattr(self, "lab"):
            trio.from_thread.run(look, trio_token=self.token)

    def teardown(self) -> None:
        for what, count in self.lab.counts.items():
            TOTAL[what] = TOTAL.get(what, 0) + count
        self.stack.close()


def run(make: Callable[[Path], Any], steps: int) -> None:
    """Take so many steps, fifty at most in each history, and print what happened in them."""
    TOTAL.clear()
    made = type("Made", (Machine,), {"make": staticmethod(make)})
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    while TOTAL.get("steps", 0) < steps:
        run_state_machine_as_test(
            made,
            settings=settings(
                max_examples=min(max(steps // 30, 1), 500),
                stateful_step_count=50,
                suppress_health_check=checks,
                print_blob=True,
            ),
        )
        print(dict(sorted(TOTAL.items())), flush=True)
    assert TOTAL.get("granted", 0) > steps // 200, TOTAL  # or there was little to check


def test_with_a_file(long: bool) -> None:
    run(on_file, 10**5 if long else 700)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running(Cluster.of(tmp_path_factory.mktemp("etcd"))) as cluster:
        yield cluster


def test_with_etcd(etcd: Cluster, long: bool) -> None:
    fresh = itertools.count()
    run(lambda folder: on_etcd(etcd, f"/t{os.getpid()}-{next(fresh)}/"), 10**5 if long else 300)
