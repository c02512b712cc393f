"""The process that serves a FUSE mount, and how `mk9p umount` finds it and learns of its end.

It keeps an abstract unix socket listening, which goes with the process however it ends, and whose name has the mount's device number. Anybody can
make such a socket. So the name ends at random, and nobody can have it first. `mk9p umount` looks through all of them (/proc/net/unix), connects,
and believes only the kernel about who is at the other end (SO_PEERCRED): a process of the user who mounted.
"""

import os
import secrets
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from mk9p import ktext

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


def _prefix(device: str) -> str:
    return f"mk9p/fuse/{device}/"


def stay_alive(device: str) -> None:
    """Let `Serving` find this process as long as it lives."""
    alive = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    alive.bind(f"\0{_prefix(device)}{secrets.token_hex(16)}")
    alive.listen(socket.SOMAXCONN)
    alive.detach()  # only the end of this process closes it


class Warden:
    """A process that waits for the end of this one and then runs a command, unless it was dismissed: it cleans up after `kill -9`.

    libfuse's own way (auto_unmount) checks whether the mount answers, which it may still seem to do at that moment.
    """

    def __init__(self, command: Sequence[str]) -> None:
        end, self._alive = os.pipe()
        with open(end, "rb") as ours:
            script = 'read _ || exec "$@"'
            self._process = subprocess.Popen(
                ["sh", "-c", script, "sh", *command],
                stdin=ours,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    def dismiss(self) -> None:
        """Let it end without doing anything."""
        os.write(self._alive, b"\n")
        os.close(self._alive)
        self._process.wait()


class Serving:
    """The process that serves the mount with a device number, which `uid` made; a context in which a caller can wait for it. False if there is
    none."""

    def __init__(self, device: str, uid: int) -> None:
        self._socket: socket.socket | None = None
        self.pid = 0
        for name in _names(_prefix(device).encode()):
            process = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            process.setblocking(False)  # somebody else's socket may be full
            if process.connect_ex(b"\0" + name) == 0:
                credentials = process.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                self.pid, owner, _ = _CREDENTIALS.unpack(credentials)
                if owner == uid:
                    process.setblocking(True)
                    self._socket = process
                    return
            process.close()

    def __bool__(self) -> bool:
        return self._socket is not None

    def __enter__(self) -> "Serving":
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def terminate(self) -> None:
        """Ask it to end; do nothing if it has."""
        assert self._socket is not None
        with suppress(ProcessLookupError):
            process = os.pidfd_open(self.pid)
            try:
                with suppress(BlockingIOError):
                    self._socket.recv(1, socket.MSG_DONTWAIT)
                    return  # its number belongs to another process by now
                signal.pidfd_send_signal(process, signal.SIGTERM)
            except ConnectionResetError:
                return
            finally:
                os.close(process)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended, at most so many seconds; return whether it has."""
        assert self._socket is not None
        self._socket.settimeout(seconds)
        with suppress(ConnectionResetError):
            try:
                self._socket.recv(1)
            except TimeoutError:
                return False
        return True


def _names(prefix: bytes) -> list[bytes]:
    """Return the abstract sockets of this network namespace whose names begin with this."""
    with open("/proc/net/unix", "rb") as file:
        paths = [line.rpartition(b" ")[2] for line in ktext.split_lines(file.read())]
    return [path[1:] for path in paths if path.startswith(b"@" + prefix)]
