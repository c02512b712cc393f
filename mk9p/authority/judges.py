"""`Verdict`: which OPS (mk9p/scope.py) somebody has at a path. A `Judge` gives them, for one principal.

Theory
* A verdict says what holds at a path and what holds below it too, so that whoever asks knows when nothing more can come: `deep` is what is allowed
  everywhere at or below the path, `some` what may be allowed, or asked for, somewhere there. A path with no `some` is not there for them. Where
  `deep` is everything, another server may get the requests without a look.
* A judge decides by the path alone. It asks no tree, so its answer tells nobody what exists.
"""

import errno
from typing import Any, Final, Protocol

import attrs

from mk9p.errors import NineError
from mk9p.scope import ALL, C, R, W, is_ctl
from mk9p.tree import Open


@attrs.frozen
class Verdict:
    """What is allowed `now` at a path, what an operator is asked for (`ask`), what is allowed `deep` below, and what `some` file there may allow."""

    now: int
    ask: int
    deep: int
    some: int

    @property
    def throughout(self) -> int:
        """The OPS that are allowed at the path and everywhere below, if there are no others anywhere there; otherwise 0."""
        return self.deep if self.deep == self.some == self.now and not self.ask else 0

    def __and__(self, other: "Verdict") -> "Verdict":
        """Return what both allow: what one of them asks for is asked, if the other does not refuse it."""
        now = self.now & other.now
        both = (self.now | self.ask) & (other.now | other.ask)
        return Verdict(now, both & ~now, self.deep & other.deep, self.some & other.some)


NOTHING: Final = Verdict(0, 0, 0, 0)
EVERYTHING: Final = Verdict(ALL, 0, ALL, ALL)


def takes(path: str) -> tuple[int, int]:
    """Return which OPS it takes to write a file of that name, and to read it."""
    name = path.rpartition("/")[2]
    return C if is_ctl(name) else W, R | C if name == "clone" else R


class Spot:
    """What is kept of a path: its verdict, what reading and writing the file there takes, and what came of it.

    `kids`: what was last found below a directory, by name, as its judge shows it (a Guard, guard.py). `allowed`: how a file was last opened without a
    question to anybody, and `said`, how that was told to the shown tree. A judge voids a spot when its verdict may have changed: it then allows
    nothing, so whoever still has it asks the judge again.
    """

    __slots__ = ("allowed", "kids", "named", "now", "reads", "said", "some", "verdict", "writes")

    def __init__(self, verdict: Verdict, path: str) -> None:
        self.verdict, self.now, self.some = verdict, verdict.now, verdict.some
        self.writes, self.reads = takes(path)
        self.named = True  # its name says what it is
        self.kids: dict[str, Any] = {}
        self.allowed: Open | None = None
        self.said: Open | None = None

    def also(self, path: str) -> None:
        """Take into account that the file has another name, too: a ctl file stays one, whatever name a bind gives it."""
        writes, reads = takes(path)
        if (writes, reads) != (self.writes, self.reads):
            self.writes, self.reads, self.named = self.writes | writes, self.reads | reads, False

    def void(self) -> None:
        """Let it allow nothing any more."""
        self.verdict, self.now, self.some, self.allowed, self.said = NOTHING, 0, 0, None, None
        self.kids.clear()


VOID: Final = Spot(NOTHING, "")
"""What whoever has not asked yet has."""


class Judge(Protocol):
    """Decides what one principal may do."""

    @property
    def hides(self) -> bool:
        """What they may not walk to does not exist for them (ENOENT); otherwise they are told that they may not (EACCES)."""

    spots: dict[str, Spot]
    """What is known of paths. It is emptied when a verdict may have changed, and what was in it is void; it is always the same dict."""

    hows: dict[int, tuple[Open, Open]]
    """How files were opened last here, and how that is said to the shown tree, by the id of the first."""

    def spot(self, path: str) -> Spot:
        """Return what is to be known of a path, "" for the root."""

    async def confirmed(self, path: str, ops: int) -> bool:
        """Tell whether an operator allows OPS that the verdict asks for. Waits for the answer; if cancelled, nobody is asked any more."""

    def refused(self, path: str, what: str, error: NineError) -> None:
        """Hear that something was refused at a path, by which request, and with which error. Whoever writes it down says so (`told`)."""


def refusal(verdict: Verdict, ops: int) -> NineError:
    """Return the error for OPS that are not allowed: EACCES, or EROFS where reading is all that may be allowed, here and below."""
    return NineError(errno.EROFS if verdict.some == R and ops & ~R else errno.EACCES)
