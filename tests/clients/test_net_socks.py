"""`mk9p socks`: programs that know nothing of it, through the network of a kernel in a network namespace of its own."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from mk9p.testing import SOON
from tests.servers.netns import Wire, program, serving, wire

PAGE = "a page of the far side\n" * 1000
SERVER = """
import http.server, os, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (sys.argv[1] if self.path == "/page" else self.client_address[0]).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body[::-1])
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("10.77.0.2", 0), Page)
print(server.server_port, flush=True)
server.serve_forever()
"""


@attrs.frozen
class Proxy:
    """A running `mk9p socks`, and a web server that can be reached through it alone."""

    wired: Wire
    address: str
    port: int
    web: int

    def curl(self, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["curl", "-sS", "--max-time", "30", "--noproxy", "", "--socks5-hostname", f"127.0.0.1:{self.port}"]
        return subprocess.run([*command, *words], input=data, capture_output=True, check=False)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("served")
    with (
        wire() as wired,
        serving(wired, wired.near, folder) as address,
        program(wired.inside(wired.far, sys.executable, "-c", SERVER, PAGE)) as web,
        socks(address, "127.0.0.1:0", "/") as process,
    ):
        assert web.stdout is not None
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        assert said.startswith("mk9p: listening on 127.0.0.1:"), said
        yield Proxy(wired, address, int(said.rpartition(":")[2]), int(web.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


def socks(address: str, listen: str, kernel: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mk9p", "-a", address, "socks", "-l", listen, kernel]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
def test_curl_fetches_a_page_from_where_only_the_kernel_is(proxy: Proxy) -> None:
    direct = subprocess.run(
        ["curl", "-sS", "--connect-timeout", "1", f"http://10.77.0.2:{proxy.web}/page"],
        capture_output=True,
        check=False,
    )
    assert direct.returncode  # this machine has no way there
    done = proxy.curl(f"http://10.77.0.2:{proxy.web}/page")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, PAGE, b"")
    assert proxy.curl(f"http://10.77.0.2:{proxy.web}/who").stdout == b"10.77.0.1"  # the kernel's address there


@needs_curl
def test_names_are_the_kernels(proxy: Proxy) -> None:
    """`localhost` is the kernel's own: nobody listens there, though this machine's proxy does."""
    done = proxy.curl(f"http://localhost:{proxy.port}/")
    assert done.returncode == 97
    assert b"(5)" in done.stderr  # connection refused
    done = proxy.curl(f"http://localhost:{proxy.web}/", "--connect-to", f"localhost:{proxy.web}:10.77.0.2:{proxy.web}")
    assert done.stdout == b"10.77.0.1"


@needs_curl
def test_much_in_both_directions(proxy: Proxy) -> None:
    data = bytes(range(256)) * 8192
    done = proxy.curl("--data-binary", "@-", "-H", "Expect:", f"http://10.77.0.2:{proxy.web}/", data=data)
    assert (done.returncode, done.stdout == data[::-1]) == (0, True)


def ask(proxy: Proxy, *pieces: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", proxy.port), timeout=SOON)
    for piece in pieces:
        sock.sendall(piece)
    return sock


def connect(host: str, port: int) -> bytes:
    return b"\5\1\0\1" + socket.inet_aton(host) + port.to_bytes(2, "big")


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (connect("10.77.0.2", 9), 5),  # refused
        (connect("198.51.100.1", 9), 3),  # network unreachable
        (b"\5\1\0\3\x17256.256.256.256.invalid\0\x50", 4),  # no such host
        (b"\5\2\0\1\x0a\x4d\0\2\0\x50", 7),  # BIND
        (b"\5\3\0\1\x0a\x4d\0\2\0\x50", 7),  # UDP
        (b"\5\1\0\x09", 8),  # no such type of address
        (b"\5\1\0\3\x01!\0\x50", 4),  # a name that would be more than a name
    ],
)
def test_refusals(proxy: Proxy, request_: bytes, reply: int) -> None:
    with ask(proxy, b"\5\1\0", request_) as sock:
        assert sock.recv(2) == b"\5\0"
        assert sock.recv(100)[:2] == bytes([5, reply])
        assert sock.recv(1) == b""


def test_who_wants_to_log_in_is_refused(proxy: Proxy) -> None:
    for hello in (b"\5\1\2", b"\4\1"):
        with ask(proxy, hello) as sock:
            assert sock.recv(2) == b"\5\xff"


def test_each_direction_ends_by_itself(proxy: Proxy) -> None:
    with ask(proxy, b"\5\1\0", connect("10.77.0.2", proxy.web)) as sock:
        assert sock.recv(2) == b"\5\0"
        assert sock.recv(100)[:2] == b"\5\0"
        sock.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        content = b""
        while piece := sock.recv(65536):
            content += piece
        assert content.endswith(PAGE.encode())


@pytest.mark.parametrize(
    ("listen", "kernel", "status", "words"),
    [
        ("0.0.0.0:0", "/", 1, "only on loopback"),
        ("127.0.0.1:0", "no-such-kernel", 1, "this tree is of no kernel"),
        ("127.0.0.1:PORT", "/", 1, "Address already in use: -l 127.0.0.1:0 takes a free one"),
        ("127.0.0.1", "/", 2, "want HOST:PORT"),
    ],
)
def test_what_it_refuses_to_be(proxy: Proxy, listen: str, kernel: str, status: int, words: str) -> None:
    with socks(proxy.address, listen.replace("PORT", str(proxy.port)), kernel) as process:
        said = process.communicate(timeout=SOON)[1].decode()
    assert (process.returncode, words in said) == (status, True), said
    assert len(said.splitlines()) <= 2


def test_it_ends_when_the_namespace_is_gone(proxy: Proxy, tmp_path: Path) -> None:
    with serving(proxy.wired, proxy.wired.near, tmp_path) as address:
        process = socks(address, "127.0.0.1:0", "/")
        assert process.stderr is not None
        assert b"listening" in process.stderr.readline()
    with process:
        said = process.communicate(timeout=SOON)[1].decode()
    assert process.returncode == 1
    assert said.startswith("mk9p socks: the namespace is gone")
    assert len(said.splitlines()) == 1
