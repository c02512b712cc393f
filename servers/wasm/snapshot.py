"""What a frozen program is: its memories without their empty pages, its globals, its open files. A program's process writes it, and reads it again.

A line of JSON (`Head`) and the pages, compressed. Whoever made it is not believed: sizes are checked before anything is made of them.
"""

import ctypes
import errno
import struct
import zlib
from typing import Any, Final

import attrs
import wasmtime

from mk9p.errors import NineError
from mk9p.servers.wasm.machine import PAGE, Machine
from mk9p.servers.wasm.snapshot_head import altered

_STEP: Final = 4096  # what is left out is left out in pieces of this size
_EMPTY: Final = bytes(_STEP)
_PIECE: Final = 1 << 20
_BITS: Final = {"i32": "<i", "i64": "<q", "f32": "<f", "f64": "<d"}


@attrs.frozen
class Snapshot:
    """`head` is JSON, `pages` the compressed pages."""

    head: dict[str, Any]
    pages: bytes


def take(machine: Machine, more: dict[str, Any]) -> Snapshot:
    """Return the snapshot of a machine that has just been frozen, with `more` in its head."""
    machine.ask(False)
    packer = zlib.compressobj(1)
    pages: list[bytes] = []
    memories: list[dict[str, Any]] = []
    for memory in machine.memories():
        size = memory.data_len(machine.store)
        base = ctypes.addressof(memory.data_ptr(machine.store).contents) if size else 0
        runs: list[list[int]] = []
        for start in range(0, size, _PIECE):
            piece = ctypes.string_at(base + start, min(_PIECE, size - start))
            for at in range(0, len(piece), _STEP):
                if piece[at : at + _STEP] == _EMPTY:
                    continue
                if runs and sum(runs[-1]) == start + at:
                    runs[-1][1] += _STEP
                else:
                    runs.append([start + at, _STEP])
                pages.append(packer.compress(piece[at : at + _STEP]))
        memories.append({"size": size, "runs": runs})
    pages.append(packer.flush())
    values = {name: _bits(machine, each) for name, each in machine.globals().items()}
    return Snapshot({**more, "memories": memories, "globals": values}, b"".join(pages))


def _kind(machine: Machine, each: wasmtime.Global) -> str:
    return str(each.type(machine.store).content)


def _bits(machine: Machine, each: wasmtime.Global) -> str:
    return struct.pack(_BITS[_kind(machine, each)], each.value(machine.store)).hex()


def put_back(machine: Machine, snapshot: Snapshot) -> None:
    """Give a new instance the memories and globals of a snapshot. Raises EBADMSG for one that does not fit it, and ENOMEM for one too large."""
    memories, saved = machine.memories(), snapshot.head["memories"]
    if len(saved) != len(memories):
        altered("other memories")
    unpacker, rest = zlib.decompressobj(), snapshot.pages
    for memory, one in zip(memories, saved, strict=True):
        size, runs = one["size"], one["runs"]
        have = memory.data_len(machine.store)
        if size % PAGE or size < have or size > 1 << 32:
            altered("the size of a memory")
        if memory is memories[0] and size > machine.memory_limit:
            raise NineError(errno.ENOMEM, f"it has {size} bytes of memory, more than its limit")
        if size > have:
            try:
                memory.grow(machine.store, (size - have) // PAGE)
            except wasmtime.WasmtimeError:
                raise NineError(errno.ENOMEM, f"it has {size} bytes of memory, more than its limit") from None
        base = ctypes.addressof(memory.data_ptr(machine.store).contents) if size else 0
        ctypes.memset(base, 0, have)
        end = 0
        for start, length in runs:
            if start < end or length <= 0 or start + length > size:
                altered("pages outside of a memory")
            end = start + length
            for at in range(start, end, _PIECE):
                want = min(_PIECE, end - at)
                piece, rest = _unpacked(unpacker, rest, want)
                ctypes.memmove(base + at, piece, want)
    machine.memory.look()
    machine.bound()
    values, found = snapshot.head["globals"], machine.globals()
    if values.keys() != found.keys():
        altered("other globals")
    for name, each in found.items():
        kind = _kind(machine, each)
        if kind not in _BITS:
            altered("a global of another type")
        (value,) = struct.unpack(_BITS[kind], bytes.fromhex(values[name]))
        each.set_value(machine.store, getattr(wasmtime.Val, kind)(value))


def _unpacked(unpacker: Any, rest: bytes, want: int) -> tuple[bytes, bytes]:
    """Return the next `want` bytes and what is still packed."""
    out = bytearray()
    while len(out) < want:
        try:
            piece = unpacker.decompress(rest, want - len(out))
        except zlib.error:
            altered("pages that cannot be read")
        rest = unpacker.unconsumed_tail
        if not piece and not rest:
            altered("pages are missing")
        out += piece
    return bytes(out), rest
