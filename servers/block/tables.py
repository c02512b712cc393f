"""Partition tables as they lie on a disk: GPT (UEFI specification, chapter 5) and MBR with its chain of logical ones. Pure: sectors in, parts out.

The rules are those of Linux's block/partitions/{msdos,efi}.c, so a part has the same number and place here as in a kernel that read the table. A
GPT counts only behind a protective MBR. Its backup serves where the primary is damaged. An extended partition shows as its first KiB. Logical
partitions are numbered from 5. An MBR whose boot flags are neither 00 nor 80 is a file system's boot sector and no table.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias
from zlib import crc32

import attrs

Read: TypeAlias = Callable[[int, int], bytes]
"""Returns `count` sectors from sector `start` on; short past the end of the disk."""

_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
_PROTECTIVE: Final = 0xEE
_CHAIN: Final = 100  # logical partitions to follow, as in the kernel: a chain may lead back into itself
_ENTRIES: Final = 1 << 20  # bytes of entries of a GPT; the usual table has 16 KiB
_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")


@attrs.frozen
class Part:
    """A partition: sectors `start` to `end`, the first sector that no longer belongs to it."""

    name: str
    start: int
    end: int


@attrs.frozen
class Table:
    """What is on the disk: `kind` is gpt, dos or empty; `wrong` says in words what is damaged, empty if nothing is."""

    kind: str = ""
    parts: tuple[Part, ...] = ()
    wrong: str = ""


@attrs.frozen
class _Entry:
    """One of an MBR's four: type, first sector (what it is relative to depends on the reader), number of sectors."""

    kind: int
    start: int
    count: int


def find(read: Read, sectors: int, size: int) -> Table:
    """Return the partition table of a disk of `sectors` sectors of `size` bytes. Errors of `read` pass through."""
    entries = _entries(read(0, 1))
    if entries is None:
        return Table()
    if any(entry.kind == _PROTECTIVE for entry in entries):
        return _gpt(read, sectors, size)
    found = sorted(_dos(read, entries, size), key=lambda part: int(part.name[1:]))
    return _checked("dos", found, sectors)


def _checked(kind: str, found: list[Part], sectors: int) -> Table:
    """Leave out parts that are not on the disk, cut off parts that go over its end, and say so."""
    wrong = [f"{part.name} ends at sector {part.end}" for part in found if part.end > sectors]
    parts = tuple(Part(p.name, p.start, min(p.end, sectors)) for p in found if p.start < sectors)
    return Table(kind, parts, f"{' and '.join(wrong)}, and the disk at {sectors}" if wrong else "")


def _entries(sector: bytes) -> list[_Entry] | None:
    """Return the four entries of a valid MBR, else None."""
    if len(sector) < 512 or sector[510:512] != b"\x55\xaa" or any(sector[446 + 16 * n] & 0x7F for n in range(4)):
        return None
    return [_Entry(sector[450 + 16 * n], *struct.unpack_from("<II", sector, 454 + 16 * n)) for n in range(4)]


def _dos(read: Read, entries: list[_Entry], size: int) -> Iterator[Part]:
    logical = 5
    for number, entry in enumerate(entries, 1):
        if not entry.count:
            continue
        if entry.kind not in _EXTENDED:
            yield Part(f"p{number}", entry.start, entry.start + entry.count)
            continue
        yield Part(f"p{number}", entry.start, entry.start + min(entry.count, max(1, 1024 // size)))
        for place in _logical(read, entry):
            yield Part(f"p{logical}", *place)
            logical += 1


def _logical(read: Read, whole: _Entry) -> Iterator[tuple[int, int]]:
    """Follow the chain of an extended partition: each link has a partition of its own, relative to itself, and where the next link is."""
    at = whole.start
    for _ in range(_CHAIN):
        entries = _entries(read(at, 1))
        if entries is None:
            return
        for n, entry in enumerate(entries):
            start = at + entry.start
            inside = whole.start <= start and start + entry.count <= whole.start + whole.count
            if entry.count and entry.kind not in _EXTENDED and (n < 2 or inside):
                yield start, start + entry.count
        link = next((e for e in entries if e.count and e.kind in _EXTENDED), None)
        if link is None:
            return
        at = whole.start + link.start


def _gpt(read: Read, sectors: int, size: int) -> Table:
    wrongs = []
    for which, lba in (("primary", 1), ("backup", sectors - 1)):
        found = _header(read, lba, sectors, size)
        if isinstance(found, str):
            wrongs.append(f"its {which} {found}")
            continue
        table = _checked("gpt", found, sectors)
        return attrs.evolve(table, wrong=" and ".join(filter(None, [*wrongs, table.wrong])))
    return Table("gpt", (), f"bad GPT: {', '.join(wrongs)}")


def _header(read: Read, lba: int, sectors: int, size: int) -> list[Part] | str:
    """Return the parts of the GPT whose header is at `lba`, or in words what is wrong with it."""
    block = read(lba, 1)
    if len(block) < _HEADER.size or block[:8] != b"EFI PART":
        return "header is missing"
    _, _, length, crc, _, mine, _, first, last, _, entries, count, step, entries_crc = _HEADER.unpack_from(block)
    if not _HEADER.size <= length <= len(block) or crc32(block[:16] + bytes(4) + block[20:length]) != crc:
        return "header has a wrong checksum"
    if mine != lba or first > last + 1 or last >= sectors:
        return "header does not fit this disk"
    if step < 128 or step & (step - 1) or count * step > _ENTRIES:
        return "header makes no sense"
    raw = read(entries, -(-count * step // size))[: count * step]
    if crc32(raw) != entries_crc or len(raw) < count * step:
        return "entries have a wrong checksum"
    parts = []
    for n in range(count):
        start, end = struct.unpack_from("<QQ", raw, n * step + 32)
        if raw[n * step : n * step + 16] != bytes(16) and start <= end:
            parts.append(Part(f"p{n + 1}", start, end + 1))
    return parts
