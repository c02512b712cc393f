"""`sysname`: the name of this kernel (uname(2)'s nodename), through /proc/sys/kernel/hostname, which gives the UTS namespace of the process that
asks."""

import attrs

from mk9p.ktext import trim
from mk9p.sysfs import put_hostname


@attrs.frozen
class SysName:
    """The name in the file `path`."""

    path: str

    def read(self) -> bytes:
        """Return the name and a newline."""
        with open(self.path, "rb") as file:
            return file.read()

    def write(self, text: str) -> None:
        """Set the name; raises EINVAL for an impossible one."""
        put_hostname(self.path, trim(text))
