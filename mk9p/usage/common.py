"""The parts of parsers, and the numbers in their help."""

import argparse
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Help(argparse.HelpFormatter):
    """Help as wide as the terminal.

    argparse makes one of these for each option of each parser, and asks shutil how wide it is: to import that takes longer than the rest.
    """

    def __init__(self, prog: str, **rest: Any) -> None:
        super().__init__(prog, **{"width": _columns() - 2, **rest})


class TextHelp(Help, argparse.RawDescriptionHelpFormatter):
    """Help whose description and epilog stand as they are."""


class Parser(argparse.ArgumentParser):
    """A parser of one command's words."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**{"formatter_class": Help, **rest})


def _columns() -> int:
    """Return the width of the terminal as shutil tells it: $COLUMNS, else what standard output is, else 80."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # there is none, or it is closed, or no terminal
        return 80


Parsers = dict[str, Callable[[str], Parser]]
"""By the name of a command."""
Checks = dict[str, Callable[[argparse.Namespace], str]]
"""An error that a parser cannot find; "" for none."""

NAMESPACE: Final = "unix!/run/mk9p/ns"
SERVED: Final = "unix!/run/mk9p/serve"
TRACED: Final = "unix!/run/mk9p/trace"
PROXY: Final = "127.0.0.1:1080"

# Modules of the commands have these too, and must not be imported here; a test compares the two.
PATIENCE: Final = 2.0
CACHES: Final = ("none", "readahead", "mmap", "loose", "fscache")
MSIZE: Final = 1 << 20
EACH: Final = 10
BOUNDS: Final = {"depth": 8, "files": 10_000, "bytes": 1 << 20}
SKIPPED: Final = ("clone", "cons", "console", "events", "listen", "wait")
LIMITS: Final = (
    "msize fids requests held out unread depth user_bytes user_fids user_files bytes files connections "
    "handshake share reserve partial"
)


KEYS: Final = {
    "ca": "the authorities that are believed",
    "cert": "this end's certificate",
    "key": "its key, if it is not in the same file",
    "crl": "what the authorities revoked; by default the file beside --ca that ends with .crl",
}


def take_keys(parser: Parser) -> None:
    """Let a parser take the files of keys for TLS (mk9p/dial/keys.py)."""
    group = parser.add_argument_group("TLS", "files in PEM; else $MK9P_CA, $MK9P_CERT, $MK9P_KEY, $MK9P_CRL")
    for name, what in KEYS.items():
        group.add_argument(f"--{name}", metavar="FILE", default="", help=what)


def parser_of(name: str, about: str | None = None, **options: str) -> Parser:
    """Return a parser without arguments yet."""
    return Parser(prog=f"mk9p {name}", description=about, **options)


def reads(what: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Let a function that reads an argument say what it wants: its ValueError, which is wrong use, becomes these words."""

    def reading(function: Callable[[str], T]) -> Callable[[str], T]:
        @wraps(function)
        def read(text: str) -> T:
            try:
                return function(text)
            except ValueError:
                raise argparse.ArgumentTypeError(f"want {what}, not {text!r}") from None

        return read

    return reading


number = reads("a whole number")(int)


@reads("seconds, 0.01 to 86400")
def seconds(text: str) -> float:
    """Read a delay; refuses one that would never end or never rest."""
    value = float(text)
    if not 0.01 <= value <= 86400:
        raise ValueError(text)
    return value


@reads("a number, 0 or more")
def count(text: str) -> int:
    """Read how many."""
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value
