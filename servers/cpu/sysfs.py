"""What the kernel tells of its CPUs in sysfs and procfs, read and parsed.

Nothing here keeps state, and a file that is missing is an empty text: architectures, user-mode Linux and containers each lack some of them.
(Documentation/admin-guide/cputopology.rst, Documentation/ABI/testing/sysfs-devices-system-cpu, proc_stat(5).)
"""

import os
from typing import TypeAlias

from mk9p.ktext import split_words, trim
from mk9p.sysfs import names, text

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
"""A tick of /proc/stat (USER_HZ) in ns."""

TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
"""The columns of a CPU in /proc/stat."""

Times: TypeAlias = dict[int, list[int]]


def times(root: str) -> Times:
    """Return the ticks that each online CPU has spent, in the columns of TIMES."""
    found: Times = {}
    for line in text(f"{root}/proc/stat").split("\n"):
        if not line.startswith("cpu"):
            break  # the lines of the CPUs come first; the line of the interrupts may be long
        name, *ticks = split_words(line)
        if name != "cpu":
            found[int(name[3:])] = [int(t) for t in ticks]
    return found


def cpuinfo(root: str) -> dict[int, dict[str, str]]:
    """Return for each online CPU its physical id (`apicid` on x86, `hart` on RISC-V) and `cpu MHz` from /proc/cpuinfo."""
    found: dict[int, dict[str, str]] = {}
    of: dict[str, str] = {}
    for line in text(f"{root}/proc/cpuinfo").split("\n"):
        if line.startswith(("processor", "apicid", "cpu MHz", "hart")):
            key, _, value = line.partition(":")
            key, value = trim(key), trim(value)
            if key == "processor" and value.isdigit():
                of = found[int(value)] = {}
            else:
                of[key] = value
    return found


def nodes(root: str) -> dict[int, int]:
    """Return the memory node of each CPU. The links exist for offline CPUs too, which `cpulist` leaves out."""
    base = f"{root}/sys/devices/system/node"
    return {
        int(cpu[3:]): int(node[4:])
        for node in names(base)
        if node.startswith("node") and node[4:].isdigit()
        for cpu in names(f"{base}/{node}")
        if cpu.startswith("cpu") and cpu[3:].isdigit()
    }


def physical(cpu: str, info: dict[str, str]) -> str:
    """Return the physical id of the CPU with the sysfs directory `cpu`: APIC id, hart, or the MPIDR of the device tree; else `-`."""
    known = info.get("apicid") or info.get("hart")
    if known:
        return known
    try:
        with open(f"{cpu}/of_node/reg", "rb") as file:
            return str(int.from_bytes(file.read(8), "big"))
    except OSError:
        return "-"


def mhz(cpu: str, info: dict[str, str]) -> str:
    """Return the present frequency in MHz, rounded: from /proc/cpuinfo, else from cpufreq; else `-`."""
    if said := info.get("cpu MHz"):
        return str(round(float(said)))
    khz = text(f"{cpu}/cpufreq/scaling_cur_freq")
    return str(round(int(khz) / 1000)) if khz.isdigit() else "-"


def caches(cpu: str) -> list[str]:
    """Return the caches of a CPU, the nearest first, as `L1d:BYTES:LIST` with the CPUs that share each."""
    found = []
    for index in sorted(i for i in names(f"{cpu}/cache") if i.startswith("index")):
        base = f"{cpu}/cache/{index}"
        level, size = text(f"{base}/level"), text(f"{base}/size")
        kind = {"Data": "d", "Instruction": "i"}.get(text(f"{base}/type"), "")
        if level:
            found.append(f"L{level}{kind}:{_bytes(size)}:{text(f'{base}/shared_cpu_list') or '-'}")
    return found


def _bytes(size: str) -> str:
    units = {"K": 1 << 10, "M": 1 << 20}
    if size[:-1].isdigit() and size[-1] in units:
        return str(int(size[:-1]) * units[size[-1]])
    return size if size.isdigit() else "-"
