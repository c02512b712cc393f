"""The words that lead from what there is to what a lab file says (labfile.py). Pure: files' texts in, words out.

`words` compares what is desired with a `Present`. Each word is a file of the namespace and a line for it, so a person could have typed it. What
stands in no line of the lab file is left alone: kernels and mounts that others made, settings that are not named.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import attrs

from mk9p.affinity import listed, numbers
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.tree import join, split
from mk9p.tree.words import lines as whole_lines

from .inside import cpu_states
from .labfile import canonical
from .pool import Pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .labfile import Desired, Wanted

RUNS: Final = ("active", "silent", "frozen", "booting")

RULES: Final = "auth/policy"

UNSAID: Final = {
    "serve": "serve",
    "device": "device",
    "show": "show",
    "modules": "modules",
    "boot": "boot",
    "wait": "wait 0",
    "hostroot": "hostroot off",
    "trust": "trust off",
}
"""What a kernel's config does not say, because it is so without a word."""

GROWS: Final = ("device", "show", "modules")
"""Words that add to what was said before; alone, they forget it."""

Word = tuple[str, str]
"""A file of the namespace, and a line to write there."""


@attrs.frozen
class Now:
    """What one kernel is: its state (life.State; `booting` if it runs and does not serve yet), its config lines by their first word, and what it has.
    `online` and `present` are its CPUs as it says itself, None if it cannot be asked. One that is `real` has parts of the machine itself: what it is
    to have counts when it is loaded, and is left alone then."""

    state: str
    settings: dict[str, str] = attrs.Factory(dict)
    grants: frozenset[str] = frozenset()
    cpus: int = 1
    extra_cpus: int = 0
    extra_memory: int = 0
    devices: frozenset[str] = frozenset()
    online: frozenset[int] | None = None
    present: frozenset[int] = frozenset()
    isolated: frozenset[int] = frozenset()
    real: bool = False


@attrs.frozen
class Present:
    """What there is."""

    kernels: dict[str, Now] = attrs.Factory(dict)
    pool_cpus: frozenset[int] = frozenset()
    pool_memory: int = 0
    pool_devices: frozenset[str] = frozenset()
    lines: frozenset[str] = frozenset()
    rules: str = ""


def words(desired: Desired, present: Present, *, restart: bool = False) -> list[Word]:
    """Return the words that make what is desired out of what is present; none if it is so.

    A setting that a running kernel does not take stays as it is (`waiting`), or, with `restart`, the kernel is halted for it. Raises ENODEV or ENOMEM
    if there is less in the pool than kernels are to get.
    """
    there = {name: now for name, now in present.kernels.items() if name in desired.kernels}
    found = list(_pool_words(desired, present))
    pool = Pool(set(present.pool_cpus))
    for _, line in found:
        pool.cpus |= _cpus(line, "add")
    for name, now in there.items():  # what is given back comes first, so that others can have it
        given = list(_given(desired.kernels[name], now))
        for _, line in given:
            for number in sorted(_cpus(line, "del")):
                pool.cpus.add(pool.number(number, set()))
        found += given
    free = sorted(pool.cpus)
    for name, wanted in desired.kernels.items():
        found += _kernel_words(wanted, there.get(name), free, restart=restart)
    found += [("ctl", line) for line in desired.lines if line not in present.lines]
    if desired.rules is not None and desired.rules != present.rules:
        found.append((RULES, desired.rules.removesuffix("\n")))
    return found


def waiting(desired: Desired, present: Present) -> list[str]:
    """Return the settings that wait for the next start of their kernels, a line each."""
    found: list[str] = []
    for name, wanted in desired.kernels.items():
        now = present.kernels.get(name)
        if now is not None and now.state in RUNS and wanted.runs:
            found += [f"{name}: {line}" for line in _settings(wanted, now)]
    return found


def _cpus(line: str, do: str) -> set[int]:
    """Return the CPUs of `cpu add|del LIST`, none for other lines."""
    found = split(line)
    return set(numbers(found[2])) if found[:2] == ["cpu", do] else set()


