"""Who asks again only for the words of a refusal, so that the log has it once.

9P2000.L has no words for an error. So a client of ours whose attach was refused attaches in the same way in 9P2000.u, on another line.
"""

import time
from typing import Final

AGAIN: Final = 5.0  # seconds
KEPT: Final = 256


class Retold:
    """The attaches that were refused without words a short while ago."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, int], float] = {}

    def again(self, place: str, aname: str, *, words: bool) -> bool:
        """Tell whether the same attach was refused just before, from the same place, without words. Each such refusal counts once."""
        host = place.rpartition("!")[0] if place.count("!") > 1 else place
        key, now = (host, hash(aname)), time.monotonic()
        if words:
            return now - self._refused.pop(key, -AGAIN) < AGAIN
        if len(self._refused) >= KEPT:
            self._refused.clear()
        self._refused[key] = now
        return False
