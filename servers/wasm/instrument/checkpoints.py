"""Put checkpoints into a module: one at the head of every loop, and of every function that may call itself. And tell when memory is refused.

A checkpoint looks at a flag in a small memory of its own, which another thread sets. The look is atomic, or the compiler would take it out of the
loop. The loop leaves itself for the call and comes back in by its front, so that it has no call in it: a loop with a call keeps nothing in registers,
and takes three times as long.

    loop B end   ->   block  loop  block  loop (br_if 1 (flag)) B end  br 2  end  call $checkpoint  br 0  end  unreachable  end

`memory.grow` of the program's memory becomes a call of a function that grows it up to the pages that the flag's memory names, and else calls
`mk9p.memory`. (The engine's own limit is for each memory, and the one for the stack is larger than some programs may be.)
"""

from collections.abc import Iterable
from typing import Final

import attrs

from mk9p.servers.wasm.instrument.binary import (
    CODE,
    ELEMENT,
    EXPORT,
    FUNCTION,
    IMPORT,
    IN_FUNC,
    IN_MEMORY,
    MEMORY,
    START,
    TABLE,
    TAG,
    TYPE,
    Instruction,
    Refused,
    constant,
    encoded,
    imports,
    instructions,
    joined,
    name,
    number,
    sections,
    text,
)

FLAG: Final = "mk9p.flag"
LIMIT: Final = 8  # where that memory has how many pages the program may have
OURS: Final = ("checkpoint", "memory")  # what is imported from `mk9p`
_TABLES: Final = frozenset((0x26,))  # table.set
_TABLES_FC: Final = frozenset((12, 14, 15, 17))  # table.init copy grow fill


@attrs.define
class Body:
    """A function's body: its declarations of locals, its instructions, and which functions it may call."""

    head: bytes
    code: list[Instruction]
    calls: set[int]


@attrs.define
class Shape:
    """Numbers of a module: how many functions are imported, how many memories and types there are."""

    imported: int
    memories: int
    types: int
    functions: int

    def moved(self, index: int) -> int:
        """Return the number that a function has after the imports that are added."""
        return index if index < self.imported else index + len(OURS)


def inject(module: bytes) -> bytes:
    """Return a module with checkpoints. Raises Refused with the reason where that cannot be done, and ENOEXEC for what is no module."""
    parts = sections(module)
    if START in parts:
        raise Refused("it has a start section")
    if TAG in parts:
        raise Refused("it uses exceptions (setjmp makes them, too)")
    found = list(imports(parts.get(IMPORT, b"\0")))
    types, i = number(parts.get(TYPE, b"\0"), 0)
    shape = Shape(
        sum(entry.kind == IN_FUNC for entry in found),
        sum(entry.kind == IN_MEMORY for entry in found) + number(parts.get(MEMORY, b"\0"), 0)[0],
        types,
        number(parts.get(FUNCTION, b"\0"), 0)[0],
    )
    _unshared(parts)
    # () -> (), and (i32) -> (i32)
    parts[TYPE] = encoded(types + 2) + parts.get(TYPE, b"\0")[i:] + b"\x60\0\0" + b"\x60\1\x7f\1\x7f"
    ours = b"".join(name("mk9p") + name(word) + bytes([IN_FUNC]) + encoded(types) for word in OURS)
    parts[IMPORT] = encoded(len(found) + len(OURS)) + _rest(parts.get(IMPORT, b"\0")) + ours
    parts[FUNCTION] = encoded(shape.functions + 1) + _rest(parts.get(FUNCTION, b"\0")) + encoded(types + 1)
    memories = number(parts.get(MEMORY, b"\0"), 0)[0]
    parts[MEMORY] = encoded(memories + 1) + _rest(parts.get(MEMORY, b"\0")) + b"\1\1\1"
    parts[EXPORT] = _exports(parts.get(EXPORT, b"\0"), shape)
    taken: set[int] = set()
    if ELEMENT in parts:
        parts[ELEMENT] = _elements(parts[ELEMENT], shape, taken)
    parts[CODE] = _code(parts.get(CODE, b"\0"), shape, taken)
    return joined(parts)


