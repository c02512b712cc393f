"""`Wish`: what somebody wants to lease, or has: resources, as whom, for how long. Pure."""

import errno
from typing import Final, Literal, NamedTuple

import attrs

from mk9p.errors import NineError

Mode = Literal["shared", "exclusive"]
Key = tuple[str, ...]
"""A resource: names from the top, of which the first says whose tree it is in."""


class Resource(NamedTuple):
    """What a path leads to: the path as it is shown, and the key, which is the same by whatever path somebody came."""

    path: str
    key: Key


_BEFORE: Final = 3  # names of a key that say whose tree it is in
SECOND: Final = 10**9
SHORTEST: Final = SECOND
LONGEST: Final = 86400 * SECOND
"""A day: whoever wants a resource longer renews, which shows that they are still there."""
TERM: Final = 60 * SECOND
MOST: Final = 1024
"""Resources of one lease."""
DEEP: Final = 32
"""Names of a resource below the root of its tree: each takes a place in the table of what is leased (near.py)."""


@attrs.frozen
class Wish:
    """A request for a lease, or what a lease gives: of the conversation `number`, for the user `holder`."""

    number: int
    path: str
    key: Key
    mode: Mode
    holder: str
    term: int
    uid: int = 0
    home: str = ""
    """The composer that it belongs to; empty for this one. Those of others have numbers below 0 here, in the order in which they were heard of."""

    there: int = 0
    """Its number at that composer."""

    more: tuple[Resource, ...] = ()
    """Further resources, which are had together with the first."""

    @property
    def shown(self) -> str:
        """Its number, as users see it: HOME.N for one of another composer."""
        return f"{self.home}.{self.there}" if self.home else str(self.number)

    @property
    def user(self) -> tuple[str, int, str]:
        """Its holder, as their resources are counted."""
        return self.home, self.uid, self.holder

    @property
    def who(self) -> str:
        """Its holder, as others are told of them."""
        return f"{self.holder} at {self.home}" if self.home else self.holder

    def __attrs_post_init__(self) -> None:
        require_term(self.term)
        if len(self.more) >= MOST:
            raise NineError(errno.ENOSPC, f"a lease is for {MOST} resources at most")
        if deep := next((path for path, key in self.resources if len(key) > _BEFORE + DEEP), None):
            raise NineError(errno.ENAMETOOLONG, f"a lease is for what lies at most {DEEP} names deep: {deep:.80}")

    @property
    def wish(self) -> "Wish":
        """Itself: a lease has one too."""
        return self

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All that it is for."""
        return (Resource(self.path, self.key), *self.more)


def require_term(term: int) -> None:
    """Raise EINVAL for a term that is too short to be renewed, or too long."""
    if not SHORTEST <= term <= LONGEST:
        raise NineError(errno.EINVAL, f"a term is 1 to {LONGEST // SECOND} seconds")
