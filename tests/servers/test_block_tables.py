"""Partition tables: found as the kernel finds them, and what is damaged is said."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mk9p.servers.block.tables import Part, Table, find
from tests.servers.tables import dos, gpt, mbr

SECTORS = 4096


def read(disk: bytes, size: int = 512) -> Callable[[int, int], bytes]:
    return lambda start, count: disk[start * size : (start + count) * size]


def found(disk: bytes, size: int = 512) -> Table:
    return find(read(disk, size), len(disk) // size, size)


def places(table: Table) -> dict[str, tuple[int, int]]:
    return {part.name: (part.start, part.end) for part in table.parts}


def test_a_gpt_gives_its_parts_by_their_number() -> None:
    table = found(gpt(SECTORS, {1: (64, 999), 3: (1000, 1999), 128: (2000, 2000)}))
    assert table == Table("gpt", (Part("p1", 64, 1000), Part("p3", 1000, 2000), Part("p128", 2000, 2001)))


def test_a_gpt_of_large_sectors() -> None:
    assert places(found(gpt(1024, {2: (64, 99)}, sector=4096), 4096)) == {"p2": (64, 100)}


def test_an_mbr_gives_primary_and_logical_partitions() -> None:
    table = found(dos(SECTORS))
    assert table.kind == "dos"
    assert not table.wrong
    assert places(table) == {
        "p1": (64, 164), "p3": (1000, 1002), "p4": (200, 500), "p5": (1010, 1210), "p6": (1505, 1755),
    }  # fmt: skip


@pytest.mark.parametrize("disk", [bytes(512 * 64), mbr((0x0C, 1, 50), flag=0x29) + bytes(512 * 63), b""])
def test_a_file_system_or_nothing_is_no_table(disk: bytes) -> None:
    assert found(disk) == Table()


def broken(at: int, *, from_end: bool = False) -> bytes:
    disk = bytearray(gpt(SECTORS, {1: (64, 999)}))
    disk[at - len(disk) if from_end else at] ^= 1
    return bytes(disk)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (512, "header is missing"),
        (512 + 40, "header has a wrong checksum"),
        (1024 + 5, "entries have a wrong checksum"),
    ],
)
def test_the_backup_serves_where_the_primary_is_damaged(at: int, words: str) -> None:
    table = found(broken(at))
    assert places(table) == {"p1": (64, 1000)}
    assert table.wrong == f"its primary {words}"


def test_a_gpt_damaged_twice_has_no_parts_and_says_why() -> None:
    disk = bytearray(broken(1024 + 5))
    disk[-512] ^= 1
    assert found(bytes(disk)) == Table(
        "gpt", (), "bad GPT: its primary entries have a wrong checksum, its backup header is missing"
    )


def test_a_damaged_backup_is_nobodys_trouble() -> None:
    assert found(broken(-1 * 512 + 20)).wrong == ""


def test_a_part_past_the_end_is_cut_off_and_told() -> None:
    table = found(mbr((0x83, 10, 100), (0x83, 60, 10), (0x83, 80, 10)) + bytes(512 * 63))
    assert places(table) == {"p1": (10, 64), "p2": (60, 64)}
    assert table.wrong == "p1 ends at sector 110 and p2 ends at sector 70 and p3 ends at sector 90, and the disk at 64"


def test_a_chain_that_bites_its_tail_ends() -> None:
    disk = bytearray(512 * 256)
    disk[:512] = mbr((0x05, 10, 200))
    disk[512 * 10 : 512 * 11] = mbr((0x83, 1, 2), (0x05, 0, 1))
    assert len(found(bytes(disk)).parts) == 101


@given(some.data())
def test_whatever_lies_on_a_disk_is_no_crash(data: Any) -> None:
    disk = bytearray(data.draw(some.sampled_from([dos(SECTORS), gpt(SECTORS, {1: (64, 999), 2: (1000, 2000)})])))
    for _ in range(data.draw(some.integers(1, 8))):
        at = data.draw(some.integers(0, 512 * 34) | some.integers(512 * 1000, 512 * 1501))
        disk[at] = data.draw(some.integers(0, 255))
    table = found(bytes(disk))
    assert all(0 <= part.start <= part.end <= SECTORS for part in table.parts)
