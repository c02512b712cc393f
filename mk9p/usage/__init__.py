"""What each command takes, separate from what it does: its help, and errors in its words, need no import of the command itself."""

import argparse
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Final

_HOMES: Final = {
    "authority": ("grant", "narrow", "revoke", "lease"),
    "files": ("ls", "cat", "write", "stat", "tree", "cp", "tail", "find", "edit"),
    "looking": ("wait", "logs", "events", "explain", "completion"),
    "kernels": ("run", "ps", "top", "console", "socks", "up", "down", "demo", "apply", "diff"),
    "metrics": ("metrics",),
    "private": ("cpu", "newns", "export", "tf"),
    "keys": ("ca", "context", "login"),
    "web": ("web",),
    "wasm": ("wasm",),
    "servers": ("serve", "compose", "mount", "umount", "trace", "doctor", "help", "new-server"),
}

ALIASES: Final = {
    "con": "console",
    "rcpu": "cpu",
    "exportfs": "export",
    "read": "cat",
    "import": "mount",
    "unmount": "umount",
    "ns": "cat ns",
}
"""Plan 9's words for some commands, and for the first words of one."""

# commands that start or make something of their own, and so work on no tree
_NO_TREE: Final = (
    "serve",
    "compose",
    "up",
    "down",
    "demo",
    "trace",
    "help",
    "explain",
    "completion",
    "new-server",
    "narrow",
    "ca",
    "context",
    "login",
    "newns",
    "export",
)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the words of a command say; the first is its name. Raises SystemExit, after printing, for --help and for wrong use."""
    return _parsed(tuple(arguments))


@lru_cache(maxsize=1)  # called twice: before the command's module is imported, and by it
def _parsed(arguments: tuple[str, ...]) -> argparse.Namespace:
    name = arguments[0]
    parser, check = _parser(next(home for home, names in _HOMES.items() if name in names), name)
    chosen = parser.parse_args(arguments[1:])
    if check is not None and (wrong := check(chosen)):
        parser.error(wrong)
    return chosen


def _parser(home: str, name: str) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], str] | None]:
    """Return the parser of a command, and what finds the errors that it cannot find."""
    module = import_module(f"{__name__}.{home}")
    parser: argparse.ArgumentParser = module.PARSERS[name](name)
    if name not in _NO_TREE:
        parser.add_argument("-a", dest="at", metavar="DIAL", help="the tree to work on, as before the command")
    return parser, module.CHECKS.get(name)


def everything() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of all commands, by name."""
    return {name: _parser(home, name)[0] for home, names in _HOMES.items() for name in names}
