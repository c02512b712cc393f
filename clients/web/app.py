"""What a browser asks and what it gets: an ASGI application, for any number of tabs of one person."""

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from html import escape
from importlib.resources import files as resources
from typing import Any, Final

import attrs
import trio

from mk9p.clients.web.consoles import said, type_
from mk9p.clients.web.feed import Feed
from mk9p.clients.web.files import say, shown
from mk9p.clients.web.gate import CONSOLE, HEADERS, Asked, Denied, Gate
from mk9p.said import from_json

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

STREAMS: Final = 32  # tabs that watch at once
BODY: Final = 1 << 16  # bytes of what is POSTed
PULSE: Final = 15.0  # seconds: a comment tells the browser that the stream lives, and us that the browser does
STATIC: Final = {
    "/": ("index.html", b"text/html; charset=utf-8"),
    "/app.js": ("app.js", b"text/javascript; charset=utf-8"),
    "/draw.js": ("draw.js", b"text/javascript; charset=utf-8"),
    "/style.css": ("style.css", b"text/css; charset=utf-8"),
    "/console.js": ("console.js", b"text/javascript; charset=utf-8"),
    "/console": ("console.html", b"text/html; charset=utf-8"),
    # only there if somebody has built them in (.ci/terminal): without them a console is plain text
    "/xterm.js": ("xterm.js", b"text/javascript; charset=utf-8"),
    "/xterm.css": ("xterm.css", b"text/css; charset=utf-8"),
}


@attrs.define(eq=False)
class App:
    """The application of one page. `write`: words may be written to ctl files."""

    gate: Gate
    feed: Feed
    write: bool = False
    streams: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            asked = Asked.of(scope["method"], scope["path"], scope["query_string"], scope["headers"])
            try:
                if self.gate.check(asked):
                    await _answer(send, 303, b"", ((b"location", b"/"), self.gate.set_cookie()))
                    return
                await self._asked(asked, receive, send)
            except Denied as denied:
                await _answer(send, denied.status, denied.words.encode() + b"\n", _TEXT)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _asked(self, asked: Asked, receive: Receive, send: Send) -> None:
        match asked.method, asked.path:
            case "GET" | "HEAD", path if path in STATIC:
                await self._static(asked, send)
            case "GET", "/events":
                await self._events(receive, send)
            case "GET", "/file":
                await self._file(asked, send)
            case "POST", "/say":
                await self._say(receive, send)
            case "GET", "/console/stream":
                await self._console(asked.value("kernel"), receive, send)
            case "POST", "/type":
                await self._type(receive, send)
            case _:
                raise Denied(404, "there is nothing here")

    async def _static(self, asked: Asked, send: Send) -> None:
        name, kind = STATIC[asked.path]
        try:
            body = resources("mk9p.clients.web").joinpath("static", name).read_bytes()
        except FileNotFoundError:
            raise Denied(404, f"{name} was not built in: make terminal") from None
        if name.endswith(".html"):
            told = {"MARK": self.gate.mark, "WRITE": "yes" if self.write else "no"}
            told["KERNEL"] = escape(asked.value("kernel"), quote=True)
            for key, value in told.items():
                body = body.replace(b"{%s}" % key.encode(), value.encode())
        headers = CONSOLE if asked.path == "/console" else HEADERS
        await _answer(send, 200, body, ((b"content-type", kind),), usual=headers)

    async def _console(self, kernel: str, receive: Receive, send: Send) -> None:
        """Send what a console says, until it ends or the browser goes away."""
        with self._stream():
            async with self.feed.using() as client, trio.open_nursery() as nursery:
                nursery.start_soon(_gone, receive, nursery.cancel_scope)
                await _start(send, 200, ((b"content-type", b"text/event-stream"),))
                words = "it has ended"
                try:
                    async with aclosing(said(client, kernel)) as pieces:
                        async for data in pieces:
                            await _event(send, "data", b64encode(data).decode())
                except OSError as error:
                    words = str(error)
                await _event(send, "end", json.dumps(words))
                await send({"type": "http.response.body", "body": b""})
                nursery.cancel_scope.cancel()

    async def _type(self, receive: Receive, send: Send) -> None:
        kernel, text = await self._change(receive, "kernel", "text")
        try:
            async with self.feed.using() as client:
                await type_(client, kernel, text)
        except OSError as error:
            raise Denied(409, str(error)) from None
        await _json(send, 200, {"done": True})

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """Count a tab that watches. Raises Denied if there are too many."""
        if self.streams >= STREAMS:
            raise Denied(503, f"{STREAMS} tabs watch already")
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    async def _change(self, receive: Receive, *names: str) -> tuple[str, ...]:
        """Return the words of a change. Raises Denied if the page may change nothing, or they are not there."""
        if not self.write:
            raise Denied(403, "this page is read-only: start it with `mk9p web --write`")
        try:
            told = from_json(await _body(receive))
            values = tuple(told[name] for name in names)
        except (ValueError, TypeError, KeyError):
            values = (None,)
        if not all(isinstance(value, str) for value in values):
            raise Denied(400, f"want {' and '.join(names)}")
        return values

    async def _file(self, asked: Asked, send: Send) -> None:
        try:
            async with self.feed.using() as client:
                told = await shown(client, asked.value("path"))
        except OSError as error:
            await _json(send, 404, {"error": str(error)})
        else:
            await _json(send, 200, told)

    async def _say(self, receive: Receive, send: Send) -> None:
        path, words = await self._change(receive, "path", "words")
        try:
            async with self.feed.using() as client:
                await say(client, path, words)
        except OSError as error:
            await _json(send, 409, {"error": str(error)})
        else:
            await _json(send, 200, {"done": True})

    async def _events(self, receive: Receive, send: Send) -> None:
        """Send what comes, until the browser goes away (server-sent events)."""
        with self._stream():
            async with self.feed.watching() as watcher, trio.open_nursery() as nursery:
                nursery.start_soon(_gone, receive, nursery.cancel_scope)
                await _start(send, 200, ((b"content-type", b"text/event-stream"),))
                while True:
                    messages: list[tuple[str, str]] = []
                    with trio.move_on_after(PULSE):
                        messages = await watcher.get()
                    if watcher.behind:  # it begins anew, with everything
                        break
                    text = "".join(f"event: {kind}\ndata: {data}\n\n" for kind, data in messages) or ": alive\n\n"
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                await send({"type": "http.response.body", "body": b""})
                nursery.cancel_scope.cancel()


_TEXT: Final = ((b"content-type", b"text/plain; charset=utf-8"),)


async def _gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel a scope when the browser goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _event(send: Send, kind: str, data: str) -> None:
    await send({"type": "http.response.body", "body": f"event: {kind}\ndata: {data}\n\n".encode(), "more_body": True})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Denied(400, "it was not sent as a whole")
        body += bytes(message.get("body", b""))
        if len(body) > BODY:
            raise Denied(413, f"more than {BODY} bytes")
        if not message.get("more_body"):
            return body


async def _json(send: Send, status: int, value: Any) -> None:
    await _answer(send, status, json.dumps(value).encode(), ((b"content-type", b"application/json"),))


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    usual: Iterable[tuple[bytes, bytes]] = HEADERS,
) -> None:
    await _start(send, status, (*headers, (b"content-length", str(len(body)).encode())), usual=usual)
    await send({"type": "http.response.body", "body": body})


async def _start(
    send: Send,
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    usual: Iterable[tuple[bytes, bytes]] = HEADERS,
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*usual, *headers]})
