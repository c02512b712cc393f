"""Namespaces of Linux for this process alone: of users, and of mounts that it puts together from descriptors.

A mount is made without a place first (fsopen(2), open_tree(2)), and then gets one (move_mount(2)). So where it is mounted is a descriptor that was
found inside the new tree (openat2(2)), and no symbolic link leads out of it. All calls need Linux 5.12, and no program of this machine.

An empty namespace is a tmpfs that lies upon the old root, and becomes the root of this process. pivot_root(2) would also take the old root away, but
refuses where that is an initramfs, as in guests. `..` from a root that lies on another leads to itself.
"""

import ctypes
import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

import attrs

from mk9p import ktext
from mk9p.errors import NineError

# <linux/unistd.h>: system calls from 424 on have one number on every architecture
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 437, 442
_NEWNS, _NEWUSER = 0x20000, 0x10000000  # <linux/sched.h>
_CLOEXEC: Final = os.O_CLOEXEC
_CLONE, _RECURSIVE, _EMPTY_PATH = 1, 0x8000, 0x1000  # <linux/mount.h>, AT_* of <fcntl.h>
_FROM_EMPTY, _TO_EMPTY = 0x4, 0x40  # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
_FLAG, _STRING, _CREATE = 0, 1, 6  # FSCONFIG_*
_PRIVATE = 1 << 18  # MS_PRIVATE
_REC = 1 << 14  # MS_REC
_DETACH, _NOFOLLOW = 2, 8  # umount2(2)
_IN_ROOT = 0x10  # RESOLVE_IN_ROOT of openat2(2)
ATTRIBUTES: Final = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}  # MOUNT_ATTR_*
_SYS_ADMIN: Final = 21  # <linux/capability.h>


@lru_cache(maxsize=1)
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _call(number: int, *arguments: object) -> int:
    """Make a system call; raises OSError as the kernel says."""
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *passed))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _done(result: int, about: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise NineError(number, f"{about}: {os.strerror(number)}")


# -- namespaces


def may_mount() -> bool:
    """Tell whether this process may mount (CAP_SYS_ADMIN), as root of this machine may."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == "CapEff":
                return bool(int(ktext.trim(value), 16) >> _SYS_ADMIN & 1)
    return False


def own_users() -> None:
    """Move this process into a user namespace, in which it stays who it is and may mount. It must have no other threads.

    Raises EPERM with what to do where this machine does not let its users do so.
    """
    uid, gid = os.geteuid(), os.getegid()
    if _libc().unshare(_NEWUSER):
        number = ctypes.get_errno()
        hint = "no private namespace without root here: see user.max_user_namespaces, and kernel.apparmor_restrict_unprivileged_userns"
        raise NineError(number, f"{os.strerror(number)}: {hint}")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def own_mounts() -> None:
    """Move this process into a mount namespace of its own: what is mounted there or elsewhere from now on is not seen on the other side."""
    _done(_libc().unshare(_NEWNS), "a mount namespace")
    _done(_libc().mount(None, b"/", None, _REC | _PRIVATE, None), "a private mount namespace")


# -- mounts without a place, each a descriptor


def tree(path: int) -> int:
    """Return the tree at a descriptor, with what is mounted below, as a mount of its own. Raises OSError."""
    return _call(_OPEN_TREE, path, b"", _CLONE | _CLOEXEC | _RECURSIVE | _EMPTY_PATH)


def make_readonly(mount: int) -> None:
    """Make a mount refuse changes, and what is mounted below. Raises OSError."""
    attributes = (ctypes.c_uint64 * 4)(ATTRIBUTES["ro"], 0, 0, 0)
    _call(_MOUNT_SETATTR, mount, b"", _EMPTY_PATH | _RECURSIVE, attributes, ctypes.sizeof(attributes))


def filesystem(kind: str, options: Sequence[str], about: str) -> int:
    """Return a new mount of a file system: options as mount(8) takes them, `source` among them. Raises its error with what the kernel says."""
    context = -1
    try:
        context = _call(_FSOPEN, kind.encode(), 1)
        attributes = 0
        for option in options:
            key, given, value = option.partition("=")
            if not given and key in ATTRIBUTES:
                attributes |= ATTRIBUTES[key]
            if given:
                _call(_FSCONFIG, context, _STRING, os.fsencode(key), os.fsencode(value), 0)
            elif key == "ro" or key not in ATTRIBUTES:
                _call(_FSCONFIG, context, _FLAG, os.fsencode(key), None, 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        return _call(_FSMOUNT, context, 1, attributes)
    except OSError as error:
        words = [os.strerror(error.errno or errno.EIO)]
        if context >= 0:
            with suppress(OSError):
                words.append(ktext.trim(os.read(context, 4096).decode(errors="replace").partition(" ")[2]))
        raise NineError(error.errno or errno.EIO, f"{about}: {': '.join(words)}") from None
    finally:
        if context >= 0:
            os.close(context)


def union(directories: Sequence[str], about: str) -> int:
    """Return a read-only mount that shows what is in these directories, the first that has a name first. Raises what overlayfs says."""
    return filesystem("overlay", ["source=mk9p", f"lowerdir={':'.join(directories)}", "ro", "nosuid", "nodev"], about)


@attrs.define(eq=False)
class Names:
    """The tree of names that the process gets: `base` is a descriptor of its root."""

    base: int

    @classmethod
    def present(cls) -> "Names":
        """Return the names that this process has."""
        return cls(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    @classmethod
    def empty(cls) -> "Names":
        """Return an empty tree, in memory. Paths of this process lead to the old names until `enter`."""
        mount = filesystem("tmpfs", ["source=mk9p", "mode=755", "nosuid", "nodev"], "an empty root")
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        _call(_MOVE_MOUNT, mount, b"", root, b"", _FROM_EMPTY | _TO_EMPTY)
        os.close(root)
        return cls(mount)

    def find(self, path: str, flags: int = 0) -> int:
        """Return a descriptor of the file at an absolute path, as if this tree were everything. Raises OSError."""
        how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC | flags, 0, _IN_ROOT)
        return _call(_OPENAT2, self.base, os.fsencode(path), how, ctypes.sizeof(how))

    def place(self, mount: int, at: int) -> None:
        """Put a mount at the file of a descriptor, and close both. Raises OSError."""
        try:
            _call(_MOVE_MOUNT, mount, b"", at, b"", _FROM_EMPTY | _TO_EMPTY)
        finally:
            os.close(mount)
            os.close(at)

    def take(self, path: str) -> None:
        """Take away the mount at a path. Raises OSError."""
        os.fchdir(self.base)
        _done(_libc().umount2(os.fsencode(f".{path}"), _DETACH | _NOFOLLOW), path)

    def enter(self) -> None:
        """Make this tree all that the process sees. Its directory is then the root."""
        os.fchdir(self.base)
        os.chroot(".")
        os.close(self.base)
