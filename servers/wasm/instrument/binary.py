"""The binary form of WebAssembly modules, as far as instrumenting them needs it: sections, LEB128 numbers, instructions. No module is believed.

Follows the WebAssembly core specification 2.0, with multiple memories, atomics and SIMD.
"""

import errno
from collections.abc import Iterator
from typing import Final, NamedTuple

from mk9p.errors import NineError

MAGIC: Final = b"\0asm\1\0\0\0"
COMPONENT: Final = b"\0asm\x0d\0\1\0"

TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, CODE, DATA, COUNT, TAG = range(1, 14)
ORDER: Final = (TYPE, IMPORT, FUNCTION, TABLE, MEMORY, TAG, GLOBAL, EXPORT, START, ELEMENT, COUNT, CODE, DATA)

IN_FUNC, IN_TABLE, IN_MEMORY, IN_GLOBAL, IN_TAG = range(5)  # the kinds of imports and exports

_VALUE: Final = frozenset((0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x70, 0x6F))
_ONE_NUMBER: Final = frozenset(
    (0x0C, 0x0D, 0x10, 0x12, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0xD2, 0x3F, 0x40, 0xD0)
)
_NONE: Final = frozenset((0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B, 0xD1, *range(0x45, 0xC5)))


class Refused(Exception):
    """The module cannot be made freezable, and may run all the same; the words say why."""


class Instruction(NamedTuple):
    """An instruction: where it stands, its opcode, the second number of a prefixed one, where its immediates begin, and its end."""

    start: int
    op: int
    sub: int
    at: int
    end: int


def not_a_module(words: str) -> NineError:
    """Return the error of bytes that no program can be made of."""
    return NineError(errno.ENOEXEC, words)


def number(b: bytes, i: int) -> tuple[int, int]:
    """Read an unsigned LEB128 number of at most 32 bits; return it and the place behind it."""
    value = shift = 0
    while True:
        byte = b[i]
        i += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 128:
            if value >> 32:
                raise not_a_module("not a wasm module: a number is too large")
            return value, i
        if shift > 28:
            raise not_a_module("not a wasm module: a number is too long")


def encoded(n: int) -> bytes:
    """Return a number as unsigned LEB128."""
    out = bytearray()
    while True:
        n, low = n >> 7, n & 0x7F
        if not n:
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def text(b: bytes, i: int) -> tuple[str, int]:
    """Read a name; return it and the place behind it."""
    length, i = number(b, i)
    if i + length > len(b):
        raise not_a_module("not a wasm module: it is cut short")
    try:
        return b[i : i + length].decode(), i + length
    except UnicodeDecodeError:
        raise not_a_module("not a wasm module: a name is not UTF-8") from None


def name(word: str) -> bytes:
    """Return a name as a module has it."""
    return encoded(len(word.encode())) + word.encode()


def signed(b: bytes, i: int) -> int:
    """Return the place behind a number of any kind."""
    while b[i] >= 128:
        i += 1
    return i + 1


def limits(b: bytes, i: int) -> int:
    """Return the place behind the limits of a table or memory."""
    flags = b[i]
    if flags > 3:
        raise Refused("it uses 64-bit memories or custom pages")
    _, i = number(b, i + 1)
    if flags & 1:
        _, i = number(b, i)
    return i


def constant(b: bytes, i: int) -> int:
    """Return the place behind an initial value."""
    while True:
        op = b[i]
        i += 1
        if op == 0x0B:
            return i
        if op in (0x41, 0x42, 0x23, 0xD2, 0xD0):
            i = signed(b, i)
        elif op == 0x43:
            i += 4
        elif op == 0x44:
            i += 8
        elif op == 0xFD:
            i = signed(b, i) + 16
        elif op not in (0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E):
            raise Refused(f"it has an initial value with the instruction {op:#x}")


def sections(module: bytes) -> dict[int, bytes]:
    """Return the sections of a module by number, without the custom ones. Raises ENOEXEC for bytes that are no core module."""
    if module[:8] == COMPONENT:
        raise not_a_module("a component, for WASI preview 2: want a core module, for preview 1")
    if module[:8] != MAGIC:
        raise not_a_module("not a wasm module")
    found: dict[int, bytes] = {}
    i = 8
    while i < len(module):
        kind = module[i]
        try:
            size, i = number(module, i + 1)
        except IndexError:
            raise not_a_module("not a wasm module: it is cut short") from None
        if i + size > len(module):
            raise not_a_module("not a wasm module: it is cut short")
        if kind and (kind in found or kind > TAG):
            raise not_a_module(f"not a wasm module: section {kind} is unknown, or there twice")
        if kind:
            found[kind] = module[i : i + size]
        i += size
    return found


