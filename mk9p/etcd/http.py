"""What is said to etcd over HTTP, by httpx. This module alone needs it; it is imported when somebody names a store of etcd."""

import ssl
from collections.abc import AsyncIterator

import httpx

BROKEN = (httpx.TransportError, httpx.StreamError)
"""What ends a line: none of these says whether a request was done."""


class Body(httpx.AsyncByteStream):
    """The body of a request, in one piece, as often as it is sent. httpx's own is a generator, which stays open if sending fails, and trio complains
    of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self.data)


class _Once:
    def __init__(self, data: bytes) -> None:
        self.left: bytes | None = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data, self.left = self.left, None
        if data is None:
            raise StopAsyncIteration
        return data


def request(url: str, data: bytes, headers: dict[str, str]) -> httpx.Request:
    """Return a POST."""
    said = {"Host": httpx.URL(url).netloc.decode("ascii"), "Content-Length": str(len(data)), **headers}
    return httpx.Request("POST", url, headers=said, stream=Body(data))


def session(context: ssl.SSLContext | None) -> httpx.AsyncClient:
    """Return a client. Its own time-outs are off: trio ends what takes too long, as a whole. The environment names no proxy for it."""
    return httpx.AsyncClient(verify=False if context is None else context, timeout=None, trust_env=False)
