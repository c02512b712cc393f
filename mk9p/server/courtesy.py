"""Whether to give others the processor before waiting for requests.

Theory
* A client or a server on this very processor, to which something was just sent, is often ready to answer as soon as it has its turn: a composer
  and its servers on one CPU of a small kernel are like that. Giving it the CPU costs less than a microsecond and no wake-up; a real wait costs ten
  times that.
* If nobody else has this CPU, it gains nothing. If a program that computes has it too, it is ruinous: sched_yield(2) puts this process at the end
  of the queue, and whole slices of milliseconds pass, where a process that really waits is woken at once.
* So the server does this as long as it pays, which the time that it takes shows. When it took no longer than it does alone a few times in a row,
  or took too long once, the server does not try again for some waits, and each time that this gains nothing, for twice as many.
"""

import os
import select
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

LONG: Final = 500_000  # ns; more than an answer needs, and less than the scheduler's slices
ALONE: Final = 3  # times what it takes where nobody else has the processor, which is measured at the start
VAIN: Final = 4  # times in a row
LEAST: Final = 64  # waits without trying again
MOST: Final = 4096  # the same; if each takes 50 us, and one try a slice of 4 ms, that is a fiftieth of the time


class Courtesy:
    """Asks a poller for events, and lets others make some."""

    __slots__ = ("_alone", "_clock", "_give_way", "_next", "_poll", "_rest", "_vain")

    def __init__(
        self,
        poller: select.epoll,
        give_way: Callable[[], None] = os.sched_yield,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._poll, self._give_way, self._clock = poller.poll, give_way, clock
        self._vain = self._rest = 0
        self._next = LEAST
        self._alone = ALONE * min(self._turns()[1] for _ in range(8))

    def events(self) -> list[tuple[int, int]]:
        """Return what is ready now, or after others had their turn; maybe nothing."""
        events = self._poll(0)
        if events:
            return events
        if self._rest:
            self._rest -= 1
            return events
        events, took = self._turns()
        if took < LONG and (events or took > self._alone):
            self._vain, self._next = 0, LEAST
        elif took >= LONG or self._vain == VAIN:
            self._rest, self._vain = self._next, 0
            self._next = min(2 * self._next, MOST)
        else:
            self._vain += 1
        return events

    def _turns(self) -> tuple[list[tuple[int, int]], int]:
        """Let others have their turn, twice if the first brought nothing; return what is ready then, and the ns that it took.

        Two turns are needed when a third process is in the queue before the one that answers.
        """
        began = self._clock()
        self._give_way()
        events = self._poll(0)
        if not events:
            self._give_way()
            events = self._poll(0)
        return events, self._clock() - began
