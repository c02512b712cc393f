"""The head of a snapshot: a line of JSON before the pages. The server reads it too, and has no engine. This is the one door by which it comes in.

clock began cpu  its own time, when the call began that is made again, how long a processor has worked for it, all in ns
memories         [{size, runs: [[start, length]]}], in order
globals          {name: hex}
open             [[number, {stream flags} or what descriptors.Opened.dump says]]
"""

import errno
import json
import struct
from collections.abc import Callable
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
    return _checked(head), data[4 + size :]


def _checked(head: dict[str, Any]) -> dict[str, Any]:
    """Return a head whose values are of the right kinds; whether they fit a module is asked by who has it. Raises EBADMSG."""
    if not all(is_number(head.get(name, 0)) for name in ("clock", "cpu")) or not (
        head.get("began") is None or is_number(head["began"])
    ):
        altered("its clock")
    if not _each(head.get("memories"), _is_memory):
        altered("its memories")
    globals_ = head.get("globals")
    if not isinstance(globals_, dict) or not all(_is_hex(value) for value in globals_.values()):
        altered("its globals")
    if not _each(head.get("open"), _is_open):
        altered("its open files")
    return head


def is_number(value: object) -> bool:
    """Tell whether it is a whole number from 0 on, of 63 bits: a size, a place, a time."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _each(value: object, is_one: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(is_one(each) for each in value)


def _is_hex(value: object) -> bool:
    try:
        return isinstance(value, str) and bytes.fromhex(value).hex() == value
    except ValueError:
        return False


def _is_memory(one: Any) -> bool:
    return isinstance(one, dict) and is_number(one.get("size")) and _each(one.get("runs"), _is_run)


def _is_run(run: Any) -> bool:
    return isinstance(run, list) and len(run) == 2 and all(is_number(n) for n in run)


def _is_open(pair: Any) -> bool:
    if not isinstance(pair, list) or len(pair) != 2 or not is_number(pair[0]) or not isinstance(pair[1], dict):
        return False
    one = pair[1]
    if "stream" in one:
        return one["stream"] in (0, 1, 2) and is_number(one["stream"]) and is_number(one.get("flags"))
    return (
        isinstance(one.get("at"), str)
        and _each(one.get("names"), _is_name)
        and all(isinstance(one.get(name), bool) for name in ("directory", "read", "write", "marked", "granted"))
        and all(is_number(one.get(name)) for name in ("flags", "position"))
        and isinstance(one.get("path"), int)
        and _is_hex(one.get("ahead"))
        and isinstance(one.get("appended", False), bool)
        and (one.get("owed") is None or is_number(one["owed"]))
        and (one.get("listing") is None or _each(one["listing"], _is_entry))
    )


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and "/" not in name and name not in ("", ".", "..")


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and [type(part) for part in entry] == [str, int, int]
