"""A machine dies, all of it at once: its leases are free when their term and its composer's are over, and not later; its kernel is down everywhere
within its composer's term, and back by itself."""

import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from mk9p.testing import SOON, child, until
from tests.etcd.cluster import Cluster
from tests.etcd.composers import refused
from tests.etcd.federated import Composer, answers, composer, kernel, state
from tests.lease.test_lease_tree import conversation, say

ROOT = Path(__file__).parent.parent.parent
LATE = 4.0
"""Seconds that all may be later on a busy machine: etcd looks for sessions that are over twice a second, a composer for leases five times."""


@asynccontextmanager
async def machine(etcd: Cluster, folder: Path, name: str, *, ttl: int, term: int) -> AsyncIterator[None]:
    env = {**os.environ, "XDG_STATE_HOME": f"{folder}/state", "PYTHONPATH": str(ROOT)}
    where = etcd.where(f"m{name[1:]}", ttl=ttl)
    command = [sys.executable, "-m", "tests.etcd.machine", where, f"{folder}", name, f"{term}"]
    running = child(command, "there", env=env, cwd=ROOT, stdout=subprocess.PIPE)
    # it asks the composers of this process before it is there
    await trio.to_thread.run_sync(running.__enter__)
    try:
        yield
    finally:
        running.__exit__(None, None, None)


async def is_free(one: Composer, cpu: int) -> bool:
    """Tell whether somebody without a lease may change a CPU."""
    try:
        await one.client.write(f"k/k0/cpu/{cpu}/ctl", "do it")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


async def is_down(one: Composer, name: str) -> bool:
    return state(one, name) == "down"


async def dies(them: list[Composer], etcd: Cluster, folder: Path, number: int, *, ttl: int, term: int) -> None:
    """Let machine `m{number}` die, and look at all others until all is as it should be."""
    name, cpu = f"k{number}", number
    full = f"m{number}.{name}"
    a, b = them
    took: dict[str, float] = {}
    async with machine(etcd, folder, name, ttl=ttl, term=term):
        began = trio.current_time()

    async def note(what: str, check: Callable[[], Awaitable[bool]]) -> None:
        await until(check, 2 * SOON)
        took[what] = trio.current_time() - began

    async with conversation(b.client) as (ctl, _), trio.open_nursery() as nursery:
        for one in them:
            nursery.start_soon(note, f"down at {one.store.session.name}", partial(is_down, one, full))
        # of two machines that see it, one has somebody who waits in one of the cases, and nobody does in the other
        if number == 1:
            nursery.start_soon(note, "free", partial(is_free, a, cpu))
        else:
            await say(ctl, f"take /k/k0/cpu/{cpu} for 30 wait 40")
            took["free"] = trio.current_time() - began
    print(f"term {term} s, ttl {ttl} s: {', '.join(f'{what} {s:.2f} s' for what, s in took.items())}")
    free = took.pop("free")
    assert max(term, ttl * 2 / 3) - 1 <= free <= max(term, ttl) + LATE
    assert max(took.values()) <= ttl + LATE
    for one in them:
        assert await refused(one.client.listdir(f"k/{full}"), errno.EIO)
    async with machine(etcd, folder, name, ttl=ttl, term=0):
        for one in them:
            await until(partial(answers, one, f"k/{full}"))
            await until(lambda: state(one, full) == "up")  # noqa: B023


async def test_after_a_machines_death_its_leases_are_free_and_its_kernels_down_in_time_and_back_by_themselves(
    etcd: Cluster, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.enter_context(trio.fail_after(3 * SOON))
        them = [await enter(composer(etcd, name)) for name in "ab"]
        await enter(kernel(tmp_path, "k0", them[0], cpus=3))
        for one in them:
            await until(partial(answers, one, "k/k0"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(dies, them, etcd, tmp_path, 1, ttl=2, term=6))
            nursery.start_soon(partial(dies, them, etcd, tmp_path, 2, ttl=6, term=2))
