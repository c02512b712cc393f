"""The head of a snapshot: a line of JSON before the pages. The server reads it too, and has no engine."""

import errno
import json
import struct
from typing import Any, Final, NoReturn

from mk9p.errors import NineError
from mk9p.said import from_json

HEAD: Final = (
    16 << 20
)  # the longest head: names of 1024 open files, a large directory's listing, what was read ahead of them


def altered(words: str) -> NoReturn:
    """Refuse a state."""
    raise NineError(errno.EBADMSG, f"the state was altered: {words}")


def packed(head: dict[str, Any], pages: bytes) -> bytes:
    """Return a snapshot as bytes."""
    text = json.dumps(head).encode()
    return struct.pack("<I", len(text)) + text + pages


def head_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the head and the pages that bytes are. Raises EBADMSG."""
    if len(data) < 4:
        altered("its snapshot is cut short")
    (size,) = struct.unpack_from("<I", data)
    if size > HEAD or size > len(data) - 4:
        altered("its snapshot is cut short")
    try:
        head = from_json(data[4 : 4 + size])
    except ValueError:
        altered("its head cannot be read")
    if not isinstance(head, dict):
        altered("its head cannot be read")
    return head, data[4 + size :]
