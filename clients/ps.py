"""`mk9p ps`: the processes of all kernels, from `all/proc`."""

import argparse
from collections.abc import Sequence

import trio

from clients.common import no_kernel, say, with_namespace
from clients.listing import print_json
from mk9p.client import Client
from mk9p.tree import split

FIELDS = ("kernel", "pid", "user", "state", "name")


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p ps [KERNEL...]`."""
    parser = argparse.ArgumentParser(prog="mk9p ps", description="List the processes of all kernels, or of these.")
    parser.add_argument("--json", action="store_true", help="as JSON: for scripts")
    parser.add_argument("kernels", metavar="KERNEL", nargs="*", help="a name in k/")
    chosen = parser.parse_args(arguments[1:])

    async def work(ns: Client) -> int:
        there = sorted(entry.name for entry in await ns.listdir("k"))
        for name in chosen.kernels:
            if name not in there:
                raise no_kernel(name, there)
        kernels = chosen.kernels or there
        rows: dict[str, list[tuple[str, ...]]] = {}
        failed: list[str] = []

        async def one(kernel: str) -> None:
            try:
                rows[kernel] = await processes(ns, kernel)
            except OSError as error:
                failed.append(f"{kernel}: {error}")

        async with trio.open_nursery() as nursery:
            for kernel in kernels:
                nursery.start_soon(one, kernel)
        table = [row for kernel in kernels for row in rows.get(kernel, [])]
        if chosen.json:
            print_json([dict(zip(FIELDS, row, strict=True)) for row in table])
        else:
            print(f"{'KERNEL':8} {'PID':>7} {'USER':10} {'STATE':10} NAME")
            for kernel, pid, user, state, name in table:
                print(f"{kernel:8} {pid:>7} {user:10} {state:10} {name}")
        for text in failed:
            say(text)
        return 1 if failed else 0

    return with_namespace(work)


async def processes(ns: Client, kernel: str) -> list[tuple[str, ...]]:
    """Return (kernel, pid, user, state, name) of a kernel's processes, by number; one that ends meanwhile is left out."""
    names = [entry.name for entry in await ns.listdir(f"k/{kernel}/proc") if entry.name.isdecimal()]
    found: dict[int, tuple[str, ...]] = {}

    async def one(pid: str) -> None:
        try:
            words = split(await ns.read(f"k/{kernel}/proc/{pid}/status"))
        except (FileNotFoundError, ProcessLookupError):
            return
        if len(words) >= 3:
            name, user, state = words[:3]
            found[int(pid)] = (kernel, pid, user, state, name)

    async with trio.open_nursery() as nursery:
        for pid in names:
            nursery.start_soon(one, pid)
    return [row for _, row in sorted(found.items())]
