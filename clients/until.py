"""`mk9p wait KERNEL|PATH WORD...`: wait until a kernel is in a state, or until a file has one of some words.

A kernel's state is in kernels/NAME/status, and its events say when to look again. Of a file that waits (`events`, `wait`), each line is looked at as
it comes. Any other file is read again each `EACH` seconds. Exit status: 0 when it is so, 1 when the time is over.
"""

import argparse
import errno
from collections.abc import Sequence
from typing import Final

import trio

from mk9p.client import Client
from mk9p.clients.common import say, with_namespace
from mk9p.clients.hints import NO_KERNELS, no_kernel
from mk9p.clients.listing import entries
from mk9p.errors import NineError
from mk9p.ktext import split_lines, split_words
from mk9p.stdio import printable
from mk9p.usage import parsed

EACH: Final = 0.25  # seconds between two looks at a file that does not wait
STREAMS: Final = ("events", "wait", "kmsg")
DEAD_ENDS: Final = ("failed", "dead")
"""States that a kernel does not leave by itself."""


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p wait`."""
    chosen = parsed(arguments)
    return with_namespace(lambda ns: wait(ns, chosen))


async def wait(ns: Client, chosen: argparse.Namespace) -> int:
    """Wait as the command does; return the exit status."""
    words = set(chosen.words)
    with trio.move_on_after(chosen.timeout) as scope:
        if "/" not in chosen.path:
            return await _state(ns, chosen.path, words)
        if chosen.path.rpartition("/")[2] in STREAMS:
            async for line in ns.lines(chosen.path):
                if words & set(split_words(line)):
                    print(printable(line))
                    return 0
            raise NineError(errno.EIO, f"{chosen.path}: it ended, without {' or '.join(chosen.words)}")
        while True:
            text = await ns.read(chosen.path)
            for line in split_lines(text):
                if words & set(split_words(line)):
                    print(printable(line))
                    return 0
            await trio.sleep(EACH)
    if scope.cancelled_caught:
        say(f"{chosen.path}: not {' or '.join(chosen.words)} within {chosen.timeout:g} s")
    return 1


async def _state(ns: Client, name: str, words: set[str]) -> int:
    """Wait for a state of a kernel. Raises ENOENT for no such kernel; EIO if it has ended, and that is not what was waited for."""
    base = f"kernels/{name}"
    try:
        events = await ns.open(f"{base}/events")
    except FileNotFoundError:
        try:
            there = [entry.name for entry in await entries(ns, "kernels") if entry.is_dir]
        except FileNotFoundError as error:
            raise NineError(error.errno or errno.ENOENT, NO_KERNELS) from None
        raise no_kernel(name, there) from None
    async with events:
        while True:
            status = dict(line.partition(" ")[::2] for line in split_lines(await ns.read(f"{base}/status")))
            state = status.get("state", "")
            if state in words:
                print(printable(state))
                return 0
            if state in DEAD_ENDS:
                why = status.get("reason", "")
                raise NineError(errno.EIO, f"{name} is {state}" + (f": {why}" if why else ""))
            await events.read(events.iounit)
