"""Traffic of a real server, recorded between it and its client, and written as a capture file that tshark reads: no interface, no privileges.

The capture is made up around the bytes: IPv4 and TCP headers without checksums (tshark checks none unless told to), raw IP as link type, a segment
for each piece that came, split and joined as the relay saw it, so that tshark must put messages together as from a real line.
"""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, inet_aton, socketpair
from typing import Final

import attrs
import trio

from mk9p.dial import Peer, SocketLink
from mk9p.server import Server

PORT: Final = 564  # where tshark looks for 9P
SEGMENT: Final = 16000  # below what an IP packet holds
_CLIENT, _SERVER = inet_aton("10.0.0.1"), inet_aton("10.0.0.2")
_RAW_IP: Final = 101


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
        """Write the capture file."""
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0x40000, _RAW_IP))
            next_byte = {True: 1, False: 1}
            number = 0
            for side, piece in self.pieces:
                for at in range(0, len(piece), SEGMENT):
                    part = piece[at : at + SEGMENT]
                    packet = _packet(side, next_byte[side], next_byte[not side], part)
                    file.write(struct.pack("<IIII", 1_700_000_000, number, len(packet), len(packet)) + packet)
                    next_byte[side] += len(part)
                    number += 1


def _packet(from_client: bool, seq: int, ack: int, data: bytes) -> bytes:
    ports, hosts = (40000, PORT), (_CLIENT, _SERVER)
    if not from_client:
        ports, hosts = ports[::-1], hosts[::-1]
    tcp = struct.pack(">HHIIBBHHH", *ports, seq, ack, 5 << 4, 0x18, 65535, 0, 0)  # PSH and ACK
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp) + len(data), 0, 0x4000, 64, 6, 0) + hosts[0] + hosts[1]
    return ip + tcp + data


@asynccontextmanager
async def recorded(server: Server) -> AsyncIterator[tuple[int, Recording]]:
    """Add a connection to a server; give the descriptor of its other end, which is the caller's to close, and what passes by."""
    recording = Recording()
    client, to_client = socketpair(AF_UNIX, SOCK_STREAM)
    to_server, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    for sock in (client, to_client, to_server, theirs):
        sock.setblocking(False)
    server.add(SocketLink(theirs, Peer("fd", "test", private=True, loopback=True)))
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
