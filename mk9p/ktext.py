"""Text of the kernel, split as the kernel puts it together: a line ends at a newline, words lie between blanks, and nothing else divides.

Python's own rules know more: `str.splitlines` and a file opened as text also end a line at CR, VT, NEL and U+2028, and `str.split` knows U+00A0.
The kernel shows names that users choose (processes, mount points, cgroups). It escapes the newline in them, and at most also blanks. With Python's
rules such a name can look like the kernel's next line. So only these functions split what the kernel or a server says, and tests/test_layers.py
refuses the others. All take text or bytes.
"""

import os
import re
from collections.abc import Iterator
from typing import AnyStr, Final

import attrs

__all__ = ["Mount", "field", "mounts", "split_lines", "split_words", "trim", "unescaped", "whole"]

_BYTES: Final = re.compile(rb"[^ \t\n]+")
_TEXT: Final = re.compile(r"[^ \t\n]+")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def split_lines(text: AnyStr) -> list[AnyStr]:
    """Return the lines of a text, without their newlines; what follows the last newline is a line if it is not empty."""
    found = text.split("\n" if isinstance(text, str) else b"\n")
    if not found[-1]:
        del found[-1]
    return found


def split_words(line: AnyStr) -> list[AnyStr]:
    """Return the words between blanks, tabs and newlines, none of them empty."""
    return _TEXT.findall(line) if isinstance(line, str) else _BYTES.findall(line)


def trim(text: AnyStr) -> AnyStr:
    """Return a text without the blanks, tabs and newlines around it."""
    return text.strip(" \t\n" if isinstance(text, str) else b" \t\n")


def field(text: AnyStr, key: AnyStr) -> AnyStr:
    """Return the value of the first `key: value` line, as /proc/N/status has them; empty if there is none."""
    colon = ":" if isinstance(text, str) else b":"
    for line in split_lines(text):
        name, _, value = line.partition(colon)
        if name == key:
            return trim(value)
    return text[:0]


def whole(path: str | os.PathLike[str]) -> str:
    """Return a small file as text, with its newlines as they are; bytes that are not UTF-8 become surrogates. Raises OSError."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read()


@attrs.frozen
class Mount:
    """One line of /proc/N/mountinfo (proc_pid_mountinfo(5)), with its escapes undone: an odd name or an empty source is only that."""

    device: str
    target: str
    options: str
    kind: str
    source: str
    inner: str  # the file system's own options


def mounts(mountinfo: bytes) -> Iterator[Mount]:
    """Yield the lines of /proc/N/mountinfo in order, later mounts last. Leave out a line of another form."""
    for line in split_lines(os.fsdecode(mountinfo)):
        before, dash, after = line.partition(" - ")
        outer, inner = before.split(" "), after.split(" ")
        if dash and len(outer) > 5 and len(inner) > 2:
            device, _, target, options = outer[2:6]
            yield Mount(device, *map(unescaped, (target, options, inner[0], inner[1], inner[2])))


def unescaped(word: str) -> str:
    """Return a word with the kernel's octal escapes undone: `\\040` is a blank (mangle_path, fs/seq_file.c)."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), word)
