"""`Scope`: a part of a tree, and what may be done in it. OPS are the letters for that.

    r   read: contents, names of a directory, attributes
    w   write stored data and devices, and what a file's status says
    c   write to ctl files, and open the `clone` that gives one
    n   create: files, directories, links
    d   remove

A file is a ctl file by its name, so that whoever reads a path knows which letter it takes, also where the file is another server's: `ctl` and names
that end so (`consctl`, `eia0ctl`), `clone`, and the few others of the manual that take commands or settle who may do what (CTL).
"""

import errno
from collections.abc import Iterable
from typing import Final

import attrs

from mk9p.errors import NineError

R: Final = 1
W: Final = 2
C: Final = 4
N: Final = 8
D: Final = 16
ALL: Final = 31
LETTERS: Final = "rwcnd"
CTL: Final = frozenset({"clone", "confirm", "desired", "note", "policy"})

REFUSED: Final = "capability refused: "
"""How the words of an error begin that is about a capability. They name nothing that is a secret."""

CAPABILITY: Final = "cap!"
"""How the name of a tree in an attach begins that is a capability: `cap!TEXT`, or `cap!TEXT/PATH` for a file below its root."""


def ops_of(text: str) -> int:
    """Read letters of OPS, in any order; raises EINVAL for none, another letter, or one that is there twice."""
    if not text or len(set(text)) != len(text) or not set(text) <= set(LETTERS):
        raise NineError(errno.EINVAL, f"OPS are letters of {LETTERS}, not {text!r}")
    return sum(1 << LETTERS.index(letter) for letter in text)


def letters(ops: int) -> str:
    """Return OPS as letters, `-` for none."""
    return "".join(letter for at, letter in enumerate(LETTERS) if ops & 1 << at) or "-"


def mode_of(text: str) -> int:
    """Read what a guest is granted: `ro`, `rw`, or letters of OPS; raises EINVAL."""
    return {"ro": R, "rw": ALL}.get(text) or ops_of(text)


def mode(ops: int) -> str:
    """Return OPS as `mode_of` reads them, always the same text for the same."""
    return {R: "ro", ALL: "rw"}.get(ops) or letters(ops)


def granted_as(text: str) -> str:
    """Return `ro`, `rw` or letters, always the same for the same OPS; raises EINVAL for a text that is none of them."""
    return mode(mode_of(text))


def is_ctl(name: str) -> bool:
    """Tell whether a file of that name is a ctl file: to write it takes `c` and not `w`."""
    return name.endswith("ctl") or name in CTL


def cleaned(path: str) -> str:
    """Return an absolute path without its last slash and doubled ones: "" is the root. Raises EINVAL for `.` and `..`, and a relative one."""
    names = [name for name in path.split("/") if name]
    if not path.startswith("/") or "\0" in path or any(name in (".", "..") for name in names):
        raise NineError(errno.EINVAL, f"not a path from the root: {path!r}")
    return "".join(f"/{name}" for name in names)


def within(path: str, top: str) -> bool:
    """Tell whether a cleaned path is another, or below it."""
    return path == top or path.startswith(top + "/")


def unnamed(aname: str) -> str:
    """Return the name of a tree as a log may have it: a capability is a secret."""
    return CAPABILITY + "..." if aname.startswith(CAPABILITY) else aname


@attrs.frozen
class Scope:
    """What a capability gives: the tree at `path` (cleaned, "" for the root), with `ops` at it and below.

    `until`: when it ends, in ns of the wall clock; None for never. `ids` say which capability it is and from which it was narrowed, and end it when
    one of them is revoked. `as_root`: requests there are made as root, because root granted it; otherwise as the principal, who is then the one who
    granted it.
    """

    path: str = ""
    ops: int = ALL
    until: int | None = None
    ids: tuple[str, ...] = ()
    as_root: bool = False

    def narrowed(self, path: str, ops: int) -> "Scope":
        """Return what is left of it at a path, with some of its OPS. Raises EACCES for a path outside of it."""
        if not within(path, self.path):
            raise NineError(errno.EACCES, "it does not reach that far")
        return attrs.evolve(self, path=path, ops=self.ops & ops)

    def expired(self, now: int) -> bool:
        """Tell whether its time is over."""
        return self.until is not None and now >= self.until

    def revoked(self, ids: Iterable[str]) -> bool:
        """Tell whether it is one of these capabilities, or was narrowed from one."""
        return not set(self.ids).isdisjoint(ids)
