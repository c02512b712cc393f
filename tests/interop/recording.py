"""Traffic of a real server, recorded between it and its client, and written as a capture file that tshark reads (mk9p.pcap)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socketpair

import attrs
import trio

from mk9p.dial import TRANSPORTS, Peer, SocketLink
from mk9p.pcap import Capture
from mk9p.server import Server


@attrs.define(eq=False)
class Recording:
    """What went over one connection: pieces in the order in which they passed, and who sent each."""

    pieces: list[tuple[bool, bytes]] = attrs.field(factory=list)  # (from the client, bytes)

    def frames(self, from_client: bool) -> list[bytes]:
        """Return the messages of one side."""
        data = b"".join(piece for side, piece in self.pieces if side is from_client)
        found = []
        while data:
            size = int.from_bytes(data[:4], "little")
            found.append(data[:size])
            data = data[size:]
        return found

    def write(self, path: Path) -> None:
        """Write the capture file: segments as the relay saw the pieces, so that tshark must put messages together as from a real line."""
        with path.open("wb") as file:
            flow = Capture(file).flow(now=0)
            for number, (side, piece) in enumerate(self.pieces):
                flow.write(side, piece, now=1000 * number)
            flow.close(now=1000 * len(self.pieces))


@asynccontextmanager
async def recorded(server: Server) -> AsyncIterator[tuple[int, Recording]]:
    """Add a connection to a server; give the descriptor of its other end, which is the caller's to close, and what passes by."""
    recording = Recording()
    client, to_client = socketpair(AF_UNIX, SOCK_STREAM)
    to_server, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    for sock in (client, to_client, to_server, theirs):
        sock.setblocking(False)
    server.add(SocketLink(theirs, Peer(TRANSPORTS["fd"], "test", loopback=True)))
    left, right = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in (to_client, to_server))

    async def relay(source: trio.SocketStream, target: trio.SocketStream, side: bool) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await source.receive_some():
                recording.pieces.append((side, bytes(data)))
                with suppress(trio.BrokenResourceError):  # a client that has gone is not interested in the rest
                    await target.send_all(data)
        with suppress(trio.BrokenResourceError, OSError):
            await target.send_eof()

    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(relay, left, right, True)
        nursery.start_soon(relay, right, left, False)
        yield client.detach(), recording
        # Left when the client has closed its end: then the server hangs up, and both relays end.
