"""What each command takes, separate from what it does: its help, and errors in its words, need no import of the command itself."""

import argparse
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Final

_HOMES: Final = {
    "files": ("ls", "cat", "write", "stat", "tree", "cp", "tail"),
    "kernels": ("run", "ps", "top", "console", "socks", "up", "down", "demo"),
    "servers": ("serve", "compose", "mount", "umount", "trace", "doctor", "help", "new-server"),
}


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the words of a command say; the first is its name. Raises SystemExit, after printing, for --help and for wrong use."""
    return _parsed(tuple(arguments))


@lru_cache(maxsize=1)  # called twice: before the command's module is imported, and by it
def _parsed(arguments: tuple[str, ...]) -> argparse.Namespace:
    name = arguments[0]
    module = import_module(f"{__name__}.{next(home for home, names in _HOMES.items() if name in names)}")
    parser: argparse.ArgumentParser = module.PARSERS[name](name)
    chosen = parser.parse_args(arguments[1:])
    if name in module.CHECKS and (wrong := module.CHECKS[name](chosen)):
        parser.error(wrong)
    return chosen
