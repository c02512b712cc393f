"""Make up partition tables, byte by byte, as fdisk(8) would lay them on a disk."""

import struct
import uuid
from zlib import crc32

LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le


def mbr(*entries: tuple[int, int, int], sector: int = 512, flag: int = 0) -> bytes:
    """Return an MBR, or a link of a logical chain, with entries of (type, start, count)."""
    table = b"".join(struct.pack("<B3sB3sII", flag, b"", kind, b"", start, count) for kind, start, count in entries)
    return (bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa").ljust(sector, b"\0")


def header(lba: int, other: int, table: int, sectors: int, entries: bytes, sector: int) -> bytes:
    used = 1 + -(-len(entries) // sector)

    def packed(crc: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, crc, 0, lba, other, used + 1, sectors - used - 1,
            uuid.UUID(int=1).bytes, table, len(entries) // 128, 128, crc32(entries),
        )  # fmt: skip

    return packed(crc32(packed(0))).ljust(sector, b"\0")


def gpt(sectors: int, parts: dict[int, tuple[int, int]], *, sector: int = 512) -> bytes:
    """Return a disk with a GPT; `parts` are (first, last) by number, the last sector being within."""
    entries = bytearray(128 * 128)
    for number, (first, last) in parts.items():
        struct.pack_into("<16s16sQQ", entries, 128 * (number - 1), LINUX, uuid.UUID(int=number).bytes, first, last)
    length = -(-len(entries) // sector)
    disk = bytearray(sectors * sector)
    disk[:sector] = mbr((0xEE, 1, min(sectors - 1, 0xFFFFFFFF)), sector=sector)
    disk[sector : 2 * sector] = header(1, sectors - 1, 2, sectors, bytes(entries), sector)
    disk[2 * sector : 2 * sector + len(entries)] = entries
    backup = sectors - 1 - length
    disk[backup * sector : backup * sector + len(entries)] = entries
    disk[-sector:] = header(sectors - 1, 1, backup, sectors, bytes(entries), sector)
    return bytes(disk)


def dos(sectors: int) -> bytes:
    """Return a disk with two primary partitions and an extended one of two logical ones."""
    disk = bytearray(sectors * 512)
    disk[:512] = mbr((0x83, 64, 100), (0, 0, 0), (0x05, 1000, 1000), (0x82, 200, 300))
    disk[1000 * 512 : 1001 * 512] = mbr((0x83, 10, 200), (0x05, 500, 300))
    disk[1500 * 512 : 1501 * 512] = mbr((0x0B, 5, 250))
    return bytes(disk)
