"""`mk9p ls|cat|write|stat|tree|cp|tail`: file operations on the namespace, for scripts and for kernels without a mount."""

import argparse
import errno
import os
import stat as st
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio

from clients.common import out, pieces, say, with_namespace
from mk9p.client import Client
from mk9p.errors import NineError
from mk9p.server.wirestat import group_name, user_name
from mk9p.tree import Stat

PIECE: Final = 1 << 20


def main(arguments: Sequence[str]) -> int:
    """Run one of the file commands."""
    parser = argparse.ArgumentParser(prog=f"mk9p {arguments[0]}")
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
    parser.add_argument("--json", action="store_true")
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
                    await file.write(data)

        return await each([chosen.path], work)

    return command


def _stat(parser: argparse.ArgumentParser) -> Command:
    parser.add_argument("--json", action="store_true")
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
        if destination.startswith(":"):
            async with await ns.open(destination[1:], "w") as to:
                if source.startswith(":"):
                    async with await ns.open(source[1:]) as file:
                        async for data in pieces(file):
                            await to.write(data)
                else:
                    async with await trio.open_file(source, "rb") as local:
                        while data := await local.read(PIECE):
                            await to.write(data)
            return 0
        async with await ns.open(source[1:]) as file, await trio.open_file(destination, "wb") as local:
            async for data in pieces(file):
                await local.write(data)
        return 0

    return command


def _tail(parser: argparse.ArgumentParser) -> Command:
    parser.add_argument(
        "-n", type=int, default=10, metavar="LINES", help="how many of the lines that are kept to begin with (10)"
    )
    parser.add_argument("path", metavar="PATH")

    async def command(ns: Client, chosen: argparse.Namespace) -> int:
        kept: list[bytes] = []
        async with await ns.open(chosen.path) as file:
            first = True
            async for data in pieces(file):
                kept = data.splitlines(keepends=True)
                out(b"".join(kept[-chosen.n :] if first and chosen.n else kept))
                first = False
        return 0

    return command


_COMMANDS: Final[dict[str, Callable[[argparse.ArgumentParser], Command]]] = {
    "ls": _ls,
    "cat": _cat,
    "write": _write,
    "stat": _stat,
    "tree": _tree,
    "cp": _cp,
    "tail": _tail,
}
