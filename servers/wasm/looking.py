"""A module is looked at, and made freezable, in a process of its own (loading.py): Binaryen ends its process for some modules."""

import errno
import os
from typing import Final
from weakref import WeakValueDictionary

import trio

from mk9p import signals
from mk9p.auth import Principal, counts_as
from mk9p.errors import NineError
from mk9p.servers.wasm.confine import MEMORY, RUNTIME
from mk9p.servers.wasm.process import Process, failure, to_read

# modules of one user that are looked at at once: each takes a processor, and up to 2 GB
AT_ONCE: Final = max(2, os.cpu_count() or 1)
_limiters: "WeakValueDictionary[int | str, trio.CapacityLimiter]" = WeakValueDictionary()


async def looked_at(module: int, out: int, cache: str, who: Principal) -> str:
    """Make a module freezable: from one descriptor to another. Return why it could not be, "" if it is.

    It waits while this user has so many others that are looked at. Raises ENOEXEC for what is no program.
    """
    limiter = _limiters.get(counts_as(who))
    if limiter is None:
        limiter = _limiters[counts_as(who)] = trio.CapacityLimiter(AT_ONCE)
    async with limiter:
        return await _looked_at(module, out, cache, who)


async def _looked_at(module: int, out: int, cache: str, who: Principal, *, plain: bool = False) -> str:
    """Do it; `plain` does not try to make it freezable."""
    readable = to_read(module)
    spec = {"module": readable, "out": out, "cache": cache, "plain": plain}
    try:
        process = await Process.start("loading", spec, [readable, out], who, memory=MEMORY + RUNTIME)
    finally:
        os.close(readable)
    try:
        told = await process.told()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.reap()
    if told is None and not plain:
        os.ftruncate(out, 0)
        await _looked_at(module, out, cache, who, plain=True)
        return "Binaryen failed on it"
    if told is None:
        raise NineError(errno.ENOEXEC, f"its module cannot be compiled here: {signals.ending(process.status)}")
    if told["say"] != "loaded":
        raise failure(told)
    return str(told.get("reason"))[:300]
