"""Extended attributes by FUSE (`mk9p mount --xattr`): requests for them go to the server.

Without them the mount tells the kernel once that there are none: otherwise it would ask for `security.capability` before every write.
"""

import os

from pyfuse3 import InodeT, RequestContext

from mk9p.clients.fuse import Fuse
from mk9p.clients.fuse_files import text


class FuseWithAttributes(Fuse):
    """The file system of one tree, with the extended attributes of its files. pyfuse3 makes two requests of the flags of setxattr(2)."""

    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        with self._asks(ctx):
            return await self._node(inode, ctx).xattr(text(name), self._user(ctx))

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> list[bytes]:
        with self._asks(ctx):
            return [os.fsencode(name) for name in await self._node(inode, ctx).xattrs(self._user(ctx))]

    async def setxattr(self, inode: InodeT, name: bytes, value: bytes, ctx: RequestContext) -> None:
        with self._asks(ctx):
            await self._node(inode, ctx).set_xattr(text(name), value, self._user(ctx))

    async def removexattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        with self._asks(ctx):
            await self._node(inode, ctx).remove_xattr(text(name), self._user(ctx))
