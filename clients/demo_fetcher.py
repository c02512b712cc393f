"""A program of `mk9p demo driver`: it fetches a file by HTTP through another kernel's network, and goes on where a connection ended."""

import hashlib
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

import trio

from mk9p.client import connect
from mk9p.clients.net import dial

REST: Final = 0.5  # s until it is tried again
LONGEST: Final = 1 << 16  # bytes of an answer's head


async def fetch(address: str, net: str, where: str, size: int) -> str:
    """Fetch a file of so many bytes, and return its SHA-256."""
    digest, got, since = hashlib.sha256(), 0, 0.0
    while got < size:
        try:
            async for piece in rest_of(address, f"{net}/tcp!{where}", got):
                if since:
                    print(f"went on after {time.monotonic() - since:.1f} s", flush=True)
                since = 0.0
                digest.update(piece)
                got += len(piece)
                print(got, "bytes", flush=True)
            words = "the other side ended it"
        except (OSError, trio.BrokenResourceError) as error:
            words = str(error)
        if got < size:
            since = since or time.monotonic()
            print(f"after {got} bytes: {words}", flush=True)
            await trio.sleep(REST)
    return digest.hexdigest()


async def rest_of(address: str, server: str, start: int) -> AsyncIterator[bytes]:
    """Give the pieces of the file from a place on."""
    # 9P2000.L has numbers of errors only, this has words
    async with connect(address, version="9P2000.u") as ns, await dial(ns, server) as stream:
        request = f"GET / HTTP/1.0\r\nRange: bytes={start}-\r\n\r\n"
        await stream.send_all(request.encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < LONGEST:
            piece = await stream.receive_some()
            if not piece:
                return
            head += piece
        head, _, data = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.0 206 "):
            raise OSError(f"an answer that is none: {head[:80]!r}")
        while data or (data := await stream.receive_some()):
            yield data
            data = b""


def main(address: str, net: str, where: str, size: int) -> None:
    """Fetch a file, and print what came."""
    print("whole", trio.run(fetch, address, net, where, size), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
