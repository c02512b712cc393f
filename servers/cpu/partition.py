"""The cgroup of the isolated CPUs: a cpuset partition, which takes CPUs from every task of the kernel that is not in it.

(Documentation/admin-guide/cgroup-v2.rst, "Cpuset"; kernel/cgroup/cpuset.c; cgroups(7).)

* There is one, `mk9p.isolated`, at the top, for all CPUs that this server isolates. Its type is `isolated`, without load balancing in it, or
  `root` where the kernel is too old for that (before 6.1).
* The kernel says, by this cgroup, what is isolated. Extended attributes of the cgroup keep what was before, so that it can be put back. So the
  kernel remembers, for as long as the cgroup exists, whatever happens to this server.
* Where no cgroups of version 2 are mounted, the server mounts them at `PLACE`, a place of its own, and unmounts them when no CPU is isolated any
  more.
"""

import errno
import os
from contextlib import nullcontext, suppress
from typing import Final

import attrs

from mk9p.affinity import CpuSet, listed, numbers
from mk9p.errors import NineError, wording
from mk9p.ktext import split_words, unescaped
from mk9p.servers.cpu.awake import awake
from mk9p.sysfs import names, put, text

NAME: Final = "mk9p.isolated"
PLACE: Final = "/run/mk9p/cgroup2"
KINDS: Final = ("isolated", "root")
_NOTE: Final = "trusted.mk9p."  # trusted: only root reads and writes these, and there may be any number of them
_PIECE: Final = 60000  # bytes; an attribute has at most 65536 (XATTR_SIZE_MAX)
_FLAGS: Final = 2 | 4 | 8  # MS_NOSUID, MS_NODEV, MS_NOEXEC


