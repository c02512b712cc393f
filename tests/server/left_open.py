"""What this process has open, by name, and that nothing more stays open than there was.

A thread that was given up (abandon_on_cancel) may begin late, and have files open for a moment then: just after they were looked for, too. So it is
waited for a moment at which no more is open than before, and that moment counts: who counts again afterwards finds such files now and then. What
leaks is open at every moment.
"""

import gc

import trio

from mk9p.testing import SOON
from tests.leftovers import descriptors as open_now

Opened = dict[int, str]


def descriptors() -> int:
    return len(open_now())


def left(before: Opened, now: Opened) -> str:
    """Name what is open now and was not before, if that is more than there was; else nothing."""
    if len(now) <= len(before):
        return ""
    return ", ".join(f"{fd} {what}" for fd, what in sorted(now.items()) if before.get(fd) != what)


async def nothing_more(before: Opened, when: str = "at the end") -> None:
    """Wait until no more is open than before; fail with the names of what has come if it stays."""
    with trio.move_on_after(SOON):
        while extra := left(before, open_now()):
            gc.collect()
            await trio.lowlevel.checkpoint()
    assert not extra, f"still open {when}: {extra}"
