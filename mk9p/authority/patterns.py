"""`Patterns`: a judge that leaves files out by regular expressions of their paths, as exportfs(4) does.

A line is `+` and an expression that a path must match, or `-` and one that it must not; `#` begins a comment. Paths begin with a slash at the root of
the tree, which itself is never left out. An expression may match anywhere in a path, as Plan 9's do; `^` and `$` are its ends. What is below a
directory may match otherwise than the directory does, so nothing is known of a whole directory: it cannot be renamed (EXDEV; mv(1) copies).
"""

import errno
import re
from typing import Final

import attrs

from mk9p import ktext
from mk9p.authority.judges import NOTHING, Spot, Verdict
from mk9p.errors import NineError
from mk9p.scope import ALL
from mk9p.tree import Open

KEPT: Final = 4096  # paths whose answers are kept, 1 MB: a walk of a tree asks about each several times
_SHOWN: Final = Verdict(ALL, 0, 0, ALL)


@attrs.define(eq=False)
class Patterns:
    """Allows everything at paths that match all of `must` and none of `never`. A mk9p.authority.judges.Judge."""

    must: tuple[re.Pattern[str], ...] = ()
    never: tuple[re.Pattern[str], ...] = ()
    hides: bool = attrs.field(default=True, init=False)
    spots: dict[str, Spot] = attrs.field(factory=dict, init=False)
    hows: dict[int, tuple[Open, Open]] = attrs.field(factory=dict, init=False)

    @classmethod
    def parse(cls, text: str, file: str) -> "Patterns":
        """Read lines of patterns. Raises EINVAL with the number of a line that is none."""
        found: dict[str, list[re.Pattern[str]]] = {"+": [], "-": []}
        for number, line in enumerate(ktext.split_lines(text), 1):
            if not line or line.startswith("#"):
                continue
            if line[0] not in found or not line[1:]:
                raise NineError(errno.EINVAL, f"{file}: line {number}: want + or -, and a regular expression")
            try:
                found[line[0]].append(re.compile(line[1:]))
            except (re.error, OverflowError, RecursionError) as error:
                raise NineError(errno.EINVAL, f"{file}: line {number}: {error}") from None
        return cls(tuple(found["+"]), tuple(found["-"]))

    def shows(self, path: str) -> bool:
        """Tell whether a path is there."""
        return not path or (all(p.search(path) for p in self.must) and not any(p.search(path) for p in self.never))

    def spot(self, path: str) -> Spot:
        """Return what is to be known of a path, "" for the root."""
        if len(self.spots) >= KEPT:
            self.spots.clear()
        spot = self.spots[path] = Spot(_SHOWN if self.shows(path) else NOTHING, path)
        return spot

    async def confirmed(self, path: str, ops: int) -> bool:
        """Allow nothing more: no operator is asked."""
        return False

    def refused(self, path: str, what: str, error: NineError) -> None:
        """Write nothing down: what is left out is no secret that somebody asks for."""
