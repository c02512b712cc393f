"""`Book`: the rules that hold now, where they come from, and how they change.

Rules are taken whole, from the file at the start and at `reload`, from what root writes to `auth/policy`, and from an operator's `allow N always`.
What is wrong changes nothing, neither the rules nor the file. What changes goes into the file first, by a new file in its place, so neither a full
disk nor a crash leaves half of one.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import trio

from mk9p.authority.confirm import Confirm, Key
from mk9p.authority.policy import LONGEST, GroupId, Rule, Rules
from mk9p.errors import NineError
from mk9p.scope import letters
from mk9p.tree import Ctl, Handle, Maybe, Node, Open, Text
from mk9p.tree.files import File

NEW: Final = ".new"


def group_id(name: str) -> int:
    """Return the number of a group of this machine; raises KeyError."""
    import grp

    return grp.getgrnam(name).gr_gid


@attrs.define(eq=False)
class Book:
    """The rules of one server. `path` is their file, None if there is none; `on_change` are called, with what held before, after each change."""

    rules: Rules
    path: Path | None = None
    group: GroupId = group_id
    on_change: list[Callable[[Rules], None]] = attrs.field(factory=list)
    confirm: Confirm = attrs.field(init=False)
    _busy: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def __attrs_post_init__(self) -> None:
        self.confirm = Confirm(self._always)

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}: "
        return f"{where}{len(self.rules.rules)} rules; nobody from elsewhere may do what none of them allows"

    @classmethod
    def read(cls, path: str, group: GroupId = group_id) -> "Book":
        """Read a policy's file. Raises OSError, and EINVAL with the number of the line that is wrong."""
        try:
            return cls(Rules.parse(_text(Path(path)), group), Path(path).resolve(), group)
        except NineError as error:
            raise NineError(error.errno, f"{path}: {error.ename}") from None

    async def reload(self) -> None:
        """Read the file again. Raises as `read`, and then nothing has changed."""
        if self.path is None:
            raise NineError(errno.EINVAL, "the policy has no file")
        async with self._busy:
            try:
                rules = Rules.parse(await trio.to_thread.run_sync(_text, self.path), self.group)
            except NineError as error:
                raise NineError(error.errno, f"{self.path}: {error.ename}") from None
            self._take(rules)

    async def write(self, text: str) -> None:
        """Take a new text, and put it into the file. Raises EINVAL with a line's number, or OSError for the file; then nothing has changed."""
        async with self._busy:
            await self._write(text if text.endswith("\n") or not text else text + "\n")

    async def _write(self, text: str) -> None:
        rules = Rules.parse(text, self.group)
        if self.path is not None:
            await trio.to_thread.run_sync(_replace, self.path, text)
        self._take(rules)

    async def _always(self, key: Key) -> None:
        """Allow from now on what somebody asked for."""
        who, ops, path = key
        if any("*" in name for name in path.split("/")):
            raise NineError(errno.EINVAL, "a rule cannot name a file with a * in its name: allow it once")
        if who == "*" or who.startswith("@"):
            raise NineError(errno.EINVAL, f"a rule for {who} would be for others too: allow it once")
        rule = Rule.parse(["allow", who, letters(ops), path or "/"], self.group)
        async with self._busy:
            await self._write(f"{rule}\n{self.rules.text}")

    def _take(self, rules: Rules) -> None:
        before, self.rules = self.rules, rules
        for tell in self.on_change:
            tell(before)

    def files(self) -> dict[str, Node]:
        """Return `policy`, `confirm`, and what went wrong with them last."""
        policy = _Policy(self)
        return {
            "policy": policy,
            "policyerror": policy.said.error_file(),
            "confirm": self.confirm,
            "confirmerror": self.confirm.said.error_file(),
        }


class _Policy(File):
    """The rules as text; one write is a whole new text."""

    def __init__(self, book: Book) -> None:
        super().__init__(0o600)
        self.book = book
        self.said = Ctl({})

    def open(self, how: Open) -> Maybe[Handle]:
        async def write(text: str) -> None:
            with self.said.remembering(how.who):
                if how.room and len(text.encode(errors="surrogatepass")) + 1 >= min(how.room, LONGEST):
                    raise NineError(errno.EFBIG, "write a whole policy at once: this may be a part of a longer one")
                await self.book.write(text)

        return Text(lambda: self.book.rules.text, write).open(how)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(LONGEST + 1)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise NineError(errno.EINVAL, "it is not UTF-8") from None


def _replace(path: Path, text: str) -> None:
    """Put a new file in the place of an old one, with its mode and owner."""
    now = path.stat()
    new = path.with_name(path.name + NEW)
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            os.fchown(fd, now.st_uid, now.st_gid)
            os.fchmod(fd, now.st_mode & 0o777)
            file.write(text)
            file.flush()
            os.fsync(fd)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