def _pool_words(desired: Desired, present: Present) -> Iterator[Word]:
    """Yield what adds to the pool. What is in kernels counts: so a second time there is nothing to add."""
    kernels = present.kernels.values()
    lack = len(desired.pool_cpus) - len(present.pool_cpus) - sum(now.extra_cpus for now in kernels)
    new = sorted(desired.pool_cpus - present.pool_cpus)[: max(0, lack)]
    if new:
        yield "kernels/pool/ctl", f"cpu add {listed(frozenset(new))}"
    memory = desired.pool_memory - present.pool_memory - sum(now.extra_memory for now in kernels)
    if memory > 0:
        yield "kernels/pool/ctl", f"mem add {memory}"
    there = present.pool_devices.union(*(now.devices for now in kernels))
    for name, device in desired.devices.items():
        if name not in there:
            yield "kernels/pool/ctl", join(["dev", "add", *device.words])


def _given(wanted: Wanted, now: Now) -> Iterator[Word]:
    """Yield what a kernel has and is not to have."""
    ctl = f"kernels/{wanted.name}/ctl"
    if now.state in RUNS and not wanted.runs:
        yield ctl, "halt"
    elif now.state in RUNS and not now.real:
        keep = now.isolated if wanted.isolated is None else wanted.isolated
        if more := now.isolated - keep:
            yield f"k/{wanted.name}/cpu/ctl", f"join {listed(more)}"
        if wanted.cpus is not None and (count := now.cpus - wanted.cpus) > 0:
            free = sorted((now.online or frozenset(range(now.cpus))) - keep)
            yield ctl, f"cpu del {listed(frozenset(free[-count:]))}"
    if now.real:
        return
    if wanted.extra_memory is not None and now.extra_memory > wanted.extra_memory:
        yield ctl, f"mem del {now.extra_memory - wanted.extra_memory}"
    for device in sorted(now.devices - (now.devices if wanted.devices is None else frozenset(wanted.devices))):
        yield ctl, join(["dev", "del", device])


def _kernel_words(wanted: Wanted, now: Now | None, free: list[int], *, restart: bool) -> Iterator[Word]:
    ctl = f"kernels/{wanted.name}/ctl"
    if now is None:
        yield "kernels/ctl", join(["create", wanted.name])
        now = Now("empty")
    now = attrs.evolve(now, real=now.real or wanted.settings.get("backend") == "backend multikernel")
    runs = now.state in RUNS and wanted.runs
    settings = _settings(wanted, now)
    if runs and settings and restart:
        yield ctl, "halt"
        runs = False
    if not runs:
        for line in settings:
            yield ctl, line
    for key in ("restart", "watch"):
        if key in wanted.settings and wanted.settings[key] != now.settings.get(key, f"{key} 0 tell"):
            yield ctl, wanted.settings[key]
    yield from _grants(wanted, now)
    if runs and wanted.cpus is not None and not now.real:
        yield from _more_cpus(wanted, now, free)
    if not now.real:
        yield from _more(wanted, now)
    if wanted.runs and not runs:
        yield ctl, "start"
    if wanted.runs and wanted.isolated and (more := wanted.isolated - now.isolated):
        yield f"k/{wanted.name}/cpu/ctl", f"isolate {listed(more)}"


def _more(wanted: Wanted, now: Now) -> Iterator[Word]:
    """Yield what gives a kernel the memory and the devices that it lacks."""
    ctl = f"kernels/{wanted.name}/ctl"
    if wanted.extra_memory is not None and now.extra_memory < wanted.extra_memory:
        yield ctl, f"mem add {wanted.extra_memory - now.extra_memory}"
    for device in wanted.devices or ():
        if device not in now.devices:
            yield ctl, join(["dev", "add", device])


def _more_cpus(wanted: Wanted, now: Now, free: list[int]) -> Iterator[Word]:
    """Yield what gives a running kernel the CPUs that it lacks: those that somebody took offline in it, then those of the pool."""
    assert wanted.cpus is not None
    if now.online is not None and (off := min(wanted.cpus, now.cpus) - len(now.online)) > 0:
        yield f"k/{wanted.name}/cpu/ctl", f"online {listed(frozenset(sorted(now.present - now.online)[:off]))}"
    if (count := wanted.cpus - now.cpus) > 0:
        if len(free) < count:
            raise NineError(errno.ENODEV, f"{wanted.name} lacks {count} CPUs, and the pool has {len(free)}")
        yield f"kernels/{wanted.name}/ctl", f"cpu add {listed(frozenset(free[:count]))}"
        del free[:count]


