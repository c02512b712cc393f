"""Who may ask the page for anything. Pure: headers in, a decision out.

* The page listens on the loopback alone, and every user of this machine and every page in the browser can reach that. So it wants a token that only
  its own URL has. The first answer puts the token into a cookie that no script can read and no other site can send (SameSite=Strict), and sends the
  browser on to a URL without it.
* A name of somebody else's that leads to 127.0.0.1 (DNS rebinding) comes with its own name in Host: only the loopback's own names are answered.
* A change wants, besides the cookie, a header that only our script sets, with a secret that only our page has, and an Origin that is ours.
"""

from collections.abc import Iterable
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Final
from urllib.parse import parse_qs

import attrs

HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"; ".join(
            (
                b"default-src 'none'",
                b"script-src 'self'",
                b"style-src 'self'",
                b"img-src data:",
                b"connect-src 'self'",
                b"base-uri 'none'",
                b"form-action 'none'",
                b"frame-ancestors 'none'",
            )
        ),
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
CONSOLE: Final = tuple(
    # xterm.js makes its styles by script. Scripts stay ours alone, and what a console says never becomes one
    (name, value.replace(b"style-src 'self'", b"style-src 'self' 'unsafe-inline'"))
    for name, value in HEADERS
)
MARK: Final = b"x-mk9p"
_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


@attrs.frozen
class Denied(Exception):
    """The answer to a request that is not let in: its status, and one line."""

    status: int
    words: str


@attrs.frozen
class Asked:
    """A request as far as the gate looks at it."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]

    @classmethod
    def of(cls, method: str, path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> "Asked":
        """Read a request; a header that comes twice counts for nothing."""
        found: dict[bytes, bytes] = {}
        for name, value in headers:
            found[name.lower()] = b"" if name.lower() in found else value
        return cls(method, path, query.decode("latin-1"), found)

    def value(self, name: str) -> str:
        """Return a value of the query, "" if it is not there."""
        return parse_qs(self.query).get(name, [""])[0]


@attrs.frozen
class Gate:
    """The gate of one page, which listens on a port."""

    port: int
    token: str = attrs.field(factory=lambda: token_urlsafe(32), repr=False)
    mark: str = attrs.field(factory=lambda: token_urlsafe(32), repr=False)

    @property
    def cookie(self) -> str:
        """The name of its cookie: cookies belong to a host, and not to a port."""
        return f"mk9p-{self.port}"

    def check(self, asked: Asked) -> bool:
        """Let a request in, and tell whether it brought the token in its URL. Raises Denied."""
        hosts = {f"{name}:{self.port}".encode() for name in _NAMES}
        host = asked.headers.get(b"host", b"")
        if host not in hosts:
            raise Denied(421, "this page is not served under that name")
        told = asked.value("token") if asked.path == "/" else ""
        if told and _same(told, self.token):
            return True
        if not any(_same(value, self.token) for value in self._cookies(asked)):
            raise Denied(403, "the URL that `mk9p web` printed has the token")
        if asked.method not in ("GET", "HEAD"):
            self._check_change(asked, host)
        return False

    def _check_change(self, asked: Asked, host: bytes) -> None:
        if asked.headers.get(b"origin") != b"http://" + host:
            raise Denied(403, "a change comes from this page alone")
        if not _same(asked.headers.get(MARK, b"").decode("latin-1"), self.mark):
            raise Denied(403, "a change comes from this page alone: load it again")
        if asked.headers.get(b"content-type", b"").partition(b";")[0] != b"application/json":
            raise Denied(415, "a change is JSON")

    def _cookies(self, asked: Asked) -> list[str]:
        pairs = asked.headers.get(b"cookie", b"").decode("latin-1").split(";")
        named = [pair.strip().partition("=") for pair in pairs]
        return [value for name, _, value in named if name == self.cookie]

    def set_cookie(self) -> tuple[bytes, bytes]:
        """Return the header that gives the browser the cookie."""
        return b"set-cookie", f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/".encode()


def _same(one: str, other: str) -> bool:
    return compare_digest(one.encode(), other.encode())