@attrs.frozen
class Partition:
    """The partition of one kernel, which may not exist."""

    root: str

    def top(self) -> str:
        """Return where cgroups of version 2 are mounted; empty if nowhere."""
        for line in text(f"{self.root}/proc/mounts").split("\n"):
            fields = line.split(" ")
            if len(fields) > 2 and fields[2] == "cgroup2":
                return self.root + unescaped(fields[1])
        return ""

    @property
    def folder(self) -> str:
        """The folder of the cgroup, whether it exists or not."""
        return f"{self.top()}/{NAME}"

    def cpus(self) -> CpuSet:
        """Return the CPUs that this server isolated, as the kernel says."""
        folder = self.folder
        valid = text(f"{folder}/cpuset.cpus.partition") in KINDS
        return frozenset(numbers(text(f"{folder}/cpuset.cpus"))) if valid else frozenset()

    def everyones(self) -> CpuSet:
        """Return the CPUs of all isolated partitions, whoever made them, where the kernel tells (6.7 and later)."""
        return frozenset(numbers(text(f"{self.top()}/cpuset.cpus.isolated")))

    def require_free(self, cpus: CpuSet) -> None:
        """Raise EBUSY for a CPU that a partition of others has: asking the kernel for it would make their partition invalid, and leave it so."""
        top = self.top()
        for name in names(top) if top else ():
            base = f"{top}/{name}/cpuset.cpus"
            if name != NAME and text(f"{base}.partition") in KINDS:
                theirs = text(f"{base}.exclusive.effective") or text(base)
                if taken := cpus & frozenset(numbers(theirs)):
                    raise NineError(errno.EBUSY, f"CPU {listed(taken)} cannot be isolated: cgroup /{name} has it")
        if taken := cpus & self.everyones() - self.cpus():
            raise NineError(errno.EBUSY, f"CPU {listed(taken)} cannot be isolated: a cgroup further down has it")

    def threads(self) -> frozenset[int]:
        """Return the threads that were put on isolated CPUs."""
        return frozenset(map(int, split_words(text(f"{self.folder}/cgroup.threads"))))

    # making and removing

    def make(self) -> None:
        """Make the cgroup, without CPUs, if it does not exist. Raises EOPNOTSUPP that says what the kernel lacks, with everything as it was."""
        top = self.top() or self._mount()
        there = os.path.isdir(f"{top}/{NAME}")
        try:
            if "cpuset" not in split_words(text(f"{top}/cgroup.controllers")):
                raise NineError(errno.EOPNOTSUPP, f"CPUs cannot be isolated: {self._lack(top)}")
            ours = "cpuset" not in split_words(text(f"{top}/cgroup.subtree_control"))
            if ours:
                put(f"{top}/cgroup.subtree_control", "+cpuset")
            with suppress(FileExistsError):
                os.mkdir(f"{top}/{NAME}")
            if ours:
                self.note("subtree", "1")
        except OSError as error:
            if not there:
                with suppress(OSError):  # the first error is the one to report
                    self.remove()
            if error.errno == errno.EOPNOTSUPP:
                raise
            raise NineError(error.errno or errno.EIO, f"CPUs cannot be isolated: no cgroup: {_said(error)}") from None

    def hold(self, cpus: CpuSet) -> None:
        """Make these CPUs, at least one, the CPUs of the partition. Raises what the kernel says against it, with everything as it was."""
        folder, was = self.folder, self.cpus()
        try:
            put(f"{folder}/cpuset.cpus", listed(cpus))
            if not was:
                with nullcontext() if self.root else awake(cpus, folder):
                    self._become()
            if self.cpus() != cpus:
                said = text(f"{folder}/cpuset.cpus.partition")  # isolated invalid (REASON)
                reason = said.partition("(")[2].rstrip(")") or said
                raise NineError(errno.EBUSY, f"the kernel refuses: {reason or 'it has no partitions'}")
        except OSError as error:
            if was:  # which the kernel has made invalid, and does not make valid again by itself
                self.release()
                put(f"{folder}/cpuset.cpus", listed(was))
                self._become()
            raise NineError(
                error.errno or errno.EIO, f"CPU {listed(cpus - was)} cannot be isolated: {_said(error)}"
            ) from None

    def release(self) -> None:
        """Give the CPUs back to everybody; the cgroup stays, with what it remembers."""
        with suppress(FileNotFoundError):  # somebody has taken the controller away
            put(f"{self.folder}/cpuset.cpus.partition", "member")

    def remove(self) -> None:
        """Remove the cgroup; what runs in it goes to the top. Raises EBUSY when somebody has made cgroups in it."""
        top, folder = self.top(), self.folder
        ours = self.noted("subtree")
        for pid in split_words(text(f"{folder}/cgroup.procs")):
            with suppress(ProcessLookupError):
                put(f"{top}/cgroup.procs", pid)
        with suppress(FileNotFoundError):
            os.rmdir(folder)
        if ours:
            with suppress(OSError):  # EBUSY: others use cpusets by now
                put(f"{top}/cgroup.subtree_control", "-cpuset")
        if top == self.root + PLACE:
            _call("umount2", top.encode(), 0)
            os.rmdir(top)

    def _become(self) -> None:
        kind = f"{self.folder}/cpuset.cpus.partition"
        try:
            put(kind, KINDS[0])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            put(kind, KINDS[1])  # the kernel knows no `isolated`

    def _mount(self) -> str:
        if "nodev\tcgroup2" not in text(f"{self.root}/proc/filesystems").split("\n") or self.root:
            raise NineError(errno.EOPNOTSUPP, "CPUs cannot be isolated: no cgroups of version 2 here")
        os.makedirs(PLACE, exist_ok=True)
        _call("mount", b"cgroup2", PLACE.encode(), b"cgroup2", _FLAGS, None)
        return PLACE

    def _lack(self, top: str) -> str:
        """Return why there are no cpusets (/proc/cgroups: name, hierarchy, number, enabled)."""
        for line in text(f"{self.root}/proc/cgroups").split("\n"):
            name, *values = line.split("\t")
            if name == "cpuset" and len(values) == 3:
                if values[2] == "0":
                    return "cpusets are disabled on the kernel's command line"
                if values[0] != "0":
                    return "cgroups of version 1 have the cpusets"
                return f"{top.removeprefix(self.root)} was given no cpusets"
        return "this kernel has no cpusets"

    # what the cgroup remembers

    def note(self, name: str, value: str) -> None:
        """Keep a text, of any length, until the cgroup is removed."""
        folder, data = self.folder, value.encode()
        pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
        for at, piece in enumerate(pieces):
            os.setxattr(folder, f"{_NOTE}{name}.{at}", piece)
        with suppress(OSError):  # ENODATA after the last piece of a longer text
            while True:
                os.removexattr(folder, f"{_NOTE}{name}.{len(pieces)}")
                pieces.append(b"")

    def noted(self, name: str) -> str:
        """Return a text that was kept; empty if there is none, or this server may not read it."""
        folder, pieces = self.folder, list[bytes]()
        with suppress(OSError):
            while True:
                pieces.append(os.getxattr(folder, f"{_NOTE}{name}.{len(pieces)}"))
        return b"".join(pieces).decode()


def _said(error: OSError) -> str:
    return error.ename if isinstance(error, NineError) else wording(error.errno or errno.EIO)


def _call(name: str, *arguments: bytes | int | None) -> None:
    """Call a function of the C library that Python has no name for."""
    import ctypes  # slow to import, and rarely needed

    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise NineError(number, f"CPUs cannot be isolated: cgroups cannot be mounted: {wording(number)}")
