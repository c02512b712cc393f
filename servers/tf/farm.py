"""A farm: each line that the master prints is a job, and each line that a worker prints is the answer to the oldest job that it has.

Theory
* A job is with one worker at a time. When a worker ends, or its kernel is gone, what it has not answered goes back to the front, for others. Its line
  to us is closed then, so an answer cannot come later: each job has one answer.
* A worker has the next job already while it works at one: then it need not wait for us.
* A worker that was lost is started again, in any kernel that fits and was not lost; in a kernel with a name, there again. A job that ends worker
  after worker ends the force, and so does a farm without any worker.
* The master's input ends when all its lines are answered, and then its workers' input ends. Answers come in the order in which they are ready.
"""

import errno
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.servers.tf.pipes import GONE, Held, Lines
from mk9p.servers.tf.reach import words
from mk9p.servers.tf.work import Work

WINDOW: Final = 2  # jobs that a worker has: one to work at, and one to begin with at once
TRIES: Final = 3  # workers that a job may cost
MUCH: Final = 4 << 20  # bytes of jobs, or of answers, that wait
AHEAD: Final = 4  # jobs for each worker that are read from the master before somebody asks


@attrs.define(eq=False)
class Job:
    """A line of the master, and how many workers ended with it."""

    line: bytes
    tries: int = 0


@attrs.define(eq=False)
class Dealing:
    """A farm that runs. `again(name, work)` starts a worker anew that was lost; `tell` notes what happens; `lost_one` how a worker ended."""

    master: Work
    workers: dict[str, Work]
    again: Callable[[str, Work], Awaitable[Work]]
    tell: Callable[..., None]
    waiting: deque[Job] = attrs.field(factory=deque)
    answers: deque[bytes] = attrs.field(factory=deque)
    asked: int = 0  # bytes of the jobs that wait
    answered: int = 0  # bytes of the answers that wait
    held: Held = attrs.field(factory=Held)
    unanswered: int = 0  # jobs that a worker has
    done: dict[str, int] = attrs.field(factory=dict)  # answers, by worker
    alive: int = 0
    _over: bool = False  # the master has no more
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def finished(self) -> bool:
        """Tell whether every job is answered, and none will come."""
        return self._over and not self.waiting and not self.unanswered

    async def run(self) -> None:
        """Deal until all is answered and all workers have ended. Raises what ends the force."""
        self.alive = len(self.workers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed)
            nursery.start_soon(self._deliver)
            for name in self.workers:
                nursery.start_soon(self._keep, name)

    async def _feed(self) -> None:
        lines = Lines(self.master.read, held=self.held)
        while line := await lines.next():
            while (
                max(len(self.waiting), len(self.answers)) >= AHEAD * self.alive
                or max(self.asked, self.answered) >= MUCH
            ):
                await self._changed.park()
            if self._over:  # the master takes no answers any more
                return
            self.waiting.append(Job(line))
            self.asked += len(line)
            self._changed.unpark_all()
        self._over = True
        self._changed.unpark_all()

    async def _deliver(self) -> None:
        while self.answers or not self.finished:
            if not self.answers:
                await self._changed.park()
                continue
            try:
                await self.master.write(self.answers[0])
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self._over = True
                self.waiting.clear()
                self.answers.clear()
                self.asked = self.answered = 0
                self._changed.unpark_all()
                return
            self.answered -= len(self.answers.popleft())
            self._changed.unpark_all()
        await self.master.end_input()

    async def _take(self) -> Job | None:
        """Return the next job, None when there will be none. If cancelled, it has taken none."""
        while not self.waiting:
            if self.finished:
                return None
            await self._changed.park()
        self.unanswered += 1
        job = self.waiting.popleft()
        self.asked -= len(job.line)
        self._changed.unpark_all()
        return job

    async def _keep(self, name: str) -> None:
        """Keep one worker at work until all is done."""
        while why := await self._serve(name, self.workers[name]):
            work = self.workers[name]
            self.tell("lost", name, work.kernel, why)
            with trio.CancelScope(shield=True):
                await work.close()
            try:
                self.workers[name] = await self.again(name, work)
            except OSError as error:
                self.alive -= 1
                self.tell("without", name, words(error))
                if not self.alive and not self.finished:
                    raise NineError(errno.ENODEV, f"no worker is left: {name}: {why}; {words(error)}") from None
                return
        with trio.CancelScope(shield=True):
            await self.workers[name].close()

    async def _serve(self, name: str, work: Work) -> str:
        """Give a worker jobs, and take its answers, until it has ended. Return why it was lost, "" when all is done."""
        mine: deque[Job] = deque()
        window = trio.Semaphore(WINDOW)
        why = ""

        async def give() -> None:
            while True:
                await window.acquire()
                job = await self._take()
                if job is None:
                    break
                mine.append(job)
                try:
                    await work.write(job.line)
                except OSError as error:
                    if error.errno not in GONE:
                        raise
                    return  # it has ended: what it has answered before that counts
            await work.end_input()

        async def take() -> None:
            nonlocal why
            lines = Lines(work.read, whole=True, held=self.held)
            while line := await lines.next():
                while self.answered >= MUCH:
                    await self._changed.park()
                if not mine:
                    raise NineError(errno.EPROTO, f"{name} answered what it was not asked")
                mine.popleft()
                self.unanswered -= 1
                self.done[name] = self.done.get(name, 0) + 1
                self.answers.append(line)
                self.answered += len(line)
                self._changed.unpark_all()
                window.release()

        async def both(scope: trio.CancelScope) -> None:
            await take()
            scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(give)
                nursery.start_soon(both, nursery.cancel_scope)
        except* OSError as group:
            error = _first(group)
            if error.errno in (errno.EPROTO, errno.EMSGSIZE):
                raise error from None
            why = words(error)
        if not why:
            why = await work.wait()
            if not why and not self.finished:
                why = "it ended before its input did"
        self._give_back(name, mine, why)
        return "" if self.finished else why

    def _give_back(self, name: str, mine: deque[Job], why: str) -> None:
        while mine:
            job = mine.pop()
            self.unanswered -= 1
            # only the first was at work, and the others only waited for it
            job.tries += not mine
            if job.tries >= TRIES:
                line = job.line[:40].decode(errors="backslashreplace").strip("\n")
                raise NineError(errno.EIO, f"{TRIES} workers ended with the job {line!r}: {name}: {why}")
            self.waiting.appendleft(job)
            self.asked += len(job.line)
        self._changed.unpark_all()


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OSError)
    return error
