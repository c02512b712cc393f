"""What a program's own process gives up before it looks at the first byte of a module: it can do less than the user that it runs as."""

import ctypes
import os
import resource
import socket
from pathlib import Path
from typing import Final

ADMITTED: Final = b"go\n"
RUNTIME: Final = 768 << 20  # bytes of Python, the engine, and a module that is being compiled
MEMORY: Final = 2 << 30  # bytes that Binaryen may have to make a module freezable: 1.2 GB for one of 10 MB
_FILES: Final = 256  # descriptors: the streams, one connection, and what Python opens for itself
_NO_NEW_PRIVS: Final = 38
_FIRST: Final = "500"  # of 1000: when the machine has no memory left, Linux ends programs before their server


def admitted(control: socket.socket) -> None:
    """Wait until the server has put this process into its control group; leave if there is no server."""
    if control.recv(len(ADMITTED), socket.MSG_WAITALL) != ADMITTED:
        os._exit(1)


def confine(memory: int) -> None:
    """Limit this process. `memory` is what the program may have; it dumps no core, and runs nothing with more rights.

    It ends with its server because it listens to it: PR_SET_PDEATHSIG would end it with the thread that started it, which may be a short one.
    """
    Path("/proc/self/oom_score_adj").write_text(_FIRST)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, *(ctypes.c_ulong(value) for value in (1, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), "prctl")
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_FSIZE, memory + RUNTIME),  # what it writes stays when it has gone, as long as we have it open
        # RLIMIT_AS cannot be used: the engine keeps 4 GiB of addresses free for each memory. This counts what can be written to.
        (resource.RLIMIT_DATA, memory + RUNTIME),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
