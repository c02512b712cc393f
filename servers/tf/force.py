"""One force as files, and the directory of all."""

import errno
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from mk9p.auth import Principal, counts_as, unlimited
from mk9p.errors import INTERNAL, NineError
from mk9p.servers.tf.graph import LONGEST, Graph, parse
from mk9p.servers.tf.reach import Permit, Space, everything
from mk9p.servers.tf.running import SHOWN, Running
from mk9p.tree import Conversations, Ctl, Dir, Log, Node, Open, Stream, Text, join

log = logging.getLogger("mk9p.tf")

KEPT: Final = 1 << 20  # bytes of output that wait for a reader of `data`
GRAPHS: Final = 1 << 19  # bytes of the graphs of one user; a graph that was read takes thirty times as much
FORCES: Final = 256  # at once: each has open files in its kernels
LINES: Final = 4096  # of a log


@attrs.define(eq=False)
class Force:
    """One conversation (mk9p.tree.Conversation)."""

    all: "Forces"
    number: int
    who: Principal
    state: str = "open"
    text: str = ""
    graph: Graph | None = None
    running: Running | None = None
    log: Log = attrs.field(factory=lambda: Log(LINES, mode=0o400))
    out: "Output" = attrs.field(factory=lambda: Output())
    over: trio.Event = attrs.field(factory=trio.Event)
    line: str = ""
    ctl: Ctl = attrs.field(init=False)
    _began: int = 0

    def __attrs_post_init__(self) -> None:
        self.ctl = Ctl({"start": self.start, "kill": self.kill, "move": self.move}, self.settings, mode=0o600)

    def tree(self) -> Dir:
        return Dir(
            {
                "ctl": self.ctl,
                "graph": Text(lambda: self.text, self.add, mode=0o600),
                "status": Text(self.status),
                "wait": Stream(per_open=lambda _: Wait(self), mode=0o444),
                "log": self.log,
                "data": Stream(per_open=lambda how: Reader(self.out, how), mode=0o400),
            }
        )

    def settings(self) -> str:
        return "start\n" if self.running is not None else ""

    def status(self) -> str:
        """Render a line a task: `NAME KERNEL STATE PID JOBS STATUS`."""
        if self.graph is None:
            return ""
        running = self.running
        lines = []
        for name, task in self.graph.tasks.items():
            work = running.works.get(name) if running else None
            farm = self.graph.farm_of(name)
            dealing = running.farms.get(farm.worker) if running and farm else None
            jobs = dealing.done.get(name, 0) if dealing else "-"
            ended = running.ended.get(name) if running else None
            where = work.kernel if work else str(task.where)
            lines.append(join([name, where, self._state(ended), work.pid if work else "-", jobs, ended or ""]) + "\n")
        return "".join(lines)

    def _state(self, ended: str | None) -> str:
        if ended is not None:
            return "failed" if ended else "done"
        return self.state

    def add(self, text: str) -> None:
        """Add lines to the graph. Raises EINVAL for what is wrong; then it is as before."""
        with self.ctl.remembering(self.who):
            self._before_start()
            whole = f"{self.text}{text}\n"
            if len(whole) > LONGEST:
                raise NineError(errno.EFBIG, f"a graph has {LONGEST} bytes at most")
            self.all.require_room(self.who, len(text) + 1)
            self.graph, self.text = parse(whole), whole

    def _before_start(self) -> None:
        if self.state != "open":
            raise NineError(errno.EBUSY, "the force has been started already")

    async def start(self) -> None:
        """Start all tasks, or none."""
        self._before_start()
        if self.graph is None:
            raise NineError(errno.EINVAL, "no tasks: write lines NAME KERNEL COMMAND... to graph")
        space = Space(self.all.reach, self.who, self.all.permit)
        self.state, self._began = "starting", time.monotonic_ns()
        running = Running(space, self.graph, self.all.tasks, self.log.emit, self._print)
        try:
            await running.start()
        except BaseException:
            self.state = "open"
            raise
        if self.state != "starting":  # its last file was closed meanwhile
            running.fail("killed")
        else:
            self.state = "running"
        self.running = running
        self.all.nursery.start_soon(self._run, running)

    async def _run(self, running: Running) -> None:
        try:
            await running.run()
        except Exception:  # our bug: other forces, and the namespace, go on
            log.exception("internal error: force %d ends", self.number)
            running.reason = INTERNAL
        finally:
            self.state = "failed" if running.reason else "done"
            spent = (time.monotonic_ns() - self._began) // 1_000_000
            self.line = join([self.number, spent, running.reason]) + "\n"
            self.log.emit(self.state, *([running.reason] if running.reason else []))
            self.out.end()
            self.over.set()

    async def _print(self, name: str, data: bytes) -> None:
        if self.out.readers:
            await self.out.put(data)
        else:
            self.log.emit("out", name, data[:SHOWN].decode(errors="backslashreplace").rstrip("\n"))

    def kill(self) -> None:
        """End all tasks."""
        if self.running is None:
            raise NineError(errno.ESRCH, "the force has not been started")
        self.running.fail("killed")

    async def move(self, task: str, kernel: str) -> None:
        """Move a task that can be moved to another kernel while it runs."""
        if self.running is None or self.over.is_set():
            raise NineError(errno.ESRCH, "the force does not run")
        if task not in self.running.works:
            raise NineError(errno.ENOENT, f"no task {task}; there are: {' '.join(self.running.works)}")
        await self.running.move(task, kernel)

    async def close(self) -> None:
        """End its tasks, and wait until nothing is left of them."""
        self.state = "killed" if self.state == "starting" else self.state
        if self.running is not None:
            self.running.fail("killed")
            await self.over.wait()


