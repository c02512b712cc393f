"""What a device tree of that kernel must be before a parser sees it, and the parsers: kerf's, which expect no evil.

libfdt finds out whether a tree is whole: without that, a length in it leads a reader out of the bytes that there are.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mk9p.errors import NineError
from mk9p.ktext import split_words

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL: Final = "this needs kerf: pip install 'mk9p[multikernel]'"
MOST_NODES: Final = 16384
DEEPEST: Final = 16  # nodes: PCI bridges lie in one another
WORDS: Final = 300  # letters of an answer that are passed on

_NAME: Final = re.compile(
    r"[A-Za-z0-9,._+?#@-]{1,63}"
)  # of a node or a property: the Devicetree Specification, with room


def library(name: str) -> Any:
    """Return a module of kerf, or of what it brings. Raises ENOSYS saying what to install."""
    try:
        return import_module(name)
    except ImportError:
        raise NineError(errno.ENOSYS, INSTALL) from None


def wrong(what: str) -> NineError:
    return NineError(errno.EIO, f"multikernel: {what}")


def plain(text: str) -> str:
    """Return words of that kernel as one line of limited length that a terminal can show."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(split_words(text))[:WORDS])


def checked(blob: bytes) -> bytes:
    """Return a device tree if it is one: whole, of limited depth and number of nodes, with plain names. Raises EIO."""
    fdt = library("libfdt")
    if len(blob) < 40 or fdt.fdt_check_full(bytearray(blob), len(blob)) != 0:
        raise wrong("what should be a device tree is none")
    with parsing("a device tree"):
        tree = fdt.Fdt(blob)
        node, depth, seen = 0, 0, 0
        while node >= 0 and depth >= 0:
            seen += 1
            if seen > MOST_NODES or depth > DEEPEST:
                raise ValueError(f"it has more than {MOST_NODES} nodes, or deeper ones than {DEEPEST}")
            if node and not _NAME.fullmatch(tree.get_name(node)):
                raise ValueError("a node has no plain name")
            at = tree.first_property_offset(node, fdt.QUIET_NOTFOUND)
            while at >= 0:
                if not _NAME.fullmatch(tree.get_property_by_offset(at).name):
                    raise ValueError("a property has no plain name")
                at = tree.next_property_offset(at, fdt.QUIET_NOTFOUND)
            found = tree.next_node(node, depth, fdt.QUIET_NOTFOUND)
            node, depth = found if isinstance(found, list | tuple) else (found, 0)
    return blob


@contextmanager
def parsing(what: str) -> Iterator[None]:
    """Turn whatever a parser makes of an answer that does not fit together into one EIO."""
    try:
        yield
    except NineError:
        raise
    except OSError as error:
        raise NineError(error.errno or errno.EIO, f"multikernel: {what}: {error.strerror}") from None
    except Exception as error:
        raise wrong(f"{what}: {plain(str(error))}") from None


@contextmanager
def memory_file(data: bytes) -> Iterator[str]:
    """Give bytes that were checked as a file, for functions of kerf that take a path."""
    file = os.memfd_create("checked", os.MFD_CLOEXEC)
    try:
        os.write(file, data)
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)
