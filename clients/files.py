"""`mk9p ls|cat|write|stat|tree|cp|tail`: file operations on the namespace, for scripts and for kernels without a mount."""

import argparse
import errno
import os
import stat as st
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from mk9p.client import Client, File
from mk9p.client.client import split
from mk9p.client.requests import in_words
from mk9p.clients import copying
from mk9p.clients.common import in_namespace, out, pieces, say, with_namespace
from mk9p.clients.links import resolved
from mk9p.clients.listing import PATIENCE, Entry, as_json, entries, line, print_json
from mk9p.errors import NineError
from mk9p.stdio import printable, take
from mk9p.usage import parsed
from mk9p.wire import QTDIR, Qid

PIECE: Final = 1 << 20


def main(arguments: Sequence[str]) -> int:
    """Run one of the file commands."""
    command, chosen = _COMMANDS[arguments[0]], parsed(arguments)
    run = with_namespace if arguments[0] == "tail" else in_namespace
    return run(lambda ns: command(ns, chosen))


Command = Callable[[Client, argparse.Namespace], Awaitable[int]]


async def each(ns: Client, paths: Sequence[str], work: Callable[[str], Awaitable[None]]) -> int:
    """Do the work for each path. If the tree refuses one, say so and go on with the others. Raises what this kernel refuses."""
    status = 0
    for path in paths:
        try:
            await work(path)
        except NineError as error:
            await _say(ns, error, path)
            status = 1
    return status


async def _say(ns: Client, error: NineError, path: str = "") -> None:
    """Say what is wrong with a path."""
    from mk9p.clients.hints import words

    path = error.filename or path
    say(f"{path}: {await words(ns, error, path)}")


async def _named(ns: Client, paths: Sequence[str]) -> tuple[list[str], int]:
    """Return the paths that paths and patterns stand for, and the exit status so far: 1 if something is wrong with one, which is said."""
    if not any(char in path for path in paths for char in "*?["):
        return list(paths), 0
    from mk9p.clients.globs import expanded

    found, wrong = await expanded(ns, paths)
    for error in wrong:
        await _say(ns, error)
    return found, 1 if wrong else 0


async def _ls(ns: Client, chosen: argparse.Namespace) -> int:
    listed: dict[str, list[Entry]] = {}
    files: list[Entry] = []
    status = chosen.long or chosen.json

    async def work(path: str) -> None:
        # `ls -l` shows a link itself, as ls(1) does
        real = await resolved(ns, path, last=not chosen.long)
        qids = await ns.walk(real)
        if (qids[-1] if qids else ns.qid).type & QTDIR:
            listed[path] = await entries(ns, real, status=status)
        else:
            entry = await _entry(ns, real)
            files.append(entry._replace(name=path))
            if chosen.json:
                listed[path] = [entry]

    paths, failed = await _named(ns, chosen.paths)
    failed |= await each(ns, paths, work)
    if chosen.json:
        print_json({path: [as_json(entry) for entry in found] for path, found in listed.items()})
    else:
        shown = {"": files} if files else {}
        for path, found in (shown | listed).items():
            if path and len(paths) > 1:
                print(f"{printable(path)}:")
            for entry in found:
                print(line(entry) if chosen.long else printable(entry.name) + ("/" if entry.is_dir else ""))
    for path, found in listed.items():
        for entry in found:
            if entry.failure is not None:
                name = f"{path.rstrip('/')}/{entry.name}"
                if isinstance(entry.failure, NineError):
                    await _say(ns, entry.failure, name)
                else:
                    say(f"{name}: {entry.failure.strerror}")
                failed = 1
    return failed


async def _entry(ns: Client, path: str) -> Entry:
    stat = await ns.stat(path)
    return Entry(stat.name, stat.qid or Qid(stat.mode >> 24, 0, 0), stat)


async def _cat(ns: Client, chosen: argparse.Namespace) -> int:
    if os.isatty(1):
        from mk9p.clients.columns import show
    else:
        show = _copied

    async def work(path: str) -> None:
        async with await ns.open(await resolved(ns, path)) as file:
            await show(file, path)

    paths, failed = await _named(ns, chosen.paths)
    return await each(ns, paths, work) | failed


async def _copied(file: File, path: str) -> None:
    async for data in pieces(file):
        out(data)


