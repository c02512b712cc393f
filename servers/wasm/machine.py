"""The engine: one instance of a module, its memories, and how it is stopped and goes on.

A program is asked to freeze by a flag in a memory of its own (instrument/checkpoints.py), which another thread sets through a raw pointer, and by a
byte in a pipe for whoever waits in a call. At its next checkpoint, or in that call, its stack is taken down into a second memory (asyncify). The
snapshot is all memories and mutable globals. To go on, they are put back, and the stack is put up again, which ends in the call where it began: that
call is then made again.

Engines of all machines are set up alike, so that the same program goes the same way: NaNs are made canonical, relaxed SIMD is not taken.
"""

import ctypes
import errno
import hashlib
import os
import platform
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import wasmtime

from mk9p.errors import NineError
from mk9p.itself import unique
from mk9p.servers.wasm.calls import Calls
from mk9p.servers.wasm.instrument.checkpoints import FLAG, LIMIT
from mk9p.servers.wasm.wasi.numbers import FAULT, Error

STACK: Final = 2 << 20  # bytes of the engine's own stack, the most that it has
STACK_PAGES: Final = 256  # of the memory for a stack that was taken down (instrument/asyncify.py): eight times that
PAGE: Final = 65536
_CACHED: Final = 256  # files of a user's cache; each module has two
_FLAG, _MEMORY, _GLOBAL = FLAG, "mk9p.m", "mk9p.g"


class Ended(Exception):
    """The program has ended; the words say how, as `wait` does."""


class Frozen(Exception):
    """The call is not made now: the program is to be frozen."""


def engine(*, fuel: bool) -> wasmtime.Engine:
    """Return an engine. Two of another setting have no code in common."""
    config = wasmtime.Config()
    config.wasm_threads = True
    config.wasm_multi_memory = True
    config.wasm_exceptions = True
    config.wasm_tail_call = True
    config.wasm_relaxed_simd = False
    config.cranelift_nan_canonicalization = True
    config.max_wasm_stack = STACK
    config.consume_fuel = fuel
    return wasmtime.Engine(config)


def compiled(module: bytes, *, fuel: bool, cache: str) -> tuple[wasmtime.Engine, wasmtime.Module]:
    """Return a module for this machine, from the cache if it is there; `cache` is a directory of this user's own, or "".

    Raises ENOEXEC for a module that is not valid.
    """
    made = engine(fuel=fuel)
    what = f"{platform.machine()} {fuel} {STACK} {hashlib.sha256(module).hexdigest()}"
    place = cached(cache, hashlib.sha256(what.encode()).hexdigest() + ".code")
    if place is not None and place.exists():
        try:
            return made, wasmtime.Module.deserialize_file(made, str(place))
        except (wasmtime.WasmtimeError, OSError):
            place.unlink(missing_ok=True)  # of another processor, or cut by a full disk
    try:
        ready = wasmtime.Module(made, module)
    except wasmtime.WasmtimeError as error:
        raise NineError(errno.ENOEXEC, f"not a valid module: {one_line(error)}") from None
    if place is not None:
        keep(place, bytes(ready.serialize()))
    return made, ready


def cached(cache: str, name: str) -> Path | None:
    """Return where something is in the cache, None without one. What is there is run as it is: nobody else may write to it."""
    try:
        status = os.stat(cache)
    except OSError:  # none, or not for this user
        return None
    return Path(cache, name) if status.st_uid == os.geteuid() and not status.st_mode & 0o077 else None


def keep(place: Path, data: bytes) -> None:
    """Put something into the cache, as a whole or not at all."""
    part = place.with_name(unique(place.name))
    try:
        old = sorted(place.parent.iterdir(), key=lambda each: each.stat().st_mtime)
        for each in old[: max(0, len(old) - _CACHED)]:
            each.unlink()
        part.write_bytes(data)
        part.rename(place)
    except OSError:  # it is full, or somebody has cleared it: the next one makes it again
        part.unlink(missing_ok=True)


