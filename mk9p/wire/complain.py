"""Generated code calls these functions when a message is wrong: each says which message and which field, and raises."""

import errno
from typing import NoReturn

from mk9p.errors import NineError
from mk9p.wire.const import MAXWELEM


def misfit(what: str, parts: tuple[tuple[str, int], ...], room: int) -> NoReturn:
    """Raise for (field, bytes) pairs that do not fill the room left."""
    for field, size in parts:
        if room < size:
            raise NineError(errno.EBADMSG, f"{what}: ends within {field}")
        room -= size
    raise NineError(errno.EBADMSG, f"{what}: {room} bytes too many")


def bad_text(what: str, field: str) -> NoReturn:
    """Raise for a string that is not UTF-8, or has a NUL, which intro(5) excludes."""
    raise NineError(errno.EBADMSG, f"{what}: {field} is not UTF-8 without NUL")


def bad_count(what: str, field: str, count: int) -> NoReturn:
    """Raise for more names or qids received than walk(5) allows."""
    raise NineError(errno.EBADMSG, f"{what}: {count} {field}, at most {MAXWELEM}")


def bad_size(what: str, field: str) -> NoReturn:
    """Raise for a stat entry whose own size does not fit its place."""
    raise NineError(errno.EBADMSG, f"{what}: the size of {field} is wrong")


def too_long(what: str, field: str, size: int) -> NoReturn:
    """Raise for a string or stat to send whose length does not fit in 16 bits."""
    raise NineError(errno.ENAMETOOLONG, f"{what}: {field} has {size} bytes, at most 65535")


def too_many(what: str, field: str, count: int) -> NoReturn:
    """Raise for more names or qids to send than walk(5) allows."""
    raise NineError(errno.E2BIG, f"{what}: {count} {field}, at most {MAXWELEM}")


def no_text(what: str, error: UnicodeEncodeError) -> NoReturn:
    """Raise for a string to send that stands for no bytes: it has a surrogate that PEP 383 does not use."""
    raise NineError(errno.EILSEQ, f"{what}: {error.object!r} is not UTF-8") from None
