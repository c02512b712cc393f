"""How a client shows a capability (docs/security.md): in the name of the tree that it attaches to, `cap!TEXT/PATH`.

A capability is given as its text, or as the path of a file that has it: a text has no slash, and a path must have one. Whoever reads the text can
use it. Therefore a file that others can read is refused. Give a command the file or an environment, and not the text: the arguments of a process
are for everybody to see.
"""

import errno
import os
from typing import Final

from mk9p.dial import parse
from mk9p.errors import NineError
from mk9p.wire import Dialect

VARIABLE: Final = "MK9P_CAP"
PREFIX: Final = "cap!"
LONGEST: Final = 3840  # characters: authority/grants.py


def text_of(cap: str) -> str:
    """Return the text of a capability given as text or as a file's path. Raises EACCES for a file that others can read, EINVAL for no capability."""
    text = cap if "/" not in cap else _read(cap)
    if not text.isascii() or not text.replace(".", "").replace("-", "").replace("_", "").isalnum():
        hint = "" if "/" in cap else "; the path of a file has a slash: ./NAME"
        raise NineError(errno.EINVAL, f"{cap if '/' in cap else 'that'} is no capability{hint}")
    return text


def _read(path: str) -> str:
    from pathlib import Path

    from mk9p import state
    from mk9p.ktext import trim

    try:
        return trim(state.read(Path(path), LONGEST + 2).decode(errors="replace"))
    except NineError:
        raise
    except OSError as error:
        raise NineError(error.errno or errno.EIO, f"{path}: {error.strerror}") from None


def in_words(error: NineError, address: str, aname: str, dialect: Dialect) -> bool:
    """Tell whether to ask again, in 9P2000.u, why a capability was refused: 9P2000.L has no words for it."""
    refused = error.errno == errno.EACCES and aname.startswith(PREFIX) and dialect is Dialect.L
    return refused and parse(address).transport.redial


def tree_name(aname: str, cap: str | None, *, default: bool) -> str:
    """Return the aname of an attach to the tree `aname` with a capability, if there is one.

    `default`: it is the user's own server, so without `cap` it is the capability of $MK9P_CAP; "" is none. Raises as `text_of`.
    """
    if cap is None and default:
        cap = os.environ.get(VARIABLE)
    if not cap:
        return aname
    return f"{PREFIX}{text_of(cap)}{'/' if aname.strip('/') else ''}{aname.strip('/')}"


def of_mount(spec: str) -> str:
    """Return the tree that a mount of the namespace asks for: `cap!/PATH` is the capability in a file. Raises as `text_of`, and EINVAL for a text."""
    if not spec.startswith(PREFIX):
        return spec
    if not spec.startswith(f"{PREFIX}/"):
        raise NineError(
            errno.EINVAL, f"say {PREFIX}/PATH, a file with the capability: everybody can read what is mounted"
        )
    return f"{PREFIX}{text_of(spec.removeprefix(PREFIX))}"


def named(aname: str) -> tuple[str, str]:
    """Return the tree, and the text of the capability, that an aname names; "" for none."""
    if not aname.startswith(PREFIX):
        return aname, ""
    text, _, tree = aname.removeprefix(PREFIX).partition("/")
    return tree, text
