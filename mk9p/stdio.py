"""The standard descriptors of a command, whatever they are: closed, non-blocking, a terminal that has gone. And what may be printed on them.

Others have these descriptors too, and share their flags (open(2)), so this module changes no flag: where a descriptor is non-blocking, it waits
with poll(2) instead of the kernel. If a descriptor was closed at the start, /dev/null takes its place, opened the wrong way round: so the first
file that the command opens does not become its output, and using the descriptor fails as using a closed one does (gnulib's stdopen).
"""

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, Final, TextIO

NAMES: Final = ("standard input", "standard output", "standard error")
# ms that a line on stderr waits for room: a reader that takes no output does not hold up the end
_COMPLAINING: Final = 1000
_ESCAPES: Final = {"\a": r"\a", "\b": r"\b", "\t": r"\t", "\n": r"\n", "\v": r"\v", "\f": r"\f", "\r": r"\r"}


def printable(text: str) -> str:
    r"""Return text on one line that does nothing to a terminal: a character that cannot be printed appears as in C, `\x1b`, `\n`, `\u202e`.

    A byte that was not UTF-8, which is a surrogate in the text (PEP 383), appears as that byte.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def coloured(file: TextIO) -> bool:
    """Tell whether output there may have colours: it is a terminal that has some, and nobody set NO_COLOR (no-color.org)."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if char in _ESCAPES:
        return _ESCAPES[char]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def told(error: OSError) -> str:
    """Return an error in words, after the file that it is about."""
    return str(error) if error.filename is None else f"{error.filename or repr('')}: {error.strerror}"


def read_text(file: str) -> str:
    """Return the text of a file, `-` being standard input. Raises EILSEQ if it is not UTF-8."""
    try:
        with open(0 if file == "-" else file, encoding="utf-8", closefd=file != "-") as opened:
            return opened.read()
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f"byte {error.start} is not UTF-8", file) from None


def put(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of the bytes to a descriptor, waiting for room. Raises OSError as write(2) does, which names a standard descriptor."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            _wait(descriptor, select.POLLOUT)
        except OSError as error:
            raise _named(descriptor, error) from None


def take(descriptor: int, count: int) -> bytes:
    """Read at most `count` bytes from a descriptor, waiting for the first; b"" is the end. Raises OSError as `put`."""
    while True:
        try:
            return os.read(descriptor, count)
        except BlockingIOError:
            _wait(descriptor, select.POLLIN)
        except OSError as error:
            raise _named(descriptor, error) from None


def complain(line: str) -> None:
    """Print an error on stderr, in one line, after what was printed before. Print nothing where nobody takes it: nobody could learn of that."""
    try:
        print(end="", flush=True)
    except OSError:
        abandon()
    with suppress(OSError):
        if sys.stderr is not None and _room(sys.stderr):
            print(printable(line), file=sys.stderr, flush=True)


def abandon() -> None:
    """Drop what was printed and is not written yet: nobody takes it, and the end of this process must not wait for that."""
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(sys.stdout.buffer, io.BufferedWriter):
        raw = sys.stdout.buffer.raw
        if isinstance(raw, _Patient):
            raw.dropped = True


def prepare() -> None:
    """Prepare the three descriptors for this process. From now on `print` waits for room on them."""
    for descriptor, way in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, way)  # takes the lowest free number, which is this one
    sys.stdout, sys.stderr = _text(1, sys.stdout), _text(2, sys.stderr)


class _Patient(io.RawIOBase):
    """A standard descriptor for `io` to write to. Closing it leaves the descriptor open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.dropped = False

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if not self.dropped:
            put(self._descriptor, view)
        return len(view)


def _text(descriptor: int, before: Any) -> io.TextIOWrapper:
    raw = _Patient(descriptor)
    encoding = getattr(before, "encoding", None) or "utf-8"
    at_once = descriptor == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=at_once)


def _named(descriptor: int, error: OSError) -> OSError:
    number = error.errno or 0
    return OSError(number, os.strerror(number), NAMES[descriptor]) if 0 <= descriptor < len(NAMES) else error


def _wait(descriptor: int, events: int, patience: int | None = None) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(patience))


def _room(file: Any) -> bool:
    """Tell whether a line can be written without a long wait; a file of Python's own always has room."""
    try:
        return _wait(file.fileno(), select.POLLOUT, _COMPLAINING)
    except io.UnsupportedOperation:
        return True