class Output:
    """What tasks print that goes to no other task. It is kept until it is read, and tasks wait when that is much."""

    def __init__(self) -> None:
        self.readers = 0
        self.waiting: deque[bytes] = deque()
        self.bytes = 0
        self.over = False
        self.changed = trio.lowlevel.ParkingLot()

    async def put(self, data: bytes) -> None:
        while self.bytes >= KEPT and self.readers:
            await self.changed.park()
        self.waiting.append(data)
        self.bytes += len(data)
        self.changed.unpark_all()

    async def receive(self) -> bytes:
        while not self.waiting and not self.over:
            await self.changed.park()
        if not self.waiting:
            return b""
        data = self.waiting.popleft()
        self.bytes -= len(data)
        self.changed.unpark_all()
        return data

    def end(self) -> None:
        self.over = True
        self.changed.unpark_all()


class Reader:
    """One open `data`."""

    def __init__(self, out: Output, how: Open) -> None:
        self.out = out
        out.readers += 1

    async def receive(self) -> bytes:
        return await self.out.receive()

    def send(self, data: bytes) -> None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        self.out.readers -= 1
        self.out.changed.unpark_all()


@attrs.define(eq=False)
class Wait:
    """One open `wait`: a line when the force has ended, and the end."""

    force: Force
    told: bool = False

    async def receive(self) -> bytes:
        if self.told:
            return b""
        await self.force.over.wait()
        self.told = True
        return self.force.line.encode()

    def send(self, data: bytes) -> None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        """Do nothing: others wait too."""


class Forces(Conversations):
    """The directory `tf`."""

    def __init__(self, nursery: trio.Nursery, reach: Callable[[Principal], Node], permit: Permit = everything) -> None:
        self.nursery, self.reach, self.permit = nursery, reach, permit
        self.tasks: Counter[str] = Counter()  # of all forces, by kernel
        ctl = Ctl({"kill": self.kill}, mode=0o600)
        super().__init__(self._force, {"ctl": ctl, "status": Text(self.table)}, mode=0o666, limit=FORCES)

    def _force(self, number: int, who: Principal) -> Force:
        if who.scope is not None:
            raise NineError(errno.EACCES, "a force has the rights of a user, and not those of a capability")
        return Force(self, number, attrs.evolve(who, gid=None))

    def _forces(self) -> list[Force]:
        found: list[Any] = [talk.talk for _, talk in sorted(self.talks.items()) if talk]
        return found

    def kill(self, n: int) -> None:
        """End the tasks of a force: for root."""
        for force in self._forces():
            if force.number == n:
                force.kill()
                return
        raise NineError(errno.ESRCH, f"no force {n}")

    def require_room(self, who: Principal, more: int) -> None:
        """Raise ENOSPC if a user would have too much text in graphs with some more."""
        mine = sum(len(force.text) for force in self._forces() if counts_as(force.who) == counts_as(who))
        if mine + more > GRAPHS and not unlimited(who):
            raise NineError(errno.ENOSPC, f"the graphs of {who.name} have {GRAPHS} bytes at most")

    def table(self) -> str:
        """Render a line a force: `N STATE TASKS USER`."""
        return "".join(
            join([force.number, force.state, len(force.graph.tasks) if force.graph else 0, force.who.name]) + "\n"
            for force in self._forces()
        )
