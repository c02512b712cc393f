"""`mk9p doctor [ADDR|PATH]`: find what Linux's v9fs stumbles over in a tree, before its users do, and say how to mount it.

ADDR is a server, which doctor asks directly. PATH is a directory of this kernel. On a v9fs mount doctor examines the options, and then asks the
server, because on the mount some hazards never return; if it cannot dial the server a second time, it reads no content. Doctor examines any other
directory as if a server exported it as it is. Exit status: 0 if it found nothing, 1 if it found something.
"""

import argparse
import errno
import os
from collections.abc import Sequence

import trio

from mk9p.client import connect
from mk9p.client.client import DEFAULT, split
from mk9p.clients.common import SILENCE, say
from mk9p.clients.doctor.examine import EACH, SKIPPED, Bounds, Examination, TooSlow, tell
from mk9p.clients.doctor.options import address_of, mount_line, mount_of, of_options
from mk9p.clients.doctor.sources import Local, Names, Served, Source
from mk9p.errors import NineError
from mk9p.serving import one_error
from mk9p.usage import parsed


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p doctor`."""
    chosen = parsed(arguments)
    where = chosen.where or os.environ.get("MK9P") or DEFAULT
    dialled = ("!" in where or ":" in where) and not os.path.exists(where)
    found = served(where, (), chosen) if dialled else local(os.path.realpath(where), chosen)
    return 1 if found else 0


def served(address: str, prefix: Names, chosen: argparse.Namespace, directory: str = "DIR") -> int:
    """Examine a tree at its server, say how to mount it, and return the number of findings."""

    async def run() -> None:
        async with connect(address, aname=chosen.aname, version=chosen.version) as client:
            print(f"{address}: {client.connection.dialect.version}, msize {client.connection.msize}")
            done.append(await _examined(Served(client, prefix), chosen))

    done: list[Examination] = []
    one_error(run)
    count = _told(done[0], chosen)
    print(f"mount it: {mount_line(address, directory, aname=chosen.aname)}")
    return count


def local(path: str, chosen: argparse.Namespace) -> int:
    """Examine a directory of this kernel, and the options if it is on a v9fs mount; return the number of findings."""
    if not os.path.isdir(path):
        raise NineError(errno.ENOTDIR if os.path.exists(path) else errno.ENOENT, f"{path}: want a directory")
    mount = mount_of(path)
    if mount is None or mount.type != "9p":
        return directory(Local(path), chosen)
    findings = list(of_options(mount.directory, mount.options))
    for finding in findings:
        print(finding)
    took = dict(option.partition("=")[::2] for option in mount.options)
    address, chosen.aname = address_of(mount), took.get("aname", "")
    if address is not None:
        try:
            prefix = split(os.path.relpath(path, mount.directory))
            return len(findings) + served(address, prefix, chosen, mount.directory)
        except OSError as error:
            say(f"the server of {mount.directory} cannot be asked: {error}")
    say(f"{mount.directory}: doctor reads no content here; give the server's address for that")
    return len(findings) + directory(Local(path, reads=False), chosen)


def directory(source: Local, chosen: argparse.Namespace) -> int:
    """Examine a directory of this kernel, and return the number of findings."""

    async def run() -> None:
        done.append(await _examined(source, chosen))

    done: list[Examination] = []
    one_error(run)
    return _told(done[0], chosen)


async def _examined(source: Source, chosen: argparse.Namespace) -> Examination:
    bounds = Bounds(chosen.depth, chosen.files, chosen.bytes)
    examination = Examination(source, bounds, chosen.write, SKIPPED | set(chosen.skip))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell_how_far, examination)
        try:
            await examination.run()
        except TooSlow as error:
            raise NineError(errno.ETIMEDOUT, f"the top of the tree: {error}") from None
        nursery.cancel_scope.cancel()
    return examination


async def _tell_how_far(examination: Examination) -> None:
    while True:
        await trio.sleep(SILENCE)
        say(f"{examination.files} files in {examination.directories} directories so far")


def _told(done: Examination, chosen: argparse.Namespace) -> int:
    tell(done, print, each=None if chosen.all else EACH)
    return len(done.findings)
