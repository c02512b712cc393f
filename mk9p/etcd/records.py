"""Keys and values as etcd's JSON has them: keys and values in base64, 64-bit numbers as text, and what is 0, false or empty is not there.

What an answer says is read here and nowhere else. What it cannot say raises EPROTO.
"""

import base64
import binascii
import errno
from typing import Any, Final

import attrs

from mk9p.errors import NineError

Json = dict[str, Any]
_MOST: Final = (1 << 63) - 1


@attrs.frozen
class Record:
    """A key with its value: the revisions in which it was made and last written, and the lease of etcd's that it goes with, 0 for none."""

    key: str
    value: bytes
    made: int
    written: int
    lease: int = 0


def coded(text: str | bytes) -> str:
    """Return a key or a value as JSON has it."""
    return base64.b64encode(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")).decode()


def end_of(prefix: str) -> str:
    """Return the end of the range of all keys that begin with a prefix, as JSON has it."""
    data = prefix.encode("utf-8", "surrogateescape")
    return coded(data[:-1] + bytes([data[-1] + 1]))


def number(source: Json, key: str) -> int:
    """Return a number of an answer, 0 if it is not there."""
    value = source.get(key, 0)
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):
        found = -1
    if isinstance(value, bool) or not 0 <= found <= _MOST:
        raise NineError(errno.EPROTO, f"etcd says {key} {value!r:.80}")
    return found


def part(source: Any, key: str) -> Json:
    """Return a part of an answer, empty if it is not there."""
    value = source.get(key, {}) if isinstance(source, dict) else None
    if not isinstance(value, dict):
        raise NineError(errno.EPROTO, f"etcd says {key} {value!r:.80}")
    return value


def parts(source: Any, key: str) -> list[Json]:
    """Return the parts of a list of an answer."""
    value = source.get(key, []) if isinstance(source, dict) else None
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise NineError(errno.EPROTO, f"etcd says {key} {value!r:.80}")
    return value


def decoded(source: Json, key: str) -> bytes:
    """Return a key or a value of an answer."""
    try:
        return base64.b64decode(source.get(key, ""), validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise NineError(errno.EPROTO, f"etcd says {key} {source.get(key)!r:.80}") from None


def record(kv: Json) -> Record:
    """Return a key with its value."""
    key = decoded(kv, "key").decode("utf-8", "surrogateescape")
    made, written = number(kv, "create_revision"), number(kv, "mod_revision")
    return Record(key, decoded(kv, "value"), made, written, number(kv, "lease"))


def revision(answer: Json) -> int:
    """Return the revision that an answer tells."""
    return number(part(answer, "header"), "revision")


# what a transaction compares and does

EQUAL: Final = "EQUAL"


def untouched(key: str, written: int) -> Json:
    """Compare: a key was last written in that revision; 0: it is not there."""
    return {"key": coded(key), "target": "MOD", "result": EQUAL, "mod_revision": str(written)}


def same(key: str, made: int) -> Json:
    """Compare: a key is there since that revision; 0: it is not there."""
    return {"key": coded(key), "target": "CREATE", "result": EQUAL, "create_revision": str(made)}


def unchanged(prefix: str, since: int) -> Json:
    """Compare: nothing below a prefix was written after that revision. What was removed is not seen."""
    return {
        "key": coded(prefix),
        "range_end": end_of(prefix),
        "target": "MOD",
        "result": "LESS",
        "mod_revision": str(since + 1),
    }


def put(key: str, value: str | bytes, lease: int = 0) -> Json:
    """Write a key; with a lease it goes with that."""
    body = {"key": coded(key), "value": coded(value)}
    return {"request_put": body | ({"lease": str(lease)} if lease else {})}


def delete(key: str) -> Json:
    """Remove a key."""
    return {"request_delete_range": {"key": coded(key)}}


def get(key: str) -> Json:
    """Read a key."""
    return {"request_range": {"key": coded(key)}}


def newest(prefix: str) -> Json:
    """Read what was last written below a prefix."""
    return {
        "request_range": {
            "key": coded(prefix),
            "range_end": end_of(prefix),
            "limit": "1",
            "sort_order": "DESCEND",
            "sort_target": "MOD",
        }
    }


@attrs.frozen
class Outcome:
    """What became of a transaction: done or not, in which revision, and what its reads found, each in its place."""

    done: bool
    revision: int
    found: tuple[tuple[Record, ...], ...]

    @classmethod
    def read(cls, answer: Json) -> "Outcome":
        """Read an answer."""
        reads = (part(one, "response_range") for one in parts(answer, "responses"))
        found = tuple(tuple(record(kv) for kv in parts(one, "kvs")) for one in reads)
        return cls(answer.get("succeeded") is True, revision(answer), found)
