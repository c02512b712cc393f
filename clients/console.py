"""`mk9p console KERNEL`: attach to a kernel's console: show its history and what comes, and send it what the user types. Ctrl-] detaches."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

import trio

from mk9p.client import Client, File
from mk9p.clients import terminal as local
from mk9p.clients.common import pieces, with_namespace
from mk9p.clients.hints import NO_KERNELS
from mk9p.errors import NineError
from mk9p.usage import parsed

DETACH: Final = b"\x1d"


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p console`."""
    chosen = parsed(arguments)
    path = chosen.kernel if "/" in chosen.kernel else f"kernels/{chosen.kernel}/console"
    return with_namespace(lambda ns: attach(ns, path))


async def attach(ns: Client, path: str) -> int:
    """Show a console and send it what the user types, until the detach key, the end of the standard input, or the end of the console."""
    try:
        opened = await ns.open(path, "r+")
    except FileNotFoundError:
        raise NineError(errno.ENOENT, await _none(ns, path)) from None
    terminal = os.isatty(0)
    if terminal:
        print(f"{path}: Ctrl-] detaches\r", file=sys.stderr)
    status = 0

    async def until_told(everything: trio.CancelScope) -> None:
        """End with a signal, so the terminal is as it was before."""
        nonlocal status
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                status = 128 + number
                everything.cancel()

    async with opened as console:
        with local.raw():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_told, nursery.cancel_scope)
                nursery.start_soon(_type, console, nursery.cancel_scope, terminal)
                async for data in pieces(console):
                    await local.put(1, data)
                nursery.cancel_scope.cancel()
    return status


async def _none(ns: Client, path: str) -> str:
    """Return the error that names the existing consoles."""
    from mk9p.servers.kernels.labfile import TAKEN

    try:
        names = [entry.name for entry in await ns.listdir("kernels") if entry.is_dir and entry.name not in TAKEN]
    except FileNotFoundError:
        return f"no console {path}, and {NO_KERNELS}"
    return f"no console {path}; there are: {' '.join(sorted(names)) or 'none'}"


async def _type(console: File, everything: trio.CancelScope, terminal: bool) -> None:
    while data := await _keys():
        keys, detach, _ = data.partition(DETACH) if terminal else (data, b"", b"")
        if keys:
            await console.write(keys)
        if detach:
            everything.cancel()
            return
    if terminal:
        everything.cancel()


async def _keys() -> bytes:
    try:
        return await local.take(4096)
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EBADF):  # the terminal has gone, or somebody closed it: this is the end
            raise
        return b""
