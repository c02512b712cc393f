"""The memory of a segment: a memfd (memfd_create(2)), of ordinary pages or huge ones.

Rules
* It has the size that was asked for, zeros at first. Its size can change until the server first hands out its descriptor. From then on it is
  sealed against that: otherwise a program that has mapped it would die of SIGBUS when another one truncates it.
* Huge pages are reserved when the size is set, so a lack of them is an error then and not a signal later. hugetlbfs has no write(2), so such
  memory is mapped here. Ordinary memory is not, because pwrite(2) says ENOSPC where a store into a mapping would be SIGBUS.
"""

import errno
import fcntl
import mmap
import os
from typing import Final

from mk9p.errors import NineError
from mk9p.ktext import split_lines, split_words, trim, whole
from mk9p.tree import Buffer

# the last seal: otherwise a program that has the descriptor could forbid this server to write
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_WANTED: Final = {  # of the kernel, for what it says when it has no huge pages
    errno.ENOMEM: "not enough huge pages are free",
    errno.ENODEV: "this kernel has no huge pages",
    errno.ENOSYS: "this kernel has no huge pages",
    errno.EINVAL: "this kernel has no huge pages",
}


class Memory:
    """One object. `huge` memory has a multiple of the kernel's huge page as its size; `root` is where /proc is found."""

    def __init__(self, name: str, *, huge: bool = False, root: str = "") -> None:
        self.huge, self.size, self.sealed, self.root = huge, 0, False, root
        self.page = huge_page(root) if huge else 1
        self._map: mmap.mmap | None = None
        self.fd = -1
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | (os.MFD_HUGETLB if huge else 0)
        try:
            self.fd = os.memfd_create(name, flags)
        except OSError as error:
            raise self._refused(error) from None
        os.fchmod(self.fd, 0o600)  # otherwise anybody who gets it for reading could open it again for writing

    def _refused(self, error: OSError) -> NineError:
        number = error.errno or errno.EIO
        if not self.huge or number not in _WANTED:
            return NineError(number)
        return NineError(number, f"{_WANTED[number]} ({_free(self.root)})")

    def resize(self, size: int) -> None:
        """Set the size in bytes. Raises EBUSY after a descriptor was handed out, EINVAL for a part of a huge page, ENOMEM; nothing changes then."""
        if self.sealed:
            raise NineError(errno.EBUSY, "a program has its descriptor: the size stays")
        if size < 0 or size % self.page:
            raise NineError(
                errno.EINVAL, f"with hugetlb the size must be a multiple of {self.page}" if self.huge else None
            )
        before = self.size
        try:
            os.ftruncate(self.fd, size)
            if self.huge:
                made = mmap.mmap(self.fd, size) if size else None  # reserves the pages
                if self._map is not None:
                    self._map.close()
                self._map = made
        except OSError as error:
            os.ftruncate(self.fd, before)
            raise self._refused(error) from None
        self.size = size

    def read(self, count: int, offset: int) -> bytes:
        """Return at most `count` bytes at `offset`; none past the end."""
        if self._map is not None:
            return self._map[offset : offset + count]
        return os.pread(self.fd, min(count, max(0, self.size - offset)), offset)

    def write(self, data: Buffer, offset: int) -> int:
        """Write at `offset` and return how much: less at the end. Raises ENOSPC past it, or where the kernel has no memory left."""
        room = self.size - offset
        if room <= 0 and len(data):
            raise NineError(errno.ENOSPC, f"past the end: the segment has {self.size} bytes")
        part = memoryview(data)[:room]
        if self._map is None:
            return os.pwrite(self.fd, part, offset)
        self._map[offset : offset + len(part)] = part
        return len(part)

    def descriptor(self, *, write: bool) -> int:
        """Return a new descriptor, which belongs to the caller; the size is fixed from now on. Raises EINVAL for a segment without memory."""
        if not self.size:
            raise NineError(errno.EINVAL, "the segment has no size yet")
        if not self.sealed:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
            self.sealed = True
        return os.open(f"/proc/self/fd/{self.fd}", (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it; a program that has mapped it keeps it."""
        if self._map is not None:
            self._map.close()
            self._map = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _meminfo(root: str) -> dict[str, str]:
    try:
        said = whole(f"{root}/proc/meminfo")
    except OSError:
        return {}
    return {key: trim(value) for key, _, value in (line.partition(":") for line in split_lines(said))}


def huge_page(root: str) -> int:
    """Return the bytes of the kernel's usual huge page; raises ENODEV where it has none."""
    size = _meminfo(root).get("Hugepagesize")
    if size is None:
        raise NineError(errno.ENODEV, "this kernel has no huge pages")
    return int(split_words(size)[0]) * 1024


def _free(root: str) -> str:
    info = _meminfo(root)
    free, all_ = info.get("HugePages_Free", "0"), info.get("HugePages_Total", "0")
    return f"{free} of {all_} are free: see /proc/sys/vm/nr_hugepages"
