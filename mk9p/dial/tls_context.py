"""What OpenSSL needs to know, made from the files of the keys and made again when these change.

The files are looked at when somebody dials or comes (four calls of stat(2) beside a handshake of milliseconds), so a new certificate or list needs no
signal and ends no connection. If the new files are wrong, the old ones count until they are right, and the log says so once.
"""

import errno
import os
import ssl
from collections.abc import Callable
from typing import Final

from mk9p.dial.keys import Keys
from mk9p.dial.sockets import log
from mk9p.errors import NineError

Stamp = tuple[tuple[int, int, int] | None, ...]
_OTHERS: Final = 0o007  # the permission bits of users who are neither owner nor group


class Made:
    """A context of OpenSSL, and what its files were when it was made."""

    def __init__(self, keys: Keys, server: bool) -> None:
        self.keys, self.server = keys, server
        self.stamp = stamp(keys)
        self.refused: Stamp | None = None  # how the files were that could not be taken
        self.context = _make(keys, server)

    def fresh(self) -> ssl.SSLContext:
        """Return the context, made again if the files have changed."""
        now = stamp(self.keys)
        if now not in (self.stamp, self.refused):
            try:
                self.context = _make(self.keys, self.server)
            except NineError as error:
                self.refused = now
                log().error("tls: the files of before go on to count: %s", error)
            else:
                self.stamp, self.refused = now, None
        return self.context


_made: Final[dict[tuple[Keys, bool], Made]] = {}
_MOST: Final = 256  # contexts that are kept: more keys than any process has, but a program may make names for ever


def context(keys: Keys, *, server: bool) -> ssl.SSLContext:
    """Return a context for these keys. Raises NineError if a file is missing, closed or wrong and there was no right one before."""
    made = _made.get((keys, server))
    if made is None:
        if len(_made) >= _MOST:
            _made.clear()
        made = _made[keys, server] = Made(keys, server)
    return made.fresh()


def fresh(keys: Keys) -> ssl.SSLContext:
    """Return a client's context of its own: what is set in it concerns no other connection. Raises as `context`."""
    return _make(keys, server=False)


def stamp(keys: Keys) -> Stamp:
    """Return what changes when the files change."""
    return tuple(stamp_of(path) for path in (keys.ca, keys.cert, keys.key, keys.revoked))


def stamp_of(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file changes, None if there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _make(keys: Keys, server: bool) -> ssl.SSLContext:
    if not keys.ca:
        raise NineError(errno.EINVAL, "no authority is believed: give --ca FILE, or $MK9P_CA")
    if server and not keys.cert:
        raise NineError(errno.EINVAL, "a listener wants a certificate: give --cert FILE and --key FILE")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    if server:
        made.num_tickets = 0  # nobody resumes, and a ticket would be the only data that comes unasked
    _take(keys.ca, "authorities", lambda: made.load_verify_locations(keys.ca))
    if keys.revoked:
        # only loading says whether it is a list: the flag alone would refuse everybody, or nobody
        _take(keys.revoked, "revoked certificates", lambda: made.load_verify_locations(keys.revoked))
        made.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    if keys.cert:
        _closed(keys.key or keys.cert)
        _take(
            keys.cert,
            "a certificate and its key",
            lambda: made.load_cert_chain(keys.cert, keys.key or None, password=_no_words),
        )
    return made


def _no_words() -> str:
    # without this OpenSSL asks the terminal
    raise NineError(errno.EINVAL, "the key wants a password, which nobody can type here: store it without")


def _closed(path: str) -> None:
    """Raise EACCES for a private key that everybody can read."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise NineError(error.errno or errno.EIO, f"{path}: {error.strerror}") from None
    if mode & _OTHERS:
        raise NineError(errno.EACCES, f"{path}: everybody can read or change this key: chmod 600 {path}")


def _take(path: str, what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except NineError:
        raise
    except ssl.SSLError as error:
        words = (
            "the key is another certificate's" if error.reason == "KEY_VALUES_MISMATCH" else f"no PEM file of {what}"
        )
        raise NineError(errno.EINVAL, f"{path}: {words}") from None
    except OSError as error:
        raise NineError(error.errno or errno.EIO, f"{error.filename or path}: {error.strerror or error}") from None
