"""Whether to let others have the processor before waiting for requests.

Theory
* A client or a server on this very processor that was just sent to is often ready to answer as soon as it has its turn: a composer and what is
  composed, on one CPU of a small kernel, are. To let it have it costs less than a microsecond and no wake-up, to wait properly ten times that.
* Where nobody here is about to answer, because they are on other CPUs, it is vain. Where a program that computes has this CPU too it is ruinous:
  sched_yield(2) goes to the end of the queue, and whole slices of milliseconds pass, where who waits properly is woken at once.
* So it is done as long as it pays. When it brought nothing a few times in a row, or took long once, it is not tried again for some waits, and for
  twice as many each time that this comes to nothing too.
"""

import os
import select
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

LONG: Final = 500_000  # ns; more than who answers needs, and less than the scheduler's slices
VAIN: Final = 4  # times in a row
LEAST: Final = 64  # waits without trying again
MOST: Final = 4096  # the same; if each takes 50 us, and one try a slice of 4 ms, that is a fiftieth of the time


class Courtesy:
    """Asks a poller for events, and others to make some."""

    __slots__ = ("_give_way", "_next", "_poll", "_rest", "_vain")

    def __init__(self, poller: select.epoll, give_way: Callable[[], None] = os.sched_yield) -> None:
        self._poll, self._give_way = poller.poll, give_way
        self._vain = self._rest = 0
        self._next = LEAST

    def events(self) -> list[tuple[int, int]]:
        """Return what is ready now, or is after others had their turn; maybe nothing."""
        events = self._poll(0)
        if events:
            return events
        if self._rest:
            self._rest -= 1
            return events
        began = monotonic_ns()
        self._give_way()
        events = self._poll(0)
        if not events:  # between two who answer each other, who waits for neither had his turn first
            self._give_way()
            events = self._poll(0)
        long = monotonic_ns() - began > LONG
        if events and not long:
            self._vain, self._next = 0, LEAST
        elif long or self._vain == VAIN:
            self._rest, self._vain = self._next, 0
            self._next = min(2 * self._next, MOST)
        else:
            self._vain += 1
        return events
