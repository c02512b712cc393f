"""`Conversations`: a directory with `clone` and a numbered directory for each conversation (Plan 9's ip(3), Inferno's cmd(3)).

Opening `clone` starts a conversation and gives its ctl, and a read of it tells the number. The conversation lives while any file of it is open, or
after `keep` was written to its ctl, until `unkeep`. Closing the last file takes it down completely. This module counts the open files, so no
author forgets one. It uses a free number again, the lowest first, as Plan 9 does. The qid.path is then another one, so nobody who remembers the
old conversation by its name takes the new one for it.

A conversation may also begin when another file is opened: `listen` (ip(3)) waits for a call and gives the ctl of the call. `accept` does that.
"""

import errno
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Final, Protocol

from mk9p.auth import NO_ID, Principal, counts_as, unlimited
from mk9p.errors import NineError
from mk9p.status import Buffer, Change
from mk9p.tree.ctl import Ctl
from mk9p.tree.dirs import Dir
from mk9p.tree.files import File
from mk9p.tree.node import Handle, Maybe, Node, Open, settle
from mk9p.tree.qids import PLACE
from mk9p.tree.through import ThroughHandle
from mk9p.tree.words import word

# conversations of one directory at once: each may hold a process or a socket, and a table must have an end
MAX: Final = 4096
# the part of them that one user has at most, so that others can have some too; root has no such limit
SHARE: Final = 4


class Conversation(Protocol):
    """What an author provides: the files of one conversation, and how it ends. With `may_be_kept = False` its ctl has no word `keep`."""

    def tree(self) -> Dir:
        """Return its directory, which has a `ctl`. Called once."""
        ...

    def close(self) -> Maybe[None]:
        """Take everything down. Called exactly once, shielded from cancellation."""
        ...


class _Numbered(Dir):
    """A conversation's directory, which counts what is open below it."""

    def __init__(self, owner: "Conversations", number: int, talk: Conversation, who: Principal) -> None:
        tree = talk.tree()
        super().__init__(*tree.children)
        self.owned(who.uid, who.group)
        self.owner, self.number, self.talk, self.who = owner, number, talk, who
        self.path = int.from_bytes(os.urandom(8)) | PLACE  # the same number is another conversation then
        self.users, self.kept, self.ended = 0, False, False
        self.ctl = self.walk("ctl", who)
        if isinstance(self.ctl, Ctl) and getattr(talk, "may_be_kept", True):
            self.ctl.words.setdefault("keep", word("keep", self.keep))
            self.ctl.words.setdefault("unkeep", word("unkeep", self.unkeep))

    def keep(self) -> None:
        self.kept = True

    def unkeep(self) -> None:
        """Let it end with its last file again: the ctl that got this word, if no other is open."""
        self.kept = False

    def hold(self) -> None:
        self.users += 1

    def release(self) -> Maybe[None]:
        self.users -= 1
        if self.users or self.kept:
            return None
        return self.end()

    def end(self) -> Maybe[None]:
        """Take the conversation down, once."""
        if self.ended:
            return None
        self.ended = True
        self.owner.left(self.number, self.who)
        return self.talk.close()


