"""A new program of a kernel, and what is said where a kernel has none."""

import errno

from mk9p.client import Client, File
from mk9p.clients.common import number_of
from mk9p.errors import NineError


async def begin(ns: Client, tree: str) -> tuple[File, str]:
    """Begin a program of the kernel whose tree is at a path; return its open ctl and its path. Raises ENOENT, with the reason, where it has none."""
    try:
        ctl = await ns.open(f"{tree}/wasm/clone", "r+")
    except FileNotFoundError:
        why = f"{tree} has no wasm: it is not served there, or wasmtime is not installed there"
        raise NineError(errno.ENOENT, why) from None
    except OSError as error:
        raise NineError(error.errno or errno.EIO, f"{tree}/wasm: {error.strerror}") from None
    try:
        return ctl, f"{tree}/wasm/{await number_of(ctl)}"
    except BaseException:
        await ctl.aclose()
        raise
