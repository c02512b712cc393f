"""Which links keep a receive buffer.

A link has none until something comes, and keeps it while it is one of those that took theirs last. So the links that are in use have theirs, which
costs them nothing, and 10,000 that only wait have none. A link in the middle of a frame keeps its buffer, and is asked again later.
"""

from collections import OrderedDict
from typing import Final, Protocol

KEPT: Final = 128  # links that keep an empty buffer: 4 MiB, and more than are busy at once
TRIES: Final = 2  # links that are asked for each that takes one: so they become fewer again


class Buffered(Protocol):
    """A link, as far as this module looks at it."""

    def cool(self) -> bool:
        """Leave the receive buffer to others, if nothing is in it; return whether it has none now."""


class Warm:
    """The links that have a receive buffer, the first to have taken it first."""

    def __init__(self) -> None:
        self._links: OrderedDict[Buffered, None] = OrderedDict()

    def add(self, link: Buffered) -> None:
        """Note that a link has taken a buffer; others may have to leave theirs."""
        links = self._links
        links[link] = None
        for _ in range(TRIES):
            if len(links) <= KEPT:
                return
            first, _none = links.popitem(last=False)
            if not first.cool():
                links[first] = None

    def forget(self, link: Buffered) -> None:
        """Forget a link that has ended. A second call does nothing."""
        self._links.pop(link, None)
