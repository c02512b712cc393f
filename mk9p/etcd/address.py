"""`etcd!HOST:PORT[,HOST:PORT…][?OPTION=VALUE[&…]]`: which members, and how they are spoken to.

name      what this machine's composer is called by the others; else the host's name
prefix    what all keys begin with; else /mk9p/
ca        a file with the certificates that the members' must come from: this makes it TLS
cert, key files with our own certificate and its key, where the members want one
user      as whom, and `password`: a file with the password, which nobody else may read
ttl       seconds after which the others take this composer for gone, if it says nothing; else 5
"""

import errno
import os
import re
import ssl
from pathlib import Path
from typing import Final

import attrs

from mk9p import state
from mk9p.errors import NineError
from mk9p.ktext import trim

SCHEME: Final = "etcd!"
USAGE: Final = "usage: etcd!HOST:PORT[,HOST:PORT...][?name=N][&ca=FILE][&cert=FILE&key=FILE][&user=U&password=FILE][&prefix=/P/][&ttl=S]"
TTL: Final = 5
SHORTEST: Final = 2  # seconds: etcd's own least is one and a half of its election time-outs, 2 s by default
LONGEST: Final = 60
_MEMBER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}")
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}")
_PREFIX: Final = re.compile(r"/([A-Za-z0-9_.-]+/)*")
_PASSWORD: Final = 1024  # bytes
_OPTIONS: Final = frozenset({"name", "prefix", "ca", "cert", "key", "user", "password", "ttl"})


@attrs.frozen
class Where:
    """A store of etcd, as somebody named it."""

    members: tuple[str, ...]
    name: str
    prefix: str = "/mk9p/"
    ca: str = ""
    cert: str = ""
    key: str = ""
    user: str = ""
    password: str = ""
    ttl: int = TTL

    @property
    def urls(self) -> list[str]:
        """The members' addresses."""
        return [f"{'https' if self.ca else 'http'}://{member}" for member in self.members]

    def secret(self) -> str:
        """Return the password. Raises EACCES if others can read it, ENOENT."""
        return trim(state.read(Path(self.password), _PASSWORD).decode(errors="surrogateescape"))

    def context(self) -> ssl.SSLContext | None:
        """Return how TLS is spoken; None for none. Raises EINVAL for files that are no certificates."""
        if not self.ca:
            return None
        try:
            made = ssl.create_default_context(cafile=self.ca)
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert:
                made.load_cert_chain(self.cert, self.key)
        except FileNotFoundError as error:
            raise NineError(errno.ENOENT, f"{error.filename or self.ca}: no such certificate") from None
        except ssl.SSLError as error:
            raise NineError(errno.EINVAL, f"{self.ca} {self.cert} {self.key}: {error.reason or error}") from None
        return made


def is_name(text: str) -> bool:
    """Tell whether a composer can be called so."""
    return _NAME.fullmatch(text) is not None


def is_etcd(text: str) -> bool:
    """Tell whether a store is named that etcd has."""
    return text.startswith(SCHEME)


def parse(text: str) -> Where:
    """Read the name of a store. Raises EINVAL."""
    members, _, rest = text.removeprefix(SCHEME).partition("?")
    given: dict[str, str] = {}
    for option in rest.split("&") if rest else []:
        key, equals, value = option.partition("=")
        if key not in _OPTIONS or not equals or not value or key in given:
            raise NineError(errno.EINVAL, f"{option!r}: {USAGE}")
        given[key] = value
    all_members = tuple(members.split(","))
    for member in all_members:
        if not _MEMBER.fullmatch(member) or not 0 < int(member.rpartition(":")[2]) < 1 << 16:
            raise NineError(errno.EINVAL, f"{member!r} is no HOST:PORT: {USAGE}")
    name, prefix, ttl = (
        given.get("name", os.uname().nodename),
        given.get("prefix", "/mk9p/"),
        given.get("ttl", f"{TTL}"),
    )
    if not _NAME.fullmatch(name):
        raise NineError(errno.EINVAL, f"{name!r} is no name for a composer: letters, digits, . _ -, at most 63")
    if not _PREFIX.fullmatch(prefix) or len(prefix) > 255:
        raise NineError(errno.EINVAL, f"{prefix!r} is no prefix: /NAME/, letters, digits, . _ -")
    if not ttl.isascii() or not ttl.isdecimal() or not SHORTEST <= int(ttl) <= LONGEST:
        raise NineError(errno.EINVAL, f"ttl is {SHORTEST} to {LONGEST} seconds")
    if ("cert" in given) != ("key" in given) or ("cert" in given and "ca" not in given):
        raise NineError(errno.EINVAL, f"cert, key and ca belong together: {USAGE}")
    if ("user" in given) != ("password" in given):
        raise NineError(errno.EINVAL, f"user and password belong together: {USAGE}")
    words = {key: given[key] for key in ("ca", "cert", "key", "user", "password") if key in given}
    return Where(all_members, name, prefix, ttl=int(ttl), **words)
