"""Desired state: a lab file compared with what there is, made so by words, and kept so."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.testing

from mk9p.errors import NineError
from mk9p.servers import kernels
from mk9p.servers.kernels import desired, labfile
from mk9p.tree import Ctl, Dir, Text
from tests.kernels.made_up import MadeUp
from tests.kernels.moving import boots_itself, moving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.kernels.moving import Moving

MB = 1 << 20
LOOKS = 15  # s: several looks of the server


@pytest.fixture
def autojump_clock(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    """Wait for threads, which write the journal, before time goes on."""
    autojump_clock.autojump_threshold = 0.005
    return autojump_clock


LAB = """
[pool]
cpus = "4-6"
memory = "1G"
devices = ["usb0 usb /srv/stick.img", "net0 net closed"]

[namespace]
lines = ["mount -ra unix!/run/other /k/other", "bind /k/k1/fs /shared"]

[k1]
backend = "uml"
cpus = 2
memory = "768M"
restart = "on-failure max 3"
watch = "10 restart"
grants = ["/k/k2 rw"]

[k2]
cpus = 1
extra_memory = "256M"
devices = ["usb0"]
isolated = ""
"""


@attrs.define
class Names:
    """The namespace around `kernels/`: its table, and its ctl."""

    lines: list[str] = attrs.Factory(list)

    def tree(self) -> Dir:
        return Dir(
            {
                "ns": Text(lambda: "".join(f"{line}\n" for line in self.lines)),
                "ctl": Ctl({"mount": self.mount, "bind": self.bind}),
            }
        )

    def mount(self, *words: str) -> None:
        self.lines.append(" ".join(["mount", *words]))

    def bind(self, *words: str) -> None:
        self.lines.append(" ".join(["bind", *words]))


@attrs.define(eq=False)
class Keeping:
    """Made-up kernels, and the namespace in which they are."""

    here: Moving
    names: Names

    async def write(self, text: str) -> None:
        await self.here.say("desired", text)

    async def settled(self) -> None:
        """Wait until nothing differs any more but what waits for a next start, and nobody is at work on it."""
        with trio.fail_after(1000):
            while await self.differs():  # noqa: ASYNC110 - it is what is tested
                await trio.sleep(1)
            await trio.sleep(LOOKS)
        assert not await self.differs()

    async def differs(self) -> list[str]:
        lines = (await self.here.read("diff")).split("\n")
        return [line for line in lines if line and not line.startswith("# ")]

    @staticmethod
    def config(text: str, key: str) -> list[str]:
        return [line for line in text.split("\n") if line.split(" ")[0] == key]

    def happened(self) -> list[str]:
        return [line.decode().rstrip("\n").split(" ", 2)[2] for line in self.here.lab.kernels.events.lines]


@asynccontextmanager
async def keeping(home: Path) -> AsyncIterator[Keeping]:
    async with moving(home) as here:
        names = Names()
        here.lab.backend.trees[""] = names.tree()
        await here.say("ctl", "delete k1")
        boots_itself(here)
        yield Keeping(here, names)


async def test_a_lab_file_is_made_true_and_a_second_time_there_is_nothing_to_do(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with keeping(tmp_path) as one:
        await one.write(LAB)
        assert await one.here.read("desired") == LAB.removesuffix("\n")
        await one.settled()
        assert (
            await one.here.read("status") == "k1 active uml 2 805306368 made-up\nk2 active qemu 1 536870912 made-up\n"
        )
        config = await one.here.read("k1/config")
        assert "restart on-failure max 3\nwatch 10 restart\ngrant /k/k2 rw\n" in config
        assert (one.here.inner["k2"].size, list(one.here.inner["k2"].devices)) == (256 * MB, ["usb0"])
        assert await one.here.read("pool/ctl") == "cpu add 4-6\nmem add 805306368\ndev add net0 net closed\n"
        assert one.names.lines == ["mount -ar unix!/run/other /k/other", "bind /k/k1/fs /shared"]
        count = len(one.happened())
        await one.write(LAB)
        await trio.sleep(100)
        assert one.happened()[count:] == ["desired 2"]


CHANGES = [
    ("cpus = 2", "cpus = 4", ["kernels/k1/ctl 'cpu add 4-5'"]),
    ("cpus = 2", "cpus = 1", ["kernels/k1/ctl 'cpu del 1'"]),
    ('extra_memory = "256M"', 'extra_memory = "512M"', ["kernels/k2/ctl 'mem add 268435456'"]),
    ('extra_memory = "256M"', "extra_memory = 0", ["kernels/k2/ctl 'mem del 268435456'"]),
    ('devices = ["usb0"]', 'devices = ["net0"]', ["kernels/k2/ctl 'dev del usb0'", "kernels/k2/ctl 'dev add net0'"]),
    ('watch = "10 restart"', 'watch = "0 tell"', ["kernels/k1/ctl 'watch 0 tell'"]),
    ('["/k/k2 rw"]', '["/k/k2 ro", "/x rw"]', ["kernels/k1/ctl 'grant /k/k2 ro'", "kernels/k1/ctl 'grant /x rw'"]),
    ('["/k/k2 rw"]', "[]", ["kernels/k1/ctl 'ungrant /k/k2'"]),
    ("[k2]", '[k2]\nstate = "off"', ["kernels/k2/ctl halt"]),
    ('cpus = "4-6"', 'cpus = "4-7"', ["kernels/pool/ctl 'cpu add 7'"]),
    ('memory = "1G"', 'memory = "2G"', ["kernels/pool/ctl 'mem add 1073741824'"]),
    ("[k2]", "[k3]\n[k2]", ["kernels/ctl 'create k3'", "kernels/k3/ctl load", "kernels/k3/ctl start"]),
    ("cpus = 2", 'cpus = 2\nisolated = "1"', ["k/k1/cpu/ctl 'isolate 1'"]),
    ('memory = "768M"', 'memory = "1G"', []),
]


@pytest.mark.parametrize(("old", "new", "lines"), CHANGES)
async def test_what_differs_is_told_as_words_which_make_it_so(
    old: str, new: str, lines: list[str], tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    assert old in LAB
    async with keeping(tmp_path) as one:
        await one.write(LAB)
        await one.settled()
        count = len(one.happened())
        changed = LAB.replace(old, new, 1)
        await one.write(changed)
        await one.settled()
        righted = [line.removeprefix("righted ") for line in one.happened()[count:] if line.startswith("righted ")]
        assert righted == lines
        late = "# at its next start, k1: memory 1073741824\n" if "1G" in new and "768M" in old else ""
        assert await one.here.read("diff") == late


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[k2]", "[k2", "Expected"),
        ("cpus = 2", "cpuz = 2", "k1: unknown key 'cpuz'; similar: cpus"),
        ("cpus = 2", 'cpus = "two"', "k1: cpus: want how many"),
        ("cpus = 2", "cpus = 0", "k1: cpus: want how many"),
        ('memory = "768M"', 'memory = "much"', "k1: memory: not a size: much"),
        ('"on-failure max 3"', '"sometimes"', "k1: "),
        ('"on-failure max 3"', '"on-failure max 0"', "k1: restart: max is 1 to 999"),
        ('"10 restart"', '"10 pray"', "k1: watch: want SECONDS"),
        ('"10 restart"', '"soon kill"', "k1: "),
        ('["/k/k2 rw"]', '["/k/k2"]', "k1: grants: want"),
        ('["/k/k2 rw"]', '"/k/k2 rw"', "k1: grants: want a list"),
        ('cpus = "4-6"', 'cpus = "6-4"', "pool: want CPUs"),
        ('"usb0 usb /srv/stick.img"', '"usb0 usb stick.img"', "pool: a device is NAME disk FILE"),
        ('"net0 net closed"', '"usb0 net closed"', "pool: devices: two have one name"),
        ('"bind /k/k1/fs /shared"', '"unmount /shared"', "namespace: lines: a line begins with mount or bind"),
        ('"bind /k/k1/fs /shared"', '"bind \'x"', "namespace: unterminated quote"),
        ('"bind /k/k1/fs /shared"', '"bind /k/k1/fs"', "namespace: lines: bind /k/k1/fs: usage: bind"),
        ('"bind /k/k1/fs /shared"', '"bind -w 5 /a /b"', "namespace: lines: bind -w 5 /a /b: usage: bind"),
        ("mount -ra unix", "mount -rab unix", "namespace: lines: .*: usage: mount"),
        ("mount -ra unix", "mount -w soon unix", "namespace: lines: .*: usage: mount"),
        ("unix!/run/other", "moon!/run/other", "namespace: bad dial string 'moon!"),
        ('"uml"', '"umlaut"', "k1: backend: want one of"),
        ("cpus = 2", "cpus = true", "k1: cpus: want how many"),
        ("cpus = 2", 'wait = "soon"', "k1: wait: want 0 to 86400"),
        ("cpus = 2", "wait = 86401", "k1: wait: want 0 to 86400"),
        ("cpus = 2", 'trust = "perhaps"', "k1: trust: want on or off"),
        ("cpus = 2", 'hostroot = "yes"', "k1: hostroot: want on or off"),
        ("cpus = 2", 'dial = "k9"', "k1: bad dial string 'k9'"),
        ("cpus = 2", 'qmp = "run/qmp"', "k1: qmp: want the absolute path"),
        ("cpus = 2", 'show = ["tools"]', "k1: show: want absolute paths"),
        ('["/k/k2 rw"]', '["k/k2 rw"]', "k1: grants: a grant is for a path"),
        ('["/k/k2 rw"]', '["/k/k2 rw", "/k/k2/fs ro"]', "k1: grants: /k/k2/fs lies in /k/k2"),
        ('"256M"', '"1M"', "k2: extra_memory: memory moves in pieces"),
        ('memory = "1G"', "memory = 4096", "pool: memory: memory moves in pieces"),
        ("[k2]", '["k 2"]', "k 2: a kernel's name is"),
        ("[k2]", "[clone]", "clone: a file of kernels/"),
        ("[pool]", "k3 = 3\n[pool]", "k3: want a table"),
        ("[k2]", '[k2]\nstate = "maybe"', "k2: state: want active or off"),
    ],
)
async def test_one_wrong_line_changes_nothing(
    old: str, new: str, told: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    assert old in LAB
    async with keeping(tmp_path) as one:
        await one.write(LAB)
        await one.settled()
        count = len(one.happened())
        with pytest.raises(NineError, match=told) as caught:
            await one.write(LAB.replace(old, new, 1))
        assert caught.value.errno == errno.EINVAL
        await trio.sleep(20)
        assert await one.here.read("desired") == LAB.removesuffix("\n")
        assert len(one.happened()) == count


async def test_what_drifts_is_put_right_and_told(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with keeping(tmp_path) as one:
        await one.write(LAB.replace("cpus = 1", "cpus = 3").replace('isolated = ""', 'isolated = "2"'))
        await one.settled()
        count = len(one.happened())
        k2 = one.here.inner["k2"]
        k2.online -= {1}  # somebody took it offline
        k2.isolated -= {2}
        await trio.sleep(20)
        assert (k2.online, k2.isolated) == ({0, 1, 2}, {2})
        await one.here.end("k2")  # its restart is `never`
        await one.settled()
        assert one.here.lab.kernel("k2").state == "active"
        await one.here.say("k1/ctl", "ungrant /k/k2")
        one.names.lines.clear()
        await one.settled()
        righted = [line.removeprefix("righted ") for line in one.happened()[count:] if line.startswith("righted ")]
        assert sorted(righted) == sorted(
            [
                "k/k2/cpu/ctl 'online 1'",
                "k/k2/cpu/ctl 'isolate 2'",
                "kernels/k2/ctl start",
                "k/k2/cpu/ctl 'isolate 2'",
                "kernels/k1/ctl 'grant /k/k2 rw'",
                "ctl 'mount -ar unix!/run/other /k/other'",
                "ctl 'bind /k/k1/fs /shared'",
            ]
        )


async def test_a_kernel_in_a_crash_loop_is_left_alone(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with keeping(tmp_path) as one:
        await one.write("[k1]\nrestart = 'on-failure max 2 in 100'\n")
        await one.settled()
        for _ in range(3):
            await one.here.end("k1", "panicked")
            await trio.sleep(5)
        await trio.sleep(1000)
        assert one.here.lab.kernel("k1").state == "failed"
        assert await one.here.read("diff") == "kernels/k1/ctl start\n"


async def test_a_word_that_fails_is_told_once_and_tried_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with keeping(tmp_path) as one:
        one.here.lab.backend.refuse = NineError(errno.ENOENT, "zstd is missing")
        await one.write("[k1]\n")
        await trio.sleep(2)
        assert "unrighted kernels/k1/ctl load 'zstd is missing'" in one.happened()
        await one.settled()
        assert one.here.lab.kernel("k1").state == "active"
        assert sum(line.startswith("unrighted") for line in one.happened()) <= 2  # start, too, failed


async def test_more_than_the_pool_has_is_told(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with keeping(tmp_path) as one:
        await one.write("[k1]\ncpus = 1\n")
        await one.settled()
        await one.write("[k1]\ncpus = 3\n")
        with pytest.raises(NineError, match="k1 lacks 2 CPUs, and the pool has 0"):
            await one.here.read("diff")
        await one.write("\n")  # nothing is desired any more
        assert await one.here.read("diff") == ""


async def test_a_lab_file_is_kept_over_a_kill(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    place = tmp_path / "journal.desired"
    async with keeping(tmp_path) as one:
        one.here.lab.kernels.keeping.place = place
        await one.write("[k1]\n")
        await one.settled()
    assert place.read_text() == "[k1]"
    async with keeping(tmp_path) as one:
        one.here.lab.kernels.keeping.place = place
        one.here.lab.kernels.keeping.load()
        await one.settled()
        assert one.here.lab.kernel("k1").state == "active"
        place.write_text("[k1")
        one.here.lab.kernels.keeping.load()
        assert any(line.startswith("damaged ") for line in one.happened())


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("mount -a -r A B", "mount -ar A /B"),
        ("mount -ra A /B/", "mount -ar A /B"),
        ("mount -w 60 -r A /B spec", "mount -r -w 60 A /B spec"),
        ("mount -rw 060 A /B/./C/..", "mount -r -w 60 A /B"),
        ("mount -w 0 A /B", "mount A /B"),
        ("bind -c /a//b /c/", "bind -c /a/b /c"),
        ("bind '/a b' /c", "bind '/a b' /c"),
    ],
)
def test_lines_of_the_namespace_are_compared_by_what_they_mean(line: str, same: str) -> None:
    assert labfile.canonical(line) == same
    assert labfile.canonical(same) == same


def test_a_restart_is_only_made_when_somebody_says_so() -> None:
    wanted = labfile.parse("[k1]\nmemory = '1G'\n")
    there = desired.Present({"k1": desired.Now("active", {"memory": "memory 536870912", "load": "load 6.1"})})
    assert desired.words(wanted, there) == []
    assert desired.waiting(wanted, there) == ["k1: memory 1073741824"]
    assert desired.words(wanted, there, restart=True) == [
        ("kernels/k1/ctl", "halt"),
        ("kernels/k1/ctl", "memory 1073741824"),
        ("kernels/k1/ctl", "start"),
    ]


def test_rules_in_a_lab_file_are_those_of_the_namespace() -> None:
    lab = labfile.parse('[namespace]\npolicy = ["deny none rwcnd /**", "patience 5"]\n')
    assert lab.rules == "deny none rwcnd /**\npatience 5\n"
    assert desired.words(lab, desired.Present()) == [("auth/policy", "deny none rwcnd /**\npatience 5")]
    assert not desired.words(lab, desired.Present(rules=lab.rules))
    assert not desired.words(labfile.parse(""), desired.Present(rules="allow * r /\n"))
    with pytest.raises(NineError, match="namespace: policy: a rule begins with"):
        labfile.parse('[namespace]\npolicy = ["deny none rwcnd /**", "denied none r /**"]\n')


@pytest.mark.parametrize(
    ("said", "kept"), [("/k/k2 r", "/k/k2 ro"), ("/k/k2 dwcrn", "/k/k2 rw"), ("/k/k2 cr", "/k/k2 rc")]
)
def test_a_grant_is_compared_by_what_it_means(said: str, kept: str) -> None:
    assert labfile.parse(f'[k1]\ngrants = ["{said}"]\n').kernels["k1"].grants == (kept,)


SAID = """
[k1]
hostroot = "off"
trust = "off"
wait = 0
serve = []
device = []
show = []
modules = []
boot = ""
watch = "0 tell"
kernel = ""
initrd = ""
cmdline = ""
grants = ["/k//k2/ rw"]

