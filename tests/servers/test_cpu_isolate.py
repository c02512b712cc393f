"""cpu: isolate and join on a made-up machine of four CPUs; what the kernel says to it is tried in guests (tests/vm/test_vm_isolate.py)."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mk9p.auth import ROOT
from mk9p.servers.cpu import tree
from mk9p.tree import Node, Open, settle
from tests.servers.trees import ls, opened, plant, read, walk, write

CPU, GROUP, WORK = "sys/devices/system/cpu", "sys/fs/cgroup/mk9p.isolated", "sys/devices/virtual/workqueue"
KERNEL, BOUND = 0x00200000, 0x04000000


def irq(n: int, affinity: str, effective: str, actions: str = "") -> dict[str, str]:
    return {
        f"proc/irq/{n}/smp_affinity_list": affinity,
        f"proc/irq/{n}/effective_affinity_list": effective,
        f"sys/kernel/irq/{n}/actions": actions,
    }


def thread(tid: int, name: str, cpus: str, flags: int = 0) -> dict[str, str]:
    base = f"proc/{tid}/task/{tid}"
    return {
        f"{base}/stat": f"{tid} ({name}) S 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 77 0 0",
        f"{base}/status": f"Name:\t{name}\nCpus_allowed:\tf\nCpus_allowed_list:\t{cpus}\nMems_allowed:\t1",
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine: CPUs 0 to 3, all online, and a cgroup that is there already, as a disk makes no files in a new folder."""
    plant(
        tmp_path,
        {
            f"{CPU}/present": "0-3", f"{CPU}/online": "0-3", f"{CPU}/isolated": "", f"{CPU}/nohz_full": "(null)",
            "proc/mounts": "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0",
            "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io", "sys/fs/cgroup/cgroup.subtree_control": "cpu cpuset",
            f"{GROUP}/cpuset.cpus": "", f"{GROUP}/cpuset.cpus.partition": "member",
            f"{GROUP}/cgroup.procs": "", f"{GROUP}/cgroup.threads": "",
            "proc/irq/default_smp_affinity": "f", **irq(24, "0-3", "3", "my disk, yours"), **irq(25, "3", "3"), **irq(26, "0-1", "0"),
            f"{WORK}/cpumask": "f", f"{WORK}/writeback/cpumask": "c", "proc/sys/kernel/watchdog_cpumask": "0-3",
            "sys/class/net/eth0/queues/rx-0/rps_cpus": "0000000a", "sys/class/net/eth0/queues/tx-0/xps_cpus": "8",
            **{f"{CPU}/cpu{n}/online": "1" for n in (1, 2, 3)},
        },
    )  # fmt: skip
    try:
        os.setxattr(tmp_path, "trusted.mk9p", b"1")
    except OSError as error:
        pytest.skip(f"trusted extended attributes, which a cgroup has for root, cannot be had on this disk: {error}")
    return tmp_path


def settings(root: Path) -> list[str]:
    paths = [f"proc/irq/{n}/smp_affinity_list" for n in (24, 25, 26)]
    paths += ["proc/irq/default_smp_affinity", f"{WORK}/cpumask", f"{WORK}/writeback/cpumask"]
    paths += ["proc/sys/kernel/watchdog_cpumask", "sys/class/net/eth0/queues/rx-0/rps_cpus"]
    return [(root / path).read_text().strip() for path in paths]


