"""What a test leaves behind, found by comparing with what was there before it, so that one that fails makes no other fail.

Looked at are this process's children, its threads that are mk9p's own, who handles its signals, what is mounted below the run's folder, and, where
`open_too` asks for it, the descriptors: what a whole module or the process shares (a server, fsspec's connections) opens some when it needs them, in
whatever test that is.
Fixtures of a module or of the run are made before a test is looked at, and end after it: what they hold is nobody's leftover. What a test has left
fails that test, and is ended, closed and unmounted.
"""

import gc
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from mk9p import ktext

# Threads that were given up end by themselves, and have files open until then; children that were killed must be reaped by whoever started them.
PATIENCE = 5.0  # seconds


def children() -> dict[int, str]:
    """Return the children of this process, the dead ones too, by number, with what each runs."""
    found = {}
    for task in os.listdir("/proc/self/task"):
        # a thread of ours that has just ended has none
        with suppress(FileNotFoundError):
            for pid in ktext.split_words(ktext.whole(f"/proc/self/task/{task}/children")):
                with suppress(FileNotFoundError, ProcessLookupError):
                    found[int(pid)] = ktext.whole(f"/proc/{pid}/cmdline").replace("\0", " ") or "a zombie"
    return found


def descriptors() -> dict[int, str]:
    """Return the open descriptors with what each is, as the kernel names it."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        # the listing's own
        with suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def threads() -> dict[int, str]:
    return {thread.native_id or 0: thread.name for thread in threading.enumerate() if thread.name.startswith("mk9p-")}


def mounted(below: Path) -> dict[str, str]:
    """Return what is mounted below a folder: where, and what."""
    return {
        mount.target: mount.kind
        for mount in ktext.mounts(Path("/proc/self/mountinfo").read_bytes())
        if mount.target.startswith(f"{below}/")
    }


def handlers() -> dict[int, Any]:
    """Return who handles each signal."""
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


@attrs.frozen
class Seen:
    """What there was at one moment."""

    folder: Path
    open_too: bool = False
    children: dict[int, str] = attrs.field(factory=children)
    descriptors: dict[int, str] = attrs.field(factory=descriptors)
    threads: dict[int, str] = attrs.field(factory=threads)
    handlers: dict[int, Any] = attrs.field(factory=handlers)
    mounts: dict[str, str] = attrs.Factory(lambda self: mounted(self.folder), takes_self=True)

    def left(self) -> list[str]:
        """Return a line for each thing that has come since and stays; ends those that can be ended."""
        until = time.monotonic() + PATIENCE
        while found := self._more():
            if time.monotonic() > until:
                break
            gc.collect()
            time.sleep(0.01)
        for _, end in found:
            # it may have ended by itself, at last
            with suppress(OSError):
                end()
        return [words for words, _ in found]

    def _more(self) -> list[tuple[str, Callable[[], object]]]:
        now = Seen(self.folder, self.open_too)
        found: list[tuple[str, Callable[[], object]]] = []
        for pid in now.children.keys() - self.children.keys():
            found += [(f"child {pid}: {now.children[pid]}", partial(_end, pid))]
        for target in now.mounts.keys() - self.mounts.keys():
            found += [(f"mount {target}: {now.mounts[target]}", partial(subprocess.run, ["umount", "-l", target]))]
        for number in now.threads.keys() - self.threads.keys():
            found += [(f"thread {now.threads[number]}", partial(bool))]
        for number, handler in self.handlers.items():
            if now.handlers[number] is not handler:
                name = signal.Signals(number).name
                found += [(f"handler of {name}: {now.handlers[number]}", partial(signal.signal, number, handler))]
        # a number that is something else now is no more than there was
        new = now.descriptors.keys() - self.descriptors.keys()
        if self.open_too and len(now.descriptors) > len(self.descriptors):
            found += [(f"descriptor {fd}: {now.descriptors[fd]}", partial(os.close, fd)) for fd in new]
        return found


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
