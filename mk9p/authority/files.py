"""`auth/`: who somebody is here, and what they may do."""

import errno
import os
from collections.abc import Callable, MutableMapping
from typing import Any

import attrs

from mk9p.auth import Principal
from mk9p.authority.deciding import Authority
from mk9p.errors import NineError
from mk9p.scope import R, letters
from mk9p.tree import Ctl, Dir, Handle, Maybe, Node, Open, Text, fields
from mk9p.tree.files import File
from mk9p.tree.words import Word, word


class Whoami(File):
    """Shows each user who they are."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(0o444)
        self.authority = authority

    def open(self, how: Open) -> Maybe[Handle]:
        who = how.who
        return Text(lambda: whoami(who, self.authority.some(who))).open(how)


def whoami(who: Principal, ops: int) -> str:
    """Return who a principal is, how they proved it, and what limits them, as lines. `ops`: what they may do somewhere."""
    limits: dict[str, object] = {
        "subtree": (who.scope.path if who.scope is not None else "") or "/",
        "ops": letters(ops & R if who.readonly else ops),
    }
    if who.scope is not None and who.scope.until is not None:
        limits["until"] = who.scope.until
    return fields({"principal": who.name, "proof": who.proof or "none", **limits})


@attrs.define(eq=False)
class Auth:
    """The directory `auth`: before `tree`, others add files to `files`, and words to its `ctl`, which is there if it has any."""

    authority: Authority
    files: MutableMapping[str, Node] = attrs.field(init=False)
    ctl: Ctl = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ctl = Ctl({}, mode=0o666)
        self.files = {"whoami": Whoami(self.authority), "log": self.authority.audit.log}
        book = self.authority.book
        if book is not None:
            self.files |= book.files()
            self.word("reload", self._reload)

    def word(self, name: str, function: Callable[..., Any]) -> None:
        """Add a word to `auth/ctl`; each function asks itself who may say it."""
        self.add(word(name, function))

    def add(self, described: Word) -> None:
        """Add a described word to `auth/ctl`."""
        self.ctl.words[described.name] = described
        self.files["ctl"] = self.ctl

    async def _reload(self, who: Principal) -> None:
        require_owner(who)
        assert self.authority.book is not None
        await self.authority.book.reload()

    def tree(self) -> Dir:
        """Return the directory. What only the owner of the server may see is theirs."""
        for file in self.files.values():
            if isinstance(file, File):
                file.owned(os.geteuid(), os.getegid())
        return Dir(self.files)


def require_owner(who: Principal) -> None:
    """Raise EPERM for everybody except root and the user that the server runs as."""
    if who.uid not in (0, os.geteuid()):
        raise NineError(errno.EPERM)
