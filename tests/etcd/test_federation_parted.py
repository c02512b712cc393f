"""Five machines, three of which have a member of etcd, whose network is parted two against three: both sides see who is there, and nothing is done by
hand. Each kernel is dialled where it serves, from each machine."""

import errno
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from mk9p.client import Client, connect
from mk9p.testing import SOON, child
from mk9p.tree import split
from tests.etcd.cluster import Cluster, Member, running
from tests.etcd.network import Network, network

ROOT = Path(__file__).parent.parent.parent
ME = [sys.executable, "-m", "mk9p"]
HOSTS: Final = 5
MEMBERS: Final = (0, 1, 3)
MAJORITY, MINORITY = (0, 1, 2), (3, 4)
TTL: Final = 3
PORT: Final = 6000


@attrs.define
class Lab:
    """The machines h0 to h4, each with a composer and so many kernels, and one more called `same`."""

    folder: Path
    net: Network
    kernels: dict[int, list[str]]
    composers: "list[subprocess.Popen[str]]" = attrs.field(factory=list)

    def at(self, host: int) -> str:
        return f"unix!{self.folder}/h{host}"

    @property
    def all(self) -> list[tuple[int, str]]:
        return [(host, name) for host, names in self.kernels.items() for name in names]


@contextmanager
def lab(folder: Path, each: int) -> Iterator[Lab]:
    with network(HOSTS) as net, ExitStack() as stack:
        members = [Member(f"m{n}", net.address(n), 2379, 2380, folder / f"m{n}", around=net.inside(n)) for n in MEMBERS]
        etcd = stack.enter_context(running(Cluster(folder, members)))
        kernels = {host: [*(f"k{host * each + n}" for n in range(each)), "same"] for host in range(HOSTS)}
        made = Lab(folder, net, kernels)
        for host, names in kernels.items():
            env = {**os.environ, "XDG_STATE_HOME": f"{folder}/state{host}", "PYTHONPATH": str(ROOT)}
            serve = [
                *net.inside(host),
                sys.executable,
                "-m",
                "tests.etcd.kernels",
                net.address(host),
                str(PORT),
                *names,
            ]
            stack.enter_context(child(serve, "serving", env=env, cwd=ROOT, stdout=subprocess.PIPE))
            script = folder / f"script{host}"
            lines = (f"mount tcp!{net.address(host)}!{PORT + n} /k/{name}\n" for n, name in enumerate(names))
            script.write_text("".join(lines))
            command = [
                *net.inside(host),
                *ME,
                "compose",
                "--store",
                etcd.where(f"h{host}", ttl=TTL),
                "-l",
                made.at(host),
            ]
            log = stack.enter_context((folder / f"log{host}").open("w+"))
            made.composers.append(stack.enter_context(child([*command, script], env=env, cwd=ROOT, stderr=log)))
        yield made


@attrs.define
class View:
    """What one machine sees, by its composer."""

    host: int
    client: Client
    lab: Lab

    async def read(self, host: int, name: str) -> str:
        """Return what a kernel says, or the name of the error. Whoever answers must be that kernel."""
        try:
            said = await self.client.read(f"k/h{host}.{name}/status")
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        assert said == f"name {name}\narch x86_64\n"
        return "ok"

    async def reads(self) -> dict[tuple[int, str], str]:
        """Read all kernels, sixteen at once."""
        found: dict[tuple[int, str], str] = {}
        left = iter(self.lab.all)

        async def some() -> None:
            for host, name in left:
                found[host, name] = await self.read(host, name)

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(some)
        return found

    async def states(self) -> Counter[tuple[int, str]]:
        """Return how many kernels of each machine are in which state, as `mounts` says."""
        lines = [split(line) for line in (await self.client.read("mounts")).splitlines()]
        far = [line for line in lines if line[0].startswith("/k/h")]
        return Counter((int(line[0][4]), line[2]) for line in far)

    def right(self, found: dict[tuple[int, str], str], *there: int) -> bool:
        """Tell whether the kernels of these machines answer, and all others are EIO."""
        return all(said == ("ok" if host in there else "EIO") for (host, _), said in found.items())


