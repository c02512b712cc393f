"""`raw`, after sd(3): SCSI commands, unchanged. Write the 6 to 16 bytes of a command; write or read its data; read its status, a number.

Linux passes them on with SG_IO (scsi/sg.h) on disks that speak SCSI, including ATAPI and USB storage; others answer ENOTTY. A read, which gives
nothing, runs a command that moves no data. The kernel itself fetches the sense data of a failed command, so the file keeps it for the REQUEST
SENSE that follows. Only one client at a time has the file (DMEXCL), because a command's three steps belong together.
"""

import errno
import fcntl
import os
from ctypes import Structure, addressof, c_int, c_ubyte, c_uint, c_ushort, c_void_p, create_string_buffer
from typing import Final

import trio

from mk9p.errors import NineError
from mk9p.servers.block.disk import Disk
from mk9p.tree import Buffer, File, Handle, Open

_SG_IO: Final = 0x2285
_NONE, _TO, _FROM = -1, -2, -3
_TIMEOUT_MS: Final = 60_000  # formatting or spinning up takes long
_MOST: Final = 1 << 20
_SENSE: Final = 96
_REQUEST_SENSE: Final = 0x03


class _Header(Structure):
    """struct sg_io_hdr."""

    _fields_ = (
        ("interface_id", c_int),
        ("dxfer_direction", c_int),
        ("cmd_len", c_ubyte),
        ("mx_sb_len", c_ubyte),
        ("iovec_count", c_ushort),
        ("dxfer_len", c_uint),
        ("dxferp", c_void_p),
        ("cmdp", c_void_p),
        ("sbp", c_void_p),
        ("timeout", c_uint),
        ("flags", c_uint),
        ("pack_id", c_int),
        ("usr_ptr", c_void_p),
        ("status", c_ubyte),
        ("masked_status", c_ubyte),
        ("msg_status", c_ubyte),
        ("sb_len_wr", c_ubyte),
        ("host_status", c_ushort),
        ("driver_status", c_ushort),
        ("resid", c_int),
        ("duration", c_uint),
        ("info", c_uint),
    )


def command(fd: int, cdb: bytes, data: bytes | None, count: int) -> tuple[bytes, int, bytes]:
    """Run one command, writing `data` or reading up to `count` bytes. Return what was read, the status, and the sense data. May block."""
    room = len(data) if data is not None else count
    buffer, words, sense = (
        create_string_buffer(data or b"", max(room, 1)),
        create_string_buffer(cdb, len(cdb)),
        create_string_buffer(_SENSE),
    )
    header = _Header(interface_id=ord("S"), cmd_len=len(cdb), mx_sb_len=_SENSE, dxfer_len=room, timeout=_TIMEOUT_MS)
    header.dxfer_direction = _NONE if not room else _FROM if data is None else _TO
    header.dxferp, header.cmdp, header.sbp = addressof(buffer), addressof(words), addressof(sense)
    fcntl.ioctl(fd, _SG_IO, header)
    if header.host_status:
        raise NineError(errno.EIO, f"the host adapter says {header.host_status}")
    got = buffer.raw[: room - header.resid] if data is None else b""
    return got, header.status, sense.raw[: header.sb_len_wr]


class Raw(File):
    """The file. Mode 0600, exclusive."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(0o600, exclusive=True)
        self.disk = disk

    async def open(self, how: Open) -> Handle:
        self.disk.here()
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC  # a drive without a medium can answer questions, too
        return _Opened(
            self.disk,
            await trio.to_thread.run_sync(os.open, self.disk.path, flags, limiter=self.disk.threads),
            how.records,
        )


class _Opened(Handle):
    def __init__(self, disk: Disk, fd: int, records: bool) -> None:
        self.disk, self.fd, self.records = disk, fd, records
        self.cdb = b""  # a command whose data comes next
        self.status: int | None = None  # of the last command, until somebody reads it
        self.sense = b""
        # Linux's read(2) asks on there after a short answer: once it gets an empty one (tree/waiting.py)
        self.end: int | None = None

    async def write(self, offset: int, data: memoryview) -> int:
        self.disk.here()
        self.end = None
        if self.status is not None:
            raise NineError(errno.EINVAL, "read the status of the last command first")
        if self.cdb:
            await self.run(bytes(data), 0)
        elif not 6 <= len(data) <= 16:
            raise NineError(errno.EINVAL, "a command has 6 to 16 bytes")
        else:
            self.cdb = bytes(data)
        return len(data)

    async def read(self, offset: int, count: int) -> Buffer:
        self.disk.here()
        if self.end is not None and offset == self.end:
            self.end = None
            return b""
        if self.status is not None:
            answer, self.status = f"{self.status:011d} ".encode()[:count], None
        elif self.cdb:
            answer = await self.run(None, min(count, _MOST))
        else:
            raise NineError(errno.EINVAL, "write a command first")
        self.end = offset + len(answer) if self.records and answer and len(answer) < count else None
        return answer

    async def run(self, data: bytes | None, count: int) -> bytes:
        """Run the command that was written. After an error the file forgets it, and it has no status."""
        cdb, self.cdb = self.cdb, b""
        if cdb[0] == _REQUEST_SENSE and self.sense:
            answer, self.sense, self.status = self.sense[:count], b"", 0
            return answer
        answer, self.status, self.sense = await trio.to_thread.run_sync(
            command, self.fd, cdb, data, count, limiter=self.disk.threads
        )
        return answer

    async def close(self) -> None:
        await trio.to_thread.run_sync(os.close, self.fd, limiter=self.disk.threads)
