"""Files in memory that clients write and read: a module, a state."""

import errno
import hashlib
import mmap
import os
from collections.abc import Callable
from typing import TypeVar

import attrs

from mk9p.errors import NineError
from mk9p.servers.wasm.container import LARGEST, MODULE, State
from mk9p.servers.wasm.process import memfd
from mk9p.tree import Block, Node

T = TypeVar("T")


@attrs.define(eq=False)
class Stored:
    """One such file, made when something is written to it."""

    name: str
    fd: int = -1

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size if self.fd >= 0 else 0

    @property
    def most(self) -> int:
        """How large it may be."""
        return MODULE if self.name == "module" else LARGEST

    def file(self, may_write: Callable[[int], None]) -> Node:
        """Return the file; `may_write` raises when it may not be written, or be so many bytes longer."""

        def write(data: memoryview, offset: int) -> int:
            may_write(max(0, offset + len(data) - self.size))
            if offset + len(data) > self.most:
                raise NineError(errno.EFBIG, f"a {self.name} has at most {self.most} bytes")
            if offset > self.size:
                raise NineError(errno.EINVAL, f"a {self.name} is written from its beginning on")
            if self.fd < 0:
                self.fd = memfd(self.name)
            return os.pwrite(self.fd, data, offset)

        def read(count: int, offset: int) -> bytes:
            return os.pread(self.fd, count, offset) if self.fd >= 0 else b""

        def truncate(length: int) -> None:
            if length == self.size:
                return
            may_write(0)
            if length > self.size:
                raise NineError(errno.EINVAL, f"a {self.name} is written from its beginning on")
            os.ftruncate(self.fd, length)

        return Block(read, write, size=lambda: self.size, truncate=truncate, mode=0o600)

    def digest(self) -> str:
        """Return its hash."""
        return self.through(lambda data: hashlib.sha256(data).hexdigest())

    def through(self, function: Callable[[memoryview], T]) -> T:
        """Return what a function makes of all its bytes."""
        if not self.size:
            return function(memoryview(b""))
        with mmap.mmap(self.fd, 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as data:
            return function(data)

    def replace(self, state: State, module: int, packed: Callable[[State], list[bytes]]) -> None:
        """Become the file of a state, whose module is the file `module`."""
        whole = os.pread(module, MODULE, 0)
        made = memfd(self.name, packed(attrs.evolve(state, module=whole)))
        self.close()
        self.fd = made

    def close(self) -> None:
        """Let it go."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