async def wait(view: View, *there: int) -> float:
    """Wait until a machine sees the kernels of just these; return how long that took."""
    began = time.monotonic()
    with trio.fail_after(2 * SOON):
        while True:
            found = await view.reads()
            if view.right(found, *there):
                return time.monotonic() - began
            await trio.sleep(0.1)


async def _ready(it: Lab, host: int) -> None:
    while True:
        assert it.composers[host].poll() is None, (it.folder / f"log{host}").read_text()
        try:
            async with connect(it.at(host)):
                return
        except OSError:  # its composer is still starting
            await trio.sleep(0.2)


async def scenario(it: Lab, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        with trio.fail_after(2 * SOON):
            for host in range(HOSTS):
                await _ready(it, host)
        views = [View(host, await stack.enter_async_context(connect(it.at(host))), it) for host in range(HOSTS)]
        took: dict[int, float] = {}

        async def see(view: View, *there: int) -> None:
            took[view.host] = await wait(view, *there)

        async with trio.open_nursery() as nursery:
            for view in views:
                nursery.start_soon(see, view, *range(HOSTS))
        print(f"all see all {len(it.all)} after {max(took.values()):.1f} s")
        for view in views:
            names = {entry.name for entry in await view.client.listdir("k")}
            same = {f"h{host}.same" for host in range(HOSTS) if host != view.host}
            assert names == {name for _, name in it.all} | same, "each once, by the shorter name"
            assert {entry.name.partition(".")[0] for entry in await view.client.listdir("all/cpu")} >= {
                "k0",
                f"h{(view.host + 1) % HOSTS}",
            }

        it.net.part(MAJORITY, MINORITY)
        cut = time.monotonic()

        async def side(view: View) -> None:
            mine = MAJORITY if view.host in MAJORITY else MINORITY
            others = [host for host in range(HOSTS) if host not in mine]
            # its own side answers at every moment, while the other one is not yet known to be gone
            took[view.host] = 0.0
            with trio.fail_after(2 * SOON):
                while not took[view.host]:
                    found = await view.reads()
                    assert all(said == "ok" for (host, _), said in found.items() if host in mine), found
                    if view.right(found, *mine):
                        took[view.host] = time.monotonic() - cut
            # from then on both are right at every moment, and at once
            while time.monotonic() < cut + seconds:
                began = time.monotonic()
                found = await view.reads()
                assert view.right(found, *mine), (view.host, Counter(found.values()))
                slowest[view.host] = max(slowest.get(view.host, 0.0), time.monotonic() - began)
                states = await view.states()
                for host in others:
                    assert states[host, "down"] == len(it.kernels[host]), (view.host, states)
                for host in set(mine) - {view.host}:
                    assert states[host, "up"] == len(it.kernels[host]), (view.host, states)
                checks[view.host] += 1
                await trio.sleep(0.5)

        slowest: dict[int, float] = {}
        checks: Counter[int] = Counter()
        async with trio.open_nursery() as nursery:
            for view in views:
                nursery.start_soon(side, view)
        sides = [max(took[host] for host in those) for those in (MAJORITY, MINORITY)]
        print(
            f"parted: right after {sides[0]:.1f} s (three) and {sides[1]:.1f} s (two); then {sum(checks.values())} checks of all kernels"
        )
        assert all(checks[host] for host in range(HOSTS)), checks

        it.net.heal()
        async with trio.open_nursery() as nursery:
            for view in views:
                nursery.start_soon(see, view, *range(HOSTS))
        print(f"healed: all see all after {max(took.values()):.1f} s")
        for view in views:
            states = await view.states()
            assert {state for _, state in states} == {"up"}, states


def test_both_sides_of_a_partition_are_right_and_all_is_whole_when_it_is_healed(tmp_path: Path, long: bool) -> None:
    with lab(tmp_path, 39 if long else 3) as it:
        trio.run(scenario, it, 60 if long else 25)
