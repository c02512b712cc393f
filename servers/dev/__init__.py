"""`dev/`: the devices that every kernel has, after cons(3): its console, its log, its clock, its name, the counters of its CPUs, and the small
ones.

    cons consctl kmsg time sysname sysstat random null zero

Each file has what Linux has at the moment somebody asks; nothing runs in the background. The folders of whole device classes (block, tty, pci,
usb) stand beside them as further entries of the one table below.
"""

import os
from collections.abc import Awaitable

import trio

from mk9p.servers.dev.clock import read_time, set_time
from mk9p.servers.dev.cons import Consctl, Console, Use
from mk9p.servers.dev.kmsg import Records
from mk9p.servers.dev.sysname import SysName
from mk9p.servers.dev.sysstat import SysStat
from mk9p.tree import Block, Buffer, Dir, Maybe, Stream, Text


def tree(*, root: str = "/", console: str | None = None) -> Dir:
    """Return the `dev` tree of this kernel.

    `root`: where /proc and /dev are. `console`: the terminal that `cons` and `consctl` use, by default /dev/console below `root`.
    """
    real = os.path.realpath(root) == "/"
    terminal = Console(console or os.path.join(root, "dev/console"), root)
    kmsg = os.path.join(root, "dev/kmsg")
    name = SysName(os.path.join(root, "proc/sys/kernel/hostname"))
    return Dir(
        {
            "cons": Stream(per_open=lambda how: Use(terminal, how), mode=0o600),
            "consctl": Consctl(terminal),
            "kmsg": Stream(per_open=lambda how: Records(kmsg, how), mode=0o600),
            "time": Text(read_time, set_time if real else None),  # a made-up root has no clock that could be set
            "sysname": Text(name.read, name.write),
            "sysstat": Text(SysStat(root).read),
            "random": Block(read_random, mode=0o444),
            "null": Block(lambda count, offset: b"", discard, mode=0o666),
            "zero": Block(lambda count, offset: bytes(count), discard, mode=0o666),
        }
    )


def discard(data: memoryview, offset: int) -> int:
    """Take everything and do nothing with it."""
    return len(data)


def read_random(count: int, offset: int) -> Maybe[Buffer]:
    """Return `count` random bytes (random(4)). Waits, in a thread, only until the kernel has gathered its first entropy since the boot."""
    try:
        return os.getrandom(count, os.GRND_NONBLOCK)
    except BlockingIOError:
        return _first_random(count)


def _first_random(count: int) -> Awaitable[bytes]:
    return trio.to_thread.run_sync(os.getrandom, count, abandon_on_cancel=True)
