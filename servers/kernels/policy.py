"""When a kernel is asked whether it still answers. Pure: who runs kernels asks. When one that ended starts again is in mk9p/restart.py."""

from __future__ import annotations

import errno
from typing import Literal

import attrs

from mk9p.errors import NineError
from mk9p.restart import LONGEST

Then = Literal["tell", "restart", "kill"]


@attrs.frozen
class Watch:
    """`watch SECONDS THEN`: it is asked that often, and has that long to answer; 0 is never."""

    seconds: float = 0.0
    then: Then = "tell"

    @classmethod
    def parse(cls, seconds: float, then: Then) -> Watch:
        """Return what a ctl word's arguments say; raises EINVAL for a time that is none."""
        if not (seconds == 0 or 1 <= seconds <= LONGEST):
            raise NineError(
                errno.EINVAL, f"a kernel is asked every 1 to {LONGEST:.0f} seconds, or with 0 never: {seconds:g}"
            )
        return cls(seconds, then)

    @property
    def words(self) -> list[str]:
        """Return what `parse` takes."""
        return [f"{self.seconds:g}", self.then]
