"""9P conversations as a capture file that Wireshark reads, whatever link they used: this needs no interface and no privileges.

This module makes up what a dissector needs around the bytes: IPv4 and TCP headers, port 564 on the server's side, where Wireshark looks for 9P,
and a handshake at the beginning and the end, so no segment seems lost. TCP checksums are 0, as in a capture on a card that fills them in;
Wireshark checks none by default. The format of the file is pcap-savefile(5) with nanoseconds and raw IP as link type.
"""

import struct
import time
from typing import BinaryIO, Final

import attrs

PORT: Final = 564
SEGMENT: Final = 65535 - 40  # what an IP packet holds besides its headers
SNAPLEN: Final = 0x40000
_MAGIC: Final = 0xA1B23C4D
_RAW_IP: Final = 101
_FIN, _SYN, _PSH, _ACK = 0x01, 0x02, 0x08, 0x10
_SCALE: Final = bytes((1, 3, 3, 14))  # a window of 1 GiB (RFC 7323): one side may send much before anything comes back
_EPHEMERAL: Final = 49152  # from here on ports belong to clients (RFC 6335)


@attrs.define(eq=False)
class Capture:
    """A capture file that is being written. It is flushed after each message, so others can read it meanwhile. The caller closes it."""

    file: BinaryIO
    _flows: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.file.write(struct.pack("<IHHiIII", _MAGIC, 2, 4, 0, 0, SNAPLEN, _RAW_IP))
        self.file.flush()

    def flow(self, *, now: int | None = None) -> "Flow":
        """Begin a connection, `now` or at a time in ns since 1970, and write its handshake."""
        number = self._flows
        self._flows += 1
        flow = Flow(self, _EPHEMERAL + number % (65536 - _EPHEMERAL), number // (65536 - _EPHEMERAL))
        flow._begin(time.time_ns() if now is None else now)
        return flow

    def _record(self, packet: bytes, now: int) -> None:
        self.file.write(struct.pack("<IIII", *divmod(now, 1_000_000_000), len(packet), len(packet)) + packet)


@attrs.define(eq=False)
class Flow:
    """One connection of a capture."""

    capture: Capture
    _port: int
    _net: int
    _next: list[int] = attrs.field(init=False, factory=lambda: [0, 0])  # sequence numbers: the server's, the client's

    def write(self, from_client: bool, data: bytes | bytearray | memoryview, *, now: int | None = None) -> None:
        """Write what one side sent, in as many segments as it needs."""
        now = time.time_ns() if now is None else now
        view = memoryview(data)
        for at in range(0, len(view), SEGMENT):
            self._segment(from_client, _PSH | _ACK, now, bytes(view[at : at + SEGMENT]))
        self.capture.file.flush()

    def close(self, *, now: int | None = None) -> None:
        """Write the end of the connection."""
        now = time.time_ns() if now is None else now
        for side in (True, False):
            self._segment(side, _FIN | _ACK, now)
        self._segment(True, _ACK, now)
        self.capture.file.flush()

    def _begin(self, now: int) -> None:
        self._segment(True, _SYN, now)
        self._segment(False, _SYN | _ACK, now)
        self._segment(True, _ACK, now)

    def _segment(self, from_client: bool, flags: int, now: int, data: bytes = b"") -> None:
        client, server = struct.pack(">BBH", 10, 1, self._net), bytes((10, 0, 0, 1))
        ports, hosts = (self._port, PORT), client + server
        if not from_client:
            ports, hosts = ports[::-1], server + client
        seq, ack = self._next[from_client], self._next[not from_client] if flags & _ACK else 0
        options = _SCALE if flags & _SYN else b""
        tcp = struct.pack(">HHIIBBHHH", *ports, seq, ack, (20 + len(options)) << 2, flags, 65535, 0, 0) + options
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp) + len(data), 0, 0x4000, 64, 6, 0) + hosts
        total = sum(struct.unpack(">10H", ip))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~(total + (total >> 16)) & 0xFFFF
        self.capture._record(ip[:10] + checksum.to_bytes(2, "big") + ip[12:] + tcp + data, now)
        taken = len(data) + (1 if flags & (_SYN | _FIN) else 0)
        self._next[from_client] = (seq + taken) & 0xFFFFFFFF
