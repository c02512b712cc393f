"""What a daemon and systemd tell each other, by a systemd of the test's own: passed sockets, and READY=1."""

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mk9p.dial import listen
from mk9p.errors import NineError
from mk9p.sync import connect
from mk9p.systemd import notify, passed
from mk9p.testing import SOON, child

# as systemd does: the socket is descriptor 3, and the variables are meant for this process alone
START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "mk9p"}
os.execv(sys.executable, [sys.executable, "-m", "mk9p", *sys.argv[2:]])
"""


def test_a_passed_socket_is_served_and_its_file_stays(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/s")
        sock.listen()
        command = [sys.executable, "-c", START, str(sock.fileno()), "serve", "cpu"]
        for _ in range(2):  # who comes while it is away waits
            with (
                child(command, "listening on", pass_fds=[sock.fileno()]) as process,
                connect(f"unix!{tmp_path}/s") as tree,
            ):
                assert "online" in tree.read("cpu/status")
            assert process.returncode == 0
            assert (tmp_path / "s").is_socket()


def test_sockets_of_another_process_are_not_taken_and_the_variables_go(monkeypatch: pytest.MonkeyPatch) -> None:
    for pid, found in ((os.getpid(), ["fd!3", "fd!4"]), (1, [])):
        monkeypatch.setenv("LISTEN_PID", str(pid))
        monkeypatch.setenv("LISTEN_FDS", "2")
        assert passed() == found
        assert not {"LISTEN_PID", "LISTEN_FDS"} & os.environ.keys()


async def test_what_is_believed_depends_on_the_family_of_the_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, socket.create_server(("127.0.0.1", 0)) as two:
        one.bind(f"{tmp_path}/s")
        one.listen()
        for sock, network, address in (
            (one, "unix", f"unix!{tmp_path}/s"),
            (two, "tcp", f"tcp!127.0.0.1!{two.getsockname()[1]}"),
        ):
            listener = await listen(f"fd!{os.dup(sock.fileno())}")
            assert (listener.transport.name, listener.address, listener.loopback) == (network, address, True)
            await listener.aclose()


async def test_what_nobody_listens_on_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, (tmp_path / "f").open("w") as file:
        for number, words in (
            (sock.fileno(), "nobody listens on it"),
            (file.fileno(), "no socket"),
            (99999, "descriptor 99999 is not open"),
        ):
            with pytest.raises(NineError, match=words):
                await listen(f"fd!{number}")


def test_systemd_hears_when_it_serves(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as hears:
        hears.bind(f"{tmp_path}/notify")
        hears.settimeout(SOON)
        command = [sys.executable, "-m", "mk9p", "serve", "-l", f"unix!{tmp_path}/s", "cpu"]
        with child(command, "listening on", env={**os.environ, "NOTIFY_SOCKET": f"{tmp_path}/notify"}):
            assert hears.recv(100) == b"READY=1"
            with connect(f"unix!{tmp_path}/s") as tree:
                assert "online" in tree.read("cpu/status")


def test_where_nobody_wants_to_know_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_a_mistake_in_the_config_is_one_line_and_nothing_starts(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("lisen = []\n")
    command = [sys.executable, "-m", "mk9p", "serve", "--config", f"{tmp_path}/c.toml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"mk9p serve: {tmp_path}/c.toml: unknown key 'lisen'; similar: listen\n"
