"""`mk9p ls|cat|write|stat|tree|cp|tail`: file operations on the namespace, for scripts and for kernels without a mount."""

import argparse
import errno
import os
import stat as st
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final

import trio

from clients.common import out, pieces, say, with_namespace
from mk9p.client import Client, File
from mk9p.client.client import split
from mk9p.client.requests import in_words
from mk9p.errors import NineError
from mk9p.server.wirestat import group_name, user_name
from mk9p.tree import Stat

PIECE: Final = 1 << 20


def main(arguments: Sequence[str]) -> int:
    """Run one of the file commands."""
    parser = argparse.ArgumentParser(
        prog=f"mk9p {arguments[0]}",
        description=_ABOUT[arguments[0]],
        epilog="Which tree: `mk9p -a DIAL COMMAND`, else $MK9P, else the namespace of `mk9p up`.",
    )
    command = _COMMANDS[arguments[0]](parser)
    chosen = parser.parse_args(arguments[1:])
    return with_namespace(lambda ns: command(ns, chosen))


Command = Callable[[Client, argparse.Namespace], Awaitable[int]]


async def each(paths: Sequence[str], work: Callable[[str], Awaitable[None]]) -> int:
    """Do the work for each path; one that fails is told and does not keep the others from it."""
    status = 0
    for path in paths:
        try:
            await work(path)
        except OSError as error:
            say(f"{path}: {error}")
            status = 1
    return status


def line(stat: Stat) -> str:
    """Return a line of `ls -l`: kind and permissions, owner, group, length, time, name."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(stat.mtime // 1_000_000_000))
    user, group = stat.user or user_name(stat.uid), stat.group or group_name(stat.gid)
    mode = st.filemode(stat.mode)
    if stat.exclusive:
        mode = mode[:1].replace("-", "l") + mode[1:]
    return f"{mode} {user:8} {group:8} {stat.length:>12} {when} {stat.name}"


def as_json(stat: Stat) -> dict[str, Any]:
    """Return what `--json` prints of a file."""
    qid = stat.qid._asdict() if stat.qid else None
    return {
        "name": stat.name,
        "qid": qid,
        "mode": stat.mode,
        "length": stat.length,
        "mtime": stat.mtime,
        "uid": stat.uid,
        "gid": stat.gid,
    }


def print_json(value: object) -> None:
    import json

    json.dump(value, sys.stdout, indent=1)
    sys.stdout.write("\n")


def _ls(parser: argparse.ArgumentParser) -> Command:
    parser.add_argument("-l", "--long", action="store_true", help="modes, owners, lengths and times too")
    parser.add_argument("--json", action="store_true", help="as JSON: for scripts")
    parser.add_argument("paths", metavar="PATH", nargs="*", default=["/"])

    async def command(ns: Client, chosen: argparse.Namespace) -> int:
        listed: dict[str, list[Stat]] = {}

        async def work(path: str) -> None:
            stat = await ns.stat(path)
            listed[path] = sorted(await ns.listdir(path), key=lambda s: s.name) if stat.is_dir else [stat]

        status = await each(chosen.paths, work)
        if chosen.json:
            print_json({path: [as_json(stat) for stat in stats] for path, stats in listed.items()})
            return status
        for path, stats in listed.items():
            if len(chosen.paths) > 1:
                print(f"{path}:")
            for stat in stats:
                print(line(stat) if chosen.long else stat.name + ("/" if stat.is_dir else ""))
        return status

    return command


def _cat(parser: argparse.ArgumentParser) -> Command:
    parser.add_argument("paths", metavar="PATH", nargs="+")

    async def command(ns: Client, chosen: argparse.Namespace) -> int:
        async def work(path: str) -> None:
            async with await ns.open(path) as file:
                async for data in pieces(file):
                    out(data)

        return await each(chosen.paths, work)

    return command


def _write(parser: argparse.ArgumentParser) -> Command:
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("words", metavar="TEXT", nargs="*", help="what to write, a line; none: the standard input")

    async def command(ns: Client, chosen: argparse.Namespace) -> int:
        async def work(path: str) -> None:
            if chosen.words:
                await ns.write(path, " ".join(chosen.words) + "\n")
                return
            async with await ns.open(path, "w") as file:
                while data := await trio.to_thread.run_sync(os.read, 0, PIECE):
                    await _put(ns, path, file, data)

        return await each([chosen.path], work)

    return command


def _stat(parser: argparse.ArgumentParser) -> Command:
    parser.add_argument("--json", action="store_true", help="as JSON: for scripts")
    parser.add_argument("paths", metavar="PATH", nargs="+")

    async def command(ns: Client, chosen: argparse.Namespace) -> int:
        stats: list[Stat] = []

        async def work(path: str) -> None:
            stats.append(await ns.stat(path))

        status = await each(chosen.paths, work)
        if chosen.json:
            print_json([as_json(stat) for stat in stats])
        else:
            for stat in stats:
                q = stat.qid
                print(line(stat), f"qid {q.type:#x} {q.version} {q.path:#018x}" if q else "")
        return status

    return command


def _tree(parser: argparse.ArgumentParser) -> Command:
    parser.add_argument("-d", "--depth", type=int, default=3, help="how deep to go (3)")
    parser.add_argument("path", metavar="PATH", nargs="?", default="/")

    async def command(ns: Client, chosen: argparse.Namespace) -> int:
        async def show(path: str, indent: str, depth: int) -> None:
            try:
                stats = sorted(await ns.listdir(path), key=lambda s: s.name)
            except OSError as error:
                print(f"{indent}({error})")
                return
            for stat in stats:
                print(f"{indent}{stat.name}{'/' if stat.is_dir else ''}")
                if stat.is_dir and depth > 1:
                    await show(f"{path}/{stat.name}", indent + "   ", depth - 1)

        await ns.stat(chosen.path)
        await show(chosen.path, "", chosen.depth)
        return 0

    return command


def _cp(parser: argparse.ArgumentParser) -> Command:
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument(
        "destination", metavar="DESTINATION", help=":PATH is in the namespace, other paths are files here"
    )

    async def command(ns: Client, chosen: argparse.Namespace) -> int:
        source, destination = chosen.source, chosen.destination
        if not (source.startswith(":") or destination.startswith(":")):
            raise NineError(errno.EINVAL, "neither path is in the namespace: write it as :PATH")
        async with AsyncExitStack() as stack:
            # The source is opened first: where there is none, nothing is emptied for it.
            if source.startswith(":"):
                with _naming(source):
                    content = pieces(await stack.enter_async_context(await ns.open(source[1:])))
            else:
                content = _pieces_here(await stack.enter_async_context(await trio.open_file(source, "rb")))
            if destination.startswith(":"):
                with _naming(destination):
                    path = destination[1:]
                    to = await stack.enter_async_context(await ns.open(path, "w"))
                    async for data in content:
                        await _put(ns, path, to, data)
            else:
                local = await stack.enter_async_context(await trio.open_file(destination, "wb"))
                async for data in content:
                    await local.write(data)
        return 0

    return command


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Say of an error which path it is about, as those of files here do."""
    try:
        yield
    except NineError as error:
        raise NineError(error.errno, f"{path}: {error}") from None


