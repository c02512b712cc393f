"""`mk9p ps`: the processes of all kernels, side by side. A kernel that does not answer is reported on stderr, and holds up the others for
`PATIENCE`."""

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Final

import trio

from mk9p.client import Client
from mk9p.clients.common import own_name, say, with_namespace
from mk9p.clients.figures import figure, text_of, words_of
from mk9p.clients.hints import no_kernel, words
from mk9p.clients.listing import PATIENCE, entries, print_json, silent
from mk9p.clients.together import together
from mk9p.errors import NineError
from mk9p.stdio import printable
from mk9p.usage import parsed

FIELDS: Final = ("kernel", "pid", "user", "state", "cpu_ms", "kib", "name", "args")
Row = tuple[str, ...]


async def trees(ns: Client, wanted: Sequence[str]) -> dict[str, str]:
    """Return the paths of the trees of all kernels, or of these, by name. Raises ENOENT for one that is not there."""
    own = await own_name(ns)
    there = [entry.name for entry in await entries(ns, "k")] if own is None else [own]
    for name in wanted:
        if name not in there:
            raise no_kernel(name, there)
    return {name: "." if own else f"k/{name}" for name in wanted or there}


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p ps [KERNEL...]`."""
    chosen = parsed(arguments)

    async def work(ns: Client) -> int:
        places = await trees(ns, chosen.kernels)
        found: dict[str, dict[int, Row]] = {kernel: {} for kernel in places}
        failed: list[str] = []

        async def one(kernel: str) -> None:
            try:
                with trio.CancelScope() as scope:

                    def answered() -> None:
                        scope.deadline = trio.current_time() + PATIENCE

                    answered()
                    await processes(ns, kernel, places[kernel], found[kernel], answered)
                if scope.cancelled_caught:
                    raise silent()
            except NineError as error:
                failed.append(f"{kernel}: {await words(ns, error, places[kernel])}")

        async with trio.open_nursery() as nursery:
            for kernel in found:
                nursery.start_soon(one, kernel)
        table = [row for kernel in found for _, row in sorted(found[kernel].items())]
        if chosen.json:
            print_json([dict(zip(FIELDS, row, strict=True)) for row in table])
        else:
            show(table)
        for text in sorted(failed):
            say(text)
        return 1 if failed else 0

    return with_namespace(work)


def show(table: Sequence[Row]) -> None:
    """Print the processes; on a terminal a line is no wider than that."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(f"{'KERNEL':8} {'PID':>7} {'USER':10} {'STATE':10} {'TIME':>8} {'MEMORY':>8} COMMAND")
    for row in table:
        kernel, pid, user, state, cpu, kib, name, args = map(printable, row)
        text = (
            f"{kernel:8} {pid:>7} {user:10} {state:10} {spent(int(cpu)):>8} {size(int(kib)):>8} {args or f'[{name}]'}"
        )
        print(text[:width])


def spent(ms: int) -> str:
    """Return a time of a processor as ps(1) does: minutes and seconds, or hours too."""
    minutes, seconds = divmod(ms // 1000, 60)
    return f"{minutes}:{seconds:02}" if minutes < 600 else f"{minutes // 60}h{minutes % 60:02}"


def size(kib: int) -> str:
    """Return a size in the largest unit that leaves a digit before the point."""
    value, unit = float(kib), "K"
    for larger in "MGT":
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f}{unit}" if unit == "K" or value >= 100 else f"{value:.1f}{unit}"


async def processes(ns: Client, kernel: str, tree: str, found: dict[int, Row], answered: Callable[[], None]) -> None:
    """Put what `FIELDS` names of the processes of the kernel whose tree is at a path into `found`; leave out those that end meanwhile.

    It calls `answered` for each answer. If cancelled, what has come is there. `args` is empty for kernel threads, and where they are kept from us.
    """
    pids = [entry.name for entry in await entries(ns, f"{tree}/proc") if figure(entry.name) is not None]
    answered()

    async def one(pid: str) -> None:
        try:
            told = words_of(await text_of(ns, f"{tree}/proc/{pid}/status"))
            if len(told) < 3:
                return
            used, kib = sum(figure(word) or 0 for word in told[3:5]), figure("".join(told[9:10])) or 0
            try:
                args = (await text_of(ns, f"{tree}/proc/{pid}/args")).strip("\n")
            except (PermissionError, FileNotFoundError):  # it is kept from us, or the tree has none
                args = ""
        except (FileNotFoundError, ProcessLookupError):
            return
        finally:
            answered()
        name, user, state = told[:3]
        found[int(pid)] = (
            kernel,
            pid,
            user,
            state,
            str(used),
            str(kib),
            name,
            args,
        )

    async with together() as nursery:
        for pid in pids:
            nursery.start_soon(one, pid)
