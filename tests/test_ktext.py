"""Text of the kernel: only a newline ends a line and only blanks divide words, whatever names there are in it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mk9p.ktext import Mount, field, mounts, split_lines, split_words, trim, whole

ODD = [
    "\r",
    "\v",
    "\f",
    "\x1c",
    "\x85",
    "\u2028",
    "\xa0",
]  # each is a line end or a blank to Python, and none is to the kernel


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_no_other_character_divides(odd: str, tmp_path: Path) -> None:
    name = f"x{odd}Uid:65534{odd}"
    status = f"Name:\t{name}\nUid:\t0\t0\t0\t0\n"
    assert split_lines(status) == [f"Name:\t{name}", "Uid:\t0\t0\t0\t0"]
    assert split_words(f"a {name}\tb\n") == ["a", name, "b"]
    assert field(status, "Uid") == "0\t0\t0\t0"
    assert field(status.encode(), b"Name") == name.encode()
    assert trim(f" {name}\n") == name
    (tmp_path / "status").write_bytes(status.encode())
    assert whole(tmp_path / "status") == status


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)))
def test_lines_are_what_was_joined(lines: list[str]) -> None:
    assert split_lines("".join(f"{line}\n" for line in lines)) == lines
    assert split_lines("".join(f"{line}\n" for line in lines).encode()) == [line.encode() for line in lines]


def test_a_last_line_needs_no_newline() -> None:
    assert (split_lines(""), split_lines("a"), split_lines("a\n"), split_lines("a\n\n")) == (
        [],
        ["a"],
        ["a"],
        ["a", ""],
    )


def test_mounts_with_odd_names_are_told_as_they_are() -> None:
    said = (
        b"22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        b"23 22 0:21 / /odd\\040name\\012two\rthree rw - tmpfs  rw,size=1k\n"
        b"24 22 0:22 / /tail\xe2\x80\xa8x ro shared:2 master:1 - fuse.s\\134shfs me\\011too rw\n"
        b"no such line\n"
    )
    assert list(mounts(said)) == [
        Mount("0:20", "/", "rw,relatime", "ext4", "/dev/vda", "rw"),
        Mount("0:21", "/odd name\ntwo\rthree", "rw", "tmpfs", "", "rw,size=1k"),
        Mount("0:22", "/tail\u2028x", "ro", "fuse.s\\shfs", "me\ttoo", "rw"),
    ]
