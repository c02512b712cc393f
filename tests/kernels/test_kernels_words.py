"""The words of a lab file lead there: each is possible when its turn comes, and afterwards nothing differs; whatever there was before."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from mk9p.affinity import numbers
from mk9p.errors import NineError
from mk9p.servers.kernels import desired, labfile
from mk9p.servers.kernels.device import Device
from mk9p.tree import split

PLACES = frozenset(range(8))
NAMES = ("k1", "k2")
DEVICES = {name: Device(name, "net", ("closed",)) for name in ("a", "b")}


@attrs.define
class World:
    """What there is, as words change it. It refuses what real kernels would."""

    kernels: dict[str, desired.Now]
    cpus: set[int]
    memory: int
    devices: set[str]
    lines: set[str] = attrs.Factory(set)

    def present(self) -> desired.Present:
        return desired.Present(
            dict(self.kernels), frozenset(self.cpus), self.memory, frozenset(self.devices), frozenset(self.lines)
        )

    def write(self, file: str, line: str) -> None:
        top, *rest = file.split("/")
        words = split(line)
        if file == "ctl":
            self.lines.add(line)
        elif file == "kernels/ctl":
            assert words[1] not in self.kernels
            self.kernels[words[1]] = desired.Now("empty")
        elif file == "kernels/pool/ctl":
            self.pool(words)
        elif top == "k":
            self.cpu(rest[0], words)
        else:
            self.kernel(rest[0], words, line)

    def pool(self, words: list[str]) -> None:
        kind, do, what = words[:3]
        assert do == "add"
        if kind == "cpu":
            assert not self.cpus & set(numbers(what))
            self.cpus |= set(numbers(what))
        elif kind == "mem":
            self.memory += int(what)
        else:
            assert what not in self.devices
            self.devices.add(what)

    def cpu(self, name: str, words: list[str]) -> None:
        now = self.kernels[name]
        which = frozenset(numbers(words[1]))
        assert now.state == "active"
        online = now.online or frozenset()
        if words[0] == "online":
            assert not which & online
            now = attrs.evolve(now, online=online | which)
        elif words[0] == "isolate":
            assert which <= online
            now = attrs.evolve(now, isolated=now.isolated | which)
        else:
            assert which <= now.isolated
            now = attrs.evolve(now, isolated=now.isolated - which)
        self.kernels[name] = now

    def kernel(self, name: str, words: list[str], line: str) -> None:
        now = self.kernels[name]
        runs = now.state in desired.RUNS
        match words:
            case ["start"]:
                assert not runs
                assert "load" in now.settings
                now = attrs.evolve(now, state="active", online=frozenset(range(now.cpus)), present=PLACES)
            case ["halt"]:
                assert runs
                now = attrs.evolve(now, state="loaded", online=None, present=frozenset(), isolated=frozenset())
            case ["grant", path, _]:
                others = {grant for grant in now.grants if split(grant)[0] != path}
                now = attrs.evolve(now, grants=frozenset(others | {line.removeprefix("grant ")}))
            case ["ungrant", path]:
                assert any(split(grant)[0] == path for grant in now.grants)
                now = attrs.evolve(now, grants=frozenset(grant for grant in now.grants if split(grant)[0] != path))
            case ["cpu" | "mem" | "dev" as kind, "add" | "del" as do, what]:
                now = self.move(now, kind, what, 1 if do == "add" else -1)
            case ["cpus", n]:
                assert not runs
                now = attrs.evolve(now, cpus=int(n))
            case [word, *_]:
                assert word in ("restart", "watch") or not runs, line
                now = attrs.evolve(now, settings=now.settings | {word: line})
        self.kernels[name] = now

    def move(self, now: desired.Now, kind: str, what: str, sign: int) -> desired.Now:
        if kind == "cpu":
            which = set(numbers(what))
            assert now.state in desired.RUNS
            online = set(now.online or range(now.cpus))
            if sign > 0:
                assert which <= self.cpus
                self.cpus -= which
                online |= set(sorted(PLACES - online)[: len(which)])
            else:
                assert which <= online - now.isolated
                assert online > which
                online -= which
                free = sorted(set(range(64)) - self.cpus - which)
                self.cpus |= {n if n not in self.cpus else free.pop(0) for n in which}
            count = sign * len(which)
            kept = None if now.online is None else frozenset(online)
            return attrs.evolve(now, cpus=now.cpus + count, extra_cpus=now.extra_cpus + count, online=kept)
        if kind == "mem":
            assert self.memory >= sign * int(what)
            assert now.extra_memory + sign * int(what) >= 0
            self.memory -= sign * int(what)
            return attrs.evolve(now, extra_memory=now.extra_memory + sign * int(what))
        if sign > 0:
            self.devices.remove(what)
            return attrs.evolve(now, devices=now.devices | {what})
        assert what in now.devices
        self.devices.add(what)
        return attrs.evolve(now, devices=now.devices - {what})


@st.composite
def wanted(draw: st.DrawFn, name: str, devices: tuple[str, ...]) -> labfile.Wanted:
    cpus = draw(st.none() | st.integers(1, 5))
    isolated = draw(st.none() | st.sets(st.just(0), max_size=1).map(frozenset))  # a number that every kernel has
    return labfile.Wanted(
        name,
        draw(
            st.dictionaries(st.sampled_from(["memory", "restart"]), st.just(""), max_size=2).map(
                lambda some: {key: f"{key} 1" for key in some}
            )
        ),
        cpus=cpus,
        load=draw(st.sampled_from(["load", "load 6.1", "load 6.12"])),
        grants=draw(st.none() | st.sets(st.sampled_from(["/x ro", "/x rw", "/y ro"]), max_size=1).map(tuple)),
        runs=draw(st.booleans()),
        extra_memory=draw(st.none() | st.integers(0, 5).map(lambda n: n << 21)),
        devices=draw(st.none() | st.just(devices)),
        isolated=isolated if isolated is None or (cpus or 0) > 1 else frozenset(),
    )


@st.composite
def labs(draw: st.DrawFn) -> labfile.Desired:
    names = draw(st.sets(st.sampled_from(NAMES)))
    owner = {device: draw(st.sampled_from([*NAMES, ""])) for device in DEVICES}
    kernels = {
        name: draw(wanted(name, tuple(d for d, where in owner.items() if where == name))) for name in sorted(names)
    }
    return labfile.Desired(
        kernels,
        pool_cpus=draw(st.sets(st.integers(0, 9)).map(frozenset)),
        pool_memory=draw(st.integers(0, 9)) << 21,
        devices=DEVICES,
        lines=tuple(draw(st.sets(st.sampled_from(["bind /a /b", "mount x /c"])))),
    )


def reach(world: World, lab: labfile.Desired, *, restart: bool) -> bool:
    """Write words until none are left; False if the pool has too little, which is said before any of them is written."""
    for _ in range(3):
        try:
            words = desired.words(lab, world.present(), restart=restart)
        except NineError:
            return False
        if not words:
            return True
        for file, line in words:
            if (
                file.startswith("kernels/")
                and split(line)[:2] in (["mem", "add"], ["dev", "add"])
                and file != "kernels/pool/ctl"
            ):
                kind, _, what = split(line)
                if (int(what) > world.memory) if kind == "mem" else (what not in world.devices):
                    return False  # the word itself says so
            world.write(file, line)
    return not desired.words(lab, world.present(), restart=restart)


@settings(max_examples=300)
@given(st.lists(st.tuples(labs(), st.booleans()), min_size=1, max_size=4))
def test_words_lead_from_wherever_to_what_is_desired(history: list[tuple[labfile.Desired, bool]]) -> None:
    world = World({}, set(), 0, set())
    for lab, restart in history:
        if not reach(world, lab, restart=restart):
            continue
        there = world.present()
        assert desired.words(lab, there, restart=restart) == []
        for name, one in lab.kernels.items():
            now = there.kernels[name]
            assert (now.state in desired.RUNS) == one.runs
            if one.cpus is not None:
                assert now.cpus == one.cpus
                assert now.online is None or len(now.online) == one.cpus
            assert one.extra_memory in (None, now.extra_memory)
            assert one.devices is None or set(one.devices) == now.devices
            assert one.grants is None or set(one.grants) == now.grants
            assert one.isolated is None or not one.runs or one.isolated == now.isolated
            if restart:
                assert desired.waiting(lab, there) == []
