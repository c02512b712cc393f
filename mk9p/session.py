"""One side of one conversation, as the server keeps it: tags, fids, order, flush. Pure: no I/O, no trio, no tree.

Rules
* A request that is answered in the call that brought it never enters here: the order of arrival keeps it in order. This module is about requests
  that wait.
* The roles of a message (wire/roles.py) say who waits for whom. A request *uses* some fids and *claims* others. It waits for every earlier
  unfinished request that claims a fid that it names. Requests that only use a fid go side by side. So a client may send `Twalk`, `Topen`, `Tread`,
  `Tclunk` in one go, and 32 walks from one directory run at once. (With a task for each request and no such rule, Twalk+Topen in one go failed in
  182 of 400 runs: a scheduler may run the second first.)
* A request that claims a fid also waits until the requests that only use it have begun, that is, for everything that they still wait for.
  Otherwise the clunk of a directory would overtake a walk from it that waits for its new fid to be free.
* Writes stay in order among themselves, and reads wait for earlier writes, unless the open file is *duplex*: a stream has two independent
  directions, and a write that waits for its reader to make room must not keep that reader waiting. Therefore a fid's write side is a fid of its
  own.
* A clunk does not wait for reads that wait: the fid leaves the table at once, and the open file is closed when its last request is finished (Plan
  9 does the same). A peer that wants the read to end flushes it.
* A tag is retired before its reply is written, because the peer may use it again at once. The answer to a flush comes after the flushed request,
  which is answered before that or never. A flush of an unknown tag is answered at once. A peer may flush a flush.
"""

import errno
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from mk9p.errors import NineError
from mk9p.wire import NOFID
from mk9p.wire import messages as m
from mk9p.wire.roles import ORDER, READS, Row

F = TypeVar("F")

LINK: Final = 192  # bytes to remember that one request waits for another
WRITE_SIDE: Final = 1 << 32  # added to a fid: its write side

MAX_FIDS: Final = 1 << 20  # v9fs keeps one for each cached name and user: a `find` over 100,000 files needs as many
MAX_REQUESTS: Final = 4096  # waiting at once: far above any client's window, and little memory

_NONE: Final[Row] = ((), (), (), ())


class Request:
    """One request that was not answered at once: it waits for earlier ones, or runs."""

    __slots__ = (
        "blockers",
        "cancel",
        "claims",
        "cleared",
        "flushed_by",
        "followers",
        "number",
        "size",
        "tag",
        "type",
        "uses",
        "work",
    )

    def __init__(self, tag: int, type_: int, work: Any, size: int = 0) -> None:
        self.tag = tag
        self.type = type_
        self.work = work  # what the engine wants to remember with it
        self.size = size  # bytes that are kept for it
        self.number = 0  # in order of arrival
        self.claims: list[int] = []
        self.uses: list[int] = []  # the fids that it only uses, while it waits
        self.blockers: dict[Request, None] = {}  # earlier requests that must finish first
        self.followers: dict[Request, None] = {}  # later requests that wait for this one
        self.flushed_by: list[Request] = []
        self.cancel: Callable[[], None] | None = None  # set while it runs
        self.cleared = False  # dropped before it ran: it must not run, and is not answered


