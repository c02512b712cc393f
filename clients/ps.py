"""`mk9p ps`: the processes of all kernels, side by side. A kernel that does not answer is reported on stderr, and holds up the others for
`PATIENCE`."""

from collections.abc import Callable, Sequence

import trio

from mk9p.client import Client
from mk9p.clients.common import no_kernel, say, with_namespace
from mk9p.clients.listing import PATIENCE, entries, print_json, silent
from mk9p.errors import NineError
from mk9p.stdio import printable
from mk9p.tree import split
from mk9p.usage import parsed

FIELDS = ("kernel", "pid", "user", "state", "name")
Row = tuple[str, ...]


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p ps [KERNEL...]`."""
    chosen = parsed(arguments)

    async def work(ns: Client) -> int:
        try:
            there = [entry.name for entry in await entries(ns, "k")]
        except FileNotFoundError as error:
            raise NineError(error.errno or 0, "no directory k: this tree is no namespace of kernels") from None
        for name in chosen.kernels:
            if name not in there:
                raise no_kernel(name, there)
        kernels = chosen.kernels or there
        found: dict[str, dict[int, Row]] = {kernel: {} for kernel in kernels}
        failed: list[str] = []

        async def one(kernel: str) -> None:
            try:
                with trio.CancelScope() as scope:

                    def answered() -> None:
                        scope.deadline = trio.current_time() + PATIENCE

                    answered()
                    await processes(ns, kernel, found[kernel], answered)
                if scope.cancelled_caught:
                    raise silent()
            except OSError as error:
                failed.append(f"{kernel}: {error}")

        async with trio.open_nursery() as nursery:
            for kernel in found:
                nursery.start_soon(one, kernel)
        table = [row for kernel in found for _, row in sorted(found[kernel].items())]
        if chosen.json:
            print_json([dict(zip(FIELDS, row, strict=True)) for row in table])
        else:
            print(f"{'KERNEL':8} {'PID':>7} {'USER':10} {'STATE':10} NAME")
            for row in table:
                kernel, pid, user, state, name = map(printable, row)
                print(f"{kernel:8} {pid:>7} {user:10} {state:10} {name}")
        for text in sorted(failed):
            say(text)
        return 1 if failed else 0

    return with_namespace(work)


async def processes(ns: Client, kernel: str, found: dict[int, Row], answered: Callable[[], None]) -> None:
    """Put (kernel, pid, user, state, name) of a kernel's processes into `found`; leave out those that end meanwhile.

    It calls `answered` for each answer. If cancelled, what has come is there.
    """
    pids = [entry.name for entry in await entries(ns, f"k/{kernel}/proc") if entry.name.isdecimal()]
    answered()

    async def one(pid: str) -> None:
        try:
            words = split(await ns.read(f"k/{kernel}/proc/{pid}/status"))
        except (FileNotFoundError, ProcessLookupError):
            return
        finally:
            answered()
        if len(words) >= 3:
            name, user, state = words[:3]
            found[int(pid)] = (kernel, pid, user, state, name)

    async with trio.open_nursery() as nursery:
        for pid in pids:
            nursery.start_soon(one, pid)
