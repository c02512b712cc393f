"""Names of files as the host has them, bytes, and as 9P has them, UTF-8 text.

A byte that is no part of valid UTF-8 becomes a character of Unicode's private use area, 0x80 as U+EF80 to 0xFF as U+EFFF (MirBSD's OPTU, which
others took over), and such a character in a name from a client is that byte again. So each file of the host has a name, and clients can walk to
it, rename and remove it. A host's name that itself has such characters is shown byte by byte in the same way, so no two files have one name.
"""

import errno
import re
from typing import Final

from mk9p.errors import NineError

_FIRST: Final = 0xEF00
_ESCAPED: Final = re.compile("[\uef80-\uefff]")
_LONE: Final = re.compile("[\udc80-\udcff]")  # Python's form of a byte that it could not decode (PEP 383)


def to_host(name: str) -> bytes:
    """Return the bytes of a name that came from a client."""
    if name.isascii():
        return name.encode()
    return _ESCAPED.sub(lambda found: chr(ord(found[0]) - _FIRST + 0xDC00), name).encode("utf-8", "surrogateescape")


def from_host(name: str | bytes) -> str:
    """Return a name of the host in the form for clients. Takes bytes, or text as Python's `os` functions return it."""
    if isinstance(name, bytes):
        name = name.decode("utf-8", "surrogateescape")
    if name.isascii():
        return name
    if _ESCAPED.search(name):
        name = _ESCAPED.sub(lambda found: "".join(chr(_FIRST + byte) for byte in found[0].encode()), name)
    return _LONE.sub(lambda found: chr(ord(found[0]) - 0xDC00 + _FIRST), name)


def entry_name(name: str) -> bytes:
    """Return the name of a file in a directory; raises EINVAL for one that leads elsewhere."""
    if name in ("", ".", "..") or "/" in name:
        raise NineError(errno.EINVAL, "illegal name")
    return to_host(name)
