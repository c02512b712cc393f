"""`mk9p wasm move KERNEL/N KERNEL` and `mk9p wasm save KERNEL/N FILE`: freeze a program, copy it, start it there, and only then forget it here.

If a step fails, the program goes on where it was. If its kernel dies after it was frozen, the copy is elsewhere already.
"""

import errno
import os
from itertools import count
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from mk9p.client import Client, File
from mk9p.clients.common import kernel, out, say_to, with_namespace
from mk9p.clients.wasm.clone import begin
from mk9p.errors import NineError
from mk9p.stdio import complain
from mk9p.tree import join, split
from mk9p.tree.words import lines

BACK: Final = 15.0  # seconds for a program to go on where it was, after a move that failed: it may have to wait for who serves its files
_BLOCK: Final = 1 << 20


def move_to(chosen: Any) -> int:
    """Run `mk9p wasm move`."""

    async def work(ns: Client) -> int:
        there = await move(ns, await _path(ns, chosen.program), await kernel(ns, chosen.kernel))
        out(f"{there}\n".encode())
        return 0

    return with_namespace(work)


def save_to(chosen: Any) -> int:
    """Run `mk9p wasm save`."""

    async def work(ns: Client) -> int:
        path = await _path(ns, chosen.program)
        async with await _ctl(ns, path) as ctl, Frozen(ns, path, ctl) as frozen:
            await trio.to_thread.run_sync(_write, Path(chosen.file), frozen.state)
            if not chosen.keep:
                await frozen.say(join(["moved", f"saved in {chosen.file}"]))
            elif not frozen.was:
                await frozen.say("start")
        return 0

    return with_namespace(work)


def _write(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


async def _path(ns: Client, program: str) -> str:
    """Return the path of `KERNEL/N`, or of a path that ends with the program's number."""
    above, _, number = program.rpartition("/")
    if above.rpartition("/")[2] == "wasm":
        return program
    return f"{await kernel(ns, above or '.')}/wasm/{number}"


async def _ctl(ns: Client, path: str) -> File:
    try:
        return await ns.open(f"{path}/ctl", "r+")
    except FileNotFoundError as error:
        raise NineError(error.errno or 0, f"no program {path}") from None


async def _answers(ns: Client, path: str) -> bool:
    """Tell whether the kernel of a program answers."""
    try:
        await ns.read(f"{path}/status")
    except OSError:
        return False
    return True


@attrs.define(eq=False)
class Frozen:
    """A program that is frozen for the time of a block. If the block fails, it goes on, unless it was frozen before.

    `state` is what it is. When its kernel is gone by then, that is all that there is of it, and is kept in a file here.
    """

    ns: Client
    path: str
    ctl: File
    was: bool = False
    state: bytes = b""

    async def say(self, words: str) -> None:
        await say_to(self.ns, self.ctl, f"{self.path}/ctl", words)

    async def __aenter__(self) -> "Frozen":
        self.was = split(await self.ns.read(f"{self.path}/status"))[1:2] == ["frozen"]
        if not self.was:
            await self.say("freeze")
        try:
            self.state = await self.ns.read_bytes(f"{self.path}/state")
        except BaseException as error:
            await self._back(error)
            raise
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            await self._back(error)

    async def _back(self, error: BaseException) -> None:
        """Let it go on where it was; what cannot go on is told with the error."""
        why = ""
        with trio.move_on_after(BACK, shield=True) as scope:
            try:
                if not self.was:
                    await self.say("start")
            except OSError as second:
                why = f"{self.path} stays frozen: {second.strerror}"
            if (why or self.was) and not await _answers(self.ns, self.path):
                why = f"{self.path} is gone"
                if self.state:
                    why += f"; its state is in {await trio.to_thread.run_sync(_rescued, self.path, self.state)}"
        if scope.cancelled_caught:
            why = f"{self.path} does not answer"
        if why and isinstance(error, OSError):
            raise NineError(error.errno or errno.EIO, f"{error.strerror}; {why}") from None
        if why:
            complain(f"mk9p wasm: {why}")


def _rescued(path: str, state: bytes) -> Path:
    """Write the state of a program whose kernel is gone to a new file of this directory."""
    kernel, _, number = path.removesuffix("/").replace("/wasm/", "/").strip("/").removeprefix("k/").rpartition("/")
    name = "-".join([*(part for part in kernel.split("/") if part), number])
    place = next(place for n in count() if not (place := Path(f"{name}{f'.{n}' if n else ''}.state")).exists())
    _write(place, state)
    return place


async def move(ns: Client, path: str, tree: str) -> str:
    """Move the program at a path to the kernel whose tree is at another, and return the path where it goes on.

    Raises what failed; then it goes on where it was. If the kernel where it was is gone when its state is here, it goes on all the same.
    """
    ctl = await _ctl(ns, path)
    async with ctl:
        other, there = await begin(ns, tree)
        async with other:
            for line in lines(await ns.read(f"{path}/ctl")):
                if line.startswith("checkpoint "):  # this is no part of what the program is
                    await say_to(ns, other, f"{there}/ctl", line)
            async with Frozen(ns, path, ctl) as frozen:
                async with await ns.open(f"{there}/state", "w") as file:
                    for at in range(0, len(frozen.state), _BLOCK):
                        await file.write(frozen.state[at : at + _BLOCK])
                await _unless_gone(frozen, f"going {there}")
                await say_to(ns, other, f"{there}/ctl", "start")
                # if the line there breaks before this, the program ends there with its last open file, and goes on here
                await say_to(ns, other, f"{there}/ctl", "keep")
                try:
                    await _unless_gone(frozen, f"moved {there}")
                except OSError:  # somebody lets it go on here
                    frozen.was = True
                    await say_to(ns, other, f"{there}/ctl", "unkeep")
                    raise
        return there


async def _unless_gone(frozen: Frozen, words: str) -> None:
    """Say something to the program that is moved; where its kernel is gone, nobody needs to hear it."""
    try:
        await frozen.say(words)
    except OSError:
        if await _answers(frozen.ns, frozen.path):
            raise
