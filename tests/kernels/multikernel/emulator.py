"""The files of the emulated kernel: `python -m tests.kernels.multikernel.emulator DIAL` serves them.

device_tree instances/NAME/{id,status,device_tree} overlays/{new,tx_N/{id,status,instance,dtbo}}     as /sys/fs/multikernel
.iomem .mktty .syscall .order                                                                      its other parts, and a test's orders
"""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

import trio

from mk9p.errors import NineError
from mk9p.serving import serve_tree
from mk9p.tree import Block, Dir, File, Handle, Lazy, Text

from . import trees
from .model import Model

if TYPE_CHECKING:
    from collections.abc import Callable

    from mk9p.auth import Principal
    from mk9p.tree import Buffer, Maybe, Node, Open

LARGEST = 1 << 20  # bytes of one message


class Held:
    """Overlays that wait: `count` says which of the next ones does, 0 that none does."""

    def __init__(self) -> None:
        self.count, self.waits = 0, False

    async def wait(self) -> None:
        """Wait if it is this one's turn."""
        self.count -= self.count > 1
        self.waits = self.count == 1
        while self.count == 1:  # noqa: ASYNC110 - a test looks as often
            await trio.sleep(0.01)
        self.waits = False


def blob(read: Callable[[], bytes] | None, write: Callable[[bytes], None] | None = None) -> Block:
    """Return a file of bytes with its length, as kerf wants to see one; a write is a message."""

    def pread(count: int, at: int) -> bytes:
        assert read is not None
        return read()[at : at + count]

    def pwrite(data: memoryview, at: int) -> int:
        assert write is not None
        if at or len(data) > LARGEST:
            raise NineError(errno.EINVAL, "a message is one write")
        try:
            write(bytes(data))
        except OSError as error:
            raise NineError(error.errno or errno.EIO, str(error.strerror)) from None
        return len(data)

    return Block(
        pread if read else None,
        pwrite if write else None,
        size=(lambda: len(read())) if read else None,
        mode=(0o444 if read else 0) | (0o200 if write else 0),
    )


class Overlays(Dir):
    """overlays/: `new` takes one; removing a transaction undoes it."""

    def __init__(self, model: Model, held: Held) -> None:
        self.model = model

        async def take(data: memoryview, at: int) -> int:
            message = bytes(data)
            await held.wait()
            model.overlay(message)
            return len(message)

        super().__init__(
            {"new": Block(lambda count, at: b"", take, mode=0o600)},
            Lazy(lambda: [f"tx_{n}" for n in model.txs], self._tx, key=self._number),
            mode=0o755,
        )

    def _number(self, name: str) -> int | None:
        number = name.removeprefix("tx_")
        found = int(number) if number != name and number.isdecimal() else None
        return found if found in self.model.txs else None

    def _tx(self, name: str) -> Dir:
        number = int(name.removeprefix("tx_"))
        tx = self.model.txs[number]
        return Dir(
            {
                "id": blob(f"{number}\n".encode),
                "status": blob(lambda: f"{tx.status}\n".encode()),
                "instance": blob(f"{tx.target}\n".encode),
                "dtbo": blob(lambda: tx.overlay),
            }
        )

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        number = self._number(name)
        if number is None:
            raise NineError(errno.ENOENT)
        try:
            self.model.roll_back(number)
        except OSError as error:
            raise NineError(error.errno or errno.EIO, str(error.strerror)) from None
        return None


class Line(Handle):
    """One open /dev/mktty: the first line that is written names an instance; what is typed then comes back. A read never waits: FUSE, which brings
    it to its readers, could not end one that does, nor say by poll(2) that there is something."""

    def __init__(self, model: Model) -> None:
        self.model, self.number = model, 0

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        kept = self.model.console.get(self.number, bytearray())
        data = bytes(kept[:count])
        del kept[:count]
        return data

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        if not self.number:
            word = bytes(data).decode().strip()
            if not word.isdecimal() or int(word) not in self.model.console:
                raise NineError(errno.ENODEV, "no such instance runs")
            self.number = int(word)
        else:
            self.model.console[self.number] += data
        return len(data)


class Mktty(File):
    """/dev/mktty."""

    def __init__(self, model: Model) -> None:
        super().__init__(0o600)
        self.model = model

    def open(self, how: Open) -> Maybe[Handle]:
        return Line(self.model)


def tree(model: Model) -> Dir:
    """Return all files."""

    def instance(name: str) -> Dir:
        one = model.pool.instances[name]
        return Dir(
            {
                "id": blob(f"{one.id}\n".encode),
                "status": blob(lambda: f"{model.pool.instances[name].status}\n".encode()),
                "device_tree": blob(lambda: trees.of_instance(model.pool, name)),
            }
        )

    held = Held()

    def order(text: bytes) -> None:
        """Take orders, a line each: those of the model, and `hold N`."""
        for line in text.decode().strip().split("\n"):
            if line.startswith("hold "):
                held.count = int(line.removeprefix("hold ")) + 1 if line != "hold 0" else 0
            else:
                model.order(line)

    def syscall(text: bytes) -> None:
        model.syscall(text.decode().strip())

    files: dict[str, Node] = {
        "device_tree": blob(lambda: trees.of_pool(model.pool), model.baseline),
        "instances": Dir(
            Lazy(
                lambda: list(model.pool.instances),
                instance,
                key=lambda name: id(model.pool.instances[name]) if name in model.pool.instances else None,
            )
        ),
        "overlays": Overlays(model, held),
        ".iomem": Text(model.iomem),
        ".mktty": Mktty(model),
        ".syscall": blob(None, syscall),
        ".order": blob(None, order),
        ".held": Text(lambda: f"{int(held.waits)}\n"),
    }
    return Dir(files)


if __name__ == "__main__":
    trio.run(serve_tree, tree(Model()), [sys.argv[1]])