def joined(parts: dict[int, bytes]) -> bytes:
    """Return a module of its sections."""
    return MAGIC + b"".join(bytes([kind]) + encoded(len(parts[kind])) + parts[kind] for kind in ORDER if kind in parts)


class Import(NamedTuple):
    """An import: where it is from, its kind, and where its description begins and ends."""

    module: str
    name: str
    kind: int
    at: int
    end: int


def imports(section: bytes) -> Iterator[Import]:
    """Give the imports of an import section."""
    count, i = number(section, 0)
    for _ in range(count):
        module, i = text(section, i)
        what, i = text(section, i)
        kind, at = section[i], i + 1
        if kind == IN_FUNC:
            _, i = number(section, at)
        elif kind == IN_TABLE:
            i = limits(section, at + 1)
        elif kind == IN_MEMORY:
            i = limits(section, at)
        elif kind == IN_GLOBAL:
            i = at + 2
        else:
            raise Refused("it imports exceptions")
        yield Import(module, what, kind, at, i)


def _memory_place(b: bytes, i: int) -> int:
    flags, i = number(b, i)
    if flags & 0x40:
        _, i = number(b, i)
    return signed(b, i)


def _block_type(b: bytes, i: int) -> int:
    return i + 1 if b[i] == 0x40 or b[i] in _VALUE else signed(b, i)


def instructions(b: bytes, i: int, end: int) -> Iterator[Instruction]:
    """Give the instructions of a function's body. Raises Refused at one that cannot be made freezable."""
    while i < end:
        start, op, sub = i, b[i], 0
        i += 1
        at = i
        if op in (0x02, 0x03, 0x04):
            i = _block_type(b, i)
        elif op in _ONE_NUMBER:
            i = signed(b, i)
        elif op in _NONE:
            pass
        elif 0x28 <= op <= 0x3E:
            i = _memory_place(b, i)
        elif op in (0x41, 0x42):
            i = signed(b, i)
        elif op in (0x11, 0x13):
            i = signed(b, signed(b, i))
        elif op == 0x0E:
            count, i = number(b, i)
            for _ in range(count + 1):
                _, i = number(b, i)
        elif op == 0x1C:
            count, i = number(b, i)
            i += count
        elif op == 0x43:
            i += 4
        elif op == 0x44:
            i += 8
        elif op in (0xFC, 0xFD, 0xFE):
            sub, at = number(b, i)
            i = _prefixed(b, op, sub, at)
        else:
            raise Refused(_why(op))
        yield Instruction(start, op, sub, at, i)


def _prefixed(b: bytes, op: int, sub: int, i: int) -> int:
    if op == 0xFC:
        if sub in (8, 10, 12, 14):
            return signed(b, signed(b, i))
        if sub in (9, 11, 13, 15, 16, 17):
            return signed(b, i)
        if sub > 17:
            raise Refused(f"it has the instruction 0xfc {sub}")
        return i
    if op == 0xFD:
        if sub >= 0x100:
            raise Refused("it uses relaxed SIMD, whose results differ between machines")
        if sub <= 11 or sub in (92, 93):
            return _memory_place(b, i)
        if sub in (12, 13):
            return i + 16
        if 21 <= sub <= 34:
            return i + 1
        return _memory_place(b, i) + 1 if 84 <= sub <= 91 else i
    if sub in (0, 1, 2):
        raise Refused("it uses threads")
    return i + 1 if sub == 3 else _memory_place(b, i)


def _why(op: int) -> str:
    if op in (0x06, 0x07, 0x08, 0x09, 0x0A, 0x18, 0x19, 0x1F):
        return "it uses exceptions (setjmp makes them, too)"
    if op in (0xFB, 0x14, 0x15, 0xD3, 0xD4, 0xD5, 0xD6):
        return "it uses garbage collection or typed references"
    return f"it has the instruction {op:#x}"
