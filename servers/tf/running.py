"""A force that runs: its tasks, the pipes between them, and how it ends. It starts together or not at all, and ends together."""

import errno
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.servers.tf.farm import Dealing
from mk9p.servers.tf.graph import Graph, Task, Where
from mk9p.servers.tf.pipes import Channel, Lines, Pipe
from mk9p.servers.tf.places import choose, place
from mk9p.servers.tf.program import Program
from mk9p.servers.tf.reach import Space, words
from mk9p.servers.tf.work import LOST, Command, Work
from mk9p.tree.slices import in_slices

SHOWN: Final = 4096  # characters of a line in the log
AT_ONCE: Final = 32  # tasks that are prepared at a time: each is some ten requests, and a process in its kernel
BROKEN: Final = "signal SIGPIPE"  # how a task ends whose reader has had enough


@attrs.define(eq=False)
class Running:
    """A force between `start` and its end. `tasks` counts those of all forces by kernel; `tell` notes events; `output` takes what goes to nobody."""

    space: Space
    graph: Graph
    tasks: Counter[str]
    tell: Callable[..., None]
    output: Callable[[str, bytes], Awaitable[None]]
    works: dict[str, Work] = attrs.field(factory=dict)
    ended: dict[str, str] = attrs.field(factory=dict)  # how each task ended
    pipes: list[Pipe] = attrs.field(factory=list)
    farms: dict[str, Dealing] = attrs.field(factory=dict)  # by the name of the worker
    reason: str = ""  # why it ended before its tasks did
    lost: set[str] = attrs.field(factory=set)  # kernels that were lost
    counted: Counter[str] = attrs.field(factory=Counter)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _nursery: trio.Nursery | None = None

    async def start(self) -> None:
        """Start all tasks. Raises what is in the way of one of them; then none has run."""
        kernels = await self.space.kernels()
        places = await in_slices(place(self.graph, kernels, self.tasks + Counter()))
        self.counted = Counter(places.values())
        self.tasks.update(self.counted)
        try:
            await self._prepare(places)
            await _all([partial(self._go, name) for name in self.works])
        except BaseException:
            await self._take_down()
            raise

    async def _prepare(self, places: dict[str, str]) -> None:
        async def one(name: str) -> None:
            try:
                self.works[name] = await prepare(self.space, self.graph.tasks[name], places[name])
            except OSError as error:
                raise NineError(error.errno or errno.EIO, f"{name} in {places[name]}: {words(error)}") from None

        await _all([partial(one, name) for name in self.graph.tasks])
        for source, to in self.graph.pipes:
            channel = await Channel.make(self.space, places[to])
            self.pipes.append(Pipe(self.works[source], self.works[to], deque([channel])))

    async def _go(self, name: str) -> None:
        work = self.works[name]
        try:
            await work.go()
        except OSError as error:
            raise NineError(error.errno or errno.EIO, f"{name} in {work.kernel}: {words(error)}") from None

    async def run(self) -> None:
        """Carry what tasks print, until all have ended, or one of them has failed; then leave nothing of them."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._begin(nursery)
        finally:
            self._nursery = None
            await self._take_down()

    async def _begin(self, nursery: trio.Nursery) -> None:
        reads = {to for _, to in self.graph.pipes} | {farm.master for farm in self.graph.farms}
        prints = {source for source, _ in self.graph.pipes} | {farm.master for farm in self.graph.farms}
        workers = {name for farm in self.graph.farms for name in farm.names()}
        free = [name for name in self.works if name not in prints | workers]
        for name, work in self.works.items():
            self.tell("started", name, work.kernel, work.pid)
            nursery.start_soon(self._errors, name, work)
            if name not in workers:
                nursery.start_soon(self._watch, name, work)
            if name not in reads | workers:
                nursery.start_soon(self._failing, name, work.end_input)
        for name in free:
            nursery.start_soon(self._print, name, self.works[name])
        for pipe, (source, _) in zip(self.pipes, self.graph.pipes, strict=True):
            nursery.start_soon(self._failing, source, pipe.run)
        for farm in self.graph.farms:
            made = {name: self.works[name] for name in farm.names()}
            dealing = Dealing(self.works[farm.master], made, self._again, self.tell)
            self.farms[farm.worker] = dealing
            nursery.start_soon(self._failing, farm.worker, dealing.run)

    async def move(self, name: str, kernel: str) -> None:
        """Move a task to another kernel while it runs. Raises what is in the way; then it goes on where it was."""
        work = self.works[name]
        before = work.kernel
        if before == kernel:
            raise NineError(errno.EINVAL, f"{name}: it is in {kernel} already")
        made: list[Channel] = []
        try:
            work.may_move(kernel)
            await in_slices(choose(Where(kernel), await self.space.kernels(), self.tasks))
            pipe = next((pipe for pipe in self.pipes if pipe.to is work), None)
            if pipe is not None:
                made.append(await Channel.make(self.space, kernel))
            await work.move(kernel)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                for channel in made:
                    await channel.close()
            if isinstance(error, OSError):
                raise NineError(error.errno or errno.EIO, f"{name}: {words(error)}") from None
            raise
        if pipe is not None:
            pipe.go_by(made[0])
        for kept in (self.tasks, self.counted):
            kept[before] -= 1
            kept[kernel] += 1
        self.tell("moved", name, before, kernel)

    def fail(self, reason: str) -> None:
        """End the force, and all its tasks."""
        self.reason = self.reason or reason
        self._scope.cancel()

    async def _failing(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something for a task; what it raises ends the force. Where its kernel is gone, `wait` tells that in better words."""
        try:
            await work()
        except* OSError as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.fail(f"{name}: {words(error)}")

    async def _watch(self, name: str, work: Work) -> None:
        status = await work.wait()
        if status == BROKEN and any(pipe.broken for pipe in self.pipes if pipe.source is work):
            status = ""
        self.ended[name] = status
        self.tell("ended", name, work.kernel, status)
        if status:
            self.fail(f"{name}: {status}")

    async def _errors(self, name: str, work: Work) -> None:
        lines = Lines(work.errors, cut=True)
        try:
            while line := await lines.next():
                self.tell("err", name, line[:SHOWN].decode(errors="backslashreplace").rstrip("\n"))
        except OSError as error:
            self.tell("err", name, f"({words(error)})")

    async def _print(self, name: str, work: Work) -> None:
        lines = Lines(work.read, cut=True)

        async def carry() -> None:
            while data := await lines.next():
                await self.output(name, data)

        await self._failing(name, carry)

    async def _again(self, name: str, before: Work) -> Work:
        """Start a worker again that was lost, elsewhere if it may be elsewhere. Raises what is in the way."""
        status = await before.wait()
        if status.startswith(LOST):
            self.lost.add(before.kernel)
        task = self.graph.tasks[name]
        kernels = await self.space.kernels()
        kernel = await in_slices(choose(task.where, kernels, self.tasks, self.lost))
        work = await prepare(self.space, task, kernel)
        try:
            await work.go()
        except BaseException:
            with trio.CancelScope(shield=True):
                await work.close()
            raise
        self.tasks[before.kernel] -= 1
        self.counted[before.kernel] -= 1
        self.tasks[kernel] += 1
        self.counted[kernel] += 1
        self.works[name] = work
        self.tell("started", name, work.kernel, work.pid)
        assert self._nursery is not None
        self._nursery.start_soon(self._errors, name, work)
        return work

    async def _take_down(self) -> None:
        with trio.CancelScope(shield=True):
            await _all([work.close for work in self.works.values()])
            await _all([pipe.close for pipe in self.pipes])
        self.tasks.subtract(self.counted)
        self.counted.clear()


async def _all(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Make all of these calls, some at a time. Raises the first error alone; then the others are cancelled."""
    limit = trio.CapacityLimiter(AT_ONCE)
    failed: list[OSError] = []

    async def one(call: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        async with limit:
            try:
                await call()
            except OSError as error:
                failed.append(error)
                scope.cancel()

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(one, call, nursery.cancel_scope)
    if failed:
        raise failed[0]


async def prepare(space: Space, task: Task, kernel: str) -> Work:
    """Prepare a task in a kernel. Raises what is in the way."""
    kinds: dict[str, type[Command | Program]] = {"command": Command, "wasm": Program}
    return await kinds[task.kind].prepare(space, task, kernel)
