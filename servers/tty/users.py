"""Who else uses a terminal: a terminal gives each byte to one reader, so what another program reads must not be read here as well."""

import os

from mk9p.ktext import split_words


def user(device: int, root: str) -> str | None:
    """Return in words the process that has the terminal with this device number as its controlling terminal, or open; None if no process has. May
    block.

    This process itself counts too: it may serve 9P on that very line. It cannot see what a kernel itself holds, as a v9fs mount does.
    """
    proc = os.path.join(root, "proc")
    for pid in filter(str.isdecimal, os.listdir(proc)):
        try:
            with open(os.path.join(proc, pid, "stat"), "rb") as file:
                stat = file.read()
            controlling = int(split_words(stat.rpartition(b")")[2])[4]) & 0xFFFFFFFF  # tty_nr, proc_pid_stat(5)
            if controlling == device or _has_open(os.path.join(proc, pid, "fd"), device):
                return f"{stat.partition(b'(')[2].rpartition(b')')[0].decode(errors='replace')} (process {pid})"
        except (FileNotFoundError, ProcessLookupError, PermissionError, IndexError):
            continue  # it ended after it was listed, or this server may not look into it
    return None


def _has_open(folder: str, device: int) -> bool:
    for fd in os.listdir(folder):
        try:
            if os.stat(os.path.join(folder, fd)).st_rdev == device:
                return True
        except OSError:
            continue  # closed after it was listed
    return False
