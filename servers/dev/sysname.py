"""`sysname`: the name of this kernel (uname(2)'s nodename), through /proc/sys/kernel/hostname, which is the UTS namespace of who asks."""

import errno

import attrs

from mk9p.errors import NineError
from mk9p.ktext import split_words, trim
from mk9p.sysfs import put

LONGEST = 64  # __NEW_UTS_LEN; the proc file would cut a longer one off without a word


@attrs.frozen
class SysName:
    """The name in the file `path`."""

    path: str

    def read(self) -> bytes:
        """Return the name and a newline."""
        with open(self.path, "rb") as file:
            return file.read()

    def write(self, text: str) -> None:
        """Set the name; raises EINVAL for one that is empty, longer than 64 bytes, or has white space or control characters in it."""
        name = trim(text)
        if not 1 <= len(name.encode()) <= LONGEST or len(split_words(name)) != 1 or not name.isprintable():
            raise NineError(errno.EINVAL, f"a name is one word of 1 to {LONGEST} bytes")
        put(self.path, f"{name}\n")
