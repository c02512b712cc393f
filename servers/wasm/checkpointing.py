"""Checkpoints of a program that runs: every so often its state is written to a file of its namespace, by its own process (written.py).

Meanwhile it stands still. What waits in its streams is in the state, so each byte is in a checkpoint once: what the program has written is taken from
the socket first, and nothing is given to the program until it goes on.
"""

import time
from functools import partial
from typing import Final, Protocol

import trio

from mk9p.errors import NineError, translate
from mk9p.servers.wasm.container import State, packed, zipped
from mk9p.servers.wasm.queues import Input, Output
from mk9p.servers.wasm.running import Run
from mk9p.tree import Log

_RUNS: Final = (
    4  # times as long as it stood still: where a checkpoint takes long, a program would else do nothing but stand still
)
_SOCKET: Final = 4 << 20  # more than a socket holds


class Kept(Protocol):
    """A program that is kept (program.Program)."""

    input: Input
    output: Output
    errors: Output
    events: Log

    def head(self, run: Run, fuel: int | None) -> dict[str, object]:
        """Return the head of a state of a program that runs."""

    def made(self) -> bytes:
        """Return the module that is run."""


async def keep(program: Kept, run: Run, seconds: float) -> None:
    """Write checkpoints of a run, so many seconds apart or more, until it ends. `events` tells of each, and why one was not written."""
    module: bytes | None = None

    async def state(snapshot: bytes, unread: bytes, fuel: int | None) -> list[bytes]:
        nonlocal module
        for stream, sock in zip((program.output, program.errors), run.streams[1:], strict=True):
            stream.drain(sock, _SOCKET)
        waiting = unread + bytes(program.input.data)
        head = program.head(run, fuel)
        made = State(head, b"", snapshot, waiting, program.output.all(), program.errors.all())
        if module is None:
            module = await trio.to_thread.run_sync(lambda: zipped(program.made()))
        return await trio.to_thread.run_sync(partial(packed, made, module))

    stood = 0.0
    while True:
        with trio.move_on_after(max(seconds, _RUNS * stood)):
            await run.ended.wait()
            return
        began, had = time.monotonic(), program.input.total
        program.input.stand(True)
        try:
            size = await run.checkpoint(state)
        except ProcessLookupError:
            return
        except OSError as error:
            program.events.emit("nocheckpoint", _words(error))
        else:
            program.events.emit("checkpoint", size, round((time.monotonic() - began) * 1000), had)
        finally:
            stood = time.monotonic() - began
            program.input.stand(False)


def _words(error: OSError) -> str:
    told = translate(error)
    return told.ename if isinstance(told, NineError) else str(told)
