"""How this mk9p starts another process of mk9p, and where files are that it brings along.

mk9p is installed in one of three ways: as a package of a Python (a wheel, a working tree), as one archive (`mk9p.pyz`), or as a folder that nobody
else imports from (Debian's package). An archive and a folder name themselves here when they start. Another Python finds nothing of them under the
name `mk9p`, but runs them by their path, as it runs a script.
"""

import os
import sys
from typing import Final

__all__ = ["itself", "typed", "unique"]

BUNDLE: Final[list[str]] = []
"""The path of the archive or folder that this process runs; empty for a package of this Python."""


def itself(python: str = sys.executable) -> list[str]:
    """Return the words that run this mk9p with a Python, without a command: `[*itself(), "serve", "-l", "fd!0!1"]`."""
    flags = [*(["-I"] if sys.flags.isolated else []), *(["-S"] if sys.flags.no_site else [])]
    return [python, *flags, BUNDLE[0]] if BUNDLE else [python, "-m", "mk9p"]


def typed(*, full: bool = False) -> list[str]:
    """Return the words with which the user starts this mk9p: as they were typed, or with the full path, for another directory."""
    if (BUNDLE and not os.access(BUNDLE[0], os.X_OK)) or sys.argv[0] in (
        "",
        "-",
        "-c",
    ):  # a program began it, or `python -c`
        return itself()
    if os.path.basename(sys.argv[0]) == "__main__.py":  # python -m mk9p
        return itself()
    return [os.path.realpath(sys.argv[0]) if full else sys.argv[0]]


def unique(what: str) -> str:
    """Return a name for a thing that a machine has only one of: no other process has it, in whatever container that runs, nor one that was killed."""
    return f"mk9p-{os.getpid()}-{what}-{os.urandom(4).hex()}"
