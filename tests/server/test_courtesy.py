"""Whether others get the processor before the leader waits: only as long as it pays."""

import os
import select
import time
from collections.abc import Iterator

import pytest

from mk9p.server.courtesy import LEAST, LONG, MOST, VAIN, Courtesy


@pytest.fixture
def line() -> Iterator[tuple[select.epoll, int]]:
    """A poller, and an eventfd that it waits for."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    with select.epoll() as poller:
        poller.register(fd, select.EPOLLIN)
        yield poller, fd
    os.close(fd)


class Others:
    """Who has the processor when one gives way: `answers` tells at which turn they answer, `slow` for how long they keep it."""

    def __init__(self, fd: int, answers: int | None = None, slow: float = 0.0) -> None:
        self.fd, self.answers, self.slow, self.turns = fd, answers, slow, 0

    def __call__(self) -> None:
        self.turns += 1
        if self.slow:
            time.sleep(self.slow)
        if self.answers is not None and self.turns % self.answers == 0:
            os.eventfd_write(self.fd, 1)

    def turns_in(self, courtesy: Courtesy, waits: int) -> int:
        """Return how many turns they had while somebody waited so often, and took what there was."""
        before = self.turns
        for _ in range(waits):
            if courtesy.events():
                os.eventfd_read(self.fd)
        return self.turns - before


def test_what_is_ready_is_taken_at_once(line: tuple[select.epoll, int]) -> None:
    poller, fd = line
    others = Others(fd)
    courtesy = Courtesy(poller, others)
    os.eventfd_write(fd, 1)
    assert courtesy.events() == [(fd, select.EPOLLIN)]
    assert others.turns == 0


@pytest.mark.parametrize("answers", [1, 2])
def test_who_answers_is_given_way_every_time(line: tuple[select.epoll, int], answers: int) -> None:
    poller, fd = line
    others = Others(fd, answers)
    assert others.turns_in(Courtesy(poller, others), 1000) == 1000 * answers


def test_where_nobody_answers_it_is_soon_left(line: tuple[select.epoll, int]) -> None:
    poller, fd = line
    others = Others(fd)
    courtesy = Courtesy(poller, others)
    tries = VAIN + 1
    assert others.turns_in(courtesy, tries) == 2 * tries
    assert others.turns_in(courtesy, LEAST) == 0
    assert others.turns_in(courtesy, tries) == 2 * tries
    assert others.turns_in(courtesy, 2 * LEAST) == 0  # twice as long
    assert others.turns_in(courtesy, 100 * MOST) < 210 * tries


def test_it_is_taken_up_again_when_somebody_answers(line: tuple[select.epoll, int]) -> None:
    poller, fd = line
    others = Others(fd)
    courtesy = Courtesy(poller, others)
    others.turns_in(courtesy, 10 * MOST)
    others.answers = 1
    others.turns_in(courtesy, MOST)
    assert others.turns_in(courtesy, 1000) == 1000


@pytest.mark.parametrize("answers", [None, 1])
def test_who_computes_gets_it_once(line: tuple[select.epoll, int], answers: int | None) -> None:
    poller, fd = line
    others = Others(fd, answers, slow=2 * LONG / 1e9)
    courtesy = Courtesy(poller, others)
    once = others.turns_in(courtesy, 1)
    assert 1 <= once <= 2
    assert others.turns_in(courtesy, LEAST) == 0
    assert others.turns_in(courtesy, 1) == once
    assert others.turns_in(courtesy, 2 * LEAST) == 0
