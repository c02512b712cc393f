"""Calls about the program itself: arguments, environment, clocks, random numbers, its end. And what all calls share."""

import os
import time
from collections.abc import Sequence
from typing import Final

from mk9p.servers.wasm.machine import Ended, Machine
from mk9p.servers.wasm.wasi.descriptors import Table
from mk9p.servers.wasm.wasi.numbers import CLOCKS, INVAL, NOTSOCK, NOTSUP, Error
from mk9p.signals import name

# signals of WASI: those up to 15 have Linux's numbers, the others are one less
_SIGNALS: Final = 30
_SAME: Final = 15
_NOTHING: Final = frozenset({0, 16, 17, 22, 27})  # none, and CHLD CONT URG WINCH, which end nobody
_STOPS: Final = range(18, 22)
_RANDOM: Final = 1 << 20  # bytes at once


class World:
    """What a program is, apart from its memory, and the calls about that."""

    def __init__(
        self,
        machine: Machine,
        table: Table,
        args: Sequence[str],
        env: Sequence[str],
        output: int | None,
        clock: int = 0,
        cpu: int = 0,
    ) -> None:
        self.machine, self.table = machine, table
        self.args = [each.encode(errors="surrogateescape") + b"\0" for each in args]
        self.env = [each.encode(errors="surrogateescape") + b"\0" for each in env]
        self.output = output  # bytes that it may still write; None: any number
        self.began: int | None = None  # when the call began that was stopped and is made again, by the program's clock
        self._clock = time.monotonic_ns() - clock
        self._cpu = time.process_time_ns() - cpu

    def clock(self) -> int:
        """Return the program's own time, in ns: it stands still while the program is frozen."""
        return time.monotonic_ns() - self._clock

    def cpu(self) -> int:
        """Return how long a processor has worked for the program, in ns, here and before."""
        return time.process_time_ns() - self._cpu

    def wrote(self, n: int) -> int:
        """Note that the program wants to write `n` bytes, and return how many it may. Raises Ended when that is none."""
        if self.output is None or not n:
            return n
        if not self.output:
            raise Ended("limit output")
        return min(n, self.output)

    def written(self, n: int) -> None:
        """Note that the program has written `n` bytes."""
        if self.output is not None:
            self.output -= n

    # Calls

    def args_sizes_get(self, count: int, size: int) -> None:
        self._sizes(self.args, count, size)

    def args_get(self, pointers: int, text: int) -> None:
        self._texts(self.args, pointers, text)

    def environ_sizes_get(self, count: int, size: int) -> None:
        self._sizes(self.env, count, size)

    def environ_get(self, pointers: int, text: int) -> None:
        self._texts(self.env, pointers, text)

    def _sizes(self, words: list[bytes], count: int, size: int) -> None:
        self.machine.memory.put32(count, len(words))
        self.machine.memory.put32(size, sum(map(len, words)))

    def _texts(self, words: list[bytes], pointers: int, text: int) -> None:
        memory = self.machine.memory
        for at, word in enumerate(words):
            memory.put32(pointers + 4 * at, text)
            memory.put(text, word)
            text += len(word)

    def now(self, clock: int) -> int:
        """Return the time of a clock. Raises INVAL."""
        if clock >= CLOCKS:
            raise Error(INVAL)
        if clock == 0:
            return time.time_ns()
        return self.clock() if clock == 1 else self.cpu()

    def clock_res_get(self, clock: int, result: int) -> None:
        if clock >= CLOCKS:
            raise Error(INVAL)
        self.machine.memory.put64(result, 1)

    def clock_time_get(self, clock: int, precision: int, result: int) -> None:
        self.machine.memory.put64(result, self.now(clock))

    def random_get(self, buffer: int, n: int) -> None:
        self.machine.memory.at(buffer, n)
        for at in range(0, n, _RANDOM):
            self.machine.memory.put(buffer + at, os.urandom(min(_RANDOM, n - at)))

    def sched_yield(self) -> None:
        os.sched_yield()

    def proc_exit(self, code: int) -> None:
        code &= 0xFF
        raise Ended(f"exit {code}" if code else "")

    def proc_raise(self, number: int) -> None:
        if number > _SIGNALS:
            raise Error(INVAL)
        if number in _STOPS:
            raise Error(NOTSUP)
        if number not in _NOTHING:
            raise Ended(f"signal {name(number if number <= _SAME else number + 1)}")

    # There are no sockets: no grant gives one

    def sock_accept(self, fd: int, flags: int, result: int) -> None:
        self._no_socket(fd)

    def sock_recv(self, fd: int, data: int, count: int, flags: int, size: int, told: int) -> None:
        self._no_socket(fd)

    def sock_send(self, fd: int, data: int, count: int, flags: int, size: int) -> None:
        self._no_socket(fd)

    def sock_shutdown(self, fd: int, how: int) -> None:
        self._no_socket(fd)

    def _no_socket(self, fd: int) -> None:
        self.table.get(fd)
        raise Error(NOTSOCK)
