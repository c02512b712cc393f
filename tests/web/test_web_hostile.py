"""Who reaches the page's port, and has no token, keeps nobody from ending it; who has it is answered whatever they send."""

import socket

from mk9p.clients.web import serving
from mk9p.clients.web.app import App
from mk9p.clients.web.feed import Feed
from mk9p.clients.web.gate import MARK, Gate


def test_a_connection_whose_browser_takes_nothing_ends_by_itself() -> None:
    """hypercorn shields what it sends: without this, whoever does not read keeps the page from ending, for ever."""
    with serving.bound("127.0.0.1:0") as sock, socket.create_connection(sock.getsockname()[:2]):
        taken, _ = sock.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == serving.STUCK > 0


async def test_a_change_that_is_nested_deeply_is_a_bad_one() -> None:
    gate = Gate(9564)
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"[" * 60_000}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [
        (b"host", b"127.0.0.1:9564"),
        (b"origin", b"http://127.0.0.1:9564"),
        (b"cookie", f"{gate.cookie}={gate.token}".encode()),
        (MARK, gate.mark.encode()),
        (b"content-type", b"application/json"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/say", "query_string": b"", "headers": headers}
    await App(gate, Feed(), write=True)(scope, receive, send)
    assert sent[0]["status"] == 400