async def _write(ns: Client, chosen: argparse.Namespace) -> int:
    async def work(path: str) -> None:
        if chosen.words:
            await ns.write(await resolved(ns, path), " ".join(chosen.words) + "\n")
            return
        if st.S_ISREG(os.fstat(0).st_mode):  # it may be the very file to write to
            await copying.input_into(ns, path)
            return
        async with await ns.open(await resolved(ns, path), "w") as file:
            while data := await ns.connection.aside(take, 0, PIECE, give_up=True):
                await _put(ns, path, file, data)

    return await each(ns, [chosen.path], work)


async def _stat(ns: Client, chosen: argparse.Namespace) -> int:
    found: list[Entry] = []

    async def work(path: str) -> None:
        found.append(await _entry(ns, await resolved(ns, path, last=False)))

    paths, status = await _named(ns, chosen.paths)
    status |= await each(ns, paths, work)
    if chosen.json:
        print_json([as_json(entry) for entry in found])
    else:
        for entry in found:
            q = entry.qid
            print(line(entry), f"qid {q.type:#x} {q.version} {q.path:#018x}")
    return status


async def _tree(ns: Client, chosen: argparse.Namespace) -> int:
    top = await resolved(ns, chosen.path)
    await ns.walk(top)
    found: list[dict[str, Any]] = []
    todo = [
        ("", top, 0, found)
    ]  # what to print, the directory to list then, with its depth, and where to put what is in it
    while todo:
        text, path, depth, into = todo.pop()
        if text and not chosen.json:
            print(text)
        if not path or depth >= chosen.depth:
            continue
        below: list[tuple[str, str, int, list[dict[str, Any]]]] = []
        indent = "   " * depth
        try:
            for entry in await ns.connection.within(PATIENCE, lambda: entries(ns, path)):  # noqa: B023  # it is over then
                shown = f"{indent}{printable(entry.name)}{'/' if entry.is_dir else ''}"
                inside: list[dict[str, Any]] = []
                into.append({"name": entry.name} | ({"contents": inside} if entry.is_dir else {}))
                below.append((shown, f"{path}/{entry.name}" if entry.is_dir else "", depth + 1, inside))
        except OSError as error:
            into.append({"error": error.strerror or str(error)})
            if not chosen.json:
                print(f"{indent}({printable(error.strerror or str(error))})")
        todo += reversed(below)
    if chosen.json:
        print_json(found)
    return 0


async def _cp(ns: Client, chosen: argparse.Namespace) -> int:
    from mk9p.clients.copying_trees import Copy, Here, There

    inside = {path.startswith(":") for path in chosen.sources}
    if len(inside) > 1:
        raise NineError(
            errno.EINVAL, "some sources are in the namespace and some are not: copy them one after the other"
        )
    source, target = There(ns) if inside == {True} else Here(), chosen.destination
    if not target.startswith(":") and inside == {False}:
        raise NineError(errno.EINVAL, "neither path is in the namespace: write it as :PATH")
    paths, failed = [path[1:] if inside == {True} else path for path in chosen.sources], 0
    if inside == {True}:
        paths, failed = await _named(ns, paths)
    copy = Copy(ns, source, There(ns) if target.startswith(":") else Here(), chosen.recursive)
    return await copy.all(paths, target.removeprefix(":")) | failed


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Name in an error its path, as errors of local files do."""
    try:
        yield
    except NineError as error:
        error.filename = path
        raise


async def _put(ns: Client, path: str, file: File, data: bytes) -> None:
    """Write to an open file; an error has the words of the ctl that refused."""
    try:
        await file.write(data)
    except NineError as error:
        raise await in_words(ns.connection, ns.root, split(path), error) from None


async def _tail(ns: Client, chosen: argparse.Namespace) -> int:
    from mk9p.clients.tail import tail

    with _naming(chosen.path):
        opened = await ns.open(await resolved(ns, chosen.path))
    async with opened as file:
        with _naming(chosen.path):
            await tail(file, chosen.n, out)
    return 0


_COMMANDS: Final[dict[str, Command]] = {
    "ls": _ls,
    "cat": _cat,
    "write": _write,
    "stat": _stat,
    "tree": _tree,
    "cp": _cp,
    "tail": _tail,
}
