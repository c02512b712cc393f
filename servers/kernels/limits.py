"""How much of this machine an emulator may use: memory, processor time, processes. A control group of its own says so, below that of this server.

Rules
* A guest that has taken its emulator over is held by the group as much as one that has not: the emulator is a user without rights, and the group is
  root's.
* Both versions of control groups do (mk9p.cgroups tells where). Where there is none, nothing is limited, and the log says so. A guest does not fail
  for that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import attrs

from mk9p import cgroups
from mk9p.itself import unique

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = logging.getLogger("mk9p.kernels")

PERIOD: Final = 100_000  # us
QUOTA: Final = PERIOD * 3 // 2  # both emulators compute on one processor at a time; the half is for their own work


@attrs.frozen
class Group:
    """A control group for each hierarchy of this machine: `folders`, each with what is to be written to its files."""

    folders: dict[Path, dict[str, str]]

    @classmethod
    def of(cls, name: str, *, memory: int, processes: int) -> Group:
        """Return the group of a kernel, whose emulator may have `memory` bytes and so many processes and threads. Nothing is made yet."""
        values = {
            "memory": ({"memory.limit_in_bytes": str(memory)}, {"memory.max": str(memory)}),
            "cpu": (
                {"cpu.cfs_period_us": str(PERIOD), "cpu.cfs_quota_us": str(QUOTA)},
                {"cpu.max": f"{QUOTA} {PERIOD}"},
            ),
            "pids": ({"pids.max": str(processes)}, {"pids.max": str(processes)}),
        }
        found = cgroups.planned(unique(name), values)
        cgroups.sweep()
        if missing := cgroups.missing(found, values):
            log.warning("%s: nothing limits its %s: no control group can be made for it", name, ", ".join(missing))
        return cls(found)

    @property
    def before(self) -> list[list[str]]:
        """The commands that make it."""
        made = [["mkdir", str(folder)] for folder in self.folders]
        for folder, values in self.folders.items():
            made += [
                ["sh", "-c", 'printf %s "$1" >"$2"', "sh", text, str(folder / file)] for file, text in values.items()
            ]
        return made

    @property
    def after(self) -> list[list[str]]:
        """The commands that remove it; what was in it has ended, or ends now."""
        again = 'n=0; until rmdir "$1" 2>/dev/null || [ ! -d "$1" ] || [ $n = 50 ]; do n=$((n + 1)); sleep 0.1; done'
        return [["sh", "-c", again, "sh", str(folder)] for folder in self.folders]

    def holding(self, command: Sequence[str]) -> Sequence[str]:
        """Return the command that runs another in it."""
        files = [str(folder / "cgroup.procs") for folder in self.folders]
        enter = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 1; shift; done; shift; exec "$@"'
        return ["/bin/sh", "-c", enter, "sh", *files, "--", *command] if files else command
