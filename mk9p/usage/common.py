"""The parts of parsers, and the numbers in their help."""

import argparse
from collections.abc import Callable
from typing import Final

Parser = argparse.ArgumentParser
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


def parser_of(name: str, about: str | None = None, **options: str) -> Parser:
    """Return a parser without arguments yet."""
    return Parser(prog=f"mk9p {name}", description=about, **options)  # type: ignore[arg-type]
