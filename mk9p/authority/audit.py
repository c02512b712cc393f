"""`auth/log`: who did what, how they proved who they are, from where, and what came of it: `SEQ TIME_NS WHO VIA WHAT PATH RESULT`.

Theory
* VIA is `PROOF:PLACE`, such as `peercred:unix!pid_4321` or `cert:tcp!10.0.0.7!51234`. WHAT is a word, and for some words what it was about:
  `attach`, `walk`, `open`, `exec:/bin/sh`, `mount:/k/k3`. Of a capability that is refused, and of a handshake of TLS, it is why:
  `'attach:it is revoked'`. RESULT is `ok`, or the name of an errno.
* There is never a secret in it. Of a command it has the word, and of its arguments only those of TOLD, which are names of files, programs and
  kernels. Of a capability it has what it is for, never the text.
* Nobody can bury what they did. Each principal has so many lines a second, fewer for refusals, and what is above that is counted: their next line
  comes after a line `WHO VIA lost - COUNT`.
* A line is a line whatever somebody is called: what cannot be printed is escaped.
"""

import errno
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.status import Buffer
from mk9p.tree import Handle, Log, Maybe, ThroughHandle, decoded, join, split
from mk9p.tree.words import commands as lines_of

HISTORY: Final = 4096  # lines that the file keeps
REFUSALS: Final = (
    5.0,
    50.0,
)  # lines a second, and at once: a person notices the first, and a program that tries all files is counted
DEEDS: Final = (
    100.0,
    1000.0,
)  # the same for what was not refused: a script that sets up a machine is written down whole
KNOWN: Final = 1024  # principals whose lines are counted
WORDS: Final = 1000  # commands of one write that are written down: as many as there may be at once
MORE: Final = "..."  # what is written down instead of those behind
LONG: Final = 8192  # characters of a command that are looked at
LONGEST: Final = 512  # characters of a field

TOLD: Final = {
    "allow": 0,
    "bind": -1,
    "delete": 0,
    "deny": 0,
    "exec": 0,
    "grant": 0,
    "load": 0,
    "mount": 1,
    "revoke": 0,
    "ungrant": 0,
    "unmount": -1,
    "user": 0,
}
"""Which argument of a command the log has: where something is mounted, which program. All others may be secrets, an environment or an address."""
WHOLE: Final = frozenset({"desired", "policy"})  # one write is a whole text of these, and one line
_WORD: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9_-]{0,31}"
)  # all else that a line begins with was written by mistake, and may be a secret
_ANY: Final = re.compile(r".*", re.DOTALL)
_PATH: Final = re.compile(r"[^!:]*", re.DOTALL)  # and no address, where somebody has mixed them up
_SHAPES: Final = {
    "bind": _PATH,
    "mount": _PATH,
    "unmount": _PATH,
    "revoke": re.compile(r"[0-9a-f]{1,32}"),  # the id of a capability, which may be revoked by its text too
}


@attrs.define
class Bucket:
    """The lines that somebody has left, and how many they have lost."""

    left: float
    since: float
    lost: int = 0
    via: str = ""


