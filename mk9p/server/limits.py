"""What one client may cost a server, and what all clients together may cost it: each number with its reason, and with what happens at it.

It is always better to refuse than to wait here: a client that is told "too many" can do something about it, and no other client waits meanwhile.
Where the server can tell the client nothing, because the client does not listen, the server does not listen to it either. It hangs up only on a
client that piles up what it asked for and never takes it.
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
RESERVE: Final = 256  # requests that may wait beyond `requests`, if they do not read files that wait


def _limit(default: Any, least: Any, *, at: str, reason: str) -> Any:
    return attrs.field(default=default, metadata={"least": least, "at": at, "reason": reason})


@attrs.frozen(kw_only=True)
class Limits:
    """What a connection and a server may hold. The metadata of each field has its `reason`, and what happens `at` it."""

    msize: int = _limit(
        (1 << 20) + IOHDRSZ,
        MIN_MSIZE,
        at="Rversion says it",
        reason="the largest msize of v9fs over sockets, and a header",
    )
    fids: int = _limit(
        MAX_FIDS,
        1,
        at="EMFILE",
        reason="of a connection, which may have many users; v9fs keeps one fid for each cached name and user",
    )
    requests: int = _limit(
        MAX_REQUESTS,
        1,
        at="EAGAIN",
        reason=f"above the window of any client; {RESERVE} more are taken if they do not read files that wait",
    )
    held: int = _limit(
        32 << 20, 0, at="EAGAIN to further writes", reason="the bytes of writes that wait: a window of 32 at 1 MiB"
    )
    out: int = _limit(
        4 << 20,
        0,
        at="the server stops reading from it",
        reason="replies that the client does not take: more than the socket buffer of any kernel",
    )
    unread: int = _limit(
        32 << 20,
        0,
        at="hung up",
        reason="the same, with what waiting requests add meanwhile: a window of 32 reads at 1 MiB",
    )
    depth: int = _limit(
        DEPTH, 1, at="ENAMETOOLONG", reason="names below the root: the longest path of Linux, 4096 bytes, has no more"
    )
    user_bytes: int = _limit(
        64 << 20,
        1 << 16,
        at="ENOMEM; ENOLCK for locks, ENOSPC for attributes, EAGAIN for requests that would wait",
        reason="what the server keeps for a user over all connections, as counted: 85,000 fids of stored files with names of"
        " 20 letters, and a sixteenth for requests that wait; it takes no more in memory",
    )
    user_fids: int = _limit(
        131_072,
        1,
        at="EMFILE",
        reason="more than `user_bytes` lets anybody have of most files; made-up files take less",
    )
    user_files: int = _limit(
        4096,
        1,
        at="EMFILE",
        reason="open files that take a descriptor of the server: four processes with as many as Linux gives each by default",
    )
    bytes: int = _limit(
        384 << 20,
        1 << 16,
        at="as user_bytes",
        reason="for all users together: four users with all they may have; only root gets the last quarter",
    )
    files: int = _limit(
        16_384,
        8,
        at="ENFILE",
        reason="such files of all users, or a quarter of the descriptors that the process may have, if that is less; only root gets the last quarter",
    )
    connections: int = _limit(
        12_288,
        1,
        at="closed at once",
        reason="of a whole server, or three quarters of the descriptors that the process may have, if that is less: 10,000, and some more; idle ones"
        " take 12 KiB each, in all half of the `bytes` that others than root may have",
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
        reason="connections of one user, or of one host before anybody attaches: 40 users can have as many",
    )
    reserve: int = _limit(
        32,
        0,
        at="closed at once",
        reason="connections that only root and the server's own user get: enough to look, and to end others",
    )
    partial: float = _limit(
        60.0,
        0.001,
        at="hung up",
        reason="seconds without a byte in the middle of a frame: after an outage of half of that, TCP tries again in time",
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