async def refusal(node: Node, text: str, path: str = "ctl") -> tuple[int | None, str]:
    """Write what must be refused and return errno and words."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  # the caller looks at the errno
        await write(node, path, text)
    return caught.value.errno, str(caught.value)


async def test_whatever_has_a_setting_is_kept_off(root: Path, node: Node) -> None:
    await write(node, "ctl", "isolate 3")
    assert settings(root) == ["0-2", "0-2", "0-1", "7", "7", "4", "0-2", "2"]
    assert (root / GROUP / "cpuset.cpus").read_text() == "3"
    assert (root / GROUP / "cpuset.cpus.partition").read_text() == "isolated"
    assert [line.split()[1] for line in (await read(node, "status")).splitlines()] == ["online"] * 3 + ["isolated"]
    assert await read(node, "ctl") == "online 0-3\nisolate 3\n"
    assert await read(node, "3/ctl") == "online\nisolate\n"
    events = await opened(node, "events")
    assert bytes(await settle(events.read(0, 4096))).decode().split()[2:] == ["isolate", "3"]


async def test_the_first_of_two_is_given_back_as_it_was(root: Path, node: Node) -> None:
    await write(node, "ctl", "isolate 3\nisolate 1-2")
    assert settings(root) == ["0", "0", "0", "1", "1", "1", "0", "1"]
    await write(node, "3/ctl", "join")
    assert settings(root) == ["0,3", "3", "0", "9", "9", "8", "0,3", "8"]
    assert await read(node, "ctl") == "online 0-3\nisolate 1-2\n"
    await write(node, "1/ctl", "join")
    assert settings(root) == ["0-1,3", "3", "0-1", "b", "b", "8", "0-1,3", "a"]
    await write(node, "0/ctl", "join")  # it was never away


async def test_what_ctl_reads_can_be_written_back(root: Path, node: Node) -> None:
    await write(node, "ctl", "isolate 2-3")
    before = settings(root)
    await write(node, "ctl", await read(node, "ctl"))
    await write(node, "3/ctl", await read(node, "3/ctl"))
    assert (settings(root), await read(node, "ctl")) == (before, "online 0-3\nisolate 2-3\n")


async def test_another_server_knows_what_was(root: Path) -> None:
    async with tree(root=str(root)) as node:
        await write(node, "ctl", "isolate 2-3")
        since = int((await read(node, "3/noise")).split()[1])
    async with tree(root=str(root)) as node:
        assert await read(node, "ctl") == "online 0-3\nisolate 2-3\n"
        assert int((await read(node, "3/noise")).split()[1]) > since
        await write(node, "ctl", "join 3")
        assert settings(root) == ["0-1,3", "3", "0-1", "b", "b", "8", "0-1,3", "a"]


async def test_what_others_change_meanwhile_is_theirs(root: Path, node: Node) -> None:
    await write(node, "ctl", "isolate 2-3")
    plant(
        root,
        {"proc/irq/24/smp_affinity_list": "1", f"{WORK}/cpumask": "1", **irq(30, "0-1", "0"), **irq(31, "0", "0")},
    )
    await write(node, "ctl", "join 3")
    assert settings(root) == ["1", "3", "0-1", "b", "1", "8", "0-1,3", "a"]
    # what came meanwhile goes wherever a new one may go now, but for what somebody has bound
    assert [(root / f"proc/irq/{n}/smp_affinity_list").read_text().strip() for n in (30, 31)] == ["0-1,3", "0"]


async def test_a_partition_that_others_took_away_is_gone_on_from(root: Path, node: Node) -> None:
    await write(node, "ctl", "isolate 2-3")
    before = settings(root)
    plant(root, {f"{GROUP}/cpuset.cpus.partition": "member", f"{GROUP}/cpuset.cpus": ""})  # systemd was here
    assert await read(node, "ctl") == "online 0-3\n"
    await write(node, "ctl", "join 3")
    assert settings(root) == ["0-1,3", "3", "0-1", "b", "b", "8", "0-1,3", "a"]
    plant(root, {f"{GROUP}/cpuset.cpus.partition": "member", f"{GROUP}/cpuset.cpus": ""})
    await write(node, "ctl", "isolate 3")
    assert settings(root) == before
    assert await read(node, "ctl") == "online 0-3\nisolate 2-3\n"


async def test_a_word_again_sweeps_what_has_come(root: Path, node: Node) -> None:
    await write(node, "ctl", "isolate 3")
    plant(root, irq(30, "0-3", "3"))
    assert (await status(node, 3))["irqs"] == "30:-"
    await write(node, "ctl", "isolate 3")
    assert (root / "proc/irq/30/smp_affinity_list").read_text() == "0-2"
    assert (await status(node, 3))["irqs"] == "-"
    events = await opened(node, "events")
    assert bytes(await settle(events.read(0, 4096))).count(b"isolate") == 1


async def status(node: Node, n: int) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in (await read(node, f"{n}/status")).splitlines())


async def test_what_stays_is_named(root: Path) -> None:
    plant(root, {**thread(9, "ksoftirqd/3", "3", KERNEL | BOUND), **thread(8, "kswapd0", "0-2", KERNEL)})
    plant(root, {**thread(70, "stays here", "2-3"), **thread(71, "sh", "0-2"), **thread(72, "ours", "3")})
    plant(root, {f"{GROUP}/cgroup.threads": "72"})
    (root / "proc/irq/24/smp_affinity_list").unlink()
    (root / "proc/irq/24/smp_affinity_list").symlink_to(
        "/sys/devices/system/cpu/online"
    )  # root cannot write that either
    plant(root, {"proc/irq/24/effective_affinity_list": "0"})
    async with tree(root=str(root)) as node:
        assert {key: (await status(node, 0))[key] for key in ("cgroup", "irqs", "threads", "tasks", "tick")} == {
            "cgroup": "-", "irqs": "-", "threads": "-", "tasks": "-", "tick": "yes",
        }  # fmt: skip
        handle = await settle((await walk(node, "ctl")).open(Open(ROOT, read=True, write=True)))
        assert await settle(handle.write(0, memoryview(b"isolate 0 3\n"))) == 12
        assert bytes(await settle(handle.read(12, 4096))) == b"stays 24:my_disk,yours\n"
        assert (await status(node, 0))["irqs"] == "24:my_disk,yours"
        plant(root, {f"{CPU}/nohz_full": "3"})
        now = await status(node, 3)
        assert {key: now[key] for key in ("state", "cgroup", "irqs", "threads", "tasks", "tick")} == {
            "state": "isolated", "cgroup": "/mk9p.isolated", "irqs": "-", "threads": "ksoftirqd/3", "tasks": "70:stays_here",
            "tick": "no",
        }  # fmt: skip


async def test_a_refusal_leaves_everything_as_it_was(root: Path) -> None:
    before = settings(root)
    async with tree(root=str(root)) as node:
        for words, number, said in [
            ("isolate 9", errno.ENODEV, "no CPU 9"),
            ("isolate 3 9", errno.ENODEV, "no CPU 9"),
            ("isolate 0-3", errno.EBUSY, "CPU 0-3 cannot be isolated: none would be left for the rest"),
            ("isolate", errno.EINVAL, "usage: isolate N..."),
            ("join x", errno.EINVAL, "usage: join N..."),
        ]:
            assert await refusal(node, words) == (number, said)
        plant(root, {f"{CPU}/online": "0-2"})
        assert await refusal(node, "isolate 2-3") == (errno.EINVAL, "CPU 3 cannot be isolated: it is offline")
        plant(root, {f"{CPU}/online": "0-3", f"{CPU}/isolated": "3"})
        assert (await refusal(node, "join 3"))[0] == errno.EPERM
        assert "3 isolated" in await read(node, "status")
        other = "sys/fs/cgroup/other"
        plant(root, {f"{other}/cpuset.cpus": "2", f"{other}/cpuset.cpus.partition": "root"})
        assert await refusal(node, "isolate 2") == (errno.EBUSY, "CPU 2 cannot be isolated: cgroup /other has it")
    assert settings(root) == before
    assert (root / GROUP / "cpuset.cpus.partition").read_text() == "member\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"proc/mounts": "proc /proc proc rw 0 0", "proc/filesystems": "nodev\tproc"}, "no cgroups of version 2 here"),
        ({"proc/cgroups": "#subsys\ncpuset\t4\t7\t1\ncpu\t0\t1\t1"}, "cgroups of version 1 have the cpusets"),
        ({"proc/cgroups": "cpuset\t0\t1\t0"}, "cpusets are disabled on the kernel's command line"),
        ({"proc/cgroups": "cpuset\t0\t1\t1"}, "/sys/fs/cgroup was given no cpusets"),
        ({"proc/cgroups": "cpu\t0\t1\t1"}, "this kernel has no cpusets"),
    ],
)
async def test_a_kernel_without_cpusets_says_why(root: Path, files: dict[str, str], words: str) -> None:
    plant(root, {"sys/fs/cgroup/cgroup.controllers": "cpu io", **files})
    for file in (root / GROUP).iterdir():
        file.unlink()
    before = settings(root)
    async with tree(root=str(root)) as node:
        assert await refusal(node, "isolate 3") == (errno.EOPNOTSUPP, f"CPUs cannot be isolated: {words}")
        assert await read(node, "ctl") == "online 0-3\n"
    assert settings(root) == before


@pytest.fixture
def memory() -> Iterator[Path]:
    """A place whose files may have as many extended attributes as a cgroup's: disks have a bound."""
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no file system in memory at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        yield Path(place) / "root"