async def _put(ns: Client, path: str, file: File, data: bytes) -> None:
    """Write to an open file; what a ctl refuses is told in its words."""
    try:
        await file.write(data)
    except NineError as error:
        raise await in_words(ns.connection, ns.root, split(path), error) from None


async def _pieces_here(file: Any) -> AsyncIterator[bytes]:
    while data := await file.read(PIECE):
        yield data


def _tail(parser: argparse.ArgumentParser) -> Command:
    parser.add_argument(
        "-n",
        type=int,
        default=10,
        metavar="LINES",
        help="how many of the lines that are kept to begin with (10); 0: all",
    )
    parser.add_argument("path", metavar="PATH")

    async def command(ns: Client, chosen: argparse.Namespace) -> int:
        kept: list[bytes] = []
        with _naming(chosen.path):
            opened = await ns.open(chosen.path)
        async with opened as file:
            first = True
            async for data in pieces(file):
                kept = data.splitlines(keepends=True)
                out(b"".join(kept[-chosen.n :] if first and chosen.n else kept))
                first = False
        return 0

    return command


_ABOUT: Final = {
    "ls": "List directories, the top one if none is named; a directory's name ends with /.",
    "cat": "Show files; one that waits, as events does, is followed until it ends.",
    "write": "Write a line, or the standard input, into a file.",
    "stat": "Show what files are: as `ls -l`, then the qid's type, version and path.",
    "tree": "List a whole tree, the namespace's if no PATH is named.",
    "cp": "Copy a file.",
    "tail": "Show the last lines of a file that waits, as events does, and then what comes.",
}
_COMMANDS: Final[dict[str, Callable[[argparse.ArgumentParser], Command]]] = {
    "ls": _ls,
    "cat": _cat,
    "write": _write,
    "stat": _stat,
    "tree": _tree,
    "cp": _cp,
    "tail": _tail,
}
