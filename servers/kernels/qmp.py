"""The conversation with one QEMU (QMP: docs/interop/qmp-spec.rst of QEMU): orders, their answers, and events.

Nobody is believed, for a guest may have taken over its QEMU: a line has at most LONGEST bytes, an answer comes within its deadline or the order
fails, and what has another form than the manual's ends the conversation, with `broken` saying why.
"""

from __future__ import annotations

import array
import errno
import itertools
import json
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import trio

from mk9p.errors import NineError
from mk9p.said import from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LONGEST: Final = 1 << 20  # bytes of a line: the longest answer seen, that of query-qmp-schema, has 200 KiB
ANSWER_SECONDS: Final = 30.0  # for an order; QEMU answers in milliseconds unless it is frozen, or swapped out


class Line(Protocol):
    """A connected socket to QEMU (channel.Channel)."""

    @property
    def ours(self) -> trio.socket.SocketType: ...
    async def receive(self) -> bytes: ...
    async def send(self, data: bytes) -> None: ...


@attrs.define(eq=False)
class _Wanted:
    """Who waits for an answer, or for an event."""

    fits: Callable[[dict[str, Any]], bool]
    came: trio.Event = attrs.Factory(trio.Event)
    message: dict[str, Any] = attrs.Factory(dict)


@attrs.define(eq=False)
class Qmp:
    """Orders to one QEMU. Somebody must run `follow`; `happens` gets the name and data of each event. `first` was read before."""

    line: Line
    happens: Callable[[str, dict[str, Any]], None] = lambda name, data: None
    first: bytes = b""
    broken: str = ""
    over: trio.Event = attrs.Factory(trio.Event)
    _wanted: list[_Wanted] = attrs.Factory(list)
    _numbers: Iterator[int] = attrs.Factory(itertools.count)
    _one: trio.Lock = attrs.Factory(trio.Lock)

    async def begin(self) -> None:
        """Ask for the mode in which QEMU takes orders; its answer needs no waiting for."""
        await self.line.send(b'{"execute": "qmp_capabilities"}\n')

    async def follow(self) -> None:
        """Read answers and events until QEMU is gone, or says what no QEMU says."""
        try:
            rest, data = b"", self.first or await self.line.receive()
            while data:
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    self._take(line)
                if len(rest) > LONGEST:
                    raise ValueError(f"a line of more than {LONGEST} bytes")
                data = await self.line.receive()
        except ValueError as error:  # one of bytes that are no text is one, too
            self.broken = f"QEMU says what is no QMP: {error}"
        finally:
            self.over.set()
            for wanted in self._wanted:
                wanted.came.set()

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        message = from_json(line)
        if not isinstance(message, dict):
            raise ValueError("a message that is no object")
        if "event" in message:
            name, data = message["event"], message.get("data", {})
            if not isinstance(name, str) or not isinstance(data, dict):
                raise ValueError("an event without a name")
            self.happens(name, data)
        for wanted in self._wanted:
            if not wanted.came.is_set() and wanted.fits(message):
                wanted.message = message
                wanted.came.set()

    async def order(
        self, word: str, *, give: Sequence[int] = (), seconds: float = ANSWER_SECONDS, **arguments: Any
    ) -> Any:
        """Give an order, with descriptors that QEMU gets, and return its answer; Python's `a_b` is QMP's `a-b`.

        Raises NineError: EIO in QEMU's words if it refuses, or when it is gone; ETIMEDOUT if it does not answer. If cancelled, the order still
        holds.
        """
        number = next(self._numbers)
        said = {key.replace("_", "-"): value for key, value in arguments.items()}
        line = json.dumps({"execute": word, "arguments": said, "id": number}).encode() + b"\n"
        with self._want(lambda message: message.get("id") == number) as wanted, trio.move_on_after(seconds) as scope:
            async with self._one:  # lines stay whole
                await self._send(line, give)
            await wanted.came.wait()
        if scope.cancelled_caught:
            raise NineError(errno.ETIMEDOUT, f"QEMU does not answer to {word}")
        return self._answer(wanted.message)

    async def order_until(
        self,
        events: Sequence[str],
        fits: Callable[[dict[str, Any]], bool],
        word: str,
        *,
        seconds: float,
        **arguments: Any,
    ) -> tuple[str, dict[str, Any]]:
        """Give an order, wait for the first of some events whose data fit, and return its name and data.

        Raises as `order` does, and ETIMEDOUT when no such event comes.
        """

        def this(message: dict[str, Any]) -> bool:
            return message.get("event") in events and fits(message.get("data", {}))

        with self._want(this) as wanted:
            await self.order(word, **arguments)
            with trio.move_on_after(seconds):
                await wanted.came.wait()
        if not wanted.came.is_set():
            raise NineError(errno.ETIMEDOUT, f"{word}: nothing came of it in {seconds:.0f} s")
        if not wanted.message:
            raise self._gone()
        return wanted.message["event"], wanted.message.get("data", {})

    @contextmanager
    def _want(self, fits: Callable[[dict[str, Any]], bool]) -> Iterator[_Wanted]:
        wanted = _Wanted(fits)
        if self.over.is_set():
            raise self._gone()
        self._wanted.append(wanted)
        try:
            yield wanted
        finally:
            self._wanted.remove(wanted)

    async def _send(self, line: bytes, give: Sequence[int]) -> None:
        if give:  # they go with the first byte
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", give).tobytes())]
            try:
                sent = await self.line.ours.sendmsg([line], rights)
            except OSError:
                raise self._gone() from None
            line = line[sent:]
        await self.line.send(line)

    def _answer(self, message: dict[str, Any]) -> Any:
        if "return" in message:
            return message["return"]
        if not message:
            raise self._gone()
        error = message.get("error")
        words = error.get("desc") if isinstance(error, dict) else None
        raise NineError(errno.EIO, str(words or "refused without a reason").replace("\n", " "))

    def _gone(self) -> NineError:
        return NineError(errno.EIO, self.broken or "the kernel is not running")
