"""What one client may cost a server, and all of them together: every number with its reason, and what is said at its end.

Refusing is always better than waiting here: whoever is told "too many" can do something about it, and nobody else is kept waiting. Where nothing can
be said, for the client does not listen, it is not listened to either; only one that piles up what it asked for and never takes it is hung up on.
"""

import errno
from collections.abc import Iterable
from typing import Any, Final

import attrs

from mk9p.errors import NineError
from mk9p.session import MAX_FIDS, MAX_REQUESTS
from mk9p.tree.paths import DEPTH
from mk9p.wire import IOHDRSZ

SMALL: Final = 8192  # bytes of a frame before an attach: a Tversion or a Tattach with the longest path
MIN_MSIZE: Final = 256  # below that not even a stat fits
RESERVE: Final = 256  # requests that may wait beyond `requests`, if they are no reads of files that wait


def _limit(default: Any, least: Any, *, at: str, reason: str) -> Any:
    return attrs.field(default=default, metadata={"least": least, "at": at, "reason": reason})


@attrs.frozen(kw_only=True)
class Limits:
    """What a connection, and a server, may hold. Each field's metadata has its `reason`, and what happens `at` it."""

    msize: int = _limit(
        (1 << 20) + IOHDRSZ, MIN_MSIZE, at="Rversion says it", reason="v9fs's own most over sockets, and a header"
    )
    fids: int = _limit(
        MAX_FIDS,
        1,
        at="EMFILE",
        reason="of a connection, whose users may be many; v9fs keeps one for each cached name and user",
    )
    requests: int = _limit(
        MAX_REQUESTS,
        1,
        at="EAGAIN",
        reason=f"above any client's window; {RESERVE} more are taken if they are no reads of files that wait",
    )
    held: int = _limit(
        32 << 20, 0, at="EAGAIN to further writes", reason="the bytes of writes that wait: a window of 32 at 1 MiB"
    )
    out: int = _limit(
        4 << 20,
        0,
        at="it is not read from",
        reason="replies that the client does not take: more than any kernel's socket buffer",
    )
    unread: int = _limit(
        32 << 20,
        0,
        at="hung up",
        reason="the same with what waiting requests bring meanwhile: a window of 32 reads at 1 MiB",
    )
    depth: int = _limit(
        DEPTH, 1, at="ENAMETOOLONG", reason="names from the root: the longest path of Linux, 4096 bytes, has no more"
    )
    user_bytes: int = _limit(
        128 << 20,
        1 << 16,
        at="ENOMEM; ENOLCK of locks, ENOSPC of attributes, EAGAIN of what would wait",
        reason="what a user keeps here by all connections, as counted: 100,000 fids of stored files, of 1 KB each, and"
        " a quarter more",
    )
    stranger_bytes: int = _limit(
        56 << 20,
        1 << 16,
        at="as user_bytes",
        reason="the same of who has no uid that somebody vouches for: what it comes to in memory is below 64 MiB",
    )
    user_fids: int = _limit(
        131_072, 1, at="EMFILE", reason="a `find` over 100,000 files through v9fs that keeps names (cache=loose)"
    )
    user_files: int = _limit(
        4096,
        1,
        at="EMFILE",
        reason="open files that take a descriptor here: four processes with as many as Linux lets each have by itself",
    )
    bytes: int = _limit(
        384 << 20,
        1 << 16,
        at="as user_bytes",
        reason="of all users together: two that have all they may; the last quarter is for root alone",
    )
    files: int = _limit(
        16_384,
        8,
        at="ENFILE",
        reason="such files of all users; or a quarter of the descriptors that the process may have, if that is less; the last"
        " quarter of it is for root alone",
    )
    connections: int = _limit(
        1024,
        1,
        at="closed at once",
        reason="a whole server's; each is 44 KiB and a descriptor, of which a process commonly has as many",
    )
    handshake: float = _limit(
        30.0,
        0.001,
        at="hung up",
        reason="seconds from the connection to its first attach: an emulated kernel on a busy machine takes two",
    )
    share: int = _limit(
        256,
        1,
        at="closed at once, EMFILE to attach",
        reason="connections of one user, of one host before anybody attaches: three more have room beside it",
    )
    reserve: int = _limit(
        32,
        0,
        at="closed at once",
        reason="connections of those that nobody but root and the server's own user gets: enough to look, and to end others",
    )
    partial: float = _limit(
        60.0,
        0.001,
        at="hung up",
        reason="seconds without a byte in the middle of a frame: after an outage of half of that TCP tries again within it",
    )

    @classmethod
    def parse(cls, settings: Iterable[str]) -> "Limits":
        """Read `NAME=VALUE` settings; raises EINVAL for an unknown name or an impossible value."""
        known = attrs.fields_dict(cls)
        values: dict[str, Any] = {}
        for setting in settings:
            name, _, text = setting.partition("=")
            field = known.get(name)
            if field is None:
                raise NineError(errno.EINVAL, f"no limit {name!r}; there are: {' '.join(known)}")
            number: Any = type(field.default)
            try:
                value = number(text)
            except ValueError:
                value = float("nan")
            if not value < float("inf"):
                raise NineError(errno.EINVAL, f"limit {setting!r}: want {name}=NUMBER")
            if value < field.metadata["least"]:
                raise NineError(errno.EINVAL, f"limit {setting!r}: {field.metadata['least']} at least")
            values[name] = value
        return cls(**values)