def _rest(section: bytes) -> bytes:
    """Return the entries of a section without their count."""
    return section[number(section, 0)[1] :]


def _unshared(parts: dict[int, bytes]) -> None:
    section = parts.get(MEMORY, b"\0")
    count, i = number(section, 0)
    for _ in range(count):
        flags = section[i]
        if flags & 2:
            raise Refused("it uses threads")
        if flags > 1:
            raise Refused("it uses 64-bit memories or custom pages")
        _, i = number(section, i + 1)
        if flags & 1:
            _, i = number(section, i)
    if TABLE in parts and 0x40 in parts[TABLE][1:2]:
        raise Refused("it uses typed references")


def _exports(section: bytes, shape: Shape) -> bytes:
    count, i = number(section, 0)
    out: list[bytes] = []
    for _ in range(count):
        start = i
        word, i = text(section, i)
        if word.startswith(("mk9p.", "asyncify_")):
            raise Refused(f"it exports {word!r}, a name of ours")
        kind, at = section[i], i + 1
        index, i = number(section, at)
        out.append(section[start:at] + encoded(shape.moved(index) if kind == IN_FUNC else index))
    out.append(name(FLAG) + bytes([IN_MEMORY]) + encoded(shape.memories))
    return encoded(len(out)) + b"".join(out)


def _elements(section: bytes, shape: Shape, taken: set[int]) -> bytes:
    """Return the element section with the functions' new numbers, and note which functions may be called through tables."""
    count, i = number(section, 0)
    out = bytearray(encoded(count))
    for _ in range(count):
        flags, i = number(section, i)
        out += encoded(flags)
        if flags & 4 or flags > 3:
            raise Refused("its tables are filled by expressions")
        if flags in (0, 2):
            start = i
            if flags == 2:
                _, i = number(section, i)
            i = constant(section, i)
            out += section[start:i]
        if flags:
            out += section[i : i + 1]
            i += 1
        members, i = number(section, i)
        out += encoded(members)
        for _ in range(members):
            index, i = number(section, i)
            taken.add(index)
            out += encoded(shape.moved(index))
    return bytes(out)


def _bodies(section: bytes, shape: Shape, taken: set[int]) -> list[Body]:
    count, i = number(section, 0)
    bodies: list[Body] = []
    indirect: list[Body] = []
    for _ in range(count):
        size, i = number(section, i)
        end = i + size
        groups, at = number(section, i)
        for _ in range(groups):
            _, at = number(section, at)
            at += 1
        body = Body(section[i:at], list(instructions(section, at, end)), set())
        for one in body.code:
            if one.op in (0x10, 0x12):
                body.calls.add(number(section, one.at)[0])
            elif one.op in (0x11, 0x13):
                indirect.append(body)
            elif one.op == 0xD2:
                taken.add(number(section, one.at)[0])
            if one.op in (0x12, 0x13):
                raise Refused("it uses tail calls")
            if one.op in _TABLES or (one.op == 0xFC and one.sub in _TABLES_FC):
                raise Refused("it changes tables")
        bodies.append(body)
        i = end
    for body in indirect:
        body.calls |= taken
    return bodies


def _code(section: bytes, shape: Shape, taken: set[int]) -> bytes:
    bodies = _bodies(section, shape, taken)
    calls = [{index - shape.imported for index in body.calls if index >= shape.imported} for body in bodies]
    if any(index >= len(bodies) for each in calls for index in each):
        raise Refused("it calls functions that it has not")
    again = recursive(calls)
    out = bytearray(encoded(len(bodies) + 1))
    for index, body in enumerate(bodies):
        code = Rewriter(section, shape).body(body, entry=index in again)
        out += encoded(len(code)) + code
    refused = b"\x04\x40\x10" + encoded(shape.imported + 1) + b"\x0b"  # if call end
    grow = (
        # no locals; the first number, memory.size, i32.add, i32.const 0, i32.load of the limit, i32.gt_u
        b"\0\x20\0\x3f\0\x6a\x41\0\x28\x42"
        + encoded(shape.memories)
        + encoded(LIMIT)
        + b"\x4b"
        + refused
        # memory.grow, and again where that is -1
        + b"\x20\0\x40\0\x22\0\x41\x7f\x46"
        + refused
        + b"\x20\0\x0b"
    )
    return bytes(out + encoded(len(grow)) + grow)


