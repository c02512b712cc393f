"""The file that a frozen program is: versioned, with its module inside, closed by a hash. This is the one door by which a state comes in.

    "mk9pwasm"  version[4]  size[4]  head, in JSON  module (zlib)  snapshot  input  output  errors  SHA-256 of all before

The hash finds what was cut or damaged. It does not say who made the state: whoever writes one makes a program of their own, as with any module.
"""

import errno
import hashlib
import json
import struct
import zlib
from typing import Any, Final, NoReturn

import attrs

from mk9p.errors import NineError
from mk9p.said import from_json
from mk9p.servers.wasm.snapshot_head import is_number

MAGIC: Final = b"mk9pwasm"
VERSION: Final = 1
MODULE: Final = 64 << 20  # bytes of a module: the largest that are known (a browser's engine, a database) have 30 MB
LARGEST: Final = 4 << 30  # bytes of a state
_HEAD: Final = 1 << 20
_HASH: Final = 32
PARTS: Final = ("module", "snapshot", "stdin", "stdout", "stderr")


@attrs.frozen
class State:
    """A frozen program. `head` has `args`, `env`, `limits`, `grants`, `used`, `module` (the hash of what was loaded), `from`, `time`, `carried`."""

    head: dict[str, Any]
    module: bytes
    snapshot: bytes
    stdin: bytes = b""
    stdout: bytes = b""
    stderr: bytes = b""


def _refuse(words: str) -> NoReturn:
    raise NineError(errno.EBADMSG, f"no state of a program: {words}")


def zipped(module: bytes) -> bytes:
    """Return a module as a state has it."""
    return zlib.compress(module, 1)


def packed(state: State, module: bytes | None = None) -> list[bytes]:
    """Return a state as pieces of a file. `module` is what `zipped` made of its module, where that is known."""
    parts = [module or zipped(state.module), state.snapshot, state.stdin, state.stdout, state.stderr]
    head = json.dumps({**state.head, "sizes": [len(part) for part in parts]}, sort_keys=True).encode()
    pieces = [MAGIC + struct.pack("<II", VERSION, len(head)), head, *parts]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return [*pieces, digest.digest()]


def head_of(data: memoryview) -> dict[str, Any]:
    """Return the head of a state and check that all of it is there. Raises EPROTO for another version, EBADMSG for what is no state, or altered."""
    if bytes(data[:8]) != MAGIC:
        _refuse("it does not begin as one")
    if len(data) < 16 + _HASH:
        _refuse("it is cut short")
    version, size = struct.unpack_from("<II", data, 8)
    if version != VERSION:
        raise NineError(errno.EPROTO, f"a state of version {version}, and this kernel reads version {VERSION}")
    if size > min(_HEAD, len(data) - 16 - _HASH):
        _refuse("it is cut short")
    try:
        head = from_json(bytes(data[16 : 16 + size]))
        sizes = head["sizes"]
        right = len(sizes) == len(PARTS) and all(is_number(each) for each in sizes)
    except (ValueError, KeyError, TypeError):
        _refuse("its head cannot be read")
    if not right or 16 + size + sum(sizes) + _HASH != len(data):
        _refuse("it is cut short, or something was added")
    if hashlib.sha256(data[:-_HASH]).digest() != bytes(data[-_HASH:]):
        _refuse("it was altered")
    return _checked(head)


def _checked(head: dict[str, Any]) -> dict[str, Any]:
    """Return a head whose values are of the right kinds. Raises EBADMSG."""
    words = [head.get("args"), head.get("env")]
    if not all(isinstance(each, list) and all(isinstance(word, str) for word in each) for each in words):
        _refuse("its arguments")
    if not all("=" in word for word in head["env"]):
        _refuse("its environment")
    head.setdefault("carried", {})  # it is in no state of before there were checkpoints
    for name in ("limits", "used", "carried"):
        values = head.get(name)
        if not isinstance(values, dict) or not all(is_number(each) for each in values.values()):
            _refuse(f"its {name}")
    if not is_number(head.get("time")):
        _refuse("its time")
    grants = head.get("grants")
    if not isinstance(grants, list) or not all(
        isinstance(one, list) and [type(part) for part in one] == [str, str, bool] for one in grants
    ):
        _refuse("its grants")
    if not isinstance(head.get("ended"), bool) or not all(
        isinstance(head.get(name), str) for name in ("module", "from")
    ):
        _refuse("its head")
    return head


def unpacked(data: memoryview) -> State:
    """Return the state in a file. Raises as `head_of`, and EBADMSG for a module that is too large."""
    head = head_of(data)
    at = len(data) - _HASH - sum(head["sizes"])
    parts: list[bytes] = []
    for size in head.pop("sizes"):
        parts.append(bytes(data[at : at + size]))
        at += size
    unpacker = zlib.decompressobj()
    try:
        module = unpacker.decompress(parts[0], MODULE)
    except zlib.error:
        _refuse("its module cannot be read")
    if not unpacker.eof:
        _refuse(f"its module has more than {MODULE} bytes")
    return State(head, module, *parts[1:])