async def test_what_is_kept_may_be_long(root: Path, memory: Path) -> None:
    """More interrupts than one extended attribute has room for."""
    shutil.copytree(root, memory)
    many = range(1000, 3000)
    for n in many:
        plant(memory, irq(n, "2-3", "2"))
    async with tree(root=str(memory)) as node:
        await write(node, "ctl", "isolate 2-3\njoin 2")
        assert {(memory / f"proc/irq/{n}/smp_affinity_list").read_text() for n in many} == {"2"}
    async with tree(root=str(memory)) as node:
        await write(node, "ctl", "isolate 2\njoin 3")
        assert {(memory / f"proc/irq/{n}/smp_affinity_list").read_text() for n in many} == {"3"}


def interrupts(cpu0: int, cpu3: int) -> str:
    return (
        "            CPU0       CPU3\n"
        f"  24:    {cpu0}    {cpu3}   PCI-MSI 1-edge      my 7\n LOC:  10  20   Local timer interrupts\n ERR:    5\n MIS:   6"
    )


async def test_noise_is_counted_for_each_cpu(root: Path) -> None:
    plant(
        root,
        {"proc/interrupts": interrupts(100, 200), "proc/softirqs": "  CPU0 CPU1 CPU2 CPU3\nHI: 1 2 3 4\nRCU: 5 6 7 8"},
    )
    plant(
        root, {"proc/schedstat": "version 15\ntimestamp 1\ncpu0 0 0 0 0 0 0 5 6 70\ndomain0 7\ncpu3 0 0 0 0 0 0 5 6 80"}
    )
    async with tree(root=str(root)) as node:
        assert "noise" in await ls(node, "3")
        plant(
            root,
            {
                "proc/interrupts": interrupts(101, 207),
                "proc/softirqs": "  CPU0 CPU1 CPU2 CPU3\nHI: 1 2 3 5\nRCU: 6 6 7 9",
            },
        )
        plant(
            root,
            {"proc/schedstat": "version 15\ntimestamp 1\ncpu0 0 0 0 0 0 0 5 6 75\ndomain0 7\ncpu3 0 0 0 0 0 0 5 6 81"},
        )
        lines = (await read(node, "3/noise")).splitlines()
        assert int(lines[0].removeprefix("since_ns ")) > 0
        assert lines[1:] == ["interrupts 7", "softirqs 2", "switches 1", "measured_ns 0", "gap_ns -", "step_ns -"]
        assert (await read(node, "0/noise")).splitlines()[1:4] == ["interrupts 1", "softirqs 1", "switches 5"]
        assert (await read(node, "1/noise")).splitlines()[1:4] == ["interrupts -", "softirqs 0", "switches -"]
        await write(node, "3/ctl", "reset")
        assert (await read(node, "3/noise")).splitlines()[1:4] == ["interrupts 0", "softirqs 0", "switches 0"]
        plant(root, {"proc/interrupts": interrupts(0, 210)})
        await write(node, "ctl", "isolate 3")
        assert (await read(node, "3/noise")).splitlines()[1] == "interrupts 0"  # since it was isolated


