"""cpu: on a made-up machine of four CPUs and two nodes, on a made-up user-mode Linux, and read-only on the kernel that the tests run on."""

import errno
import os
from pathlib import Path

import pytest
import trio

from mk9p import uevents
from mk9p.affinity import listed, numbers
from mk9p.servers.cpu import tree
from mk9p.servers.cpu.cpus import Cpus
from mk9p.servers.cpu.sysfs import TICK_NS, TIMES
from mk9p.sysfs import text
from mk9p.tree import Node, settle
from tests.servers.trees import ls, mode, opened, plant, read, refusal, write

CPU = "sys/devices/system/cpu"


def stat(*rows: tuple[int, int, int]) -> str:
    """Make up /proc/stat: (CPU, busy ticks, idle ticks) a row."""
    lines = [f"cpu{n} {busy - 5} 2 3 {idle - 10} 10 0 0 0 0 0" for n, busy, idle in rows]
    return "\n".join(["cpu  9 9 9 9 9 9 9 9 9 9", *lines, "intr 9 9 9"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine: CPUs 0 to 3 and place for eight, 3 offline, 2 isolated; 0 has no switch; one thread a core, two nodes."""
    plant(
        tmp_path,
        {
            f"{CPU}/present": "0-3",
            f"{CPU}/possible": "0-7",
            f"{CPU}/online": "0-2",
            f"{CPU}/isolated": "2",
            "proc/stat": stat((0, 100, 100), (1, 100, 100), (2, 100, 100)),
            "proc/cpuinfo": "\n\n".join(
                f"processor\t: {n}\ncpu MHz\t\t: 1999.7\napicid\t\t: {n * 2}\nflags\t\t: fpu" for n in (0, 1, 2)
            ),
        },
    )
    for n in range(4):
        base, siblings = f"{CPU}/cpu{n}", f"{n // 2 * 2}-{n // 2 * 2 + 1}"
        plant(tmp_path, {f"{base}/uevent": "", f"sys/devices/system/node/node{n // 2}/cpu{n}/uevent": ""})
        if n:
            plant(tmp_path, {f"{base}/online": "1" if n < 3 else "0"})
        if n < 3:
            plant(
                tmp_path,
                {
                    f"{base}/topology/core_id": str(n // 2),
                    f"{base}/topology/die_id": "-1",
                    f"{base}/topology/physical_package_id": "0",
                    f"{base}/topology/thread_siblings_list": siblings,
                    f"{base}/cpufreq/scaling_governor": "powersave",
                    f"{base}/cpufreq/scaling_available_governors": "performance powersave ",
                    f"{base}/cache/index0/level": "1",
                    f"{base}/cache/index0/type": "Data",
                    f"{base}/cache/index0/size": "48K",
                    f"{base}/cache/index0/shared_cpu_list": siblings,
                    f"{base}/cache/index3/level": "3",
                    f"{base}/cache/index3/type": "Unified",
                    f"{base}/cache/index3/size": "32M",
                    f"{base}/cache/index3/shared_cpu_list": "0-2",
                },
            )
    return tmp_path


def switch(root: Path, n: int) -> str:
    return (root / CPU / f"cpu{n}/online").read_text()


async def test_there_is_a_directory_for_each_cpu_that_is_present(root: Path, node: Node) -> None:
    assert sorted(await ls(node)) == ["0", "1", "2", "3", "ctl", "error", "events", "status", "topology"]
    assert sorted(await ls(node, "1")) == ["ctl", "error", "noise", "stat", "status"]
    for name in ("4", "7", "01", "-1", "9" * 5000, "\u0661"):
        with pytest.raises(FileNotFoundError):
            await ls(node, name)
    (root / CPU / "present").write_text("0-4\n")
    assert "4" in await ls(node)
    assert [await mode(node, f) for f in ("ctl", "status", "events", "1/ctl", "1/stat")] == [
        0o644,
        0o444,
        0o444,
        0o644,
        0o444,
    ]


async def test_status_has_a_line_a_cpu(root: Path, node: Node) -> None:
    plant(root, {"proc/stat": stat((0, 200, 100), (1, 100, 200), (2, 125, 175))})
    assert await read(node, "status") == (
        "0 online 0 0 0 2000 100\n1 online 0 0 2 2000 0\n2 isolated 1 1 4 2000 25\n3 offline 1 - - - -\n"
    )


async def test_load_is_measured_since_the_last_read_that_was_half_a_second_ago(root: Path) -> None:
    async def loads(node: Node) -> list[str]:
        return [line.split()[-1] for line in (await read(node, "status")).splitlines()[:2]]

    async with tree(root=str(root)) as node:
        assert await loads(node) == ["-", "-"]  # not a tick has passed
        plant(root, {"proc/stat": stat((0, 150, 150), (1, 100, 200))})
        assert await loads(node) == ["50", "0"]
        plant(root, {"proc/stat": stat((0, 150, 155), (1, 105, 200))})
        assert await loads(node) == ["48", "5"]  # too soon for a window of its own
        plant(root, {"proc/stat": stat((0, 250, 155), (1, 200, 200))})
        assert await loads(node) == ["95", "100"]


async def test_topology_says_where_a_cpu_is_and_what_it_shares(root: Path) -> None:
    async with tree(root=str(root)) as node:
        assert await read(node, "topology") == (
            "0 0 - 0 0 0 0-1 L1d:49152:0-1 L3:33554432:0-2\n"
            "1 0 - 0 1 0 0-1 L1d:49152:0-1 L3:33554432:0-2\n"
            "2 0 - 1 0 1 2-3 L1d:49152:2-3 L3:33554432:0-2\n"
            "3 - - - - 1 -\n"
        )


async def test_one_cpu_has_its_attributes_and_its_times(node: Node) -> None:
    lines = dict(line.split(" ", 1) for line in (await read(node, "1/status")).splitlines())
    assert lines == {
        "cpu": "1", "state": "online", "node": "0", "core": "0", "apic": "2", "mhz": "2000", "load": "-",
        "package": "0", "die": "-", "governor": "powersave", "hotplug": "yes",
        "tick": "yes", "cgroup": "-", "irqs": "-", "threads": "-", "tasks": "-",
    }  # fmt: skip
    assert "hotplug no" in (await read(node, "0/status")).splitlines()
    assert (await read(node, "1/stat")).splitlines()[:5] == [
        f"user {95 * TICK_NS}", f"nice {2 * TICK_NS}", f"system {3 * TICK_NS}", f"idle {90 * TICK_NS}", f"iowait {10 * TICK_NS}",
    ]  # fmt: skip
    assert await read(node, "3/stat") == ""


async def test_words_switch_cpus_on_disk(root: Path, node: Node) -> None:
    await write(node, "ctl", "offline 1")
    assert switch(root, 1) == "0"
    await write(node, "ctl", "online 0 3,1-2")  # 0 to 2 are in the made-up list of those online, which is no error
    assert (switch(root, 1), switch(root, 2), switch(root, 3)) == (
        "0",
        "1\n",
        "1",
    )
    (root / CPU / "online").write_text("0,2\n")
    await write(node, "1/ctl", "online")
    assert switch(root, 1) == "1"
    await write(node, "2/ctl", "offline")
    assert switch(root, 2) == "0"


async def test_a_cpu_that_cannot_be_switched_says_so_in_words(root: Path, node: Node) -> None:
    assert await refusal(node, "ctl", "offline 1 0") == (
        errno.EPERM,
        "CPU 0 cannot be taken offline: Operation not permitted",
    )
    assert await refusal(node, "ctl", "offline 9") == (errno.ENODEV, "no CPU 9")
    assert await refusal(node, "ctl", "online 1 4-999999999") == (errno.ENODEV, "no CPU 4")
    assert await refusal(node, "0/ctl", "offline") == (
        errno.EPERM,
        "CPU 0 cannot be taken offline: Operation not permitted",
    )
    plant(root, {f"{CPU}/cpu0/online": "1"})
    assert await refusal(node, "ctl", "offline 0-2") == (
        errno.EBUSY,
        "CPU 2 cannot be taken offline: it would be the last one",
    )
    assert [switch(root, n) for n in range(4)] == ["1\n", "1\n", "1\n", "0\n"]  # nothing was done


async def test_what_the_kernel_refuses_names_the_cpu(root: Path, node: Node) -> None:
    (root / CPU / "cpu2/online").unlink()
    (root / CPU / "cpu2/online").mkdir()  # the nearest that a disk has to a switch that refuses
    number, words = await refusal(node, "ctl", "offline 1 2")
    assert (number, words) == (errno.EISDIR, "CPU 2 cannot be taken offline: Is a directory")
    assert switch(root, 1) == "0"  # those before it stay changed


@pytest.mark.parametrize(
    "line", ["offline", "offline x", "offline 1-", "offline 3-1", "offline ,", "offline " + "9" * 5000]
)
async def test_wrong_arguments_are_answered_with_the_usage(root: Path, line: str, node: Node) -> None:
    assert await refusal(node, "ctl", line) == (errno.EINVAL, "usage: offline N...")
    assert await refusal(node, "1/ctl", "offline 1") == (errno.EINVAL, "usage: offline")
    assert switch(root, 1) == "1\n"


async def test_only_words_that_work_are_known(node: Node) -> None:
    _, words = await refusal(node, "ctl", "melt 1")
    assert words == ("unknown word melt; usage: online N... · offline N... · isolate N... · join N... · governor NAME")


async def test_the_governor_is_set_for_all_and_for_one(root: Path) -> None:
    governor = [root / CPU / f"cpu{n}/cpufreq/scaling_governor" for n in range(3)]
    async with tree(root=str(root)) as node:
        await write(node, "ctl", "governor performance")
        assert [g.read_text() for g in governor] == ["performance"] * 3
        await write(node, "1/ctl", "governor powersave")
        assert [g.read_text() for g in governor] == ["performance", "powersave", "performance"]
        assert await read(node, "1/ctl") == "online\ngovernor powersave\n"
        assert "governor" not in await read(node, "ctl")  # they differ
        assert await refusal(node, "3/ctl", "governor powersave") == (errno.ENODEV, "no frequency governor here")


async def test_what_ctl_reads_can_be_written_back(root: Path, node: Node) -> None:
    settings = await read(node, "ctl")
    assert settings == "online 0-2\noffline 3\ngovernor powersave\n"
    await write(node, "ctl", settings)
    await write(node, "3/ctl", await read(node, "3/ctl"))
    assert [switch(root, n) for n in (1, 2, 3)] == ["1\n", "1\n", "0\n"]


async def test_changes_are_told_in_events(node: Node) -> None:
    events = await opened(node, "events")
    await write(node, "ctl", "offline 1\nonline 3")
    lines = bytes(await settle(events.read(0, 4096))).decode().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert [line.split()[2:] for line in lines] == [["offline", "1"], ["online", "3"]]


async def test_events_wait_and_a_cancelled_read_loses_nothing(
    autojump_clock: trio.testing.MockClock, node: Node
) -> None:
    events = await opened(node, "events")
    with trio.move_on_after(1):
        await settle(events.read(0, 4096))
        raise AssertionError("nothing has happened yet")
    await write(node, "1/ctl", "offline")
    assert b" offline 1\n" in bytes(await settle(events.read(0, 4096)))


def uevent(action: str, path: str) -> uevents.Uevent:
    return uevents.Uevent(action, path, {"SUBSYSTEM": path.split("/")[3]})


async def test_uevents_of_cpus_are_understood_and_others_passed_over(root: Path) -> None:
    cpus = Cpus(str(root), told=True)
    for action, path in [
        ("change", "/devices/system/cpu/cpu1"),
        ("online", "/devices/system/memory/memory1"),
        ("add", "/devices/system/cpu/cpu1/cache"),
        ("add", "/devices/system/cpu/cpufreq"),
        ("offline", "/devices/system/cpu/cpu2"),
        ("add", "/devices/system/cpu/cpu11"),
    ]:
        cpus.heard(uevent(action, path))
    assert told(cpus) == [["offline", "2"], ["add", "11"]]


def told(cpus: Cpus) -> list[list[str]]:
    return [line.decode().split()[2:] for line in cpus.events.lines]


async def test_a_change_is_told_once_and_a_gap_is_made_good(root: Path) -> None:
    cpus = Cpus(str(root), told=True)
    await cpus.switch([1], False)
    assert told(cpus) == []  # the kernel's word on it is still to come
    for action, n in [
        ("offline", 1),
        ("offline", 1),
        ("online", 1),
        ("online", 2),
        ("remove", 3),
        ("add", 3),
        ("online", 3),
    ]:
        cpus.changed(action, n)
    assert told(cpus) == [["offline", "1"], ["online", "1"], ["remove", "3"], ["add", "3"], ["online", "3"]]
    plant(root, {f"{CPU}/online": "0,3"})
    cpus.look()
    assert told(cpus)[5:] == [["offline", "1"], ["offline", "2"]]


async def test_user_mode_linux_has_one_cpu_and_nothing_in_sysfs(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/stat": stat((0, 10, 10)), "proc/cpuinfo": "processor\t: 0\nvendor_id\t: User Mode Linux"})
    async with tree(root=str(tmp_path)) as node:
        assert await read(node, "status") == "0 online - - - - -\n"
        assert await read(node, "topology") == "0 - - - - - -\n"
        assert await read(node, "ctl") == "online 0\n"
        assert await read(node, "0/ctl") == "online\n"
        assert (await refusal(node, "ctl", "offline 0"))[0] == errno.EPERM
        assert (await refusal(node, "ctl", "governor performance"))[0] == errno.ENODEV


async def test_other_architectures_name_their_cpus_otherwise(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {"proc/stat": stat((0, 10, 10), (1, 10, 10)), "proc/cpuinfo": "processor\t: 0\nhart\t\t: 7\n\nprocessor\t: 1"},
    )
    plant(tmp_path, {f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "1500500", f"{CPU}/cpu1/of_node/name": "cpu"})
    (tmp_path / CPU / "cpu1/of_node/reg").write_bytes(b"\0\0\1\1")
    async with tree(root=str(tmp_path)) as node:
        assert await read(node, "status") == "0 online - - 7 - -\n1 online - - 257 1500 -\n"


async def test_the_real_kernel_agrees() -> None:
    online = numbers(text("/sys/devices/system/cpu/online"))
    async with tree() as node:
        lines = [line.split() for line in (await read(node, "status")).splitlines()]
        assert all(len(fields) == 7 for fields in lines)
        assert [int(f[0]) for f in lines if f[1] != "offline"] == online
        assert os.sysconf("SC_NPROCESSORS_ONLN") == len(online)
        assert len((await read(node, "topology")).splitlines()) == len(lines)
        assert (await read(node, "ctl")).splitlines()[0] == f"online {listed(online)}"
        for n in online:
            times = dict(line.split() for line in (await read(node, f"{n}/stat")).splitlines())
            assert sum(map(int, times.values())) > 0
            assert set(times) == set(TIMES)
            assert (await read(node, f"{n}/status")).startswith(f"cpu {n}\nstate ")
        assert await refusal(node, "ctl", "offline 99999") == (errno.ENODEV, "no CPU 99999")