[k2]
state = "off"
wait = "060"
show = ["/usr//bin/"]
cmdline = "quiet"
boot = "set -e\\necho it's\\n"
"""


async def test_what_is_so_without_a_word_and_what_is_said_in_another_way_differs_in_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with keeping(tmp_path) as one:
        await one.write(SAID)
        await one.settled()
        assert await one.here.read("diff") == ""
        config = await one.here.read("k2/config")
        assert "wait 60\n" in config
        assert "load made-up cmdline quiet\n" in config
        assert one.here.lab.kernel("k2").spec.boot == "set -e\necho it's\n"
        count = len(one.happened())
        await trio.sleep(100)
        assert len(one.happened()) == count


@pytest.mark.parametrize("key", ["device", "modules"])
async def test_a_list_that_changes_takes_the_place_of_the_one_before(
    key: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with keeping(tmp_path) as one:
        for words in ("'a', 'b'", "'b'", "", "'c'"):
            await one.write(f"[k1]\nstate = 'off'\n{key} = [{words}]\n")
            await one.settled()
            line = f"{key} {words}\n".replace("'", "").replace(",", "") if words else ""
            assert "".join(f"{said}\n" for said in one.config(await one.here.read("k1/config"), key)) == line


async def test_a_word_that_makes_no_difference_is_not_written_for_ever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    said: list[str] = []
    async with keeping(tmp_path) as one:
        await one.write("[k1]\ncpus = 2\n")
        await one.settled()
        cpu = Dir({"ctl": Ctl({"online": lambda n: said.append(n)}), "status": Text("0 online\n1 offline\n")})
        one.here.lab.backend.trees["k1"] = Dir({"cpu": cpu})
        await trio.sleep(3000)
        assert 2 < len(said) < 20
        told = [line for line in one.happened() if line.startswith("unrighted")]
        assert told == ["unrighted k/k1/cpu/ctl 'online 1' 'it was written, and differs all the same'"]


async def test_what_a_kernel_says_of_its_cpus_ends_nobody(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with keeping(tmp_path) as one:
        await one.write("[k1]\ncpus = 2\n")
        await one.settled()
        status = "0 online\n1 online\n" + "9" * 5000 + " online\n123456 offline\n\u0663 offline\n"
        one.here.lab.backend.trees["k1"] = Dir({"cpu": Dir({"ctl": Ctl({}), "status": Text(status)})})
        await trio.sleep(60)
        assert await one.here.read("diff") == ""


async def test_a_lab_file_that_was_kept_is_desired_also_while_the_disk_is_full_and_a_damaged_one_stays(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "journal.desired"
    async with keeping(tmp_path) as one:
        keeper = one.here.lab.kernels.keeping
        keeper.place = place
        place.write_text("[k1]\nstate = 'off'\n")

        def full(place: Path, text: str) -> None:
            raise OSError(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            patch.setattr("mk9p.servers.kernels.keeping.put", full)
            keeper.load()
        assert "desired 1" in one.happened()
        place.write_text("[k1\n")
        keeper.load()
        assert any("it is now" in line for line in one.happened() if line.startswith("damaged "))
        assert (tmp_path / "journal.desired.damaged-1").read_text() == "[k1\n"


async def test_a_word_that_is_refused_without_an_errno_ends_nobody(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such thing")

    async with keeping(tmp_path) as one:
        with monkeypatch.context() as patch:
            patch.setattr(MadeUp, "prepare", refuse)
            await one.write("[k1]\n")
            await trio.sleep(2)
        assert "unrighted kernels/k1/ctl load 'no such thing'" in one.happened()
        await one.settled()
        assert one.here.lab.kernel("k1").state == "active"


async def test_an_unknown_word_for_what_is_desired_first_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NineError, match="desired=some: want kept or none"):
        async with kernels.tree(str(tmp_path / "run"), desired="some"):
            raise AssertionError("it began")
    assert not (tmp_path / "run").exists()
