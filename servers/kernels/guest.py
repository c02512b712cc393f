"""A guest that is a process of this machine: what all such kernels have in common (backend.Running)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from mk9p.errors import NineError
from mk9p.ktext import split_lines, trim

from . import backend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from . import agent, channel, keeper


async def nothing() -> None:
    """Follow nothing."""


@attrs.define(eq=False)
class Guest:
    """A kernel in a keeper, with a console, and what its backend knows of it.

    `go_down` asks it for an orderly end. `follow` reads what tells of the end until there is no more. `judge` says why it ended, from what
    `follow` read and the status; "" leaves that to the status and the process's last words. `machine` is what it runs on.
    """

    keeper: keeper.Keeper
    console: channel.Channel
    agent: agent.Agent | None
    dial: str = attrs.field(kw_only=True)
    listen: str = attrs.field(kw_only=True)
    guest_dial: str = attrs.field(kw_only=True)
    go_down: Callable[[], Awaitable[None]] = attrs.field(kw_only=True)
    judge: Callable[[int], str] = attrs.field(kw_only=True)
    machine: backend.Machine = attrs.field(kw_only=True)
    channels: channel.Channels = attrs.field(kw_only=True)
    heard: Callable[[bool], None] = attrs.field(kw_only=True, default=backend.unheard)
    follow: Callable[[], Awaitable[None]] = attrs.field(kw_only=True, default=nothing)
    _words: bytes = attrs.field(init=False, default=b"")

    @property
    def pid(self) -> int:
        """Return the process that holds the guest, 0 when there is none."""
        return self.keeper.pid

    async def receive(self) -> bytes:
        """Return what comes from the console, b"" after the guest's end. If cancelled, it loses nothing."""
        return await self.console.receive()

    async def send(self, data: bytes) -> None:
        """Type on the console. Raises NineError (EIO) after the guest's end."""
        await self.console.send(data)

    async def wait(self) -> str:
        """Wait until the guest has ended and everything is undone, and return why it ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.follow)
            nursery.start_soon(self._follow_words)
            status = await self.keeper.wait()  # the other two end with it: nobody has the far ends any more
        reason = self.judge(status)
        if reason:
            return reason
        if status == 137:
            return "killed"
        words = split_lines(trim(self._words.decode(errors="replace")))
        return words[-1] if words else f"ended with status {status}"

    async def halt(self) -> None:
        """Ask the guest to go down in order, kill it after HALT_SECONDS, and wait until everything is undone."""
        with trio.move_on_after(backend.HALT_SECONDS):
            try:
                await self.go_down()
            except NineError:
                pass  # it has just gone
            else:
                await self.keeper.wait()
        await self.kill()

    async def kill(self) -> None:
        """Kill the guest, and wait until everything is undone."""
        await self.keeper.end()

    async def leave(self) -> None:
        """Kill it: it was started here."""
        await self.kill()

    async def close(self) -> None:
        """Close this side's ends of its channels."""
        self.channels.close()
        await self.keeper.close()

    async def _follow_words(self) -> None:
        """Keep the last words of the process itself: they give the reason when it could not start."""
        while data := await self.keeper.receive():
            self._words = (self._words + data)[-4096:]
