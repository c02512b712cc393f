"""A module is looked at, and made freezable, in a process of its own (loading.py): Binaryen ends its process for some modules."""

import errno
import os

import trio

from mk9p import signals
from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.servers.wasm.confine import MEMORY, RUNTIME
from mk9p.servers.wasm.process import Process, failure, to_read


async def looked_at(module: int, out: int, cache: str, who: Principal, *, plain: bool = False) -> str:
    """Make a module freezable: from one descriptor to another. Return why it could not be, "" if it is; `plain` does not try.

    Raises ENOEXEC for what is no program.
    """
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
        await looked_at(module, out, cache, who, plain=True)
        return "Binaryen failed on it"
    if told is None:
        raise NineError(errno.ENOEXEC, f"its module cannot be compiled here: {signals.ending(process.status)}")
    if told["say"] != "loaded":
        raise failure(told)
    return str(told.get("reason"))[:300]