def _settings(wanted: Wanted, now: Now) -> list[str]:
    """Return the lines that only a kernel that does not run takes, as far as they differ; `load` comes last."""
    lines: list[str] = []
    for key, line in wanted.settings.items():
        there = now.settings.get(key, UNSAID.get(key))
        if key in ("restart", "watch") or line == there:
            continue
        if key in GROWS and there != key and line != key:
            lines.append(key)
        lines.append(line)
    if wanted.cpus is not None and now.state not in RUNS and wanted.cpus != now.cpus:
        lines.append(f"cpus {wanted.cpus}")
    if now.real and now.state not in ("empty", "ready"):  # it has its parts
        lines = [line for line in lines if split(line)[0] not in ("cpus", "memory")]
    loaded = now.settings.get("load", "")
    if not loaded or not _is_loaded(split(wanted.load)[1:], split(loaded)[1:]):
        lines.append(wanted.load)
    return lines


def _is_loaded(wanted: list[str], loaded: list[str]) -> bool:
    """Say whether what is loaded will do; where no kernel is named, the backend's own was."""
    return not wanted or wanted == loaded or (not wanted[0] and wanted[1:] == loaded[1:])


def _grants(wanted: Wanted, now: Now) -> Iterator[Word]:
    if wanted.grants is None:
        return
    ctl = f"kernels/{wanted.name}/ctl"
    paths = {split(grant)[0] for grant in wanted.grants}
    for grant in sorted(now.grants):
        if (path := split(grant)[0]) not in paths:
            yield ctl, join(["ungrant", path])
    for grant in wanted.grants:
        if grant not in now.grants:
            yield ctl, f"grant {grant}"


async def present(desired: Desired, read: Callable[[str], Awaitable[str]]) -> Present:
    """Return what there is, as files of the namespace say it. `read` gives a file's text, and raises OSError as that file does."""
    pool = _values(await read("kernels/pool/status"))
    states = [split(line) for line in split_lines(await read("kernels/status"))]
    kernels = {state[0]: await _now(state[0], desired.kernels.get(state[0]), read) for state in states if state}
    lines = split_lines(await read("ns")) if desired.lines else []
    rules = ""
    if desired.rules is not None:
        try:
            rules = await read(RULES)
        except FileNotFoundError:
            raise NineError(errno.ENOENT, "policy: this namespace has no rules: start it with --policy FILE") from None
    return Present(
        kernels,
        frozenset(numbers(pool.get("cpus", ""))),
        int(pool.get("memory") or 0),
        frozenset(split(pool.get("devices", ""))),
        frozenset(map(canonical, lines)),
        rules,
    )


async def _now(name: str, wanted: Wanted | None, read: Callable[[str], Awaitable[str]]) -> Now:
    status = _values(await read(f"kernels/{name}/status"))
    # a quoted word may have several lines, such as a script
    config = [line for line in whole_lines(await read(f"kernels/{name}/config")) if line]
    runs = status.get("pid", "0") != "0" or status.get("dial")  # a kernel that is no process of this machine has a dial
    state = "booting" if status["state"] == "loaded" and runs else status["state"]
    now = Now(
        state,
        {split(line)[0]: line for line in config if split(line)[0] != "grant"},
        frozenset(line.removeprefix("grant ") for line in config if line.startswith("grant ")),
        int(status["cpus"]),
        int(status.get("extra_cpus") or 0),
        int(status.get("extra_memory") or 0),
        frozenset(split(status.get("devices", ""))),
        real=status.get("backend") == "multikernel",
    )
    if now.real or state != "active" or wanted is None or (wanted.cpus is None and wanted.isolated is None):
        return now
    try:
        cpus = [line.split(" ") for line in split_lines(await read(f"k/{name}/cpu/status"))]
    except OSError:  # it serves no cpu/, or has just gone: nothing is known of its CPUs
        return now
    by = {int(number): how for number, how in cpu_states(cpus).items()}
    return attrs.evolve(
        now,
        online=frozenset(n for n, how in by.items() if how != "offline"),
        present=frozenset(by),
        isolated=frozenset(n for n, how in by.items() if how == "isolated"),
    )


def _values(text: str) -> dict[str, str]:
    return dict(line.partition(" ")[::2] for line in split_lines(text))
