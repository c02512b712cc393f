"""`mk9p wasm ps [KERNEL…]`: the programs of all kernels. `mk9p wasm show FILE`: what a state is, which somebody saved."""

import errno
import mmap
import sys
from typing import Any, Final

import trio

from mk9p.client import Client
from mk9p.clients.common import say, with_namespace
from mk9p.clients.hints import words
from mk9p.clients.listing import PATIENCE, print_json, silent, when
from mk9p.clients.ps import trees
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.servers.wasm.container import unpacked
from mk9p.servers.wasm.snapshot_head import head_of
from mk9p.stdio import complain, printable, told
from mk9p.tree import join, split

FIELDS: Final = ("kernel", "program", "state", "name", "memory", "fuel", "cpu_ms")


def fields(kernel: str, line: str) -> list[str]:
    """Return a line of a kernel's `wasm/status` as FIELDS, whatever it is. Raises EINVAL for a quote without an end."""
    words = split(line)[: len(FIELDS) - 1]
    return [kernel, *words, *["-"] * (len(FIELDS) - 1 - len(words))]


def ps(chosen: Any) -> int:
    """List the programs of all kernels, or of these."""

    async def work(ns: Client) -> int:
        places = await trees(ns, chosen.kernels)
        rows: list[list[str]] = []
        failed: list[str] = []

        async def one(kernel: str) -> None:
            try:
                with trio.move_on_after(PATIENCE) as scope:
                    text = await ns.read(f"{places[kernel]}/wasm/status")
                    rows.extend(fields(kernel, line) for line in split_lines(text))
                if scope.cancelled_caught:
                    raise silent()
            except FileNotFoundError:
                return  # a kernel without programs
            except NineError as error:
                failed.append(f"{kernel}: {await words(ns, error)}")

        async with trio.open_nursery() as nursery:
            for kernel in places:
                nursery.start_soon(one, kernel)
        rows.sort()
        if chosen.json:
            print_json([dict(zip(FIELDS, row, strict=False)) for row in rows])
        else:
            table = [[field.upper() for field in FIELDS], *rows]
            widths = [max(len(printable(row[at])) for row in table) for at in range(len(FIELDS))]
            for row in table:
                print(
                    "  ".join(f"{printable(cell):{width}}" for cell, width in zip(row, widths, strict=False)).rstrip()
                )
        for text in sorted(failed):
            say(text)
        return 1 if failed else 0

    return with_namespace(work)


def show(chosen: Any) -> int:
    """Show what a state is; the status is 1 for a file that is none."""
    try:
        with open(chosen.file, "rb") as file:
            if not file.seek(0, 2):
                raise NineError(errno.EBADMSG, "no state of a program: it is empty")
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as data:
                state = unpacked(data)
        head, inner = state.head, head_of(state.snapshot)[0]
    except OSError as error:
        complain(f"mk9p wasm: {chosen.file}: {error.strerror}" if isinstance(error, NineError) else told(error))
        return 1
    memory = sum(each["size"] for each in inner["memories"][:1])
    found: dict[str, Any] = {
        "args": join(head["args"]),
        "env": join(head["env"]),
        "from": head["from"],
        "time": when(head["time"]),
        "module": head["module"],
        "module_bytes": len(state.module),
        "memory": memory,
        "pages": sum(length for each in inner["memories"] for _, length in each["runs"]),
        "unread": f"stdin {len(state.stdin)} stdout {len(state.stdout)} stderr {len(state.stderr)}",
        "used_ms": " ".join(f"{name} {ms}" for name, ms in head["used"].items()),
    }
    lists = {
        "limit": [f"{what} {n}" for what, n in head["limits"].items()],
        "grant": [join([path, at, "ro" if readonly else "rw"]) for path, at, readonly in head["grants"]],
        "open": [_opened(number, one) for number, one in inner["open"]],
    }
    if chosen.json:
        print_json({**found, **lists})
        return 0
    for key, value in found.items():
        print(f"{key} {printable(str(value))}".rstrip())
    for key, values in lists.items():
        for value in values:
            print(f"{key} {printable(value)}")
    sys.stdout.flush()
    return 0


def _opened(number: int, one: dict[str, Any]) -> str:
    """Return an open file in words: its number, where it is, how it is open, its place in it."""
    if "stream" in one:
        return f"{number} {('stdin', 'stdout', 'stderr')[one['stream']]}"
    path = "/".join([one["at"].rstrip("/"), *one["names"]]) or "/"
    how = "dir" if one["directory"] else ("r" if one["read"] else "") + ("w" if one["write"] else "")
    return f"{number} {path} {how} {one['position']}"
