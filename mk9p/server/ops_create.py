"""Tcreate of 9P2000 and 9P2000.u, after open(5): what it makes, with which permission bits, and who owns it.

The server obeys or refuses every bit of `perm`. In 9P2000 a file has `perm & (~0666 | dir.perm & 0666)`, a directory the same with 0777, and both
have the group of their directory. The client of 9P2000.u is Unix, and its rules hold, as in other servers: the requested mode, from which the
client has taken the umask, and the maker's group, except in a setgid directory. For the rest that 9P2000.u makes, its extension says more: a
link's target, the fid of a file that gets one more name, the number of a device. If the server cannot do something after it has made the file, it
removes the file again.
"""

import errno
import os
import re
import stat as st
from typing import Any, Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.server.closing import GRACE
from mk9p.server.connection import Connection, Reply
from mk9p.server.fids import Fid
from mk9p.server.modes import check_perm, linux_mode, opening
from mk9p.server.permitted import make_file, set_open
from mk9p.server.steps import stat_at
from mk9p.tree import Change, Handle, Node, Open, settle
from mk9p.wire import DMAPPEND, DMDEVICE, DMDIR, DMEXCL, DMLINK, DMNAMEDPIPE, DMSOCKET, DMSYMLINK, Dialect
from mk9p.wire import messages as m

_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_DEVICE: Final = re.compile(r"([bc]) ([0-9]{1,10}) ([0-9]{1,10})")


async def create(c: Connection, tag: int, fid: int, name: str, perm: int, mode: int, extension: str = "") -> Reply:
    f = c.session.fid(fid)
    how = opening(c, f.who, mode)
    check_perm(c.dialect, perm)
    if f.how is not None:
        raise NineError(errno.EBADF, "create in an open fid")
    if perm & DMDIR and (how.write or how.truncate):
        raise NineError(errno.EISDIR)
    if perm & (DMEXCL | DMAPPEND) and not f.place.node.marks:
        raise NineError(errno.EPERM, "exclusive use and append-only are not kept here")
    directory = await stat_at(f.place)
    plan9 = c.dialect is Dialect.P9
    if plan9:
        perm &= ~(0o777 if perm & DMDIR else 0o666) | directory.mode
        how = attrs.evolve(how, who=attrs.evolve(f.who, gid=directory.gid))
    f.keep_file()
    try:
        node, handle = await _make(c, f, name, perm, how, extension)
        try:
            if not perm & DMLINK:
                await _finish(c, f, node, perm, directory.gid if plan9 else None)
        except BaseException:
            await _unmake(f, name, handle)
            raise
    except BaseException:
        f.drop_file()
        raise
    return c.reply(m.Rcreate, tag, await set_open(c, f, name, node, handle, how), 0)


async def _make(c: Connection, f: Fid, name: str, perm: int, how: Open, extension: str) -> tuple[Node, Handle | None]:
    here, who, bits = f.place.node, how.who, perm & 0o777
    if perm & DMDIR:
        return await make_file(c, f, name, here.mkdir, bits, who), None
    if perm & DMSYMLINK:
        return await make_file(c, f, name, here.symlink, _target(extension), who), None
    if perm & DMLINK:
        target = c.session.fid(_fid(extension)).place.node
        await make_file(c, f, name, here.link, target, who)
        return await settle(here.walk(name, who)), None
    if kind := _special(perm, extension):
        return await make_file(c, f, name, here.mknod, kind[0] | bits, kind[1], who), None
    if perm & DMAPPEND:
        how = attrs.evolve(how, append=True)
    node, handle = await make_file(c, f, name, here.create, bits, how)
    return node, handle


def _target(extension: str) -> str:
    if not extension or "\0" in extension:
        raise NineError(errno.EINVAL, "the extension of a symbolic link is its target")
    return extension


def _fid(extension: str) -> int:
    if not _NUMBER.fullmatch(extension.strip()):  # Linux ends it with a newline
        raise NineError(errno.EINVAL, "the extension of a link is the fid of its file")
    return int(extension)


def _special(perm: int, extension: str) -> tuple[int, int] | None:
    """Return the kind and number of a device, pipe or socket; None for a plain file."""
    if perm & DMNAMEDPIPE:
        return st.S_IFIFO, 0
    if perm & DMSOCKET:
        return st.S_IFSOCK, 0
    if not perm & DMDEVICE:
        return None
    found = _DEVICE.fullmatch(extension.strip())
    if found is None:
        raise NineError(errno.EINVAL, "the extension of a device is its kind and number, as `b 8 1`")
    return (st.S_IFBLK if found[1] == "b" else st.S_IFCHR), os.makedev(int(found[2]), int(found[3]))


async def _finish(c: Connection, f: Fid, node: Node, perm: int, gid: int | None) -> None:
    """Give a new file its group and the bits that making does not set. Raises EPERM for what it then does not have."""
    now = await settle(node.stat())
    if gid not in (None, now.gid):
        await settle(node.give(gid))
        now = await settle(node.stat())
    special = linux_mode(perm) & 0o7000
    exclusive, append = bool(perm & DMEXCL), bool(perm & DMAPPEND)
    if not (special or exclusive or append):
        return
    mode = now.mode & 0o7777 | special
    change = Change(mode=mode if special else None, exclusive=exclusive or None, append=append or None)
    await settle(node.change(change, f.who))
    now = await settle(node.stat())
    if now.mode & special != special or now.exclusive < exclusive or now.append < append:
        raise NineError(errno.EPERM, "these mode bits cannot be had here")


async def _unmake(f: Fid, name: str, handle: Handle | None) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + GRACE):
        steps: list[Any] = [] if handle is None else [handle.close]
        for step in (*steps, lambda: f.place.node.remove(name, f.who)):
            await settle(step())