async def test_the_worst_gap_is_measured_on_the_cpu() -> None:
    cpu = max(os.sched_getaffinity(0))
    async with tree() as node:
        with pytest.raises(OSError, match="a time is above 0"):
            await write(node, f"{cpu}/ctl", "measure 0")
        assert await refusal(node, "measure soon", f"{cpu}/ctl") == (errno.EINVAL, "usage: measure SECONDS")
        await write(node, f"{cpu}/ctl", "measure 0.05")
        await write(node, f"{cpu}/ctl", "measure 0.02")
        found = dict(line.split() for line in (await read(node, f"{cpu}/noise")).splitlines())
        assert found["measured_ns"] == "70000000"
        assert 0 < int(found["step_ns"]) < int(found["gap_ns"])
        assert found["switches"] == "-" or int(found["switches"]) >= 2  # its own processes
        await write(node, f"{cpu}/ctl", "reset")
        assert "measured_ns 0\ngap_ns -" in await read(node, f"{cpu}/noise")


async def test_a_cpu_that_cannot_be_had_is_not_measured(tmp_path: Path) -> None:
    plant(tmp_path, {f"{CPU}/present": "0-900", f"{CPU}/online": "0-900"})
    async with tree(root=str(tmp_path)) as node:
        assert await refusal(node, "measure 0.01", "900/ctl") == (
            errno.EINVAL,
            "CPU 900 cannot be measured: Invalid argument",
        )