@attrs.define(eq=False)
class Audit:
    """The file, and the places where its lines also go. `clock` gives seconds. `on_lost` is called when somebody's lines begin to be lost."""

    log: Log = attrs.field(factory=lambda: Log(HISTORY, mode=0o400))
    sinks: list[Callable[[str], None]] = attrs.field(factory=list)
    clock: Callable[[], float] = time.monotonic
    on_lost: Callable[[], None] = lambda: None
    _buckets: "OrderedDict[tuple[str, bool], Bucket]" = attrs.field(factory=OrderedDict, init=False)

    def note(self, who: Principal, place: str, what: str, path: str, error: BaseException | None = None) -> None:
        """Write down something that was done or refused."""
        via = f"{who.proof or 'none'}:{place}"
        bucket = self._bucket(who.name, refused=error is not None)
        if bucket.left < 1:
            bucket.lost += 1
            bucket.via = via
            if bucket.lost == 1:
                self.on_lost()
            return
        bucket.left -= 1
        self._tell_lost(who.name, bucket)
        self._add(who.name, via, what, path or "/", result(error))

    @property
    def lossy(self) -> bool:
        """Tell whether lines were lost and nothing says so yet."""
        return any(bucket.lost for bucket in self._buckets.values())

    def tell_lost(self) -> None:
        """Say of all principals that have lines left again how many of theirs were lost."""
        for (who, refused), bucket in list(self._buckets.items()):
            if bucket.lost and self._bucket(who, refused=refused).left >= 1:
                self._tell_lost(who, bucket)

    def _tell_lost(self, who: str, bucket: Bucket) -> None:
        if bucket.lost:
            self._add(who, bucket.via, "lost", "-", str(bucket.lost))
            bucket.lost = 0

    def _bucket(self, who: str, *, refused: bool) -> Bucket:
        rate, most = REFUSALS if refused else DEEDS
        now, key = self.clock(), (who, refused)
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = Bucket(most, now)
            while len(self._buckets) >= KNOWN:
                (other, _), old = self._buckets.popitem(last=False)
                self._tell_lost(other, old)
        self._buckets[key] = bucket
        bucket.left = min(most, bucket.left + (now - bucket.since) * rate)
        bucket.since = now
        return bucket

    def _add(self, *words: str) -> None:
        said = [_short(printable(word)) for word in words]
        line = f"{self.log.next} {time.time_ns()} {join(said)}"
        self.log.emit(said[0], *said[1:])
        for sink in self.sinks:
            sink(line)

    def watched(self, handle: Handle, who: Principal, place: str, path: str) -> Handle:
        """Return an open ctl file whose commands are written down."""
        return _Watched(handle, self, who, place, path)


class _Watched(ThroughHandle):
    """An open ctl file whose commands are written down, each write with what came of it."""

    def __init__(self, handle: Handle, audit: Audit, who: Principal, place: str, path: str) -> None:
        super().__init__(handle)
        self.audit, self.who, self.place, self.path = audit, who, place, path

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        name = self.path.rpartition("/")[2]
        said = [name] if name in WHOLE else commands(data)
        try:
            done = self.handle.write(offset, data)
        except (OSError, ValueError) as error:
            self._note(said, error)
            raise
        if isinstance(done, Awaitable):
            return self._written(done, said)
        self._note(said, None)
        return done

    async def _written(self, done: Awaitable[int], said: list[str]) -> int:
        try:
            count = await done
        except (OSError, ValueError) as error:
            self._note(said, error)
            raise
        self._note(said, None)
        return count

    def _note(self, said: list[str], error: BaseException | None) -> None:
        for what in said:
            self.audit.note(self.who, self.place, what, self.path, error)


def commands(data: Buffer) -> list[str]:
    """Return what the log has of a write to a ctl file: the first word of each line, and the argument that TOLD names."""
    with suppress(OSError):
        decoded(data)
        found = lines_of(data)
        said = [_command(line) for line in islice(found, WORDS)] or ["-"]
        return said if next(found, None) is None else [*said, MORE]
    return ["-"]


def _command(line: str) -> str:
    if len(line) > LONG:  # what is told stands at its beginning, and its words may be very many
        line = line[:LONG]
        line += "'" * (line.count("'") % 2)
    try:
        word, *more = split(line)
    except NineError:
        return "-"
    if not _WORD.fullmatch(word):
        return "-"
    at = TOLD.get(word)
    if at is None:
        return word
    flags = 0
    while flags < len(more) and more[flags].startswith("-"):
        flags += 2 if more[flags].endswith("w") else 1  # the seconds of `-w` are a word of their own
    more = more[flags:]
    if not more or at >= len(more) or not _SHAPES.get(word, _ANY).fullmatch(more[at]):
        return word
    return f"{word}:{more[at]}"


def result(error: BaseException | None) -> str:
    """Return what came of something, as one word."""
    if error is None:
        return "ok"
    number: Any = getattr(error, "errno", errno.EINVAL)  # a server of others may have put anything there
    return errno.errorcode.get(number, "EIO") if isinstance(number, int) else "EIO"


def printable(word: str) -> str:
    """Return a word that is on one line, and looks like no other line and no other word: what cannot be printed is escaped."""
    return word if word.isprintable() else word.encode("unicode_escape").decode()


def _short(word: str) -> str:
    return word if len(word) <= LONGEST else word[: LONGEST - 1] + "…"
