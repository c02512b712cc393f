"""`mk9p lease take PATH -- COMMAND`: run a command while a lease is held, and end it when the lease is lost. `mk9p lease` lists all.

The command gets `$MK9P_LEASE`, the directory of its lease in the namespace, `$MK9P_TOKEN`, its token, and `$MK9P_LEASED`, the paths, of which there
are several if it was a claim. The lease is renewed three times in a term.
If the namespace does not answer, the command ends when the term would be over by the clock here, which began before the composer's: so it ends first.
Until then it is asked again and again, also on a new connection: a composer that comes back knows its leases.
"""

import errno
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client, File, connect
from mk9p.client.calls import Lost
from mk9p.clients.columns import print_table
from mk9p.clients.common import in_namespace, number_of, say_to, with_namespace
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.stdio import complain
from mk9p.tree.words import join, split
from mk9p.usage import parsed

PARTS: Final = 3  # renewals in a term
AGAIN: Final = 0.5  # seconds until a renewal that failed is tried again
GRACE: Final = 2.0  # seconds between SIGTERM and SIGKILL; they are part of the term
Say = Callable[[str], Awaitable[str]]
LOST: Final = 75  # EX_TEMPFAIL of sysexits(3): the lease was lost


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p lease`. The status is that of the command; 75 if the lease was lost."""
    chosen = parsed(arguments)
    if chosen.word != "take":
        return in_namespace(lambda ns: print_table(ns, "lease/status", as_json=chosen.json))
    return with_namespace(lambda ns: _hold(ns, chosen))


@attrs.define
class _Held:
    """The conversation of a lease, and its token as soon as that is known."""

    ns: Client
    ctl: File
    n: str
    token: str = ""

    async def say(self, line: str) -> str:
        """Say a word. Raises what it says, ESTALE if the lease has ended. If the line is gone, another one is dialled."""
        try:
            return await say_to(self.ns, self.ctl, f"lease/{self.n}/ctl", line)
        except Lost:
            if not self.token:
                raise
        async with connect() as ns:
            try:
                known = [split(text)[5] for text in split_lines(await ns.read(f"lease/{self.n}/status"))]
            except FileNotFoundError:
                known = []
            if known[:1] != [self.token]:
                raise NineError(errno.ESTALE, "the composer that is there now does not know it")
            await ns.write(f"lease/{self.n}/ctl", f"{line}\n")
        return ""


async def _hold(ns: Client, chosen: Any) -> int:
    async with await ns.open("lease/clone", "r+") as ctl:
        n = await number_of(ctl)
        held = _Held(ns, ctl, n)
        say = held.say
        began = trio.current_time()
        words = ["take", chosen.path, "shared" if chosen.shared else "exclusive", "for", chosen.term]
        await say(join(words + ([] if chosen.wait is None else ["wait", chosen.wait])))
        if chosen.wait is not None:
            # how long it waited nobody here knows: the term counts from a renewal that began after that
            began = trio.current_time()
            await say("renew")
        lines = [split(line) for line in split_lines(await ns.read(f"lease/{n}/status"))]
        held.token = lines[0][5]
        more = {"MK9P_LEASE": f"lease/{n}", "MK9P_TOKEN": held.token, "MK9P_LEASED": join([line[2] for line in lines])}
        status = await _run(say, chosen, began, more)
        if status != LOST:
            try:
                await say("give")
            except NineError as error:
                if error.errno != errno.ESTALE:
                    raise
        return status


async def _run(say: Say, chosen: Any, began: float, more: dict[str, str]) -> int:
    lost, grace = "", min(GRACE, chosen.term / PARTS)
    try:
        process = await trio.lowlevel.open_process(chosen.command, env={**os.environ, **more})
    except FileNotFoundError:
        complain(f"mk9p lease: no program {chosen.command[0]!r}")
        return 127
    except OSError as error:
        complain(f"mk9p lease: {chosen.command[0]}: {error.strerror}")
        return 126
    async with trio.open_nursery() as nursery:

        async def renew() -> None:
            nonlocal began, lost
            while True:
                await trio.sleep(chosen.term / PARTS)
                why, asked = "the namespace does not answer", 0.0
                with trio.move_on_after(max(began + chosen.term - grace - trio.current_time(), 0)) as scope:
                    while not lost and asked != began:
                        asked = trio.current_time()
                        try:
                            await say("renew")
                            began = asked
                        except NineError as error:
                            if error.errno == errno.ESTALE:
                                lost = str(error)
                            why = str(error)
                            await trio.sleep(AGAIN)  # the term goes on without the namespace
                if lost or scope.cancelled_caught:
                    lost = lost or why
                    await _end(process, grace)
                    nursery.cancel_scope.cancel()
                    return

        async def signals() -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT) as received:
                async for number in received:
                    if number != signal.SIGINT:  # a terminal sends this to the command too
                        process.send_signal(number)

        nursery.start_soon(renew)
        nursery.start_soon(signals)
        await process.wait()
        nursery.cancel_scope.cancel()
    if lost:
        complain(f"mk9p lease: {chosen.path}: the lease is lost: {lost}")
        return LOST
    assert process.returncode is not None
    code = process.returncode
    return code if code >= 0 else 128 - code


async def _end(process: trio.Process, grace: float) -> None:
    """End the command: ask it, then kill it."""
    with trio.CancelScope(shield=True):
        process.terminate()
        with trio.move_on_after(grace):
            await process.wait()
            return
        process.kill()
        await process.wait()
