"""`status`: attribute lines of the kernel as a whole, from /proc below a root. `-` is what this kernel does not have."""

import os

import attrs

from mk9p.ktext import split_lines, split_words
from mk9p.sysfs import text
from mk9p.tree import fields


@attrs.frozen
class Status:
    """Read the state of the kernel whose /proc is below `root`."""

    root: str

    def read(self) -> str:
        """Return `key value` lines: name boot release version arch uptime (ns) load cpus (online) memory (bytes)."""
        kernel = "proc/sys/kernel/"
        seconds, _, hundredths = self._text("proc/uptime").partition(" ")[0].partition(".")
        uptime = str(int(seconds) * 10**9 + int(hundredths) * 10**7) if hundredths else "-"
        cpus = sum(line.startswith("cpu") and line[3:4].isdecimal() for line in split_lines(self._text("proc/stat")))
        total = next((line for line in split_lines(self._text("proc/meminfo")) if line.startswith("MemTotal:")), "")
        values = {
            "name": self._text(kernel + "hostname"),
            "boot": self.boot(),
            "release": self._text(kernel + "osrelease"),
            "version": self._text(kernel + "version"),
            "arch": self._text(kernel + "arch", os.uname().machine),  # the file exists since Linux 6.1
            "uptime": uptime,
            "load": " ".join(split_words(self._text("proc/loadavg"))[:3]),
            "cpus": str(cpus or "-"),
            "memory": str(int(split_words(total)[1]) * 1024) if total else "-",
        }
        return fields(values)

    def boot(self) -> str:
        """Return the id of the boot, which is new each time the kernel starts (random(4))."""
        return self._text("proc/sys/kernel/random/boot_id")

    def _text(self, path: str, default: str = "-") -> str:
        return text(os.path.join(self.root, path), default)
