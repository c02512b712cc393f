"""`python -m tests.bench.bare_fuse ROOT DIR`: the files below ROOT on DIR, by pyfuse3 alone, in memory; all that the kernel may keep is kept.

What it costs is the kernel, libfuse, pyfuse3 and trio: the least that a file system of ours can cost that answers these requests.
"""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pyfuse3
import trio


class Bare(pyfuse3.Operations):
    """A tree that does not change. A file's number is its place among all."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.paths = [root, root, *sorted(root.rglob("*"))]  # 1 is the root
        self.data = [b"" if path.is_dir() else path.read_bytes() for path in self.paths]
        self.numbers = {path: number for number, path in enumerate(self.paths)}
        self.entries = [self._entry(number) for number in range(len(self.paths))]
        self.children = {
            path: [n for n, of in enumerate(self.paths) if n > 1 and of.parent == path] for path in self.paths
        }
        self.names = [pyfuse3.FileNameT(os.fsencode(path.name)) for path in self.paths]

    def entry(self, number: int) -> pyfuse3.EntryAttributes:
        return self.entries[number]

    def _entry(self, number: int) -> pyfuse3.EntryAttributes:
        found, entry = os.lstat(self.paths[number]), pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode, entry.st_size = pyfuse3.InodeT(number), pyfuse3.ModeT(found.st_mode), found.st_size
        entry.st_mtime_ns = found.st_mtime_ns
        entry.entry_timeout = entry.attr_timeout = 1
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        number = self.numbers.get(self.paths[parent_inode] / os.fsdecode(name))
        if number is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.entry(number)

    async def getattr(self, inode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        return self.entry(inode)

    async def opendir(self, inode: int, ctx: Any) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for number in self.children[self.paths[fh]]:
            if number > start_id and not pyfuse3.readdir_reply(token, self.names[number], self.entry(number), number):
                return

    async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self.data[fh][off : off + size]

    async def flush(self, fh: int) -> None:
        raise pyfuse3.FUSEError(errno.ENOSYS)  # the kernel asks no more

    async def release(self, fh: int) -> None:
        pass

    async def releasedir(self, fh: int) -> None:
        pass

    async def forget(self, inode_list: Any) -> None:
        pass

    async def statfs(self, ctx: Any) -> pyfuse3.StatvfsData:
        return pyfuse3.StatvfsData()


async def main(*arguments: str) -> None:
    root, where = arguments
    pyfuse3.init(Bare(Path(root)), where, {"fsname=bare", "subtype=mk9p"})
    try:
        await pyfuse3.main()
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
