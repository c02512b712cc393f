"""irq: on a made-up machine, on a made-up user-mode Linux, and read-only on the kernel that the tests run on."""

import errno
import os
from pathlib import Path

import pytest

from mk9p.servers.irq import Interrupts, tree
from mk9p.tree import Node
from tests.servers.trees import ls, mode, opened, plant, read, refusal, write


def counted(seconds: float, **counts: int) -> dict[str, str]:
    """Make up /proc/stat and /proc/uptime: how often interrupts came until then."""
    line = [counts.get(f"n{n}", 0) for n in range(40)]
    return {
        "proc/stat": f"cpu  1 2 3 4\ncpu0 1 2 3 4\nintr {sum(line)} {' '.join(map(str, line))}\nctxt 5",
        "proc/uptime": f"{seconds:.2f} 17.00",
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Interrupts 0, 24 (shared by two, one with a blank in its name) and 9 that nobody handles, on three CPUs."""
    plant(tmp_path, {**counted(100, n0=50, n24=1000), "proc/irq/default_smp_affinity": "7"})
    for n, affinity, actions in ((24, "0-2", "i801_smbus,my driver"), (0, "0", "timer"), (9, "0-2", "")):
        plant(
            tmp_path,
            {
                f"proc/irq/{n}/smp_affinity_list": affinity,
                f"proc/irq/{n}/smp_affinity": "7",
                f"proc/irq/{n}/effective_affinity_list": "1",
                f"proc/irq/{n}/node": "-1",
                f"proc/irq/{n}/spurious": "count 12\nunhandled 3\nlast_unhandled 0 ms",
                f"sys/kernel/irq/{n}/actions": actions,
                f"sys/kernel/irq/{n}/chip_name": "IO-APIC",
                f"sys/kernel/irq/{n}/hwirq": "5",
                f"sys/kernel/irq/{n}/type": "edge",
                f"sys/kernel/irq/{n}/per_cpu_count": "900,100,0",
            },
        )
    return tmp_path


@pytest.fixture
def irq(root: Path) -> Node:
    return tree(root=str(root))


def affinity(root: Path, n: int) -> str:
    return (root / f"proc/irq/{n}/smp_affinity_list").read_text()


async def test_interrupts_come_and_go(irq: Node, root: Path) -> None:
    assert await ls(irq) == ["ctl", "status", "error", "0", "9", "24"] or await ls(irq) == [
        "ctl",
        "status",
        "0",
        "9",
        "24",
        "error",
    ]
    assert sorted(await ls(irq, "24")) == ["ctl", "error", "status"]
    assert [await mode(irq, f) for f in ("ctl", "status", "24/ctl", "24/status")] == [0o644, 0o444, 0o644, 0o444]
    plant(root, {"proc/irq/25/smp_affinity_list": "0"})
    assert "25" in await ls(irq)
    (root / "proc/irq/25/smp_affinity_list").unlink()
    (root / "proc/irq/25").rmdir()
    for name in ("25", "024", "default_smp_affinity", "9" * 5000):
        with pytest.raises(FileNotFoundError):
            await read(irq, f"{name}/status")


async def test_status_has_a_line_an_interrupt(irq: Node, root: Path) -> None:
    plant(root, counted(110, n0=51, n24=3000))
    assert await read(irq, "status") == "0 0 0 timer 51\n9 0 0-2 - 0\n24 200 0-2 i801_smbus,my_driver 3000\n"


async def test_rates_are_since_the_last_read_that_was_half_a_second_ago(irq: Node, root: Path) -> None:
    async def rate() -> int:
        return int((await read(irq, "status")).splitlines()[2].split()[1])

    assert await rate() == 0  # no time has passed since the start
    plant(root, counted(110, n24=3000))
    assert await rate() == 200
    plant(root, counted(110.1, n24=3101))
    assert await rate() == 208  # too soon for a window of its own: since the start still
    plant(root, counted(120, n24=3000 + 50))
    assert await rate() == 5
    plant(root, counted(130, n24=10))
    assert await rate() == 0  # never negative


async def test_one_interrupt_has_its_attributes(irq: Node, root: Path) -> None:
    plant(root, counted(102, n24=1010))
    assert await read(irq, "24/status") == (
        "irq 24\ncount 1010\nrate 5\naffinity 0-2\neffective 1\nname i801_smbus,my_driver\nchip IO-APIC\nhwirq 5\ntype edge\n"
        "node -\nunhandled 3\npercpu 900 100 0\n"
    )


async def test_affinity_is_written_to_the_kernel(irq: Node, root: Path) -> None:
    await write(irq, "24/ctl", "affinity 1")
    assert affinity(root, 24) == "1"
    assert await read(irq, "24/ctl") == "affinity 1\n"
    await write(irq, "24/ctl", "affinity 0,2")
    assert affinity(root, 24) == "0,2"
    await write(irq, "24/ctl", await read(irq, "24/ctl"))
    assert affinity(root, 24) == "0,2"
    assert affinity(root, 0) == "0\n"


async def test_spread_is_the_kernels_default(irq: Node, root: Path) -> None:
    plant(root, {"proc/irq/default_smp_affinity": "5"})
    await write(irq, "24/ctl", "spread")
    assert [(root / f"proc/irq/{n}/smp_affinity").read_text() for n in (0, 24)] == ["7\n", "5"]
    await write(irq, "ctl", "spread")
    assert [(root / f"proc/irq/{n}/smp_affinity").read_text() for n in (0, 9, 24)] == ["5", "5", "5"]


async def test_banish_moves_all_off_and_new_ones_too(irq: Node, root: Path) -> None:
    plant(root, {"sys/devices/system/cpu/online": "0-2", "sys/devices/system/cpu/possible": "0-7"})
    assert await read(irq, "ctl") == "default 0-2\n"
    await write(irq, "ctl", "banish 2 0")
    assert [affinity(root, n) for n in (0, 9, 24)] == ["1", "1", "1"]
    assert await read(irq, "ctl") == "default 1\n"
    await write(irq, "ctl", "banish 2")
    assert [affinity(root, n) for n in (0, 9, 24)] == ["1", "1", "1"]
    await write(irq, "ctl", "default 0-1\nspread")
    assert (root / "proc/irq/default_smp_affinity").read_text() == "3"
    assert [(root / f"proc/irq/{n}/smp_affinity").read_text() for n in (0, 9, 24)] == ["3", "3", "3"]
    await write(irq, "ctl", await read(irq, "ctl"))


async def test_banish_names_those_that_stay(irq: Node, root: Path) -> None:
    """One that nobody can write to, not root either; one that is not told so, since it never goes there."""
    plant(root, {"sys/devices/system/cpu/online": "0-2", "proc/irq/0/effective_affinity_list": "0"})
    plant(root, {"proc/irq/9/effective_affinity_list": "", "proc/irq/24/effective_affinity_list": "0-1"})
    for n in (0, 9):
        (root / f"proc/irq/{n}/smp_affinity_list").unlink()
        (root / f"proc/irq/{n}/smp_affinity_list").symlink_to("/sys/devices/system/cpu/online")
    number, words = await refusal(irq, "ctl", "banish 0")
    assert (number, words) == (errno.EACCES, "cannot be moved: 0 timer: permission denied")
    assert affinity(root, 24) == "1-2"
    assert await read(irq, "ctl") == "default 1-2\n"


async def test_banish_is_refused_whole_where_it_cannot_be(irq: Node, root: Path) -> None:
    plant(root, {"sys/devices/system/cpu/online": "0-2", "sys/devices/system/cpu/possible": "0-7"})
    assert await refusal(irq, "ctl", "banish 0-7") == (errno.EBUSY, "no online CPU would be left beside 0-7")
    assert await refusal(irq, "ctl", "banish 1 8") == (errno.ENODEV, "no CPU 8")
    assert await refusal(irq, "ctl", "default 8") == (errno.ENODEV, "no CPU 8")
    assert [affinity(root, n) for n in (0, 24)] == ["0\n", "0-2\n"]
    assert await read(irq, "ctl") == "default 0-2\n"


async def test_usage(irq: Node) -> None:
    assert await refusal(irq, "24/ctl", "affinity") == (errno.EINVAL, "usage: affinity LIST")
    assert await refusal(irq, "24/ctl", "affinity 0 1") == (errno.EINVAL, "usage: affinity LIST")
    assert (await refusal(irq, "ctl", "melt 1"))[1] == "unknown word melt; usage: banish CPU... · spread · default LIST"
    for line in ("banish", "banish x", "banish 3-1"):
        assert await refusal(irq, "ctl", line) == (errno.EINVAL, "usage: banish CPU...")
    assert await refusal(irq, "ctl", "default all") == (errno.EINVAL, "usage: default LIST")


async def test_a_kernel_for_one_cpu_moves_nothing(tmp_path: Path) -> None:
    """User-mode Linux: no affinity, nothing in /sys/kernel/irq, and only /proc/interrupts tells of handlers."""
    plant(
        tmp_path,
        {
            **counted(1, n3=7),
            "proc/irq/3/node": "0",
            "proc/irq/3/spurious": "count 0\nunhandled 0\nlast_unhandled 0 ms",
        },
    )
    plant(tmp_path, {"proc/irq/4/node": "0"})
    plant(
        tmp_path,
        {
            "proc/interrupts": "           CPU0       \n  3:          7       SIGIO   3 Edge      hr timer, console\nERR:          0"
        },
    )
    irq = tree(root=str(tmp_path))
    assert await read(irq, "status") == "3 0 - hr_timer,console 7\n4 0 - - 0\n"
    assert await read(irq, "3/ctl") == ""
    assert await refusal(irq, "3/ctl", "affinity 0") == (errno.EPERM, "interrupt 3 cannot be moved")
    assert await refusal(irq, "3/ctl", "spread") == (errno.EPERM, "interrupt 3 cannot be moved")
    assert await refusal(irq, "ctl", "banish 0") == (errno.EBUSY, "no online CPU would be left beside 0")
    assert await refusal(irq, "ctl", "default 0") == (errno.EPERM, "this kernel's interrupts cannot be moved")
    assert await read(irq, "ctl") == ""
    await write(irq, "ctl", "spread")
    assert "name hr_timer,console\nchip -\n" in await read(irq, "3/status")


async def test_a_kernel_without_interrupts_has_an_empty_list(tmp_path: Path) -> None:
    irq = tree(root=str(tmp_path))
    assert await read(irq, "status") == ""
    assert sorted(await ls(irq)) == ["ctl", "error", "status"]


async def test_an_interrupt_that_went_away_says_so(irq: Node, root: Path) -> None:
    handle = await opened(irq, "24/ctl", "w")
    (root / "proc/irq/24").rename(root / "gone")
    with pytest.raises(OSError, match="no interrupt 24") as caught:
        handle.write(0, memoryview(b"affinity 0"))
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize(
    ("kernel", "said", "words"),
    [
        (errno.EIO, errno.EIO, "interrupt 24 cannot be moved"),  # as Linux 6.1 says
        (errno.EPERM, errno.EPERM, "interrupt 24 cannot be moved"),  # as 6.12 says
        (errno.ERANGE, errno.EINVAL, "no online CPU in 9"),
        (errno.ENOSPC, errno.ENOSPC, "interrupt 24 cannot be moved: No space left on device"),
    ],
)
def test_the_kernels_errors_get_words(root: Path, kernel: int, said: int, words: str) -> None:
    error = Interrupts(str(root)).refused(24, OSError(kernel, ""), "no online CPU in 9")
    assert (error.errno, str(error)) == (said, words)


async def test_the_real_kernel_agrees() -> None:
    irq = tree()
    lines = {f[0]: f[1:] for f in (line.split() for line in (await read(irq, "status")).splitlines())}
    if not lines:
        pytest.skip("this kernel shows no interrupts in /proc/irq")
    assert sorted(lines) == sorted(n for n in os.listdir("/proc/irq") if n.isdigit())
    assert all(len(fields) == 4 for fields in lines.values())
    for n, fields in lines.items():
        now = dict(line.split(" ", 1) for line in (await read(irq, f"{n}/status")).splitlines())
        assert (now["affinity"], now["name"]) == (fields[1], fields[2])
        assert int(now["count"]) >= int(fields[3])
        if now["percpu"] != "-":
            assert sum(map(int, now["percpu"].split())) >= int(now["count"])


async def test_the_real_kernel_refuses_in_words() -> None:
    """A list without an online CPU is refused before anything is changed."""
    irq = tree()
    movable = [n for n in await ls(irq) if n.isdigit() and (await read(irq, f"{n}/ctl")).startswith("affinity")]
    if os.geteuid() or not movable:
        pytest.skip("no root, or no interrupt with an affinity")
    number, words = await refusal(irq, f"{movable[0]}/ctl", "affinity 99999")
    assert (number, words) in [
        (errno.EINVAL, "no online CPU in 99999"),
        (errno.EIO, f"interrupt {movable[0]} cannot be moved"),
        (errno.EPERM, f"interrupt {movable[0]} cannot be moved"),
    ]
