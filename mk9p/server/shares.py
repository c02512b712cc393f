"""Which user a connection belongs to, and how many one user may have.

A connection belongs to its peer until somebody attaches, and to that user from then on, unless they are nobody in particular: a peer whom nobody
vouches for is still known by its address. There is no limit for root, for the user that the server runs as, and for a peer that was given its end
of the line, because they could end the server as well; of all connections a few are left for them.
"""

import errno
import ipaddress
import os
import resource
from collections.abc import Iterable

from mk9p.auth import Policy, Principal
from mk9p.dial import Peer
from mk9p.errors import NineError
from mk9p.server.limits import Limits
from mk9p.server.turns import Party, Turns, User


def is_stranger(peer: Peer, policy: Policy) -> bool:
    """Tell whether a peer came by itself, to a listener that believes nobody."""
    return not (peer.private or policy.trust)


def owns(peer: Peer) -> bool:
    """Tell whether a peer could end this server, or got its line from somebody who could."""
    return peer.private or peer.uid in (0, os.geteuid())


def whose(peer: Peer) -> tuple[str, object]:
    """Return the owner of a connection as far as the transport tells: a uid, a host, or the line itself. A network of 64 bits counts as one host
    of IPv6."""
    if peer.uid is not None:
        return "uid", peer.uid
    network = peer.transport.name
    if not peer.transport.exposed:
        return network, peer.address
    host = peer.address.rpartition("!")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # the number of a vsock
        return network, host
    return network, int(address) >> 64 if address.version == 6 else host


def descriptors(limits: Limits) -> None:
    """Let this process have the descriptors that its limits allow for, as far as it may (setrlimit(2)): it commonly begins with 1,024 of 524,288."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(4 * limits.files, limits.connections * 4 // 3 + 1)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Shares:
    """Who has connections, and how many."""

    def __init__(self, limits: Limits, turns: Turns) -> None:
        self.limits, self.turns = limits, turns
        self.users: dict[object, User] = {}
        self.total = 0

    @property
    def most(self) -> int:
        """Return how many connections there may be: a quarter of the descriptors is for files (accounts.py)."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = self.limits.connections
        return most if soft == resource.RLIM_INFINITY else min(most, soft * 3 // 4)

    def enter(self, peer: Peer) -> User:
        """Count a new connection, and return its owner. Raises EMFILE if there is no place for it."""
        limits, user = self.limits, self._user(whose(peer))
        most = self.most
        if not owns(peer):
            kept = min(limits.reserve, most // 4)
            if self.total >= most - kept:
                raise NineError(errno.EMFILE, f"all {most} connections are in use, but {kept} for root")
            self._room(user)
        elif self.total >= most:
            raise NineError(errno.EMFILE, f"all {most} connections are in use")
        self.total += 1
        self._count(user, 1)
        return user

    def move(self, links: Iterable[Party], before: User, peer: Peer, who: Principal) -> None:
        """Give a connection, and its links to other servers, to a user who has attached. Raises EMFILE if they have too many."""
        user = self._user(("user", who.name, who.uid))
        if who.uid != 0 and not owns(peer):
            self._room(user)
        self._count(before, -1)
        self.turns.move(links, user)
        self._count(user, 1)

    def leave(self, user: User) -> None:
        """Stop counting a connection."""
        self.total -= 1
        self._count(user, -1)

    def _user(self, key: object) -> User:
        return self.users.get(key) or User(key)

    def _room(self, user: User) -> None:
        if user.connections >= self.limits.share:
            raise NineError(errno.EMFILE, f"all {self.limits.share} connections of one user are in use")

    def _count(self, user: User, more: int) -> None:
        user.connections += more
        if user.connections:
            self.users[user.key] = user
        else:
            self.users.pop(user.key, None)