def one_line(error: Exception) -> str:
    """Return the cause of an engine's error in words."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return (lines or ["unknown"])[-1][:200]


class Memory:
    """The program's own memory. Every address that a program gives is checked here."""

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self.store, self.memory = store, memory
        self.look()

    def look(self) -> None:
        """Learn where the memory is, and how large."""
        self.size = self.memory.data_len(self.store)
        self.base = ctypes.addressof(self.memory.data_ptr(self.store).contents) if self.size else 0

    def at(self, p: int, n: int) -> int:
        """Return the raw address of `n` bytes. Raises FAULT outside of the memory."""
        if p + n > self.size:
            self.look()
            if p + n > self.size:
                raise Error(FAULT)
        return self.base + p

    def get(self, p: int, n: int) -> bytes:
        return ctypes.string_at(self.at(p, n), n)

    def put(self, p: int, data: bytes) -> None:
        ctypes.memmove(self.at(p, len(data)), data, len(data))

    def put32(self, p: int, value: int) -> None:
        ctypes.memmove(self.at(p, 4), value.to_bytes(4, "little"), 4)

    def put64(self, p: int, value: int) -> None:
        ctypes.memmove(self.at(p, 8), (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"), 8)


@attrs.define(eq=False)
class Machine:
    """A module with its engine; `begin` makes the instance."""

    engine: wasmtime.Engine
    module: wasmtime.Module
    memory_limit: int
    fuel: int | None
    calls: Calls = attrs.field(factory=Calls, init=False)
    asked: bool = attrs.field(default=False, init=False)  # to freeze
    unwinding: bool = attrs.field(default=False, init=False)
    rewinding: bool = attrs.field(default=False, init=False)
    wake: tuple[int, int] = attrs.field(init=False)  # a pipe: it can be read when the program is to be frozen
    store: wasmtime.Store = attrs.field(init=False)
    linker: wasmtime.Linker = attrs.field(init=False)
    exports: dict[str, Any] = attrs.field(factory=dict, init=False)
    memory: Memory = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.store = wasmtime.Store(self.engine)
        # for each memory: what the program's own may have, a freezable module looks at itself
        self.store.set_limits(memory_size=max(self.memory_limit, STACK_PAGES * PAGE))
        if self.fuel is not None:
            self.store.set_fuel(self.fuel)
        self.linker = wasmtime.Linker(self.engine)

    def begin(self) -> None:
        """Make the instance. Raises Ended if it wants more memory than it may have, and ENOEXEC if something is missing that it wants."""
        self.calls.define(self.linker, "mk9p", "checkpoint", "", self.checkpoint)
        self.calls.define(self.linker, "mk9p", "memory", "", self.refused)
        exports = {each.name: each.type for each in self.module.exports}
        kind = exports.get("memory")
        if isinstance(kind, wasmtime.MemoryType) and kind.limits.min * PAGE > self.memory_limit:
            raise Ended("limit memory")
        if _FLAG not in exports:
            self.store.set_limits(memory_size=self.memory_limit)
        try:
            instance = self.linker.instantiate(self.store, self.module)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            raise NineError(errno.ENOEXEC, f"it cannot begin: {one_line(error)}") from None
        found = instance.exports(self.store)
        self.exports = {each.name: found[each.name] for each in self.module.exports if each.name is not None}
        memory = self.exports.get("memory")
        if not isinstance(memory, wasmtime.Memory) or not isinstance(self.exports.get("_start"), wasmtime.Func):
            raise NineError(errno.ENOEXEC, "it is no program: a program exports `memory` and `_start`")
        self.memory = Memory(self.store, memory)
        if self.freezable and len(self.memories()) < 3:
            raise NineError(errno.ENOEXEC, "it was not made freezable here")
        self.bound()

    def bound(self) -> None:
        """Tell a freezable module how many pages it may have. Again after its memories were put back: the number is in one of them."""
        if self.freezable and self.exports[_FLAG].data_len(self.store) >= LIMIT + 4:
            pages = struct.pack("<I", self.memory_limit // PAGE)
            self.exports[_FLAG].write(self.store, bytearray(pages), LIMIT)

    @property
    def freezable(self) -> bool:
        """Tell whether the module was made freezable."""
        return isinstance(self.exports.get(_FLAG), wasmtime.Memory)

    def memories(self) -> list[wasmtime.Memory]:
        """Return all memories in order; the last one is for the stack."""
        found: list[wasmtime.Memory] = []
        while isinstance(one := self.exports.get(f"{_MEMORY}{len(found)}"), wasmtime.Memory):
            found.append(one)
        return found

    def globals(self) -> dict[str, wasmtime.Global]:
        """Return the mutable globals by name."""
        return {n: e for n, e in self.exports.items() if n.startswith(_GLOBAL) and isinstance(e, wasmtime.Global)}

    # In the program's own thread

    def run(self) -> str | None:
        """Run until the end and return how it was, as `wait` says it; None: it is frozen."""
        try:
            self.exports["_start"](self.store)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raised = self.calls.raised
            if isinstance(raised, Ended):
                return str(raised)
            if raised is not None:
                raise raised from None
            return _trapped(error)
        if not self.unwinding:
            return ""
        self.exports["asyncify_stop_unwind"](self.store)
        return None

    def checkpoint(self) -> None:
        """Be called at a checkpoint: where a stack begins to be taken down, or ends to be put up again."""
        if self.rewinding:
            self.again()
        elif self.asked:
            self.unwind()

    def refused(self) -> None:
        """Be called where the program wanted more memory than it may have."""
        raise Ended("limit memory")

    def again(self) -> None:
        """Go on from here: this is the call that the program was in."""
        self.rewinding = False
        self.exports["asyncify_stop_rewind"](self.store)

    def unwind(self) -> None:
        """Begin to take down the stack: what is called now is made again later."""
        stack = self.memories()[-1]
        stack.write(self.store, struct.pack("<II", 16, stack.data_len(self.store)), 0)
        self.exports["asyncify_start_unwind"](self.store, 0)
        self.unwinding = True

    def rewind(self) -> None:
        """Let `run` go on where the snapshot was taken, after the memories have been put back."""
        self.exports["asyncify_start_rewind"](self.store, 0)
        self.rewinding = True

    def go_on(self) -> None:
        """Let `run` go on in this instance, which was frozen for a checkpoint."""
        self.unwinding = False
        self.rewind()

    def hear(self) -> None:
        """Let calls wait again: what was asked has been done."""
        with suppress(BlockingIOError):
            while os.read(self.wake[0], 64):
                continue

    # In any thread

    def ask(self, yes: bool = True) -> None:
        """Ask the program to freeze, or no longer. The engine must have begun."""
        self.asked = yes
        memory = self.exports[_FLAG]
        if memory.data_len(self.store) >= 4:
            ctypes.cast(memory.data_ptr(self.store), ctypes.POINTER(ctypes.c_uint32))[0] = yes
        if yes:
            os.write(self.wake[1], b"x")

    def used(self) -> int:
        """Return how many bytes of memory the program has."""
        return int(self.memory.memory.data_len(self.store))

    def fuel_left(self) -> int | None:
        """Return the fuel that is left; None where there is no limit. Not while the program runs."""
        return None if self.fuel is None else self.store.get_fuel()


def _trapped(error: wasmtime.Trap | wasmtime.WasmtimeError) -> str:
    code = error.trap_code if isinstance(error, wasmtime.Trap) else None
    if code is wasmtime.TrapCode.OUT_OF_FUEL:
        return "limit fuel"
    return f"trap {code.name.lower().replace('_', ' ')}" if code is not None else f"trap {one_line(error)}"
