"""Who asks, and what they may do.

The `Policy` of the listener that took the connection makes a `Principal` once, at attach. Every walk, open, create, remove and change asks `may()`
with the permission bits of the file. The rules (intro(5), V9FS of Linux, and common sense about what `cmd` and `proc` can do):

* a private link (an inherited descriptor, a serial line, a command's pipes) is believed: somebody gave the other end to its holder;
* a unix socket tells its peer's uid and groups: root, and the user that the server runs as, may attach as anybody; everybody else is the user that
  the socket tells, in the groups that the socket tells, whatever the attach says;
* tcp and vsock believe nobody: the user is `none`, who gets what the bits give to others. `trust` (for a lab's private links) believes names;
* `none`, and every user whose name this machine does not know, has no number: `NO_ID` owns nothing, and is the owner of nothing;
* the line of a guest, a kernel that this machine runs, proves which guest it is and nothing more: whoever comes by it is `guest:NAME`, whatever
  names they send, and gets a tree that has only what that guest was granted (compose/granted.py);
* `readonly` refuses every change, whoever asks.

The row of a transport says what is true of it (mk9p/dial/address.py); this module says what follows. What is limited to paths (capabilities, the
rules of a policy) is decided in mk9p/authority, at the same moment; nothing else in mk9p decides who may do what.
"""

import errno
import os
from typing import Final, Protocol

import attrs

from mk9p.errors import NineError
from mk9p.scope import Scope, granted_as

__all__ = [
    "EXEC",
    "GUEST",
    "LOCAL",
    "NONE",
    "NO_ID",
    "PROOFS",
    "READ",
    "ROOT",
    "WRITE",
    "GuestPolicy",
    "Policy",
    "Principal",
    "Scope",
    "Told",
    "counts_as",
    "falls",
    "granted_as",
    "may",
    "owns",
    "require_change",
    "unlimited",
]

READ: Final = 4
WRITE: Final = 2
EXEC: Final = 1

NO_ID: Final = 0xFFFFFFFF
"""The uid of a user who has none, and the gid of a user who has none. No file and no process of Linux can have it: chown(2) and setresuid(2) take
it for "leave it as it is", so never pass it to them. In a Tattach it says that only the name counts."""


@attrs.frozen(cache_hash=True)
class Principal:
    """The user of an attach: `name`, numeric `uid`, the `groups` they are in; `readonly` if their listener refuses every change.

    `gid` is the group of what they make: their first one, or the one that a request names. `proof` says how they proved who they are (PROOFS), ""
    for one of our own; `scope` limits what they may do, if a capability does. `gid` is no part of who they are: all else is, and two who differ in it
    never get each other's answers.
    """

    name: str
    uid: int
    groups: frozenset[int] = frozenset()
    readonly: bool = False
    gid: int | None = attrs.field(default=None, eq=False, kw_only=True)
    proof: str = attrs.field(default="", kw_only=True)
    scope: Scope | None = attrs.field(default=None, kw_only=True)

    @property
    def group(self) -> int:
        """The group of what they make in a synthetic tree: `gid`, else one of theirs, else none."""
        if self.gid is not None:
            return self.gid
        return min(self.groups, default=NO_ID if self.uid else 0)

    @classmethod
    def of(cls, uid: int, name: str | None = None, *, readonly: bool = False) -> "Principal":
        """Return the principal of a uid of this machine, with its groups from the user database: no groups, if it does not know the uid."""
        import pwd  # read from disk only where somebody attaches

        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return cls(name or str(uid), uid, readonly=readonly)
        groups = frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return cls(name or entry.pw_name, uid, groups, readonly, gid=entry.pw_gid)

    @classmethod
    def named(cls, name: str, *, readonly: bool = False) -> "Principal":
        """Return the principal of a user name; a name that this machine does not know is `none` under another name."""
        import pwd

        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return cls(name, NO_ID, readonly=readonly)
        return cls.of(entry.pw_uid, name, readonly=readonly)


PROOFS: Final = {
    "peercred": "a unix socket tells its peer's number",
    "private": "somebody gave the line to them",
    "trust": "the listener believes names",
    "cert": "a certificate",
    "token": "a capability",
    "guest": "the line of a kernel that this machine runs",
    "none": "nobody knows who it is",
}
"""How a principal can be proved, in the words of `auth/whoami` and `auth/log`."""

LOCAL: Final = frozenset({"", "peercred", "private", "trust"})
"""Proofs of a user of this machine, or of one who counts as such."""

GUEST: Final = "guest:"
"""How the name of a guest begins."""

