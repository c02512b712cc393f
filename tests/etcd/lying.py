"""A server that says what it likes in the place of etcd."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import trio

Answer = Callable[[str], Iterable[bytes]]
"""Returns the pieces of an answer to a path, headers and all."""


def plain(body: bytes, *headers: str, status: int = 200) -> list[bytes]:
    """Return an answer of one piece."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return ["\r\n".join([*lines, "", ""]).encode(), body]


def endless(piece: bytes) -> Iterable[bytes]:
    """Yield an answer that has no end."""
    yield b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"%x\r\n%s\r\n" % (len(piece), piece)


async def _serve(answer: Answer, stream: trio.SocketStream) -> None:
    held = b""
    try:
        while True:
            while b"\r\n\r\n" not in held:
                held += (more := await stream.receive_some())
                if not more:
                    return
            head, _, held = held.partition(b"\r\n\r\n")
            size = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-le")
            )
            while len(held) < size:
                held += await stream.receive_some()
            held = held[size:]
            for piece in answer(head.split(b" ")[1].decode()):
                await stream.send_all(piece)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


@asynccontextmanager
async def lying(answer: Answer) -> AsyncIterator[str]:
    """Have such a server as long as the block runs: its HOST:PORT."""
    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(trio.serve_tcp, partial(_serve, answer), 0)
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()
