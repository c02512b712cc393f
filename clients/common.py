"""What the commands share: running against the namespace, and reading whatever a file gives."""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from mk9p.client import Client, File, connect
from mk9p.serving import one_error


def with_namespace(work: Callable[[Client], Awaitable[int]], address: str | None = None) -> int:
    """Connect to the namespace (or `address`), do the work, and return its exit status."""
    status = 0

    async def run() -> None:
        nonlocal status
        async with connect(address) as ns:
            status = await work(ns)

    one_error(run)
    return status


async def pieces(file: File) -> AsyncIterator[bytes]:
    """Give what a file holds as it comes, whether it is stored, made up, or a stream that waits: two empty reads in a row are its end."""
    empty = False
    while True:
        data = await file.read(file.iounit)
        if data:
            yield data
        elif empty:
            return
        empty = not data


def out(data: bytes) -> None:
    """Write bytes to the standard output at once, as a filter in a pipe must."""
    sys.stdout.flush()
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def say(*words: Any) -> None:
    """Tell of an error on stderr, as this command."""
    print("mk9p:", *words, file=sys.stderr)
