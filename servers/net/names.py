"""cs and dns: a client writes a question and reads its answers (ndb(8)).

Each open file has a question of its own. An answer is a line, and a read gives one line, from the start of the file or from where the question
ended: a descriptor of Linux goes on there after its write.
"""

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from mk9p.errors import NineError
from mk9p.ktext import split_words, trim
from mk9p.servers.net import address
from mk9p.servers.net.files import Opened
from mk9p.tree import Buffer, Change, Handle, Maybe

_THREADS: Final = 16  # questions at the same time: a silent resolver keeps each for many seconds
_NETWORKS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FAMILIES: Final = {"ip": socket.AF_INET, "ipv6": socket.AF_INET6, "a": socket.AF_INET, "aaaa": socket.AF_INET6}
_ARPA: Final = (".in-addr.arpa", ".ip6.arpa")


class Question(Handle):
    """One open file: the answers to the last question, and where in the file they begin."""

    def __init__(self, ask: Callable[[str], Maybe[list[str]]]) -> None:
        self.ask = ask
        self.lines: list[bytes] = []
        self.end = self.base = 0

    async def write(self, offset: int, data: memoryview) -> int:
        self.lines, self.end, count = [], offset + len(data), len(data)
        try:
            question = trim(bytes(data).decode())
        except UnicodeDecodeError:
            raise NineError(errno.EINVAL, "text is not UTF-8") from None
        found = self.ask(question)
        lines = await found if isinstance(found, Awaitable) else found
        self.lines, self.base = [f"{line}\n".encode() for line in lines], self.end
        return count

    def read(self, offset: int, count: int) -> Buffer:
        if offset in (0, self.end):
            self.base = offset
        at = offset - self.base
        for line in self.lines:
            if 0 <= at < len(line):
                return line[at : at + count]
            at -= len(line)
        return b""

    def change(self, change: Change) -> Maybe[None] | None:
        return None if change.only_truncates else super().change(change)


def cs() -> Opened:
    """Return the connection server: `tcp!host!service` gives lines `/net/tcp/clone addr!port`, the file to open and the text to write to it."""
    threads = trio.CapacityLimiter(_THREADS)

    async def ask(question: str) -> list[str]:
        network, host, service = (*question.split("!"), "", "")[:3]
        if question.count("!") != 2 or not (host and service):
            raise NineError(errno.EINVAL, "usage: NETWORK!HOST!SERVICE")
        if network == "vsock":
            where = address.vsock(f"{host}!{service}").address
            return [f"/net/vsock/clone {service}" if host == "*" else f"/net/vsock/clone {where[0]}!{where[1]}"]
        names = [network] if network in _NETWORKS else [*_NETWORKS] if network == "net" else []
        if not names:
            raise NineError(errno.EINVAL, f"no network {network!r}: want tcp, udp, vsock or net")
        answers: list[str] = []
        for name in names:
            found = await _look(threads, None if host == "*" else host, service, type=_NETWORKS[name])
            for _, _, _, _, where in found:
                answers.append(f"/net/{name}/clone " + (f"{where[1]}" if host == "*" else trim(address.show(where))))
        return list(dict.fromkeys(answers))

    return Opened(lambda how: Question(ask))


def dns() -> Opened:
    """Return the resolver: `name type` gives lines `name type value`, for the types ip, ipv6, ptr, and any, which is ip and ipv6."""
    threads = trio.CapacityLimiter(_THREADS)

    async def ask(question: str) -> list[str]:
        words = split_words(question)
        kind = words[1].lower() if len(words) == 2 else ""
        if not kind:
            raise NineError(errno.EINVAL, "usage: NAME TYPE")
        if kind == "ptr":
            host, _ = await _in_thread(threads, socket.getnameinfo, (_of_arpa(words[0]), 0), socket.NI_NAMEREQD)
            return [f"{words[0]} ptr {host}"]
        family = _FAMILIES.get(kind, 0)
        if not family and kind != "any":
            raise NineError(errno.EOPNOTSUPP, f"no type {words[1]!r} here: want ip, ipv6, ptr or any")
        found = await _look(threads, words[0], None, family=family, type=socket.SOCK_STREAM)
        names = {socket.AF_INET: "ip", socket.AF_INET6: "ipv6"}
        return [f"{words[0]} {names[family]} {where[0]}" for family, _, _, _, where in found]

    return Opened(lambda how: Question(ask))


async def _look(threads: trio.CapacityLimiter, host: str | None, service: str | None, **how: int) -> list[Any]:
    name = host.encode() if host and host.isascii() else host  # bytes: str would import the slow idna codec
    found: list[Any] = await _in_thread(threads, socket.getaddrinfo, name, service, how.get("family", 0), how["type"])
    return found


async def _in_thread(threads: trio.CapacityLimiter, work: Callable[..., Any], *args: Any) -> Any:
    """Ask the C library, which follows /etc/nsswitch.conf, hosts and resolv.conf. Raises EHOSTUNREACH, EINVAL for a service, EAGAIN for no answer."""

    def run() -> Any:
        try:
            return work(*args)
        except socket.gaierror as error:
            return error  # an OSError without an errno
        except UnicodeError:
            return socket.gaierror(socket.EAI_NONAME, "no such name")

    result = await trio.to_thread.run_sync(run, limiter=threads, abandon_on_cancel=True)
    if not isinstance(result, socket.gaierror):
        return result
    if result.errno == socket.EAI_SERVICE:
        raise NineError(errno.EINVAL, "cs: no such service")
    if result.errno == socket.EAI_AGAIN:
        raise NineError(errno.EAGAIN, "dns: no answer")
    raise NineError(errno.EHOSTUNREACH, "dns: no such name")


def _of_arpa(name: str) -> str:
    """Return the address that a name of the reverse tree means; return other names unchanged."""
    plain = name.lower().rstrip(".")
    suffix = next((suffix for suffix in _ARPA if plain.endswith(suffix)), None)
    if suffix is None:
        return name
    digits = plain.removesuffix(suffix).split(".")[::-1]
    if suffix == _ARPA[0]:
        return ".".join(digits)
    whole = "".join(digits)
    return ":".join(whole[at : at + 4] for at in range(0, len(whole), 4))
