"""`Client`: calls to etcd, each answered by any member that can.

Theory
* One member is asked as long as it answers. One that refuses, hangs, or has lost the others is left for the next; the mirrors (mirror.py) move too.
* A call is said again to the next member although the first may have done it. So a transaction that changes something compares what it has seen, and
  knows its own work by what it wrote.
* When nobody has answered for `PATIENCE`, the call fails with EAGAIN, `no quorum`. Nobody knows then whether it was done, or will be: session.py
  says how that is settled.
"""

import errno
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import trio

from mk9p.errors import NineError
from mk9p.etcd.address import Where
from mk9p.etcd.records import Json, Outcome, Record, coded, end_of, parts, record, revision
from mk9p.said import from_json

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("mk9p.etcd")

INSTALL: Final = "a store of etcd needs httpx: pip install 'mk9p[etcd]'"
ATTEMPT: Final = 2.0
"""Seconds for one member: one that was stopped costs a call so long, once."""
PATIENCE: Final = 6.0
"""Seconds for a call: an election takes one or two, and each of three members may be asked."""
PAUSE: Final = 0.1  # seconds between two members that refuse
PAGE: Final = 1000  # records of one answer
LINE: Final = 16 << 20
"""Bytes of an answer, and of one message of a stream: etcd's transactions have 1.5 MiB, so this is more than it says at once."""
RECORDS: Final = 1 << 18  # below a prefix
_WORDS: Final = 400  # letters of an error
# gRPC's codes, which the gateway tells in its errors
_PASSING: Final = frozenset({1, 4, 10, 14})  # cancelled, deadline, aborted, unavailable: another member may know better
_ERRNO: Final = {
    3: errno.EINVAL,
    5: errno.ENOENT,
    7: errno.EACCES,
    8: errno.ENOSPC,
    9: errno.EINVAL,
    11: errno.ERANGE,
    12: errno.EOPNOTSUPP,
}
_DENIED: Final = 7
_UNKNOWN: Final = 16
# what etcd tells with a code that others have too
_OLD_TOKEN: Final = ("invalid auth token", "revision of auth store is old")
_NO_USER: Final = ("authentication failed", "user name is empty", "user name not found")
_REQUIRES_LEADER: Final = {"Grpc-Metadata-Hasleader": "true"}


class Passing(Exception):
    """This member does not answer now."""


class Stale(Exception):
    """The token of our user says nothing any more."""


def no_quorum(why: str) -> NineError:
    """Return the error for a store that nobody answers for."""
    return NineError(errno.EAGAIN, f"no quorum: {why}")


