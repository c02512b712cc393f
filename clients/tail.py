"""The last lines of a file, and then what comes.

A file that has a length is stored: it is read backwards from its end, as far as necessary to find the lines. A file of length 0 is synthetic, or a
stream: tail reads what it has to say at once, keeps the last lines of that, and passes on as it comes what follows a silence.
"""

from collections.abc import Callable
from typing import Final

import trio

from mk9p.client import File
from mk9p.clients.common import pieces

BLOCK: Final = 1 << 16  # bytes of one step backwards
QUIET: Final = 0.5  # seconds without a record: then a stream has said what it had to say first
HISTORY: Final = 5.0  # seconds for all of that: after them a stream that is never silent is followed


async def tail(file: File, count: int, out: Callable[[bytes], None]) -> None:
    """Pass on the last `count` lines of an open file, all if 0, and what comes after them, until its end. Raises as `File.read`."""
    length = (await file.stat()).length
    start = await _start(file, length, count) if count and length else None if count else 0
    if start is not None:
        file.position = start
        async for data in pieces(file):
            out(data)
        return
    # The reads are a task of their own: a cancelled read might have taken a message that others wait for.
    send, receive = trio.open_memory_channel[bytes](0)

    async def read() -> None:
        async with send:
            async for data in pieces(file):
                await send.send(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        kept = b""
        ended = False
        with trio.move_on_after(HISTORY):
            while not ended:
                with trio.move_on_after(QUIET) as silence:
                    try:
                        kept = _last(kept + await receive.receive(), count)
                    except trio.EndOfChannel:
                        ended = True
                ended = ended or silence.cancelled_caught
        out(kept)
        async for data in receive:
            out(data)


def _last(data: bytes, count: int) -> bytes:
    """Return the last lines of some bytes."""
    at = len(data) - data.endswith(b"\n")
    for _ in range(count):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return data
    return data[at + 1 :]


async def _start(file: File, length: int, count: int) -> int | None:
    """Return where the last lines of a stored file begin, None if its length is not what it says.

    The newline at its very end, if there is one, ends the last line.
    """
    at, wanted = length, count
    while at:
        start = max(0, at - BLOCK)
        block = await file.pread(at - start, start)
        if len(block) < at - start:
            return None
        end = len(block) - (at == length and block.endswith(b"\n"))
        while (found := block.rfind(b"\n", 0, end)) >= 0:
            wanted -= 1
            if not wanted:
                return start + found + 1
            end = found
        at = start
    return 0
