"""Export all that a module keeps, under names of ours: mutable globals `mk9p.gN`, memories `mk9p.mN`. That is what a state is made of."""

from typing import Final

from mk9p.servers.wasm.instrument.binary import (
    EXPORT,
    GLOBAL,
    IMPORT,
    IN_GLOBAL,
    IN_MEMORY,
    MEMORY,
    Refused,
    constant,
    encoded,
    imports,
    joined,
    name,
    number,
    sections,
    text,
)

_NUMBERS: Final = b"\x7f\x7e\x7d\x7c"  # i32 i64 f32 f64


def expose(module: bytes) -> bytes:
    """Return a module with its state exported."""
    parts = sections(module)
    mutable: list[int] = []
    globals_ = memories = 0
    for entry in imports(parts.get(IMPORT, b"\0")):
        if entry.kind == IN_MEMORY:
            memories += 1
        elif entry.kind == IN_GLOBAL:
            if parts[IMPORT][entry.at + 1]:
                mutable.append(globals_)
            globals_ += 1
    memories += number(parts.get(MEMORY, b"\0"), 0)[0]
    section = parts.get(GLOBAL, b"\0")
    count, i = number(section, 0)
    for _ in range(count):
        if section[i + 1]:
            if section[i] not in _NUMBERS:
                raise Refused("it changes globals that are no numbers")
            mutable.append(globals_)
        globals_ += 1
        i = constant(section, i + 2)
    entries: list[bytes] = []
    section = parts.get(EXPORT, b"\0")
    count, i = number(section, 0)
    for _ in range(count):
        start = i
        _, i = text(section, i)
        _, i = number(section, i + 1)
        entries.append(section[start:i])
    entries += [name(f"mk9p.g{n}") + bytes([IN_GLOBAL]) + encoded(n) for n in mutable]
    entries += [name(f"mk9p.m{n}") + bytes([IN_MEMORY]) + encoded(n) for n in range(memories)]
    parts[EXPORT] = encoded(len(entries)) + b"".join(entries)
    return joined(parts)