class Session(Generic[F]):
    """The tables of one conversation. `fids` maps numbers to whatever the server keeps for a fid."""

    __slots__ = ("claims", "entered", "fids", "held", "max_fids", "max_requests", "tags", "users")

    def __init__(self, *, max_fids: int = MAX_FIDS, max_requests: int = MAX_REQUESTS) -> None:
        self.fids: dict[int, F] = {}
        self.tags: dict[int, Request] = {}
        self.claims: dict[int, Request] = {}  # fid, or write side -> the last unfinished request that claims it
        self.users: dict[int, dict[Request, None]] = {}  # fid -> the requests that wait and will use it
        self.entered = 0
        self.held = 0  # bytes that are kept for unfinished requests
        self.max_fids, self.max_requests = max_fids, max_requests

    # fids

    def fid(self, number: int) -> F:
        """Return what stands for a fid; raises EBADF for an unknown one."""
        try:
            return self.fids[number]
        except KeyError:
            raise NineError(errno.EBADF) from None

    def check(self, number: int) -> None:
        """Raise EEXIST if a new fid's number is in use, EMFILE if there are too many, EBADF for NOFID."""
        if number in self.fids:
            raise NineError(errno.EEXIST, "fid already in use")
        if len(self.fids) >= self.max_fids:
            raise NineError(errno.EMFILE, f"all {self.max_fids} fids of this connection are in use")
        if number == NOFID:
            raise NineError(errno.EBADF)

    # order

    def blockers(self, type_: int, args: Sequence[Any], duplex: bool = False) -> list[Request]:
        """Return the unfinished requests that a new one must wait for, each once. `duplex`: the two directions of its open file are independent."""
        if not self.claims:
            return []
        uses, claims, write_uses, write_claims = ORDER.get(type_, _NONE)
        keys = [args[i] for i in (*uses, *claims)] + [args[i] + WRITE_SIDE for i in write_claims]
        if not (duplex and type_ in READS):
            keys += [args[i] + WRITE_SIDE for i in write_uses]
        found = [self.claims.get(key) for key in keys]
        if self.users:
            for i in claims:
                last = self.claims.get(args[i])  # it waits for those that came before it
                since = 0 if last is None else last.number
                later: list[Request] = []
                for user in reversed(self.users.get(args[i], {})):
                    if user.number <= since:
                        break
                    later.append(user)
                found += [blocker for user in reversed(later) for blocker in user.blockers]
        return list(dict.fromkeys(request for request in found if request is not None))

    def enter(self, request: Request, args: Sequence[Any], blockers: Sequence[Request] = ()) -> None:
        """Remember a request that runs on, or that waits for `blockers`."""
        self.entered = request.number = self.entered + 1
        self.tags[request.tag] = request
        request.size += LINK * len(blockers)
        self.held += request.size
        uses, claims, _, write_claims = ORDER.get(request.type, _NONE)
        request.claims = [args[i] for i in claims] + [args[i] + WRITE_SIDE for i in write_claims]
        for key in request.claims:
            self.claims[key] = request
        request.blockers = dict.fromkeys(blockers)
        for blocker in blockers:
            blocker.followers[request] = None
        if blockers:
            request.uses = [args[i] for i in uses]
            for fid in request.uses:
                self.users.setdefault(fid, {})[request] = None

    def finish(self, request: Request) -> tuple[list[Request], list[int]]:
        """Retire a request. Return the requests that may run now, in order of arrival, and the tags of the flushes to answer after it, in order."""
        del self.tags[request.tag]
        self._forget(request)
        self._begins(request)
        ready = []
        done = [request]
        while done:
            finished = done.pop()
            for follower in finished.followers:
                del follower.blockers[finished]
                if follower.blockers:
                    continue
                if follower.cleared:  # it was kept only to lead from those before it to those behind it
                    self.held -= follower.size
                    done.append(follower)
                else:
                    ready.append(follower)
                    self._begins(follower)
        ready.sort(key=_arrival)
        return ready, self._answered(request)

    def _answered(self, request: Request) -> list[int]:
        """Retire the flushes of a request. Return their tags, in order."""
        flushes: list[int] = []
        todo = request.flushed_by[::-1]
        while todo:  # no recursion: a peer may flush flushes of flushes, as many as it has tags
            flush = todo.pop()
            del self.tags[flush.tag]
            flushes.append(flush.tag)
            todo += flush.flushed_by[::-1]
        return flushes

    def _forget(self, request: Request) -> None:
        """Forget what is kept for a request, and that it claims fids."""
        self.held -= request.size
        for key in request.claims:
            if self.claims.get(key) is request:
                del self.claims[key]

    def _begins(self, request: Request) -> None:
        """Forget that a request waits and will use fids: it begins now, or never will."""
        uses, request.uses = request.uses, []
        for fid in uses:
            users = self.users.get(fid, {})
            users.pop(request, None)
            if not users:
                self.users.pop(fid, None)

    def flush(self, tag: int, oldtag: int) -> tuple[list[Request], list[int]]:
        """Do a Tflush: cancel what runs, drop what waits. Return as `finish` does; where the old request still runs, its end answers the flush."""
        old = self.tags.get(oldtag)
        if old is None or oldtag == tag:
            return [], [tag]
        if old.cancel is None and old.type != m.Tflush.type:
            return self.drop(old, tag)
        flush = Request(tag, m.Tflush.type, None)
        self.tags[tag] = flush
        old.flushed_by.append(flush)
        if old.cancel is not None:
            old.cancel()
        return [], []

    def drop(self, request: Request, *flushes: int) -> tuple[list[Request], list[int]]:
        """Retire a request that waits and must never run. Return as `finish` does, with `flushes` after those that it had already.

        Requests that waited for it wait for those that it waited for: otherwise a write would overtake the one before the dropped one.
        """
        request.cleared = True
        for key in request.claims:
            if self.claims[key] is request:
                earlier = [blocker for blocker in _before(request) if key in blocker.claims]
                if earlier:
                    self.claims[key] = max(earlier, key=lambda blocker: blocker.number)
        if len(request.blockers) > 1 and len(request.followers) > 1:
            # Linking each with each could take 4,096 x 4,096 links: it stays between them, without its tag, until those before it are finished.
            del self.tags[request.tag]
            self._forget(request)
            self._begins(request)
            request.claims, request.size = [], LINK * (1 + len(request.blockers))
            self.held += request.size
            return [], [*self._answered(request), *flushes]
        for blocker in request.blockers:
            del blocker.followers[request]
            for follower in request.followers:
                if blocker not in follower.blockers:
                    follower.size += LINK
                    self.held += LINK
                follower.blockers[blocker] = blocker.followers[follower] = None
            self._unneeded(blocker)
        ready, tags = self.finish(request)
        return ready, [*tags, *flushes]

    def _unneeded(self, request: Request) -> None:
        """Forget a dropped request for which nobody waits any more, and those before it."""
        done = [request]
        while done:
            request = done.pop()
            if request.cleared and not request.followers:
                self.held -= request.size
                for blocker in request.blockers:
                    del blocker.followers[request]
                done += request.blockers


def _before(request: Request) -> list[Request]:
    """Return the requests that one waits for, also by way of those that were dropped."""
    found: dict[Request, None] = {}
    todo = list(request.blockers)
    while todo:
        blocker = todo.pop()
        if blocker not in found:
            found[blocker] = None
            if blocker.cleared:
                todo += blocker.blockers
    return [blocker for blocker in found if not blocker.cleared]


def _arrival(request: Request) -> int:
    return request.number
