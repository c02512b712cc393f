"""What systemd and a daemon tell each other: sockets that it listens on for the daemon, and that the daemon serves (sd_listen_fds(3), sd_notify(3)).

Both are a variable of the environment. It is taken away when it is read, so that commands that the daemon runs do not take it for theirs.
"""

import os
import socket
from typing import Final

_FIRST: Final = 3  # SD_LISTEN_FDS_START


def passed() -> list[str]:
    """Return the dial strings of the sockets that were passed to this process, none if there are none."""
    whose, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if whose != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    return [f"fd!{number}" for number in range(_FIRST, _FIRST + int(count))]


def notify(words: str) -> None:
    """Tell systemd something, as `READY=1`; nothing happens where nobody wants to know. Raises OSError where nobody hears it."""
    where = os.environ.get("NOTIFY_SOCKET")
    if where:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + where[1:] if where.startswith("@") else where)
            sock.send(words.encode())
