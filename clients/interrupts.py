"""Which processes were killed, or got a signal, while they wait for a FUSE answer.

The kernel tells a FUSE server by FUSE_INTERRUPT. But libfuse keeps that for itself unless it has a function for each request, and pyfuse3 gives
none. A process that was killed while it read a file of events would stay, in state D, until the next event comes. So this module looks for such
processes, and only where somebody has waited for a while:

* A thread waits for an answer in state S. After it got a signal, deadly or not, it waits on uninterruptibly, in state D (request_wait_answer() of
  fs/fuse/dev.c). So a thread in state D whose request is here was interrupted, and its request gets EINTR.
* pyfuse3 gives the thread of every request except read, write and fsync. For those the module searches once: where the file was opened, then
  everywhere. It is the thread in a system call on a descriptor of that inode (proc(5): `syscall`, and since Linux 5.14 `ino` in `fdinfo`). From
  then on each look costs one read of /proc.
* It cannot see a thread of another process namespace, which waits.

A thread does the looking: some files of /proc wait for a process that executes, which may be waiting for us.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Final

import trio

from mk9p.ktext import split_lines, split_words

LOOK: Final = 0.25  # seconds between two looks, and that a request may take before the first look
AGAIN: Final = 20  # looks between two searches for a thread that was not found
_MOST: Final = 1 << 16  # no descriptor has a higher number; a higher number may be a pointer


class Asked:
    """One running request. `scope` is cancelled when the thread that asked was interrupted."""

    __slots__ = ("inode", "opener", "scope", "searches", "since", "tid")

    def __init__(self, tid: int, inode: int, opener: int) -> None:
        self.tid, self.inode, self.opener = tid, inode, opener  # tid 0: unknown, and not found
        self.since = trio.current_time()
        self.searches = 0
        self.scope = trio.CancelScope()


class Interrupts:
    """The running requests, and the task that looks after the threads that made them."""

    def __init__(self) -> None:
        self.waiting: set[Asked] = set()
        self._some = trio.Event()

    def add(self, asked: Asked) -> None:
        """Note a request that may wait."""
        self.waiting.add(asked)
        self._some.set()

    async def watch(self) -> None:
        """Cancel the requests of threads that were interrupted, until cancelled itself."""
        while True:
            await self._some.wait()
            await trio.sleep(LOOK)
            since = trio.current_time() - LOOK
            slow = [asked for asked in self.waiting if asked.since <= since]
            if slow:
                for asked in await trio.to_thread.run_sync(look, slow, abandon_on_cancel=True):
                    if asked in self.waiting:
                        asked.scope.cancel()
            if not self.waiting:
                self._some = trio.Event()


def look(slow: Iterable[Asked]) -> list[Asked]:
    """Return those of the requests whose thread was interrupted, after searching for threads that are not known yet."""
    taken = {asked.tid for asked in slow}
    for asked in slow:
        if not asked.tid:
            if asked.searches % AGAIN == 0:
                asked.tid = search(asked.inode, asked.opener, taken)
                taken.add(asked.tid)
            asked.searches += 1
    return [asked for asked in slow if asked.tid and interrupted(asked.tid)]


def search(inode: int, opener: int, taken: set[int]) -> int:
    """Return the thread that waits in a call on an open file of an inode, but none of `taken`; 0 if there is none."""
    for pid in (opener, *_numbers("/proc")):
        for tid in _numbers(f"/proc/{pid}/task"):
            if tid not in taken and any(_inode(tid, fd) == inode for fd in _descriptors(tid)) and _waits(tid):
                return tid
    return 0


def interrupted(tid: int) -> bool:
    """Tell whether a thread waits for a FUSE answer and signals can no longer wake it."""
    return split_words(_read(f"/proc/{tid}/stat").rpartition(b")")[2])[:1] == [b"D"] and _waits(tid)


def _waits(tid: int) -> bool:
    # Threads that share an open file queue for its offset in state D: they have no request here. If the kernel has no names, any wait counts.
    where = _read(f"/proc/{tid}/wchan")
    return where in (b"", b"0") or b"request_wait_answer" in where or b"fuse" in where


def _descriptors(tid: int) -> Iterator[int]:
    """Give the numbers that may be descriptors in the first arguments of the call that a thread waits in: read(fd, ...), sendfile(out, in, ...)."""
    for word in split_words(_read(f"/proc/{tid}/syscall"))[1:3]:
        if word.startswith(b"0x") and (fd := int(word, 16)) < _MOST:
            yield fd


def _inode(tid: int, fd: int) -> int:
    for line in split_lines(_read(f"/proc/{tid}/fdinfo/{fd}")):
        name, _, value = line.partition(b":")
        if name == b"ino":
            return int(value)
    return 0


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read() or b""
    except OSError:  # it has gone, or this process may not look into it
        return b""


def _numbers(path: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(path) if name.isdecimal()]
    except OSError:
        return []
