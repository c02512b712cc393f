"""What a user may do with a stored file: access(2), and chdir(2). The mount asks the server where only the server can tell.

9P has no such request. A server decides by more than permission bits (access lists, groups that it knows, the rights of root), so the mount asks
it to do the operation: it opens a stored file as requested, and closes it; it opens a directory for reading, and walks to a name that does not
exist. The bits alone tell whether a directory may be changed, because asking would change it; whether a file may be executed; and everything about
synthetic files, pipes and devices, because opening them may have an effect.
"""

import errno
import stat as st
from typing import Final

from mk9p.auth import EXEC, READ, WRITE, Principal, may
from mk9p.compose.remote import Remote
from mk9p.errors import NineError
from mk9p.tree import Open, Stat

_NONE: Final = "\x01 is there such a name?"
_NO: Final = (errno.EACCES, errno.EPERM)


async def allowed(node: Remote, who: Principal, stat: Stat, want: int) -> bool:
    """Tell whether a user may do what they want (READ, WRITE, EXEC) with a file. Raises EROFS, and EIO."""
    if who.uid == 0 and want & EXEC and not stat.is_dir and not stat.mode & 0o111:
        return False
    if not stat.is_dir and not (stat.version and st.S_ISREG(stat.mode)):
        return may(who, stat.mode, stat.uid, stat.gid, want)
    if stat.is_dir:
        if want & WRITE and not may(who, stat.mode, stat.uid, stat.gid, WRITE):
            return False
        return (not want & READ or await _opens(node, Open(who))) and (not want & EXEC or await _searches(node, who))
    if want & EXEC and who.uid and not may(who, stat.mode, stat.uid, stat.gid, EXEC):
        return False
    if not want & (READ | WRITE):
        return True
    return await _opens(node, Open(who, read=bool(want & READ), write=bool(want & WRITE)))


async def _opens(node: Remote, how: Open) -> bool:
    try:
        handle = await node.open(how)
    except NineError as error:
        if error.errno in _NO:
            return False
        if error.errno == errno.ETXTBSY:  # they may, at another time
            return True
        raise
    await handle.close()
    return True


async def _searches(node: Remote, who: Principal) -> bool:
    try:
        await node.walk(_NONE, who)
    except NineError as error:
        if error.errno in _NO:
            return False
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENAMETOOLONG):
            raise
    return True
