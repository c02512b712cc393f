"""`mk9p apply FILE` and `mk9p diff FILE`: make of a namespace what a lab file says, and show what differs.

The words that do it are printed as they are written: each is a file and a line for it, so a person could have typed it. The whole lab file is looked
at before the first word, and so is what there is. In the end it is kept in kernels/desired, where the server puts right what drifts from it; if a
word fails, that has what it had.
"""

import argparse
import errno
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

from mk9p.authority.policy import Rules
from mk9p.client import Client
from mk9p.clients.common import say, with_namespace
from mk9p.errors import NineError
from mk9p.servers.kernels import desired, labfile
from mk9p.stdio import printable, read_text
from mk9p.usage import parsed

PATIENCE: Final = (
    180.0  # seconds for a kernel to serve, and for a mount: ten times what a busy machine was seen to need
)
PASSES: Final = 3  # some words show what else is to be done: a kernel that came has CPUs that can be isolated
SOON: Final = 5.0  # seconds to put back what was desired before
EACH: Final = 0.25  # seconds between two looks


def read(text: str) -> labfile.Desired:
    """Return what a lab file says, whose rules were looked at too; raises EINVAL."""
    wanted = labfile.parse(text)
    if wanted.rules is not None:
        try:
            Rules.parse(wanted.rules, lambda name: 0)  # whether there is such a group, its server knows
        except NineError as error:
            raise NineError(error.errno, f"namespace: policy: {error}") from None
    return wanted


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p apply` or `mk9p diff`."""
    chosen = parsed(arguments)
    text = read_text(chosen.file)
    try:
        wanted = read(text)
    except NineError as error:
        raise NineError(error.errno, f"{chosen.file}: {error}") from None
    if arguments[0] == "diff":
        return with_namespace(lambda ns: show(ns, wanted))
    return with_namespace(lambda ns: apply(ns, wanted, text, chosen))


async def show(ns: Client, wanted: labfile.Desired) -> int:
    """Print what differs; return 1 if something does."""
    there = await desired.present(wanted, ns.read)
    words = desired.words(wanted, there)
    late = desired.waiting(wanted, there)
    for word in words:
        tell(word)
    for line in late:
        print(printable(f"# at its next start, {line}"))
    return 1 if words or late else 0


async def apply(ns: Client, wanted: labfile.Desired, text: str, chosen: argparse.Namespace) -> int:
    """Write the words until nothing differs; return 0, or 1 if something still does."""
    words = await _words(ns, wanted, restart=chosen.restart)
    if chosen.dry_run:
        for word in words:
            tell(word)
        return 0
    if words:
        before = await ns.read("kernels/desired")
        await ns.write("kernels/desired", "\n")  # nobody puts right meanwhile what this changes
        try:
            words = await _written(ns, wanted, words, restart=chosen.restart)
        except BaseException:
            with trio.CancelScope(shield=True), trio.move_on_after(SOON), suppress(OSError):  # the first error counts
                await ns.write("kernels/desired", before or "\n")
            raise
    for word in words:
        say(f"still differs: {word[0]}: {word[1]}")
    for line in desired.waiting(wanted, await desired.present(wanted, ns.read)):
        say(f"at its next start, {line} (or now, with --restart)")
    if not chosen.once and text != await ns.read("kernels/desired"):
        await ns.write("kernels/desired", text)
    return 1 if words else 0


async def settle(ns: Client, wanted: labfile.Desired) -> None:
    """Write and show the words until nothing differs. Raises the error of a word, and EIO if something still differs."""
    words = await _written(ns, wanted, await _words(ns, wanted, restart=False), restart=False)
    if words:
        raise NineError(errno.EIO, f"still differs: {words[0][0]}: {words[0][1]}")


async def _words(ns: Client, wanted: labfile.Desired, *, restart: bool) -> list[desired.Word]:
    return desired.words(wanted, await desired.present(wanted, ns.read), restart=restart)


async def _written(
    ns: Client, wanted: labfile.Desired, words: list[desired.Word], *, restart: bool
) -> list[desired.Word]:
    """Write words and show them, and those that are to be written then; return what still differs."""
    for _ in range(PASSES):
        if not words:
            break
        for word in words:
            tell(word)
            await write(ns, *word)
        words = await _words(ns, wanted, restart=restart)
    return words


async def write(ns: Client, file: str, line: str) -> None:
    """Write a word; one for a kernel's tree waits until the kernel serves it. Raises what the file says, with the word."""
    top, _, rest = file.partition("/")
    name = rest.partition("/")[0]
    try:
        if top == "k":
            await serves(ns, name)
        await ns.write(file, f"{line}\n")
        if line == "start":
            await serves(ns, name)
    except OSError as error:
        told = NineError(error.errno or errno.EIO, f"{line}: {error}")
        told.filename = file
        raise told from None


async def serves(ns: Client, name: str) -> None:
    """Wait until a kernel serves its tree. Raises EIO with the reason if it fails, ETIMEDOUT."""
    with trio.move_on_after(PATIENCE):
        while True:
            status = dict(line.partition(" ")[::2] for line in (await ns.read(f"kernels/{name}/status")).split("\n"))
            if status["state"] in ("failed", "dead"):
                raise NineError(errno.EIO, f"{name} is {status['state']}: {status.get('reason', '')}")
            if status["state"] == "active":
                try:
                    await ns.listdir(f"k/{name}")
                except OSError:  # it is not mounted yet, or does not answer yet
                    pass
                else:
                    return
            await trio.sleep(EACH)
    raise NineError(errno.ETIMEDOUT, f"{name} does not serve in {PATIENCE:.0f} s")


def tell(word: desired.Word) -> None:
    """Print a word as a shell would say it."""
    file, line = word
    plain = re.fullmatch(r"[A-Za-z0-9 ,./_-]+", line)
    print(printable(f"echo {line if plain else shlex.quote(line)} > {file}"), flush=True)
