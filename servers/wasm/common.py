"""What all programs of a server share, as one of them sees it (programs.Shared)."""

from typing import Protocol, TypeVar

import trio

from mk9p.auth import Principal

P = TypeVar("P", contravariant=True)
"""A program."""


class Programs(Protocol[P]):
    """What all programs of a server share."""

    nursery: trio.Nursery
    namespace: str
    system: str
    end: str  # how a program ends that nobody has a file open of

    def cache(self, who: Principal) -> str:
        """Return the directory of a user's own for what is made of modules, or ""."""

    def require_room(self, program: P, more: int) -> None:
        """Raise ENOSPC if its user would have too many bytes with some more."""

    def admit(self, who: Principal) -> None:
        """Raise EAGAIN if this user has too many programs that run."""

    def runs(self, program: P) -> None:
        """Note that a program runs now."""

    def ran(self, program: P) -> None:
        """Note that it no longer does."""
