"""Contexts: named namespaces with their keys, so that nobody types an address and three files each time (`mk9p context`).

A context is a file in `$XDG_CONFIG_HOME/mk9p/contexts`, else ~/.config/mk9p/contexts, that only its owner can read: `key value` lines with the keys
`address`, `ca`, `cert`, `key` and `cap`. The file `context` beside that directory has the name of the one in use. `$MK9P_CONTEXT`, which `mk9p -c`
sets, names another.
"""

import errno
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from mk9p import places, state
from mk9p.errors import NineError

VARIABLE: Final = "MK9P_CONTEXT"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST: Final = 1 << 16  # bytes of a context: a capability is some kilobytes, a path 4096


class Context(NamedTuple):
    """A namespace and how to come in: its dial string, the files of the keys (mk9p/dial/keys.py), the text of a capability; "" for none."""

    address: str
    ca: str = ""
    cert: str = ""
    key: str = ""
    cap: str = ""

    @property
    def aname(self) -> str:
        """The tree to attach to."""
        return f"cap!{self.cap}" if self.cap else ""


def directory() -> Path:
    """Return where this user's contexts are."""
    return Path(places.config())


def check(name: str) -> str:
    """Return a name of a context. Raises EINVAL for what is none."""
    if not _NAME.fullmatch(name):
        raise NineError(errno.EINVAL, f"bad name of a context {name!r}: letters, digits, dot, dash and underscore")
    return name


def names() -> list[str]:
    """Return the names of all contexts, sorted."""
    try:
        return sorted(name for name in os.listdir(directory() / "contexts") if _NAME.fullmatch(name))
    except FileNotFoundError:
        return []


def load(name: str) -> Context:
    """Return a context. Raises ENOENT if there is none of that name, EACCES if others than its owner may read or change it, EINVAL for a bad line."""
    path = directory() / "contexts" / check(name)
    try:
        text = _read(path)
    except FileNotFoundError:
        known = " ".join(names()) or "none: `mk9p context add NAME ADDR`"
        raise NineError(errno.ENOENT, f"no context {name!r}; there are: {known}") from None
    found: dict[str, str] = {}
    from mk9p.ktext import split_lines  # where there is no context, a command starts sooner without it

    for number, line in enumerate(split_lines(text), 1):
        key, _, value = line.partition(" ")
        if key not in Context._fields or key in found or not value:
            raise NineError(
                errno.EINVAL, f"{path}: line {number}: want one of {' '.join(Context._fields)}, and a value"
            )
        found[key] = value
    if "address" not in found:
        raise NineError(errno.EINVAL, f"{path}: no address")
    return Context(**found)


def save(name: str, context: Context) -> None:
    """Keep a context, in a file that only this user can read; it replaces one of that name. Raises EINVAL for a value of several lines."""
    for key, value in zip(Context._fields, context, strict=True):
        if "\n" in value or "\0" in value:
            raise NineError(errno.EINVAL, f"{key} has several lines")
    pairs = zip(Context._fields, context, strict=True)
    _write(directory() / "contexts" / check(name), "".join(f"{key} {value}\n" for key, value in pairs if value))


def remove(name: str) -> None:
    """Forget a context. Raises ENOENT."""
    load_path = directory() / "contexts" / check(name)
    if name not in names():
        load(name)
    load_path.unlink()
    if current() == name:
        (directory() / "context").unlink()


def use(name: str) -> None:
    """Use a context from now on, where nothing else is named; "" for none. Raises as `load`."""
    if name:
        load(name)
        _write(directory() / "context", name + "\n")
    else:
        (directory() / "context").unlink(missing_ok=True)


def current() -> str:
    """Return the name of the context in use, "" for none. `$MK9P_CONTEXT` comes first."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    try:
        return _read(directory() / "context").removesuffix("\n")
    except NineError:
        raise
    except (OSError, RuntimeError):  # it has no home, or another user's, as a process has that became this one
        return ""


def used() -> Context | None:
    """Return the context in use. Raises as `load`."""
    name = current()
    return load(name) if name else None


def _read(path: Path) -> str:
    try:
        return state.read(path, _LONGEST).decode()
    except UnicodeDecodeError:
        raise NineError(errno.EINVAL, f"{path}: no text") from None


def _write(path: Path, text: str) -> None:
    state.make(path, text.encode(), over=True)
