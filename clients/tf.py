"""`mk9p tf`: task forces. `run FILE` runs one as if it were one command; without a word, all are listed.

The force is a conversation of the namespace's `tf/`, so it ends with this process, whatever ends that.
"""

import os
import signal
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client, File
from mk9p.clients import terminal as local
from mk9p.clients.columns import print_table
from mk9p.clients.common import in_namespace, number_of, pieces, say_to, with_namespace
from mk9p.errors import NineError
from mk9p.signals import exit_code
from mk9p.stdio import complain
from mk9p.tree.words import join, split
from mk9p.usage import parsed

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
OVER: Final = ("done", "failed")  # the last event of a log


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p tf`. The status of `run` is that of the task that ended the force, as a shell has it, 1 if something else did."""
    chosen = parsed(arguments)
    if chosen.word == "run":
        with open(0 if chosen.file == "-" else chosen.file, "rb", closefd=chosen.file != "-") as file:
            graph = file.read()
        return with_namespace(lambda ns: run(ns, graph, verbose=chosen.verbose))
    return in_namespace(lambda ns: _said(ns, chosen))


async def _said(ns: Client, chosen: Any) -> int:
    if chosen.word == "move":
        await ns.write(f"tf/{chosen.force}/ctl", join(["move", chosen.task, chosen.kernel]) + "\n")
    elif chosen.word == "kill":
        await ns.write(f"tf/{chosen.force}/ctl", "kill\n")
    else:
        force = getattr(chosen, "force", None)
        return await print_table(ns, "tf/status" if force is None else f"tf/{force}/status", as_json=chosen.json)
    return 0


async def run(ns: Client, graph: bytes, *, verbose: bool = False) -> int:
    """Run a force to its end; its output is this process's. Return its exit status."""
    async with await ns.open("tf/clone", "r+") as ctl:
        number = await number_of(ctl)
        try:
            await ns.write(f"tf/{number}/graph", graph)
        except NineError as error:
            words = (await ns.read(f"tf/{number}/error")).strip("\n")
            raise NineError(error.errno, words or error.ename) from None
        async with (
            await ns.open(f"tf/{number}/data") as data,
            await ns.open(f"tf/{number}/log") as log,
            await ns.open(f"tf/{number}/wait") as wait,
        ):
            following = Following(verbose)
            say = partial(say_to, ns, ctl, f"tf/{number}/ctl")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(following.signals, say)
                async with trio.open_nursery() as work:
                    work.start_soon(say, "start")
                    work.start_soon(following.output, data)
                    work.start_soon(following.events, log)
                    work.start_soon(following.end, wait)
                nursery.cancel_scope.cancel()
    return following.status


@attrs.define(eq=False)
class Following:
    """What this process shows of a force, and how that ended."""

    verbose: bool
    status: int = 1
    _asked: bool = False

    async def output(self, data: File) -> None:
        """Pass on what goes to no task."""
        async for piece in pieces(data):
            await local.put(1, piece)

    async def events(self, log: File) -> None:
        """Show what tasks say on their standard error, and with `verbose` everything."""
        async for line in log:
            _, _, what, *words = split(line.decode(errors="replace"))
            if what == "err" and len(words) == 2:
                complain(f"{words[0]}: {words[1]}")
            elif self.verbose or what in ("lost", "without"):
                complain(f"mk9p tf: {join([what, *words])}")
            if what in OVER:
                return

    async def end(self, wait: File) -> None:
        """Wait for the end: `N TIME_MS REASON`."""
        reason = split((await wait.pread(8192, 0)).decode(errors="replace"))[2]
        if reason:
            complain(f"mk9p tf: {reason}")
        self.status = exit_code(reason.rpartition(": ")[2])

    async def signals(self, say: Any) -> None:
        """End the force when this process is told to end, and this process when it is told again."""
        with trio.open_signal_receiver(*ENDING) as received:
            async for number in received:
                if self._asked:
                    signal.signal(number, signal.SIG_DFL)
                    os.kill(os.getpid(), number)
                self._asked = True
                await say("kill")