NONE: Final = Principal("none", NO_ID, proof="none")
ROOT: Final = Principal("root", 0, frozenset({0}))


class Told(Protocol):
    """What a transport tells of a peer (mk9p.dial.Peer): numbers or a name where it proves them; `private` says that somebody gave it the line,
    and `place` where it is."""

    @property
    def uid(self) -> int | None: ...
    @property
    def gid(self) -> int | None: ...
    @property
    def groups(self) -> tuple[int, ...]: ...
    @property
    def user(self) -> str | None: ...
    @property
    def private(self) -> bool: ...
    @property
    def place(self) -> str: ...


@attrs.frozen
class Policy:
    """Decides who an attaching user is.

    `trust`: believe the names that come over tcp and vsock. `readonly`: refuse changes from everybody on this listener.
    """

    trust: bool = False
    readonly: bool = False

    def knows(self, peer: Told) -> bool:
        """Tell whether to believe who a peer is, or the name that it sends."""
        return self.trust or peer.private or peer.uid is not None or peer.user is not None

    def attach(self, uname: str, n_uname: int, peer: Told) -> Principal:
        """Return the principal of an attach.

        A user who attaches as the peer's own user is in the groups of the peer, whatever the user database says.
        """
        return attrs.evolve(self._attach(uname, n_uname, peer), proof=self.proof(peer))

    def proof(self, peer: Told) -> str:
        """Return how a peer proves who it is (PROOFS)."""
        if peer.user is not None:
            return "cert"
        if peer.uid is not None:
            return "peercred"
        return "private" if peer.private else "trust" if self.trust else "none"

    def _attach(self, uname: str, n_uname: int, peer: Told) -> Principal:
        readonly, uid, gid = self.readonly, peer.uid, peer.gid
        if peer.user is not None:
            return Principal(peer.user, NO_ID, readonly=readonly)
        if uid is not None and uid not in (0, os.geteuid()):
            who = Principal.of(uid, readonly=readonly)
        elif not self.knows(peer):
            who = attrs.evolve(NONE, readonly=readonly)
        elif n_uname != NO_ID:
            who = Principal.of(n_uname, uname or None, readonly=readonly)
        elif uname in ("", "none"):
            who = attrs.evolve(NONE, readonly=readonly)
        else:
            who = Principal.named(uname, readonly=readonly)
        if gid is None or who.uid != uid or uid == 0:
            return who
        return attrs.evolve(who, groups=frozenset((gid, *peer.groups)) - {NO_ID}, gid=gid)


@attrs.frozen
class GuestPolicy(Policy):
    """Treats all who come by the line of the kernel `kernel` as that guest. Its number is that of `none`, which no file and no process has."""

    kernel: str = attrs.field(kw_only=True)

    @property
    def guest(self) -> Principal:
        """Return the principal."""
        return Principal(f"{GUEST}{self.kernel}", NONE.uid, readonly=self.readonly, proof="guest")

    def attach(self, uname: str, n_uname: int, peer: Told) -> Principal:
        """Return the guest, whatever the attach says and whatever the transport tells."""
        return self.guest


def may(who: Principal, mode: int, uid: int, gid: int, want: int) -> bool:
    """Tell whether the permission bits `mode` of a file of `uid` and `gid` give `who` all of `want` (READ, WRITE, EXEC); root gets all."""
    if who.uid == 0:
        return True
    bits = mode >> 6 if who.uid == uid != NO_ID else mode >> 3 if gid in who.groups else mode
    return bits & want == want


def owns(who: Principal, uid: int) -> bool:
    """Tell whether a user may change what a file of `uid` is: only root and the owner may."""
    return who.uid == 0 or who.uid == uid != NO_ID


def counts_as(who: Principal) -> int | str:
    """Return by what a user's shares are counted: a number, or the name of one who has none, or acts as root where it was granted something."""
    return who.uid if who.uid not in (0, NO_ID) else who.name


def unlimited(who: Principal) -> bool:
    """Tell whether no share limits a user: root, and the user of this server, could end it as well. Who acts as one of them by a grant has one."""
    return who.uid in (0, os.geteuid()) and who.scope is None and not who.name.startswith(GUEST)


def falls(mode: int, old: int) -> bool:
    """Tell whether a mode is the old one, or the old one without setuid or setgid bits: writing does this to a mode."""
    return mode & 0o7777 & ~old == 0 and old & ~mode & 0o1777 == 0


def require_change(who: Principal) -> None:
    """Raise EROFS for a user whose listener refuses changes."""
    if who.readonly:
        raise NineError(errno.EROFS)
