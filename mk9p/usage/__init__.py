"""What each command takes, separate from what it does: its help, and errors in its words, need no import of the command itself."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
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

GLOBAL: Final = {
    "-a": "MK9P",
    "-c": "MK9P_CONTEXT",
    "--ca": "MK9P_CA",
    "--cert": "MK9P_CERT",
    "--key": "MK9P_KEY",
    "--crl": "MK9P_CRL",
    "--cap": "MK9P_CAP",
}
"""What may stand before a command, or among the words of one that works on a tree, and the variable that says it to everything below."""

_WHAT: Final = {
    "-a": ("DIAL", "the tree to work on, as before the command"),
    "-c": ("CONTEXT", "the context with that tree and its keys, as before the command"),
}

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
        _take_global(parser)
    return parser, module.CHECKS.get(name)


def _take_global(parser: argparse.ArgumentParser) -> None:
    """Let a parser, and those of the words below it, take what may stand before the command, unless it has an option of that name."""
    for option, variable in GLOBAL.items():
        if option not in parser._option_string_actions:
            metavar, what = _WHAT.get(option, ("FILE", argparse.SUPPRESS))
            # of a word below, a default would hide what stood before it
            parser.add_argument(option, dest=variable, metavar=metavar, default=argparse.SUPPRESS, help=what)
    for action in parser._actions:
        for below in action.choices.values() if isinstance(action.choices, dict) else ():
            _take_global(below)


def everything() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of all commands, by name."""
    return {name: _parser(home, name)[0] for home, names in _HOMES.items() for name in names}


def tell(said: Mapping[str, str]) -> None:
    """Say to everything below what was said of the tree; an address counts more than a context."""
    if GLOBAL["-c"] in said:
        os.environ.pop(GLOBAL["-a"], None)
    for variable, value in said.items():
        os.environ[variable] = value if variable in (GLOBAL["-a"], GLOBAL["-c"]) else os.path.abspath(value)
