"""Acting as the user who asks.

The server is root, and the kernel decides what a user may do: it knows access lists, quotas, sticky directories, immutable files. So for the time
of each operation the calling thread takes the user's groups, file-system gid and uid (setfsuid(2)), and gives up every effective capability.
setfsuid alone takes those that concern files, but would leave CAP_SYS_ADMIN (`trusted.*` attributes), CAP_SETFCAP (`security.capability`) and
CAP_SYS_RESOURCE (quotas). All of these belong to the thread; the C library would apply setgroups to all threads, so that is the raw system call.
Nothing may wait in between: whatever runs next in this thread is root again.

* root is the server itself, with all its rights;
* reads of an open file need none of this, because opening decided; a write runs as its user, so setuid bits fall and quotas hold;
* a new file gets the requested group, if the user is in it (root may name any); else the user's first group;
* a user without groups, because this machine does not know them, must get nothing by a group, and could otherwise make setgid files of any group
  that they named; a user without a number, above all `none`, must not be equal to anybody. But the kernel has no thread without numbers. So these
  users act by numbers that no system gives away, the highest that exist, and of these by one that the files in question do not have: what one such
  user has made belongs to no other, and afterwards not to them either. -2 is left out, which NFS and v9fs take for nobody, and so is 65534, which
  is `nobody`'s and stands for all owners that a user namespace does not know;
* a server that is not root can be nobody else: it acts as itself, and lets others only read what the bits let them read (`alone`).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from mk9p.auth import NO_ID, Principal
from mk9p.errors import NineError

_libc: Final = ctypes.PyDLL(None, use_errno=True)
_SETGROUPS: Final = {"x86_64": 116, "i386": 206, "i686": 206, "armv7l": 206, "ppc64le": 81, "s390x": 206}.get(
    platform.machine(), 159
)
_CAPABILITIES: Final = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
_syscall = _libc.syscall
_setfsuid = _libc.setfsuid
_setfsgid = _libc.setfsgid
_setfsuid.restype = _setfsgid.restype = ctypes.c_uint


class Nobody:
    """Acting as the server itself: nothing changes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class Group(Nobody):
    """Root with another group, for new files."""

    def __init__(self, gid: int) -> None:
        self.gid = gid

    def __enter__(self) -> None:
        _setfsgid(self.gid)

    def __exit__(self, *_: object) -> None:
        _setfsgid(os.getegid())


class User(Nobody):
    """A user, entered and left by one thread without waiting."""

    def __init__(self, uid: int, gid: int, groups: frozenset[int], own: "Own") -> None:
        self.uid, self.gid, self.own = uid, gid, own
        self.groups = struct.pack(f"={len(groups)}I", *sorted(groups))
        with self:
            # The two report a failure only by what they return the next time. In a user namespace some numbers belong to nobody.
            taken = _setfsuid(uid) == uid and _setfsgid(gid) == gid
        if not taken:
            raise NineError(errno.EPERM, f"uid {uid}, gid {gid} do not exist in this user namespace")

    def __enter__(self) -> None:
        if _syscall(_SETGROUPS, len(self.groups) // 4, self.groups) < 0:
            raise NineError(errno.EPERM, os.strerror(ctypes.get_errno()))
        _setfsgid(self.gid)
        _setfsuid(self.uid)
        _libc.capset(_CAPABILITIES, self.own.none)

    def __exit__(self, *_: object) -> None:
        own = self.own
        _libc.capset(_CAPABILITIES, own.all)
        _setfsuid(own.uid)
        _setfsgid(own.gid)
        _syscall(_SETGROUPS, len(own.groups) // 4, own.groups)


class Own:
    """Who the server itself is."""

    def __init__(self) -> None:
        self.uid, self.gid = os.geteuid(), os.getegid()
        groups = os.getgroups()
        self.groups = struct.pack(f"={len(groups)}I", *groups)
        held = ctypes.create_string_buffer(24)
        _libc.capget(_CAPABILITIES, held)
        low, permitted, inheritable, high, permitted2, inheritable2 = struct.unpack("=6I", held)
        self.all = held.raw
        self.none = struct.pack("=6I", 0, permitted, inheritable, 0, permitted2, inheritable2)
        self.effective = low | high << 32

    @property
    def may_be_others(self) -> bool:
        """Tell whether this process is root with CAP_SETGID and CAP_SETUID."""
        return self.uid == 0 and self.effective & 0xC0 == 0xC0


ITSELF: Final = Nobody()
"""The context for the server's own work."""
_SPARE: Final = 8  # numbers that are nobody's: more than the files of one operation have owners


def _unused(map_: str) -> list[int]:
    """Return the highest numbers of this user namespace, /proc/self/uid_map or gid_map, that are nobody's."""
    with open(f"/proc/self/{map_}") as lines:
        ranges = sorted((int(first), int(count)) for first, _, count in map(str.split, lines))
    numbers = (n for first, count in reversed(ranges) for n in range(first + count - 1, max(first, 1) - 1, -1))
    return [n for n in islice(numbers, _SPARE + 2) if n not in (0xFFFF_FFFE, 65534)][:_SPARE]


class Identity:
    """Gives the context in which an operation for a user runs: `with identity.of(who): ...`; nothing may wait inside."""

    def __init__(self) -> None:
        self.own = Own()
        self.alone = not self.own.may_be_others
        self._users = lru_cache(maxsize=1024)(self._user)
        self.uids, self.gids = _unused("uid_map"), _unused("gid_map")

    def _user(self, uid: int, gid: int, groups: frozenset[int]) -> User:
        return User(uid, gid, groups, self.own)

    def of(self, who: Principal, owners: Sequence[tuple[int, int]] = ()) -> Nobody:
        """Return the context for a user's work on existing files, which have these owners and groups; these do not matter for a user who is
        `numbered`.

        Raises EPERM if this user namespace does not have the numbers.
        """
        if who.uid == 0 or self.alone:
            return ITSELF
        if numbered(who):
            return self._users(who.uid, who.gid if who.gid in who.groups else min(who.groups), who.groups)
        uid = who.uid if who.uid != NO_ID else _other(self.uids, {uid for uid, _ in owners})
        return self._users(uid, _other(self.gids, {gid for _, gid in owners}), who.groups)

    def making(self, who: Principal, owners: Sequence[tuple[int, int]] = ()) -> Nobody:
        """Return the context for what a user makes, which gets the group that they named. Arguments and errors as `of`."""
        if self.alone:
            return ITSELF
        if who.uid == 0:
            return ITSELF if who.gid is None or who.gid >= NO_ID or who.gid == self.own.gid else Group(who.gid)
        return self.of(who, owners)


def numbered(who: Principal) -> bool:
    """Tell whether a user has a number and groups of this machine."""
    return who.uid == 0 or (who.uid != NO_ID and bool(who.groups))


def _other(numbers: list[int], taken: set[int]) -> int:
    """Return a number that is not taken."""
    for number in numbers:
        if number not in taken:
            return number
    raise NineError(errno.EPERM, "this user namespace has no number left for a user without one")
