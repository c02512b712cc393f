"""`lease/`: leases as files. A conversation (`clone`) is one lease, or the wish for one.

A lease outlives the connection of its holder: its term ends it, or `give`. So its directory stays as long as it is held, and its holder can open
`N/ctl` again, by whatever connection, and renew it or give it back.
"""

import errno
from typing import Any, ClassVar, Final, NamedTuple

import attrs

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.lease.book import Lease
from mk9p.lease.booking import Booked, Booking, Find, Offers
from mk9p.lease.claims import Claim, taken_off
from mk9p.lease.leases import Leases
from mk9p.lease.wish import SECOND, TERM, Mode, Wish
from mk9p.tree import Conversations, Ctl, Dir, Text, join
from mk9p.tree.words import Phrase

USAGE: Final = "take PATH|{ATTR VALUE...}... [shared|exclusive] [for SECONDS] [wait SECONDS]"


@attrs.define(eq=False)
class Talk:
    """One conversation: the user who began it, and how its lease stands."""

    may_be_kept: ClassVar[bool] = False
    """It lasts as long as its lease does, whatever anybody wants."""

    all: "LeaseTree"
    number: int
    who: Principal
    wish: Wish | None = None
    state: str = "idle"
    ctl: Ctl = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ctl = Ctl({}, self.settings, mode=0o600)
        for name, function, usage in (
            ("take", self.take, USAGE),
            ("renew", self.renew, "renew"),
            ("give", self.give, "give"),
            ("for", self.last, "for SECONDS"),
        ):
            self.ctl.words[name] = Phrase(name, function, (), text=usage)

    def tree(self) -> Dir:
        return Dir({"ctl": self.ctl, "status": Text(self.status)})

    def close(self) -> None:
        """Forget it. It holds nothing: as long as it does, it is kept."""
        self.all.made.pop(self.number, None)

    @property
    def lease(self) -> Lease | None:
        """What it holds now."""
        return self.all.leases.book.leases.get(self.number)

    def settings(self) -> str:
        """Return what would take the same again."""
        wish = self.wish
        if wish is None or self.lease is None:
            return ""
        paths = [path for path, _ in wish.resources]
        return join(["take", *paths, wish.mode, "for", wish.term // SECOND]) + "\n"

    def status(self) -> str:
        lease, wish = self.lease, self.wish
        if wish is None:
            return f"{self.number} {self.state} - - - - -\n"
        return _lines(wish, self.state, lease)

    def _require_own(self, who: Principal) -> None:
        if who.name != self.who.name and who.uid != 0:
            raise NineError(errno.EACCES, f"this lease is {self.who.name}'s")

    def take(self, words: list[str], who: Principal) -> Any:
        asked = _asked(words)
        if asked is None:
            return NotImplemented
        self._require_own(who)
        return self._take(asked, who)

    async def _take(self, asked: "_Asked", who: Principal) -> None:
        term = self._term if asked.term is None else asked.term
        claims = [one for one in asked.wanted if isinstance(one, Claim)]
        if claims:
            text = " ".join(one.text if isinstance(one, Claim) else one for one in asked.wanted)
            wish = Wish(self.number, text, (), asked.mode, self.who.name, term, self.who.uid)
        else:
            first, *more = [await self.all.find(path, who) for path in asked.wanted if isinstance(path, str)]
            wish = Wish(self.number, *first, asked.mode, self.who.name, term, self.who.uid, more=tuple(more))
        if self.lease is not None or self.state == "waiting":
            raise NineError(
                errno.EBUSY, f"this one {'waits' if self.lease is None else 'holds'} already: give it back first"
            )
        before = self.wish, self.state
        self.wish, self.state = wish, "waiting"
        try:
            if claims:
                lease = await self.all.claimed(Booked(asked.wanted, wish, who), asked.wait)
            else:
                lease = await self.all.leases.take(wish, asked.wait)
        except BaseException:
            if self.state == "waiting":
                self.wish, self.state = before
            raise
        self.wish, self.state = lease.wish, "held"
        self.all.hold_on(self)

    @property
    def _term(self) -> int:
        return TERM if self.wish is None else self.wish.term

    def renew(self, words: list[str], who: Principal) -> Any:
        if words:
            return NotImplemented
        self._require_own(who)
        return self._renew(None)

    def last(self, words: list[str], who: Principal) -> Any:
        term = _seconds(words[0]) if len(words) == 1 else None
        if term is None:
            return NotImplemented
        self._require_own(who)
        return self._renew(round(term * SECOND))

    async def _renew(self, term: int | None) -> None:
        self.wish = (await self.all.leases.renew(self.number, term)).wish

    def give(self, words: list[str], who: Principal) -> Any:
        if words:
            return NotImplemented
        self._require_own(who)
        return self._give()

    async def _give(self) -> None:
        await self.all.leases.give(self.number)


def _lines(wish: Wish, state: str, lease: Lease | None) -> str:
    """Return the lines of a lease, or of a wish for one."""
    token, until = (lease.token, lease.until) if lease is not None else ("-", "-")
    paths = (path for path, _ in wish.resources)
    return "".join(join([wish.shown, state, path, wish.mode, wish.who, token, until]) + "\n" for path in paths)


class _Asked(NamedTuple):
    wanted: list[str | Claim]
    mode: Mode
    term: int | None
    wait: float | None


def _asked(words: list[str]) -> _Asked | None:
    """Read the words of `take`; None if they do not fit."""
    rest = list(words)
    wanted = taken_off(rest)
    if not wanted:
        return None
    mode: Mode = "exclusive"
    if rest and rest[0] in ("shared", "exclusive"):
        mode = "shared" if rest.pop(0) == "shared" else "exclusive"
    given: dict[str, float] = {}
    while rest:
        if len(rest) < 2 or rest[0] not in ("for", "wait") or rest[0] in given or (value := _seconds(rest[1])) is None:
            return None
        given[rest[0]] = value
        del rest[:2]
    term = round(given["for"] * SECOND) if "for" in given else None
    return _Asked(wanted, mode, term, given.get("wait"))


def _seconds(text: str) -> float | None:
    """Read seconds, `30` or `0.5`; None for anything else, and for more than anybody waits."""
    whole, dot, part = text.partition(".")
    if (
        not (whole + part).isascii()
        or not (whole + part).isdecimal()
        or not whole
        or len(text) > 12
        or (dot and not part)
    ):
        return None
    return float(text)


class LeaseTree(Conversations):
    """The directory `lease`."""

    def __init__(self, leases: Leases, find: Find, offers: Offers | None = None) -> None:
        self.leases, self.find = leases, find
        self.booking = None if offers is None else Booking(leases, find, offers)
        self.made: dict[int, Talk] = {}
        ctl = Ctl({"give": self.give_number}, mode=0o600)
        super().__init__(self._talk, {"ctl": ctl, "status": Text(self.table), "events": leases.events}, mode=0o666)
        leases.ended.append(self._ended)
        for lease in leases.book.leases.values():  # of an earlier composer: their holders may come again
            self._restore(lease)

    def _talk(self, number: int, who: Principal) -> Talk:
        talk = self.made[number] = Talk(self, number, attrs.evolve(who, gid=None))
        return talk

    def _restore(self, lease: Lease) -> None:
        wish = lease.wish
        talk = self._talk(lease.number, Principal(wish.holder, wish.uid))
        talk.wish, talk.state = wish, "held"
        self.begin(lease.number, talk, talk.who)

    async def claimed(self, booked: Booked, wait: float | None) -> Lease:
        """Take what claims want. Raises as Booking.take does, EOPNOTSUPP where there are no kernels."""
        if self.booking is None:
            raise NineError(errno.EOPNOTSUPP, "no kernels are known here: say a path")
        return await self.booking.take(booked, wait)

    def stir(self) -> None:
        """Let claims that wait look again: there is something new."""
        if self.booking is not None:
            self.booking.stir()

    def hold_on(self, talk: Talk) -> None:
        """Let a conversation last as long as its lease, although nobody has a file of it open."""
        if not self.keep(talk.number):  # its holder went while it was granted
            self.made[talk.number] = talk
            self.begin(talk.number, talk, talk.who)

    async def _ended(self, lease: Lease) -> None:
        talk = self.made.get(lease.number)
        if talk is not None:
            talk.state = "lost" if lease.until <= self.leases.clock.now() else "idle"
        await self.dismiss(lease.number)

    async def give_number(self, who: Principal, n: int) -> None:
        """End somebody's lease: for root."""
        if who.uid != 0:
            raise NineError(errno.EACCES, "only root ends another's lease")
        await self.leases.give(n)

    def table(self) -> str:
        """Return a line for each lease, and for each request that waits."""
        mine = "".join(talk.status() for _, talk in sorted(self.made.items()) if talk.state in ("held", "waiting"))
        book = self.leases.book
        held = [_lines(one.wish, "held", one) for number, one in book.leases.items() if number < 0]
        waiting = [_lines(wish, "waiting", None) for number, wish in book.waiting.items() if number < 0]
        return mine + "".join([*held, *waiting])