class Conversations(Dir):
    """A directory of conversations: `new(number, who)` makes one when somebody opens `clone`. `more` are further files in it (stats, cs …)."""

    def __init__(
        self,
        new: Callable[[int, Principal], Maybe[Conversation]],
        more: Mapping[str, Node] | None = None,
        *,
        mode: int = 0o600,
        limit: int = MAX,
    ) -> None:
        self.new, self.limit = new, limit
        self.talks: dict[int, _Numbered | None] = {}  # None: somebody is making its conversation
        self.users: Counter[Hashable] = Counter()  # how many each has
        super().__init__({"clone": _Clone(self, mode), **(more or {})})

    def walk(self, name: str, who: Principal) -> Maybe[Node]:
        if name.isdecimal() and str(int(name)) == name and (talk := self.talks.get(int(name))):
            return talk
        return super().walk(name, who)

    def entries(self, who: Principal) -> Maybe[Iterable[tuple[str, Node]]]:
        fixed = super().entries(who)
        assert not isinstance(fixed, Awaitable)
        return [*fixed, *((str(n), talk) for n, talk in sorted(self.talks.items()) if talk)]

    def free(self, who: Principal) -> int:
        """Return the lowest number that no conversation has. Raises EMFILE when all are in use, or this user has their share of them."""
        number = next(n for n in range(len(self.talks) + 1) if n not in self.talks)
        if number >= self.limit:
            raise NineError(errno.EMFILE, f"all {self.limit} conversations are in use")
        share = max(self.limit // SHARE, 1)
        if not unlimited(who) and self.users[counts_as(who)] >= share:
            raise NineError(errno.EMFILE, f"{who.name} has {share} conversations here already, a share of {self.limit}")
        return number

    def _enter(self, number: int, talk: _Numbered | None, who: Principal) -> None:
        self.talks[number] = talk
        self.users[counts_as(who)] += 1

    def left(self, number: int, who: Principal) -> None:
        """Forget a conversation."""
        self.talks.pop(number, None)
        self.users[counts_as(who)] -= 1
        if not self.users[counts_as(who)]:
            del self.users[counts_as(who)]

    def start(self, new: Callable[[int, Principal], Maybe[Conversation]], how: Open) -> Maybe[Handle]:
        """Begin a conversation that `new(number, who)` makes, as opening clone does. Return its open ctl, which tells the number when it is read."""
        if how.who.uid == NO_ID:
            raise NineError(errno.EACCES, f"{how.who.name} has no uid here, and can own no conversation")
        number = self.free(how.who)
        talk = new(number, how.who)
        if isinstance(talk, Awaitable):
            return self._start(number, talk, how)
        return self._started(number, talk, how)

    async def _start(self, number: int, talk: Awaitable[Conversation], how: Open) -> Handle:
        self._enter(number, None, how.who)
        try:
            made = await talk
        finally:
            self.left(number, how.who)
        return self._started(number, made, how)

    def _started(self, number: int, talk: Conversation, how: Open) -> "CtlOfNew":
        numbered = _Numbered(self, number, talk, how.who)
        self._enter(number, numbered, how.who)
        assert isinstance(numbered.ctl, Node)
        ctl = numbered.ctl.open(how)
        assert isinstance(ctl, Handle)
        numbered.hold()
        return CtlOfNew(ctl, str(numbered.number), numbered.release)

    def begin(self, number: int, talk: Conversation, who: Principal) -> None:
        """Begin a conversation that nobody has opened yet, and that is kept: one that outlived its server, say."""
        numbered = _Numbered(self, number, talk, who)
        self._enter(number, numbered, who)
        numbered.keep()

    def keep(self, number: int) -> bool:
        """Let a conversation last although no file of it is open; tell whether there is one of that number."""
        numbered = self.talks.get(number)
        if numbered is not None:
            numbered.kept = True
        return numbered is not None

    async def dismiss(self, number: int) -> None:
        """Let a conversation end with its last open file, and now if none is open."""
        numbered = self.talks.get(number)
        if numbered is not None:
            numbered.kept = False
            if not numbered.users:
                await settle(numbered.end())

    async def accept(
        self, new: Callable[[int, Principal], Maybe[Conversation]], how: Open, *, through: Conversation
    ) -> Handle:
        """Begin a conversation as `start` does, when a file of the conversation `through` is opened.

        From now on the open file is the new conversation's ctl and no longer holds the other: closing an announcement ends it, even if calls go
        on. Raises as `start` does; then `new` has not been called, or has failed.
        """
        handle = await settle(self.start(new, how))
        above = next((talk for talk in self.talks.values() if talk and talk.talk is through), None)
        if above is None:
            return handle
        await settle(above.release())
        return _CtlOfCall(handle, above)

    async def aclose(self) -> None:
        """End all conversations, also kept ones: for the end of the server."""
        for talk in list(self.talks.values()):
            if talk:
                await settle(talk.end())


class _Clone(File):
    """The clone file: a new conversation at every open."""

    descriptors = 1  # a conversation has one, or a few

    def __init__(self, owner: Conversations, mode: int) -> None:
        super().__init__(mode)
        self.owner = owner

    def open(self, how: Open) -> Maybe[Handle]:
        return self.owner.start(self.owner.new, how)


class CtlOfNew(ThroughHandle):
    """The ctl that opening clone gives. A read of it tells the `name` of what is new, until somebody writes to it; closing it calls `release`."""

    def __init__(self, ctl: Handle, name: str, release: Callable[[], Maybe[None]]) -> None:
        super().__init__(ctl)
        self.release = release
        self.name = f"{name}\n".encode()
        self.wrote = False

    def read(self, offset: int, count: int) -> Maybe[Buffer]:
        if not self.wrote or offset < len(self.name):
            return self.name[offset : offset + count]
        return super().read(offset, count)

    def write(self, offset: int, data: memoryview) -> Maybe[int]:
        self.wrote = True
        return super().write(offset, data)

    def change(self, change: Change) -> Maybe[None] | None:
        return None if change.only_truncates else super().change(change)

    async def close(self) -> None:
        await settle(super().close())
        await settle(self.release())


class _CtlOfCall(ThroughHandle):
    """The ctl that opening `listen` gives. The client walked to it through the listener, which the server releases when the ctl is closed: this
    class makes up for that."""

    def __init__(self, ctl: Handle, through: _Numbered) -> None:
        super().__init__(ctl)
        self.through = through

    async def close(self) -> None:
        self.through.hold()
        await settle(super().close())
