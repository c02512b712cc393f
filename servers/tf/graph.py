"""The words of a graph: tasks, pipes, farms. Pure: it asks no kernel.

    NAME KERNEL COMMAND ARGS…             a task in a kernel of that name
    NAME {ATTR VALUE…} COMMAND ARGS…      … in any kernel whose status has these values; {} is any kernel
    NAME WHERE wasm PATH ARGS…            … a program of wasm instead of a command
    A | B | C                             pipes: what A prints is what B reads
    A <> B                                … in both directions
    [N] A ||| B                           a farm: N copies of A answer the lines of B, which reads the answers

A line that names no new task is a pipe or a farm. `#` begins a comment, and words are quoted as in rc.
"""

import errno
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal

import attrs

from mk9p.errors import NineError
from mk9p.tree.words import lines, split, uncomment

TASKS: Final = 1024  # of a force, with all copies: each has five open files in its kernel
LONGEST: Final = 1 << 16  # bytes of a graph: more than anybody writes for so many tasks
ATTRIBUTES: Final = 64  # of a task, and characters of each: each is compared with what every kernel says
VALUE: Final = 255
WASM: Final = "wasm"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_COUNT: Final = re.compile(r"\[([0-9]{1,4})\]")
_JOINS: Final = ("|", "<>", "|||")


@attrs.frozen
class Where:
    """Where a task may be: in a kernel, or in any with these attributes."""

    kernel: str = ""
    attributes: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.kernel or f"{{{' '.join(word for pair in self.attributes for word in pair)}}}"


@attrs.frozen
class Task:
    """One task: `command` are its words, the first a program, or of `wasm` the path of its module."""

    name: str
    where: Where
    command: tuple[str, ...]
    kind: Literal["command", "wasm"] = "command"


@attrs.frozen
class Farm:
    """`count` copies of `worker` answer the lines of `master`."""

    worker: str
    master: str
    count: int

    def names(self) -> list[str]:
        """Return the names of the copies."""
        return [f"{self.worker}.{number}" for number in range(self.count)]


@attrs.frozen
class Graph:
    """Tasks by name, copies among them; pipes as (from, to); farms."""

    tasks: dict[str, Task]
    pipes: tuple[tuple[str, str], ...]
    farms: tuple[Farm, ...]

    def farm_of(self, task: str) -> Farm | None:
        """Return the farm in which a task is a worker."""
        worker, dot, _ = task.rpartition(".")
        return next((farm for farm in self.farms if dot and farm.worker == worker), None)


def parse(text: str) -> Graph:
    """Return the graph that a text says. Raises EINVAL with the number of the first line that is wrong, or with what is wrong with all of them."""
    tasks: dict[str, Task] = {}
    pipes: list[tuple[str, str]] = []
    farms: list[Farm] = []
    for number, line in enumerate(lines(text), 1):
        try:
            words = split(uncomment(line))
            if not words:
                continue
            if _COUNT.fullmatch(words[0]) or (len(words) > 1 and words[1] in _JOINS):
                _join(words, tasks, pipes, farms)
            else:
                task = _task(words)
                if task.name in tasks:
                    raise NineError(errno.EINVAL, f"there is a task {task.name} already")
                tasks[task.name] = task
        except NineError as error:
            raise NineError(error.errno, f"line {number}: {error.ename}") from None
    if not tasks:
        raise NineError(errno.EINVAL, "no tasks: write lines NAME KERNEL COMMAND... to graph")
    _check_ends(pipes, farms)
    count = len(tasks) + sum(farm.count - 1 for farm in farms)
    if count > TASKS:  # before they are made: a short text may want millions
        raise NineError(errno.E2BIG, f"{count} tasks: a force has {TASKS} at most")
    for farm in farms:
        template = tasks.pop(farm.worker)
        tasks |= {name: attrs.evolve(template, name=name) for name in farm.names()}
    return Graph(tasks, tuple(pipes), tuple(farms))


def _task(words: list[str]) -> Task:
    name, *rest = words
    if not _NAME.fullmatch(name):
        raise NineError(errno.EINVAL, f"{name!r} is no name of a task: letters, digits, _ and -")
    where, command = _where(rest)
    kind: Literal["command", "wasm"] = "command"
    if command[:1] == [WASM]:
        kind, command = "wasm", command[1:]
    if not command:
        raise NineError(errno.EINVAL, "want NAME KERNEL COMMAND..., or NAME {ATTR VALUE...} COMMAND...")
    return Task(name, where, tuple(command), kind)


def _where(words: list[str]) -> tuple[Where, list[str]]:
    """Return where a task may be, and the words that follow."""
    if not words:
        return Where(), []
    if not words[0].startswith("{"):
        if "/" in words[0] or words[0] in ("", ".", ".."):
            raise NineError(errno.EINVAL, f"{words[0]!r} is no name of a kernel")
        return Where(words[0]), words[1:]
    end = next((at for at, word in enumerate(words) if word.endswith("}")), None)
    if end is None:
        raise NineError(errno.EINVAL, "a { without its }")
    inside = [word for word in " ".join(words[: end + 1])[1:-1].split(" ") if word]
    if len(inside) % 2:
        raise NineError(errno.EINVAL, "want {ATTR VALUE...}: a value for each attribute")
    if len(inside) > 2 * ATTRIBUTES or any(len(word) > VALUE for word in inside):
        raise NineError(errno.EINVAL, f"at most {ATTRIBUTES} attributes, and {VALUE} characters of each")
    return Where("", tuple(zip(inside[::2], inside[1::2], strict=True))), words[end + 1 :]


def _join(words: list[str], tasks: dict[str, Task], pipes: list[tuple[str, str]], farms: list[Farm]) -> None:
    count = _COUNT.fullmatch(words[0])
    if count:
        words = words[1:]
        if len(words) != 3 or words[1] != "|||":
            raise NineError(errno.EINVAL, "usage: [N] A ||| B")
    names, joins = words[::2], words[1::2]
    if len(words) % 2 == 0 or any(join not in _JOINS for join in joins):
        raise NineError(errno.EINVAL, "usage: A | B..., A <> B, [N] A ||| B")
    for name in names:
        if name not in tasks:
            raise NineError(errno.ENOENT, f"no task {name} before this line")
    if "|||" in joins:
        if not count or not 1 <= int(count[1]) <= TASKS:
            raise NineError(errno.EINVAL, f"usage: [N] A ||| B, with N from 1 to {TASKS}")
        if names[0] == names[1]:
            raise NineError(errno.EINVAL, f"{names[0]} cannot be its own worker")
        farms.append(Farm(names[0], names[1], int(count[1])))
        return
    for source, join, to in zip(names, joins, names[1:], strict=False):
        if source == to:
            raise NineError(errno.EINVAL, f"a pipe from {source} to itself")
        pipes.append((source, to))
        if join == "<>":
            pipes.append((to, source))


def _check_ends(pipes: list[tuple[str, str]], farms: list[Farm]) -> None:
    """Raise EINVAL where the input or the output of a task is used twice."""
    ends = [*((name, word) for name, word in _ends(pipes, farms))]
    for (name, word), times in Counter(ends).items():
        if times > 1:
            raise NineError(errno.EINVAL, f"the {word} of {name} is in {times} pipes: a task has one of each")


def _ends(pipes: list[tuple[str, str]], farms: list[Farm]) -> Iterator[tuple[str, str]]:
    for source, to in pipes:
        yield source, "output"
        yield to, "input"
    for farm in farms:
        for name in (farm.worker, farm.master):
            yield name, "output"
            yield name, "input"
