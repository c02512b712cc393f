"""Scripts in a guest without any server in it, for tests: the host's end of `guest/agent.sh`.

A line `ID TIMEOUT BASE64` goes in, a line `ID STATUS BASE64` comes out. On UML, whose ttys stop receiving for good after a burst of 4 KiB, script
and output are files in a folder that both see.
"""

from __future__ import annotations

import base64
import errno
import itertools
from typing import TYPE_CHECKING

import attrs
import trio

from mk9p.errors import NineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .channel import Channel


@attrs.define(eq=False)
class Agent:
    """Runs shell scripts in a guest, one after the other."""

    channel: Channel
    exchange: Path | None = None
    _input: bytes = b""
    _ready: bool = False
    _numbers: Iterator[int] = attrs.Factory(itertools.count)
    _one: trio.Lock = attrs.Factory(trio.Lock)

    async def run(self, script: str, *, seconds: int = 60) -> tuple[int, str]:
        """Run a script and return its exit status (137: killed after `seconds`) with its output and errors together.

        Waits for the guest to boot. Raises NineError (EIO) when the guest ends meanwhile. If cancelled, the script goes on, and its answer is
        dropped.
        """
        async with self._one:
            while not self._ready:
                self._ready = (await self._line())[0] == "READY"
            number = str(next(self._numbers))
            text = base64.b64encode(script.encode()).decode() or "Cg=="
            if self.exchange is not None:
                (self.exchange / "c").write_text(script)
                text = ""
            await self.channel.send(f"{number} {seconds} {text}\n".encode())
            while (answer := await self._line())[0] != number:
                pass
            output = base64.b64decode(answer[2]) if self.exchange is None else (self.exchange / "o").read_bytes()
            return int(answer[1]), output.decode(errors="replace")

    async def _line(self) -> list[str]:
        while b"\n" not in self._input:
            data = await self.channel.receive()
            if not data:
                raise NineError(errno.EIO, "the kernel is not running")
            self._input += data
        line, self._input = self._input.split(b"\n", 1)
        return line.decode(errors="replace").split(" ")
