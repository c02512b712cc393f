"""`mk9p run [-t] KERNEL -- COMMAND [ARG...]`: a command in a kernel, through the files of its `cmd`.

Standard input, output and error are this process's; signals that it gets go to the command; its exit status is the command's (128 + N if a signal N
ended it, as in sh). With `-t` the command has a terminal of the size of ours, which is raw meanwhile.
"""

import argparse
import errno
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import trio

from clients.common import kernel, pieces, put, say, with_namespace
from mk9p.client import Client, File
from mk9p.errors import NineError
from mk9p.signals import exit_code
from mk9p.tree import join, split

FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
PIECE: Final = 1 << 16


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p run`."""
    parser = argparse.ArgumentParser(
        prog="mk9p run",
        usage="mk9p run [-t] [-d DIR] [-e NAME=VALUE]... KERNEL -- COMMAND [ARG...]",
        description="Run a command in a kernel: its input, output, signals and exit status are this process's.",
    )
    parser.add_argument("-t", "--terminal", action="store_true", help="give the command a terminal")
    parser.add_argument("-d", "--dir", help="where to run it (/)")
    parser.add_argument(
        "-e", "--env", metavar="NAME=VALUE", action="append", default=[], help="a variable of its environment"
    )
    parser.add_argument("kernel", metavar="KERNEL", help="a name in k/, or the path of a kernel's tree")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments")
    chosen = parser.parse_args(arguments[1:])
    command = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    if not command:
        parser.error("no command: say it after --")
    settings = [join(["env", *chosen.env])] if chosen.env else []
    settings += [join(["dir", chosen.dir])] if chosen.dir else []

    async def work(ns: Client) -> int:
        return await run(ns, await kernel(ns, chosen.kernel), command, settings, terminal=chosen.terminal)

    return with_namespace(work)


async def run(
    ns: Client, tree: str, command: Sequence[str], settings: Sequence[str] = (), *, terminal: bool = False
) -> int:
    """Run a command in the kernel whose tree is at a path and return its exit status as a shell tells it."""
    try:
        clone = await ns.open(f"{tree}/cmd/clone", "r+")
    except OSError as error:
        raise NineError(error.errno or errno.EIO, f"{tree}/cmd: {error}") from None
    async with clone as ctl:
        number = (await ctl.pread(32, 0)).decode().strip()
        talk = f"{tree}/cmd/{number}"

        async def order(line: str) -> None:
            try:
                await ctl.pwrite(line.encode(), 0)
            except OSError as error:
                words = (await ns.read(f"{talk}/error")).strip()
                raise type(error)(error.errno, words or str(error)) from None

        for line in settings:
            await order(line)
        if terminal:
            size = os.get_terminal_size()
            await order(join(["env", f"TERM={os.environ.get('TERM', 'dumb')}"]))
            await order(f"size {size.lines} {size.columns}")
        async with (
            await ns.open(f"{talk}/data", "r") as output,
            await ns.open(f"{talk}/data", "w") as data,
            await ns.open(f"{talk}/stderr") as errors,
            await ns.open(f"{talk}/wait") as wait,
        ):
            await order(join(["exec", *command]))
            with _raw() if terminal else _plain():
                async with trio.open_nursery() as nursery:
                    feeder = trio.CancelScope()
                    nursery.start_soon(_feed, data, ctl, feeder)
                    nursery.start_soon(_forward, ctl, terminal)
                    async with trio.open_nursery() as outputs:
                        outputs.start_soon(_drain, output, 1, ctl)
                        outputs.start_soon(_drain, errors, 2, ctl)
                    status = await _status(wait)
                    nursery.cancel_scope.cancel()
    return status


async def _status(wait: File) -> int:
    """Return the exit status that a line of `wait` tells: `pid utime stime rtime 'status'`."""
    words = split((await wait.pread(4096, 0)).decode())
    return exit_code(words[4]) if len(words) > 4 else 1


async def _drain(file: File, descriptor: int, ctl: File) -> None:
    """Pass on what the command prints. When nobody reads that any more, the command is told as if it had written into a broken pipe."""
    async for data in pieces(file):
        try:
            put(descriptor, data)
        except BrokenPipeError:
            with suppress(OSError):  # it may have ended by itself meanwhile
                await ctl.pwrite(b"kill PIPE", 0)
            return


async def _feed(data: File, ctl: File, scope: trio.CancelScope) -> None:
    """Send our standard input until it ends, then end the command's."""
    with scope:
        try:
            while piece := await trio.to_thread.run_sync(_read_input, abandon_on_cancel=True):
                await data.write(piece)
            await ctl.pwrite(b"closein", 0)
        except OSError as error:  # the command does not read any more, which is its own business
            if not _gone(error):
                say(f"standard input: {error}")


def _read_input() -> bytes:
    return os.read(0, PIECE)


def _gone(error: OSError) -> bool:
    return error.errno in (errno.EPIPE, errno.EBADF, errno.ESRCH, errno.EINVAL, errno.EIO)


async def _forward(ctl: File, terminal: bool) -> None:
    """Send the signals that we get to the command; a change of our window's size, its size.

    Whoever asks for the end twice while the kernel does not answer is let go: raises ETIMEDOUT.
    """
    unanswered = 0

    async def send(words: str) -> None:
        nonlocal unanswered
        unanswered += 1
        try:
            await ctl.pwrite(words.encode(), 0)
        except OSError as error:
            if not _gone(error):
                raise
        unanswered -= 1

    with trio.open_signal_receiver(*FORWARDED, signal.SIGWINCH) as signals:
        async with trio.open_nursery() as nursery:
            async for number in signals:
                if number != signal.SIGWINCH:
                    if unanswered:
                        raise NineError(errno.ETIMEDOUT, "the kernel does not answer; the command may go on there")
                    nursery.start_soon(send, f"kill {signal.Signals(number).name}")
                elif terminal:
                    size = os.get_terminal_size()
                    nursery.start_soon(send, f"size {size.lines} {size.columns}")


@contextmanager
def _plain() -> Iterator[None]:
    yield


@contextmanager
def _raw() -> Iterator[None]:
    """Make our terminal raw, and as it was at the end."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
