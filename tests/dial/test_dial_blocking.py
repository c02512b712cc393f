"""Dialling without trio: to the same listeners, with the same errors."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from mk9p.dial import FdLink, SocketLink, blocking
from mk9p.dial import dial as dial_with_trio
from mk9p.errors import NineError


def dial(address: str, seconds: float = 10) -> FdLink | SocketLink:
    return blocking.dial(address, time.monotonic() + seconds)


@contextmanager
def echoing(listener: socket.socket) -> Iterator[None]:
    """Send back what one connection brings first."""

    def run() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(sock.recv(100))

    thread = threading.Thread(target=run)
    thread.start()
    with listener:
        yield
        thread.join()


def talk(address: str) -> None:
    link = dial(address)
    try:
        assert link.send(b"hello") == 5
        buffer = bytearray(10)
        deadline = time.monotonic() + 10
        while True:
            try:
                count = link.recv_into(memoryview(buffer))
                break
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.001)
        assert buffer[:count] == b"hello"
    finally:
        link.close()


def test_unix(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/s")
    listener.listen()
    with echoing(listener):
        talk(f"unix!{tmp_path}/s")


def test_a_socket_in_a_devices_place_is_lossy(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/s")
    listener.listen()
    with listener:
        link = dial(f"char!{tmp_path}/s")
        assert link.lossy
        link.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "*"])
def test_tcp(host: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with echoing(listener):
        talk(f"tcp!{host}!{listener.getsockname()[1]}")


def test_exec() -> None:
    talk("exec!cat")


def test_an_address_that_swallows_packets_hides_no_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from mk9p.dial import tcp

    with socket.socket() as full:  # its queue is full: the kernel drops what comes
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.2", port))
        listener = socket.create_server(("127.0.0.1", port))
        found = [(socket.AF_INET, ("127.0.0.2", port)), (socket.AF_INET, ("127.0.0.1", port))]
        monkeypatch.setattr(tcp, "_look", lambda host, port, flags: found if not flags else [])
        with echoing(listener):
            talk(f"tcp!both!{port}")
        began = time.monotonic()
        monkeypatch.setattr(tcp, "_look", lambda host, port, flags: found[:1])
        with pytest.raises(blocking.Late):
            dial(f"tcp!silent!{port}", 0.2)
        assert time.monotonic() - began >= 0.2
        for each in waiting:
            each.close()


def test_a_refusal_hides_no_good_address_and_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from mk9p.dial import tcp

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    found = [(socket.AF_INET, ("127.0.0.3", port)), (socket.AF_INET, ("127.0.0.1", port))]
    monkeypatch.setattr(tcp, "_look", lambda host, port, flags: found if not flags else [])
    monkeypatch.setattr(blocking, "STAGGER", 1000)
    with echoing(listener):
        talk(f"tcp!both!{port}")


def test_a_name_that_is_never_found_takes_no_longer_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    from mk9p.dial import tcp

    over = threading.Event()
    monkeypatch.setattr(tcp, "_look", lambda host, port, flags: over.wait() and [] if not flags else [])
    with pytest.raises(blocking.Late):
        dial("tcp!nowhere!564", 0.05)
    over.set()


WRONG = [
    "unix!/nonexistent/s",
    "unix!@",
    "unix!" + "x" * 200,
    "tcp!127.0.0.1!1",
    "tcp!127.0.0.1!0",
    "tcp!127.0.0.1!70000",
    "tcp!no such host!564",
    "char!/dev/null",
    "char!/nonexistent",
    "char!/",
    "exec!",
    "exec!'",
    "exec!/nonexistent/command",
    "fd!900!901",
    "fd!x!y",
    "vsock!x!1",
    "nothing",
    "/nonexistent/netns/tcp!127.0.0.1!564",
]


@pytest.mark.parametrize("address", WRONG)
def test_what_cannot_be_dialled_fails_as_with_trio(address: str) -> None:
    async def other() -> tuple[int, str]:
        with pytest.raises(NineError) as caught:
            await dial_with_trio(address)
        return caught.value.errno, str(caught.value)

    with pytest.raises(NineError) as caught:
        dial(address)
    assert (caught.value.errno, str(caught.value)) == trio.run(other)


def test_a_socket_that_nobody_listens_on_any_more_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/s")
    with pytest.raises(ConnectionRefusedError, match="nobody listens there any more") as caught:
        dial(f"unix!{tmp_path}/s")
    assert caught.value.errno == errno.ECONNREFUSED


def test_a_full_queue_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen(0)
        first = dial(f"unix!{tmp_path}/s")
        with pytest.raises(blocking.Late):
            dial(f"unix!{tmp_path}/s", 0.05)
        first.close()


def test_dialling_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for address in ["unix!/nonexistent/s", "tcp!127.0.0.1!1", "exec!/nonexistent/command", "char!/dev/null"]:
        with pytest.raises(NineError):
            dial(address)
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_trio_is_imported() -> None:
    text = """
import sys, time
from mk9p.dial import FdLink, SocketLink, blocking
for address in ("unix!/nonexistent/s", "tcp!127.0.0.1!1", "char!/dev/null", "exec!/nonexistent", "vsock!host!x"):
    try:
        blocking.dial(address, time.monotonic() + 9)
    except OSError:
        pass
assert "trio" not in sys.modules
blocking.dial("exec!cat", time.monotonic() + 9).close()
assert "trio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", text], check=True)
