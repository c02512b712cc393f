"""Whether others get the processor before the leader waits: only as long as it pays."""

import os
import select
from collections.abc import Iterator

import attrs
import pytest

from mk9p.server.courtesy import ALONE, LEAST, LONG, MOST, VAIN, Courtesy

NOBODY = 300  # ns that a turn of nobody takes
SOMEBODY = 3 * ALONE * NOBODY
TRIES = VAIN + 1


@attrs.define(eq=False)
class Others:
    """Who has the processor when one gives way: `answers` tells at which turn they answer, `takes` for how many ns they keep it."""

    fd: int
    answers: int | None = None
    takes: int = NOBODY
    turns: int = 0
    now: int = 0

    def clock(self) -> int:
        return self.now

    def have_it(self) -> None:
        self.turns += 1
        self.now += self.takes
        if self.answers is not None and self.turns % self.answers == 0:
            os.eventfd_write(self.fd, 1)

    def turns_in(self, courtesy: Courtesy, waits: int) -> int:
        """Return how many turns they had while somebody waited so often, and took what there was."""
        before = self.turns
        for _ in range(waits):
            if courtesy.events():
                os.eventfd_read(self.fd)
        return self.turns - before


@pytest.fixture
def here() -> Iterator[tuple[Courtesy, Others]]:
    """One who waits for an eventfd, and others who have not yet said anything."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    with select.epoll() as poller:
        poller.register(fd, select.EPOLLIN)
        others = Others(fd)
        courtesy = Courtesy(poller, others.have_it, others.clock)
        others.turns = 0
        yield courtesy, others
    os.close(fd)


def test_what_is_ready_is_taken_at_once(here: tuple[Courtesy, Others]) -> None:
    courtesy, others = here
    os.eventfd_write(others.fd, 1)
    assert courtesy.events() == [(others.fd, select.EPOLLIN)]
    assert others.turns == 0


@pytest.mark.parametrize("takes", [NOBODY, SOMEBODY])
@pytest.mark.parametrize("answers", [1, 2])
def test_who_answers_is_given_way_every_time(here: tuple[Courtesy, Others], answers: int, takes: int) -> None:
    courtesy, others = here
    others.answers, others.takes = answers, takes
    assert others.turns_in(courtesy, 1000) == 1000 * answers


def test_so_is_who_does_something_else(here: tuple[Courtesy, Others]) -> None:
    """What is sent on to a client on another processor is no answer, and is sooner there."""
    courtesy, others = here
    others.takes = SOMEBODY
    assert others.turns_in(courtesy, 1000) == 2000


def test_where_there_is_nobody_it_is_soon_left(here: tuple[Courtesy, Others]) -> None:
    courtesy, others = here
    assert others.turns_in(courtesy, TRIES) == 2 * TRIES
    assert others.turns_in(courtesy, LEAST) == 0
    assert others.turns_in(courtesy, TRIES) == 2 * TRIES
    assert others.turns_in(courtesy, 2 * LEAST) == 0  # twice as long
    assert others.turns_in(courtesy, 100 * MOST) < 220 * TRIES


def test_it_is_taken_up_again_when_somebody_answers(here: tuple[Courtesy, Others]) -> None:
    courtesy, others = here
    others.turns_in(courtesy, 10 * MOST)
    others.answers, others.turns = 1, 0
    others.turns_in(courtesy, MOST)
    assert others.turns_in(courtesy, 1000) == 1000


@pytest.mark.parametrize("answers", [None, 1])
def test_who_computes_gets_it_once(here: tuple[Courtesy, Others], answers: int | None) -> None:
    courtesy, others = here
    others.answers, others.takes = answers, LONG
    once = others.turns_in(courtesy, 1)
    assert once == (1 if answers else 2)
    assert others.turns_in(courtesy, LEAST) == 0
    assert others.turns_in(courtesy, 1) == once
    assert others.turns_in(courtesy, 2 * LEAST) == 0


def test_the_real_thing() -> None:
    """Without a clock and others of ours: what a processor does by itself."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    with select.epoll() as poller:
        poller.register(fd, select.EPOLLIN)
        courtesy = Courtesy(poller)
        assert courtesy.events() == []
        os.eventfd_write(fd, 1)
        assert courtesy.events() == [(fd, select.EPOLLIN)]
    os.close(fd)
