"""poll_oneoff: wait for times and open files. A wait that was frozen has as much time left as it had."""

import select
import struct
from typing import Final

from mk9p.servers.wasm.machine import Frozen
from mk9p.servers.wasm.wasi.descriptors import Stream
from mk9p.servers.wasm.wasi.numbers import BADF, INVAL, NOTSUP, Error
from mk9p.servers.wasm.wasi.paths import Paths

MOST: Final = 4096  # things to wait for at once
_SIZE, _EVENT = 48, 32
_NS: Final = 1_000_000
_LONGEST: Final = 3_600_000  # ms of one poll(2)
_HANGUP: Final = 1


class Polling(Paths):
    """The call that waits."""

    def poll_oneoff(self, at: int, out: int, count: int, result: int) -> None:
        memory = self.machine.memory
        if not 0 < count <= MOST:
            raise Error(INVAL)
        memory.at(out, _EVENT * count)
        raw = memory.get(at, _SIZE * count)
        now = self.clock()
        began, self.began = (self.began if self.began is not None else now), None
        ready: list[bytes] = []
        clocks: list[tuple[int, int]] = []  # when, by the program's clock, and for whom
        waits: dict[int, list[tuple[int, int]]] = {}
        poll = select.poll()
        for one in range(count):
            data, kind = struct.unpack_from("<QB", raw, one * _SIZE)
            if kind == 0:
                clock, timeout, _, flags = struct.unpack_from("<IxxxxQQH", raw, one * _SIZE + 16)
                if clock > 1:
                    ready.append(_event(data, NOTSUP if clock < 4 else INVAL, 0))
                else:
                    clocks.append((timeout - self.now(clock) + now if flags & 1 else began + timeout, data))
            elif kind in (1, 2):
                (fd,) = struct.unpack_from("<I", raw, one * _SIZE + 16)
                found = self.table.open.get(fd)
                if found is None or (isinstance(found, Stream) and (found.number == 0) != (kind == 1)):
                    ready.append(_event(data, BADF, kind))
                elif isinstance(found, Stream):
                    waits.setdefault(found.fd, []).append((data, kind))
                else:  # files of the namespace are always ready, as files are for poll(2)
                    ready.append(_event(data, 0, kind, 1))
            else:
                raise Error(INVAL)
        for fd, those in waits.items():
            poll.register(fd, select.POLLIN if those[0][1] == 1 else select.POLLOUT)
        poll.register(self.machine.wake[0], select.POLLIN)
        end = min((when for when, _ in clocks), default=None)
        while True:
            rest = 0 if ready else _LONGEST if end is None else max(0, -((self.clock() - end) // _NS))
            found_now = poll.poll(min(rest, _LONGEST))
            for fd, events in found_now:
                for data, kind in waits.get(fd, ()):
                    ready.append(_event(data, 0, kind, 1, _HANGUP if events & (select.POLLHUP | select.POLLERR) else 0))
            now = self.clock()
            ready += [_event(data, 0, 0) for when, data in clocks if when <= now]
            if ready:
                break
            if any(fd == self.machine.wake[0] for fd, _ in found_now):
                self.began = began
                raise Frozen
        for number, event in enumerate(ready):
            memory.put(out + _EVENT * number, event)
        memory.put32(result, len(ready))


def _event(data: int, error: int, kind: int, size: int = 0, flags: int = 0) -> bytes:
    return struct.pack("<QHBxxxxxQHxxxxxx", data, error, kind, size, flags)