@attrs.define(eq=False)
class Client:
    """Speaks to the members of one etcd."""

    where: Where
    _http: "httpx.AsyncClient" = attrs.field(repr=False)
    moved: list[Callable[[], None]] = attrs.field(factory=list)
    """Each is told that another member is asked from now on."""
    patience: float = PATIENCE
    """Seconds for a call, if it says no others."""
    answered: bool = attrs.field(default=False, init=False)
    """Whether a member has ever answered, whatever it said."""
    _at: int = attrs.field(default=0, init=False)
    _token: str = attrs.field(default="", init=False)
    _entering: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    @property
    def member(self) -> str:
        """The address of the member that is asked now."""
        return self.where.urls[self._at]

    def leave(self, member: str) -> None:
        """Ask another member from now on, if this one is asked now."""
        if member == self.member:
            self._at = (self._at + 1) % len(self.where.members)
            for tell in self.moved:
                tell()

    async def call(self, path: str, body: Json, patience: float | None = None, attempt: float = ATTEMPT) -> Json:
        """Ask; return the answer. Raises EAGAIN if nobody answers, and what etcd refuses. If cancelled, it may have been done."""
        why = "no member answers"
        with trio.move_on_after(self.patience if patience is None else patience):
            while True:
                member = self.member
                try:
                    with trio.fail_after(attempt):
                        return await self._ask(member, path, body)
                except trio.TooSlowError:
                    why = f"{member} does not answer"
                except Passing as passing:
                    why = f"{member}: {passing}"
                    await trio.sleep(PAUSE)
                self.leave(member)
        raise no_quorum(why)

    async def _ask(self, member: str, path: str, body: Json) -> Json:
        if self.where.user and not self._token:
            await self._enter(member)
        token = self._token
        try:
            return await self._post(member, path, body, token)
        except Stale as stale:
            if not token:
                raise NineError(errno.EACCES, f"etcd: {stale}") from None
        if self._token == token:  # it has ended, as tokens do
            self._token = ""
        await self._enter(member)
        try:
            return await self._post(member, path, body, self._token)
        except Stale as stale:
            raise Passing(str(stale)) from None

    async def _enter(self, member: str) -> None:
        async with self._entering:
            if not self._token:
                body = {"name": self.where.user, "password": self.where.secret()}
                answer = await self._post(member, "/v3/auth/authenticate", body, "")
                token = answer.get("token")
                if not isinstance(token, str) or not token.isascii() or not token.isprintable():
                    raise NineError(errno.EPROTO, "etcd gives no token")
                self._token = token

    async def _post(self, member: str, path: str, body: Json, token: str) -> Json:
        from mk9p.etcd.http import BROKEN, request

        headers = {"Authorization": token} if token else {}
        try:
            asked = request(member + path, json.dumps(body).encode(), headers)
            response = await self._http.send(asked, stream=True)
            async with aclosing(response):
                status, said = response.status_code, await _whole(response)
        except BROKEN as error:
            raise _broken(error) from None
        self.answered = True
        return _answer(status, said)

    async def stream(self, path: str, body: Json, take: Callable[[Json], bool]) -> None:
        """Ask the member that is asked now for a stream of answers, and give each to `take`, until that says False. Raises Passing when it ends."""
        from mk9p.etcd.http import BROKEN, request

        if self.where.user and not self._token:
            await self._enter(self.member)
        headers = _REQUIRES_LEADER | ({"Authorization": self._token} if self._token else {})
        failed: Exception | None = None
        # It is left by cancelling what it waits for, and not from outside: httpx would leave the generators open that it reads by.
        with trio.CancelScope() as over:
            try:
                asked = request(self.member + path, json.dumps(body).encode(), headers)
                response = await self._http.send(asked, stream=True)
                async with aclosing(response):
                    if response.status_code != 200:
                        _answer(response.status_code, await _whole(response))
                    lines = _Lines()
                    async for data in response.aiter_raw():
                        if over.cancel_called:
                            continue
                        try:
                            if not all(take(_result(_json(line))) for line in lines.more(data)):
                                over.cancel()
                        except Exception as error:
                            failed = error
                            over.cancel()
                    if not over.cancel_called:
                        raise Passing("the stream has ended")
            except BROKEN as error:
                raise _broken(error) from None
            except Stale as stale:
                self._token = ""
                raise Passing(str(stale)) from None
        if failed is not None:
            raise failed

    # what is asked for most

    async def txn(self, compare: list[Json], success: list[Json], failure: list[Json]) -> Outcome:
        """Do all of `success` if all of `compare` holds, else all of `failure`. Raises as `call`."""
        body = {"compare": compare, "success": success, "failure": failure}
        outcome = Outcome.read(await self.call("/v3/kv/txn", body))
        if len(outcome.found) != len(success if outcome.done else failure):
            raise NineError(errno.EPROTO, f"etcd answers {len(outcome.found)} of what it was asked")
        return outcome

    async def below(self, prefix: str) -> tuple[list[Record], int]:
        """Return all records below a prefix, as they were in one revision, and that revision. Raises as `call`."""
        found: list[Record] = []
        body: Json = {"key": coded(prefix), "range_end": end_of(prefix), "limit": str(PAGE)}
        while True:
            try:
                answer = await self.call("/v3/kv/range", body)
            except NineError as error:
                if error.errno != errno.EMSGSIZE or (page := int(body["limit"])) == 1:
                    raise
                body["limit"] = str(max(page // 10, 1))
                continue
            some = [record(kv) for kv in parts(answer, "kvs")]
            for before, one in zip((found[-1] if found else None, *some), some, strict=False):
                if not one.key.startswith(prefix) or (before is not None and _bytes(one.key) <= _bytes(before.key)):
                    raise NineError(errno.EPROTO, f"etcd says what it was not asked: {one.key!r:.80}")
            found += some
            if len(found) > RECORDS:
                raise NineError(errno.EMSGSIZE, f"etcd has more than {RECORDS} records below {prefix}")
            body.setdefault("revision", str(revision(answer)))
            if answer.get("more") is not True or not some:
                return found, int(body["revision"])
            body["key"] = coded(_bytes(found[-1].key) + b"\0")


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


async def _whole(response: "httpx.Response") -> bytearray:
    """Return the body of an answer as it came: who packs it says what is no JSON. Raises EMSGSIZE for one that is too long."""
    found = bytearray()
    with trio.CancelScope() as over:  # left by cancelling, as in `stream`
        async for data in response.aiter_raw():
            if len(found) <= LINE:
                found += data
            if len(found) > LINE:
                over.cancel()
    if over.cancel_called:
        raise NineError(errno.EMSGSIZE, f"etcd says more than {LINE} bytes at once")
    return found


@attrs.define
class _Lines:
    """The lines of what comes in pieces."""

    held: bytearray = attrs.field(factory=bytearray)

    def more(self, data: bytes) -> Iterator[bytes]:
        self.held += data
        while (at := self.held.find(b"\n")) >= 0:
            line = bytes(self.held[:at])
            del self.held[: at + 1]
            yield line
        if len(self.held) > LINE:
            raise NineError(errno.EMSGSIZE, f"etcd says more than {LINE} bytes at once")


def _json(data: bytes | bytearray) -> Json:
    try:
        value = from_json(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise NineError(errno.EPROTO, f"etcd says {bytes(data[:80])!r}")
    return value


def _answer(status: int, data: bytearray) -> Json:
    if status == 200:
        return _json(data)
    try:
        said = _json(data)
    except NineError:
        raise Passing(f"HTTP {status}") from None
    raise _error(said)


def _error(said: Json) -> Exception:
    code, words = said.get("code", said.get("grpc_code")), str(said.get("message") or said.get("error"))[:_WORDS]
    if not isinstance(code, int) or code in _PASSING:
        return Passing(words)
    if code == _UNKNOWN or any(old in words for old in _OLD_TOKEN):
        return Stale(words)
    if any(user in words for user in _NO_USER):
        code = _DENIED
    return NineError(_ERRNO.get(code, errno.EIO), f"etcd: {words}")


def _result(line: Json) -> Json:
    """Return what one line of a stream says."""
    if isinstance(error := line.get("error"), dict):
        raise _error(error)
    result = line.get("result")
    if not isinstance(result, dict):
        raise NineError(errno.EPROTO, f"etcd says {line!r:.80}")
    return result


def _broken(error: Exception) -> Exception:
    """Return what a line that fails means: a certificate that is none for us is nothing that passes."""
    cause: BaseException | None = error
    words = f"{error}" or type(error).__name__
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NineError(errno.EACCES, f"the certificate of etcd is not believed: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError) and "_ALERT_" in (cause.reason or ""):
            return NineError(errno.EACCES, f"etcd does not believe our certificate: {cause.reason}")
        if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
            words = os.strerror(cause.errno)  # the kernel says why, and trio only that all attempts have failed
        several = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
        cause = several[0] if several else cause.__cause__ or cause.__context__
    return Passing(words)


@asynccontextmanager
async def opened(where: Where) -> AsyncIterator[Client]:
    """Have a client as long as the block runs. Raises ENOENT, EINVAL, EACCES for its certificates and its password; nothing is dialled yet."""
    try:
        from mk9p.etcd.http import session
    except ImportError:
        raise NineError(errno.ENOSYS, INSTALL) from None
    async with session(where.context()) as http:
        yield Client(where, http)
