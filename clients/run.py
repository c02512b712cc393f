"""`mk9p run [-nt] KERNEL -- COMMAND [ARG...]`: a command in a kernel, through the files of its `cmd`.

Standard input, output and error are those of this process, or with `-n` the input is empty. Signals to this process go to the command. Its exit
status is the command's (128 + N if a signal N ended it, as in sh), 127 if there is no such program, 126 if it cannot be run. With `-t` the command
has a terminal of the size of this one, which is raw meanwhile.

It ends when a signal tells it to, even if nobody takes its output: after the signal has ended the command, it drops what nobody takes within
`GRACE`. If the kernel does not take the signal within `ANSWER`, it ends without; sooner if it is told again.
"""

import errno
import math
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from typing import Final

import attrs
import trio

from mk9p.client import Client, File
from mk9p.clients import terminal as local
from mk9p.clients.common import kernel, number_of, pieces, say, with_namespace
from mk9p.errors import NineError
from mk9p.signals import exit_code
from mk9p.stdio import complain, told
from mk9p.tree import join, split
from mk9p.usage import parsed

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FORWARDED: Final = (*ENDING, signal.SIGUSR1, signal.SIGUSR2)
PIECE: Final = 1 << 16
GRACE: Final = 1.0  # seconds without a piece taken: a live reader takes one in less
ANSWER: Final = 2.0  # seconds that the kernel has to take a signal which asks for the end
# and a second one, while it has not taken the first: two may come at once, as from a terminal that goes away
HURRY: Final = 0.5
NOT_THERE: Final = 127  # exit statuses of a shell
NOT_RUN: Final = 126


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p run`."""
    chosen = parsed(arguments)
    command = chosen.command
    settings = [join(["env", *chosen.env])] if chosen.env else []
    settings += [join(["dir", chosen.dir])] if chosen.dir else []

    async def work(ns: Client) -> int:
        tree = await kernel(ns, chosen.kernel)
        return await run(ns, tree, command, settings, terminal=chosen.terminal, no_input=chosen.no_input)

    return with_namespace(work)


async def run(
    ns: Client,
    tree: str,
    command: Sequence[str],
    settings: Sequence[str] = (),
    *,
    terminal: bool = False,
    no_input: bool = False,
    line: Callable[[File, File], Awaitable[None]] | None = None,
) -> int:
    """Run a command in the kernel whose tree is at a path and return its exit status as a shell gives it.

    `line` gets the two directions of the command's descriptor 3, to read and to write, and is cancelled when the command has ended.
    """
    size = local.size() if terminal else None
    try:
        clone = await ns.open(f"{tree}/cmd/clone", "r+")
    except OSError as error:
        raise NineError(error.errno or errno.EIO, f"{tree}/cmd: {error.strerror}") from None
    async with clone as ctl:
        number = await number_of(ctl)
        talk = f"{tree}/cmd/{number}"

        async def order(line: str) -> None:
            try:
                await ctl.pwrite(line.encode(), 0)
            except UnicodeEncodeError:
                raise NineError(errno.EILSEQ, f"{line}: not UTF-8, as the words of a ctl are") from None
            except OSError as error:
                words = (await ns.read(f"{talk}/error")).strip()
                raise NineError(error.errno or errno.EIO, words or error.strerror) from None

        for setting in settings:
            await order(setting)
        if size is not None:
            await order(join(["env", f"TERM={os.environ.get('TERM', 'dumb')}"]))
            await order(f"size {size.lines} {size.columns}")
        async with (
            AsyncExitStack() as stack,
            await ns.open(f"{talk}/data", "r") as output,
            await ns.open(f"{talk}/data", "w") as data,
            await ns.open(f"{talk}/stderr") as errors,
            await ns.open(f"{talk}/wait") as wait,
        ):
            ends: list[File] = []
            if line is not None:
                ends = [await stack.enter_async_context(await ns.open(f"{talk}/line", mode)) for mode in "rw"]
            try:
                await order(join(["exec", *command]))
            except NineError as error:
                if not error.ename.startswith(f"{command[0]}: "):  # the program is not at fault
                    raise
                complain(f"mk9p run: {error.strerror}")
                return NOT_THERE if error.errno == errno.ENOENT else NOT_RUN
            talking = Talk(ctl, terminal)
            try:
                with local.raw() if terminal and not no_input else nullcontext():
                    async with trio.open_nursery() as nursery:
                        if line is not None:
                            nursery.start_soon(line, ends[0], ends[1])
                        await talking.carry(data, output, errors, wait, no_input=no_input)
                        nursery.cancel_scope.cancel()
            finally:
                if talking.silent:
                    ns.connection.end("it does not answer")  # else closing each file would wait for it
    return talking.status


@attrs.define(eq=False)
class Talk:
    """What goes on between this process and a running command, and how it ended."""

    ctl: File
    terminal: bool
    status: int = 1
    silent: bool = False  # the kernel does not answer
    ended: trio.Event = attrs.field(factory=trio.Event)
    asked: trio.Event = attrs.field(factory=trio.Event)  # a signal asked for the end
    asked_at: float = 0.0  # when the last one came
    taken: int = 0  # pieces of output that were written here
    writing: dict[int, float] = attrs.field(factory=dict)  # since when, by descriptor
    unanswered: int = 0  # words that were sent, and the kernel has not answered

    async def carry(self, data: File, output: File, errors: File, wait: File, *, no_input: bool) -> None:
        """Carry input, outputs and signals until the command has ended and its output is written here."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.feed, data, no_input)
            nursery.start_soon(self.forward, nursery.cancel_scope)
            async with trio.open_nursery() as outputs:
                outputs.start_soon(self.unless_stuck, outputs.cancel_scope)
                async with trio.open_nursery() as drains:
                    drains.start_soon(self.drain, output, 1)
                    drains.start_soon(self.drain, errors, 2)
                    drains.start_soon(self.wait, wait)
                outputs.cancel_scope.cancel()
            nursery.cancel_scope.cancel()

    async def wait(self, file: File) -> None:
        """Wait for the command's end, which a line of `wait` gives: `pid utime stime rtime 'status'`."""
        words = split((await file.pread(4096, 0)).decode(errors="replace"))
        self.status = exit_code(words[4]) if len(words) > 4 else 1
        self.ended.set()

    async def drain(self, file: File, descriptor: int) -> None:
        """Pass on what the command prints. When nobody takes that any more, the command learns it as if it had written there itself."""
        async for data in pieces(file):
            self.writing[descriptor] = trio.current_time()
            try:
                await local.put(descriptor, self.passed(descriptor, data))
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                await self.send("kill PIPE" if error.errno == errno.EPIPE else "kill HUP")  # EIO: the terminal has gone
                await file.aclose()  # a command that ignores signals gets EPIPE
                return
            finally:
                del self.writing[descriptor]
            self.taken += 1

    def passed(self, descriptor: int, data: bytes) -> bytes:
        """Return what is passed on of a piece."""
        return data

    async def unless_stuck(self, scope: trio.CancelScope) -> None:
        """Cancel the outputs when this process was told to end, the command has ended, and nobody takes its output."""
        await self.asked.wait()
        await self.ended.wait()
        taken = -1
        while taken != self.taken:
            taken = self.taken
            await trio.sleep(GRACE)
        scope.cancel()

    async def feed(self, data: File, no_input: bool) -> None:
        """Send this process's standard input until it ends, then end the command's."""
        try:
            while not no_input and (piece := await self._input()):
                await data.write(piece)
            await self.ctl.pwrite(b"closein", 0)
        except OSError as error:  # the command no longer reads, which is its own business
            if not _gone(error):
                say(f"standard input: {error.strerror}")

    async def _input(self) -> bytes:
        try:
            return await local.take(PIECE)
        except OSError as error:
            # the terminal has gone, or somebody closed it: this is the end
            if error.errno not in (errno.EIO, errno.EBADF):
                complain(f"mk9p run: {told(error)}")
            return b""

    async def send(self, words: str, within: float = math.inf) -> None:
        """Write a word to the command's ctl; a command that has ended takes none. Raises ETIMEDOUT if it takes longer than some seconds."""
        self.unanswered += 1
        with trio.move_on_after(within) as scope:
            try:
                await self.ctl.pwrite(words.encode(), 0)
            except OSError as error:
                if not _gone(error):
                    raise
        if scope.cancelled_caught:
            self.silent = True
            raise NineError(errno.ETIMEDOUT, "the kernel does not answer; the command may go on there")
        self.unanswered -= 1

    async def forward(self, everything: trio.CancelScope) -> None:
        """Send this process's signals to the command, and the size of its window when that changes.

        A user who asks for the end gets it if the kernel does not answer, which raises ETIMEDOUT, sooner if they ask twice; or if nobody takes
        the output that the command waits to write, and then the command is hung up.
        """
        with trio.open_signal_receiver(*FORWARDED, signal.SIGWINCH) as signals:
            async with trio.open_nursery() as nursery:
                async for number in signals:
                    if number == signal.SIGWINCH:
                        if self.terminal:
                            with suppress(OSError):  # it has gone
                                size = local.size()
                                nursery.start_soon(self.send, f"size {size.lines} {size.columns}")
                        continue
                    within = math.inf
                    if number in ENDING:
                        if self.asked.is_set() and any(since < self.asked_at for since in self.writing.values()):
                            self.status = 128 + number
                            everything.cancel()
                            return
                        within = HURRY if self.asked.is_set() and self.unanswered else ANSWER
                        self.asked_at = trio.current_time()
                        self.asked.set()
                    nursery.start_soon(self.send, f"kill {signal.Signals(number).name}", within)


def _gone(error: OSError) -> bool:
    return error.errno in (errno.EPIPE, errno.EBADF, errno.ESRCH, errno.EINVAL, errno.EIO)
