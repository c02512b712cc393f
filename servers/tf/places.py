"""Which task goes where. Pure: it is given what the kernels say of themselves."""

import errno
from collections import Counter
from collections.abc import Generator, Iterable, Mapping

from mk9p.errors import NineError
from mk9p.servers.tf.graph import VALUE, Graph, Where
from mk9p.tree.patterns import Pattern

Facts = Mapping[str, str]
"""What a kernel's status says: name, arch, release, cpus, memory, ..."""


def fits(where: Where, facts: Facts) -> bool:
    """Tell whether a kernel has the attributes: a value may have `*` for any letters, and `>N` or `<N` is a number above or below."""
    return all(_has(facts.get(key, ""), value) for key, value in where.attributes)


def _has(there: str, wanted: str) -> bool:
    if wanted[:1] in ("<", ">"):
        try:
            return float(there) > float(wanted[1:]) if wanted[0] == ">" else float(there) < float(wanted[1:])
        except ValueError:
            return False
    return Pattern(wanted).matches(there[:VALUE])


def choose(
    where: Where, kernels: Mapping[str, Facts], tasks: Counter[str], but: Iterable[str] = ()
) -> Generator[None, None, str]:
    """Return the kernel for a task: of those that fit, the one with the fewest tasks for each CPU, then the first by name.

    `kernels` are those that answer, `tasks` how many each has; a kernel of `but` is taken only by its name. Yield after each that was looked at.
    Raises ENOENT, ENODEV.
    """
    if where.kernel:
        if where.kernel not in kernels:
            there = " ".join(sorted(kernels)) or "none"
            raise NineError(errno.ENOENT, f"no kernel {where.kernel} that answers; there are: {there}")
        return where.kernel
    lost = set(but)
    able = []
    for name, facts in kernels.items():
        if name not in lost and fits(where, facts):
            able.append(name)
        yield
    if not able:
        raise NineError(errno.ENODEV, f"no kernel that answers has {where}")
    return min(sorted(able), key=lambda name: tasks[name] / _cpus(kernels[name]))


def _cpus(facts: Facts) -> int:
    said = facts.get("cpus", "")
    return max(1, int(said)) if said.isdecimal() and len(said) < 6 else 1


def place(graph: Graph, kernels: Mapping[str, Facts], tasks: Counter[str]) -> Generator[None, None, dict[str, str]]:
    """Return the kernel of each task; `tasks` counts them. Yield on the way. Raises as `choose`, with the name of the task."""
    placed = {}
    for name, task in graph.tasks.items():
        try:
            placed[name] = yield from choose(task.where, kernels, tasks)
        except NineError as error:
            raise NineError(error.errno, f"{name}: {error.ename}") from None
        tasks[placed[name]] += 1
    return placed
