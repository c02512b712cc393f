"""Hold conversations of `net` through a client, and see that nothing stays of them."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import attrs
import trio

from mk9p.client import Client, File
from mk9p.servers.net import tree
from mk9p.testing import SOON, mounted
from tests.leftovers import descriptors as open_now
from tests.server.left_open import nothing_more

PAGE = b"<p>a page that is longer than one read of a shell</p>\n" * 2000


@asynccontextmanager
async def served(*, uname: str = "root", version: str = "9P2000.L") -> AsyncIterator[Client]:
    """Serve this machine's network to a client; descriptors are afterwards as they were, whatever happened."""
    before = open_now()
    with trio.fail_after(3 * SOON):
        async with tree() as net, mounted(net, uname=uname, version=version) as ns:
            yield ns
    await nothing_more(before)


@attrs.define(eq=False)
class Call:
    """A conversation: its directory, its ctl and whatever else was opened."""

    ns: Client
    path: str
    ctl: File
    files: list[File] = attrs.field(factory=list)

    async def open(self, name: str, mode: str = "r+") -> File:
        file = await self.ns.open(f"{self.path}/{name}", mode)
        self.files.append(file)
        return file

    async def read(self, name: str) -> str:
        return await self.ns.read(f"{self.path}/{name}")

    async def state(self) -> str:
        return (await self.read("status")).split()[0]

    async def until(self, *states: str) -> str:
        """Return the state when it is one of these."""
        while (state := await self.state()) not in states:
            await trio.lowlevel.checkpoint()
        return state

    async def order(self, line: str) -> None:
        await self.ctl.pwrite(line.encode(), 0)

    async def port(self) -> int:
        return int((await self.read("local")).strip().rpartition("!")[2])

    async def listen(self) -> "Call":
        ctl = await self.ns.open(f"{self.path}/listen", "r+")
        return await call_of(self.ns, self.path.rpartition("/")[0], ctl)

    async def close(self) -> None:
        for file in [*self.files, self.ctl]:
            await file.aclose()


async def call_of(ns: Client, network: str, ctl: File) -> Call:
    return Call(ns, f"{network}/{(await ctl.pread(16, 0)).decode().strip()}", ctl)


@asynccontextmanager
async def call(ns: Client, network: str, *lines: str) -> AsyncIterator[Call]:
    made = await call_of(ns, network, await ns.open(f"{network}/clone", "r+"))
    try:
        for line in lines:
            await made.order(line)
        yield made
    finally:
        await made.close()


async def all_of(data: File) -> bytes:
    """Read a stream to its end: two empty reads in a row over 9P2000.L."""
    content, empty = b"", 0
    while empty < 2:
        piece = await data.pread(1 << 16, len(content))
        content += piece
        empty = 0 if piece else empty + 1
    return content


async def numbers(ns: Client, network: str) -> list[str]:
    return [entry.name for entry in await ns.listdir(network) if entry.name.isdecimal()]


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None: ...


class _Web(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def web(host: str = "127.0.0.1") -> Iterator[int]:
    """Serve PAGE in a thread, and give the port."""
    with _Web((host, 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def listening(backlog: int = 16) -> Iterator[tuple[socket.socket, int]]:
    """Give a listening socket and its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as sock:
        sock.settimeout(SOON)
        yield sock, sock.getsockname()[1]


@contextmanager
def full() -> Iterator[int]:
    """Give a port that does not answer: its queue of calls is full."""
    with listening(backlog=0) as (_, port):
        waiting = []
        try:
            for _ in range(8):
                sock = socket.socket()
                waiting.append(sock)
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
            yield port
        finally:
            for sock in waiting:
                sock.close()
