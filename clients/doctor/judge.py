"""What Linux's v9fs stumbles over in a file: the rules, applied to what was seen of it. No I/O.

Kernels differ. The rules come from Debian's 6.1, 6.12 and 7.3, or from their fs/9p, net/9p and fs/netfs.
"""

import stat as st
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import attrs

from mk9p.tree import Stat
from mk9p.wire import QTDIR, QTSYMLINK, Qid

NAME_MAX: Final = 255  # bytes, of Linux's include/uapi/linux/limits.h
_SPECIAL: Final = {
    st.S_IFCHR: "a character device",
    st.S_IFBLK: "a block device",
    st.S_IFIFO: "a named pipe",
    st.S_IFSOCK: "a socket",
}


class Finding(NamedTuple):
    """One hazard: where it is, its kind, and what it leads to."""

    path: str
    kind: str
    words: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.words}"


@attrs.frozen
class Look:
    """A file after one walk and one request for its status. `stat` is None if that failed, and `failure` says how."""

    walked: Qid
    stat: Stat | None
    failure: str = ""


@attrs.frozen
class Content:
    """What reading gave: the first bytes, whether it ended before the length in stat, and whether there was more behind it."""

    data: bytes
    short: bool = False
    beyond: bool = False
    iounit: int = 0


def of_name(path: str, name: str) -> Iterator[Finding]:
    """Check a name in a listing. Nobody walks to a name that Linux cannot express."""
    if not name or "/" in name or "\0" in name:
        yield Finding(path, "name", f"Linux accepts no name {name!r}: it shows the whole directory as broken (EIO)")
    elif len(name.encode(errors="surrogateescape")) > NAME_MAX:
        yield Finding(path, "name", f"{name[:20]!r}… is longer than {NAME_MAX} bytes: listed, and then ENAMETOOLONG")


def of_names(path: str, names: Iterable[str]) -> Iterator[Finding]:
    """Check all names of a directory."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield Finding(path, "name", f"{name!r} is listed twice")
        seen.add(name)
        yield from of_name(path, name)


def of_looks(path: str, listed: Qid | None, first: Look, second: Look) -> Iterator[Finding]:
    """Check what a file says of itself: in its directory's listing, and in two walks with a request for its status."""
    for look in (first, second):
        if look.stat is None:
            yield Finding(path, "stat", f"walking to it works, but asking for its status fails: {look.failure}")
            return
    assert first.stat is not None
    assert second.stat is not None
    yield from _of_qids(path, listed, first, second)
    mode = first.stat.mode
    kind = st.S_IFMT(mode)
    if kind in _SPECIAL:
        yield Finding(
            path, "special", f"{_SPECIAL[kind]}: Linux opens one of its own in its place, and never asks the server"
        )
    elif not kind:
        yield Finding(path, "mode", f"{mode:#o} names no kind of file")
    for bit, of_mode, what in ((QTDIR, st.S_IFDIR, "directory"), (QTSYMLINK, st.S_IFLNK, "symbolic link")):
        if kind and bool(first.walked.type & bit) != (kind == of_mode):
            yield Finding(
                path, "qid", f"type {first.walked.type:#x} and mode {mode:#o} differ on whether it is a {what}"
            )
    if first.stat.nlink == 0:
        yield Finding(
            path, "nlink", "no links: Linux takes it for removed, and warns when names beside it are made or removed"
        )
    if kind == st.S_IFDIR and (not mode & 0o111 or (mode & 0o444) >> 2 & ~mode):
        yield Finding(
            path, "mode", f"a directory of mode {mode & 0o777:04o}: users who may list it cannot look at its files"
        )


def _of_qids(path: str, listed: Qid | None, first: Look, second: Look) -> Iterator[Finding]:
    stats = [look.stat for look in (first, second) if look.stat is not None]
    paths = {
        "the listing": listed and listed.path,
        "the walk": first.walked.path,
        "stat": stats[0].qid and stats[0].qid.path,
        "a second walk": second.walked.path,
        "a second stat": stats[1].qid and stats[1].qid.path,
    }
    for place, number in paths.items():
        if number is not None and number != first.walked.path:
            yield Finding(
                path,
                "qid",
                f"path {number:#x} in {place}, and {first.walked.path:#x} in the walk: a new inode each time",
            )
            break
    if (stats[0].length, stats[0].mtime) != (stats[1].length, stats[1].mtime):
        return  # it was changed meanwhile
    versions = [first.walked.version, *(stat.qid.version for stat in stats if stat.qid), second.walked.version]
    if len(set(versions)) > 1:
        yield Finding(
            path,
            "version",
            f"qid.version changes ({' '.join(map(str, versions))}) and the file does not: cached modes see a new file each time",
        )


def of_content(path: str, before: Stat, content: Content, after: Stat) -> Iterator[Finding]:
    """Compare what reading gave with what stat said; a file that was changed meanwhile proves nothing."""
    if content.iounit:
        yield Finding(path, "iounit", f"{content.iounit}: no read or write is larger; say 0, which means msize")
    if (before.length, before.mtime) != (after.length, after.mtime):
        return
    if before.length and content.short:
        told = f"reading ends after {len(content.data)}" if len(content.data) < before.length else "reading ends before"
        yield Finding(
            path,
            "length",
            f"{before.length} bytes by stat, {told}: an endless loop on Linux 6.12, ENODATA on 7: say 0",
        )
    if before.length and content.beyond:
        yield Finding(path, "length", f"more than the {before.length} bytes of stat: cut off where Linux caches: say 0")
    version = before.qid.version if before.qid else 0
    if not before.length and content.data and version:
        yield Finding(path, "version", f"a synthetic file of qid.version {version}: cached from Linux 6.4 on, say 0")