class Rewriter:
    """Rewrites one function's body."""

    def __init__(self, section: bytes, shape: Shape) -> None:
        self.section, self.shape = section, shape
        # i32.const 0, i32.atomic.load of the flag's memory
        self.look = b"\x41\0\xfe\x10\x42" + encoded(shape.memories) + b"\0"
        self.call = b"\x10" + encoded(shape.imported)
        self.grow = b"\x10" + encoded(shape.imported + len(OURS) + shape.functions)
        self.depths = [0]  # for each label that is open, how deep it lies now
        self.loops: list[bool] = []  # whether it is a loop with a checkpoint

    def body(self, body: Body, *, entry: bool) -> bytes:
        """Return the body with checkpoints; `entry`: also one at its beginning."""
        out = bytearray(body.head)
        if entry:
            out += self.look + b"\x04\x40" + self.call + b"\x0b"
        for one in body.code:
            out += self.instruction(one)
        return bytes(out)

    def instruction(self, one: Instruction) -> bytes:
        section, op = self.section, one.op
        plain = section[one.start : one.end]
        if op in (0x02, 0x04):
            self._open(1, False)
            return plain
        if op == 0x03:
            kind = section[one.at : one.end]
            if len(kind) > 1 or kind[0] < 0x40:
                raise Refused("it has loops with parameters")
            self._open(4, True)
            return b"\x02" + kind + b"\x03\x40\x02\x40\x03" + kind + self.look + b"\x0d\1"
        if op == 0x0B:
            if not self.loops:
                return plain
            self.depths.pop()
            return b"\x0b\x0c\2\x0b" + self.call + b"\x0c\0\x0b\x00\x0b" if self.loops.pop() else plain
        if op in (0x0C, 0x0D):
            return bytes([op]) + self._label(number(section, one.at)[0])
        if op == 0x0E:
            count, at = number(section, one.at)
            out = b"\x0e" + encoded(count)
            for _ in range(count + 1):
                label, at = number(section, at)
                out += self._label(label)
            return out
        if op in (0x10, 0xD2):
            return bytes([op]) + encoded(self.shape.moved(number(section, one.at)[0]))
        if op == 0x40 and section[one.at] == 0:
            return self.grow
        return plain

    def _open(self, levels: int, loop: bool) -> None:
        self.depths.append(self.depths[-1] + levels)
        self.loops.append(loop)

    def _label(self, label: int) -> bytes:
        """Return a label's number after the loops have got three more blocks around them."""
        at = len(self.depths) - 1 - label
        if at < 0:
            raise Refused("it branches to nowhere")
        return encoded(self.depths[-1] - self.depths[at])


def recursive(calls: list[set[int]]) -> set[int]:
    """Return the functions that lie on a cycle of calls (Tarjan's algorithm, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on: set[int] = set()
    found: set[int] = set()

    def enter(v: int) -> tuple[int, Iterable[int]]:
        index[v] = low[v] = len(index)
        stack.append(v)
        on.add(v)
        return v, iter(calls[v])

    for root in range(len(calls)):
        work = [] if root in index else [enter(root)]
        while work:
            v, rest = work[-1]
            for x in rest:
                if x not in index:
                    work.append(enter(x))
                    break
                if x in on:
                    low[v] = min(low[v], index[x])
            else:
                work.pop()
                if work:
                    above = work[-1][0]
                    low[above] = min(low[above], low[v])
                if low[v] == index[v]:
                    group: list[int] = []
                    while not group or group[-1] != v:
                        group.append(stack.pop())
                    on.difference_update(group)
                    if len(group) > 1 or v in calls[v]:
                        found.update(group)
    return found
