"""The page's server: hypercorn's trio worker in our nursery, on a socket of the loopback that we open ourselves."""

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Final

import trio

from mk9p.client import connect
from mk9p.clients.web.app import App
from mk9p.clients.web.feed import Feed
from mk9p.clients.web.gate import Gate
from mk9p.errors import NineError
from mk9p.itself import unique
from mk9p.serving import one_error
from mk9p.systemd import notify
from mk9p.usage import parsed

INSTALL: Final = "pip install 'mk9p[web]'"
STUCK: Final = (
    10_000  # ms that a browser may take nothing of what was sent to it: one that sleeps comes again by itself
)
_LEAVING: Final = 0.5  # seconds that answers have to end


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p web`."""
    chosen = parsed(arguments)
    one_error(lambda: serve(chosen.listen, write=chosen.write, kept=chosen.url))
    return 0


async def serve(address: str, *, write: bool, kept: str | None = None) -> None:
    """Serve the page until SIGINT or SIGTERM, and print its URL when it can be opened, or write it into the file `kept`. Tell systemd, too."""
    sock = bound(address)
    with sock, ExitStack() as stack:
        async with connect():  # tells now, in one line, if there is no namespace
            pass
        port = sock.getsockname()[1]
        gate = Gate(port)
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            await nursery.start(partial(run, App(gate, feed := Feed(), write), sock, stop))
            nursery.start_soon(feed.run)
            host = f"[{sock.getsockname()[0]}]" if sock.family == socket.AF_INET6 else sock.getsockname()[0]
            url = f"http://{host}:{port}/?token={gate.token}"
            can = "words can be written to ctl files" if write else "read-only; --write lets it write to ctl files"
            if kept is None:
                print(url, flush=True)
                where = "this URL"
            else:
                stack.enter_context(written(kept, url))
                where = f"the URL in {kept}"
            print(f"mk9p web: open {where} in a browser of this machine; {can}", file=sys.stderr, flush=True)
            notify("READY=1")
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    break
            stop.set()
            nursery.cancel_scope.cancel()


async def run(
    app: App, sock: socket.socket, stop: trio.Event, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve an application on a listening socket until `stop`."""
    try:
        from hypercorn.config import Config
        from hypercorn.trio import serve as hypercorn
    except ImportError as error:
        raise NineError(errno.ENOENT, f"the page needs hypercorn ({error}): {INSTALL}") from None
    config = Config()
    config.bind = [f"fd://{os.dup(sock.fileno())}"]
    config.loglevel = "WARNING"
    config.include_server_header = False
    config.graceful_timeout = config.shutdown_timeout = _LEAVING
    await hypercorn(app, config, shutdown_trigger=stop.wait, task_status=task_status, mode="asgi")  # type: ignore[arg-type]


@contextmanager
def written(path: str, url: str) -> Iterator[None]:
    """Keep a URL in a file of this user alone while the block runs. What is in the file of that name before is gone. Raises OSError as open(2)."""
    part = os.path.join(os.path.dirname(path), unique("url"))
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as file:
        print(url, file=file)
    os.rename(part, path)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def bound(address: str) -> socket.socket:
    """Return a socket that listens at HOST:PORT. Raises EPERM for a host that is not the loopback, and what bind(2) says."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if host not in ("127.0.0.1", "::1", "localhost"):
        words = "the page is for this machine alone; from another one: ssh -L 9564:127.0.0.1:9564 HOST"
        raise NineError(errno.EPERM, f"{address}: {words}")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise NineError(errno.EINVAL, f"{address}: want HOST:PORT")
    try:
        family = socket.AF_INET6 if host == "::1" else socket.AF_INET
        sock = socket.create_server(("127.0.0.1" if host == "localhost" else host, int(port)), family=family)
        # each connection has it too. hypercorn shields what it sends, so nothing else ends one whose browser does not read
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK)
        return sock
    except OSError as error:
        hint = ": -l 127.0.0.1:0 takes a free one" if error.errno == errno.EADDRINUSE else ""
        raise NineError(error.errno or errno.EIO, f"{address}: {os.strerror(error.errno or 0)}{hint}") from None
