"""What can go wrong and what happens then, and the one table of errno and wording.

Three things can happen (h11 `_util.py` shows the same division):
* `NineError`: the peer sees it, as Rerror or Rlerror, and the conversation goes on. The same holds for a server's own ValueError and OSError
  (`translate`).
* `ProtocolError`: the peer broke the framing; its connection ends, and no other.
* anything else (`FAILURE`): our bug. The server logs it with the request, answers `internal error`, and goes on.

Every error has one errno and one Plan 9 wording, from `TABLE`. The wordings are those of Linux's net/9p/error.c wherever it has one, because v9fs
shows a 9P2000 string that is not in its table as errno 526. `NineError` is an `OSError`. If Python has a class of its own for its errno
(`FileNotFoundError`, `PermissionError`, …), it is an instance of that class too: a tree over the wire raises what a local tree would raise.
"""

import errno as _errno
import os
from typing import Any, Final

__all__ = ["FAILURE", "INTERNAL", "NineError", "ProtocolError", "translate", "wording"]

# errno, then the wording to send, then other wordings that peers send for the same errno
TABLE: Final[tuple[tuple[int, str, tuple[str, ...]], ...]] = (
    (
        _errno.EPERM,
        "Operation not permitted",
        ("operation not permitted", "wstat prohibited", "not owner", "not a member of proposed group"),
    ),
    (
        _errno.ENOENT,
        "No such file or directory",
        ("file not found", "file does not exist", "directory entry not found", "does not exist"),
    ),
    (_errno.ESRCH, "No such process", ("process exited", "process does not exist")),
    (_errno.EINTR, "Interrupted system call", ("interrupted",)),
    (_errno.EIO, "Input/output error", ("i/o error", "device error", "i/o on hungup channel", "hungup channel")),
    (_errno.ENXIO, "No such device or address", ()),
    (_errno.E2BIG, "Argument list too long", ()),
    (_errno.ENOEXEC, "Exec format error", ()),
    (
        _errno.EBADF,
        "fid unknown or out of range",
        ("Bad file descriptor", "bad use of fid", "fid not open", "unknown fid", "fid not found"),
    ),
    (_errno.ECHILD, "No child processes", ()),
    (_errno.EAGAIN, "Resource temporarily unavailable", ()),
    (_errno.ENOMEM, "Cannot allocate memory", ()),
    (_errno.EACCES, "permission denied", ("Permission denied", "access permission denied")),
    (_errno.EFAULT, "Bad address", ()),
    (
        _errno.EBUSY,
        "Device or resource busy",
        ("exclusive use file already open", "file in use", "file is in use", "open/create -- file exists, in use"),
    ),
    (
        _errno.EEXIST,
        "File exists",
        (
            "file exists",
            "file already exists",
            "create -- file exists",
            "file or directory already exists",
            "fid already in use",
        ),
    ),
    (_errno.EXDEV, "Invalid cross-device link", ()),
    (_errno.ENODEV, "No such device", ()),
    (_errno.ENOTDIR, "Not a directory", ("not a directory",)),
    (_errno.EISDIR, "Is a directory", ("is a directory", "file is a directory")),
    (
        _errno.EINVAL,
        "Invalid argument",
        ("illegal mode", "illegal name", "bad attach specifier", "illegal offset", "bad offset in directory read"),
    ),
    (_errno.ENFILE, "Too many open files in system", ()),
    (_errno.EMFILE, "Too many open files", ("no free fids",)),
    (_errno.ENOTTY, "Inappropriate ioctl for device", ()),
    (_errno.ETXTBSY, "Text file busy", ("text file busy",)),
    (_errno.EFBIG, "File too large", ()),
    (_errno.ENOSPC, "No space left on device", ("file system is full", "file system full")),
    (_errno.ESPIPE, "Illegal seek", ()),
    (_errno.EROFS, "Read-only file system", ("read-only file system", "file system read only")),
    (_errno.EMLINK, "Too many links", ()),
    (_errno.EPIPE, "Broken pipe", ()),
    (_errno.ERANGE, "Numerical result out of range", ()),
    (_errno.ENAMETOOLONG, "File name too long", ("illegal name length", "name too long")),
    (_errno.ENOSYS, "Function not implemented", ()),
    (_errno.ENOTEMPTY, "Directory not empty", ("directory not empty", "directory is not empty")),
    (_errno.ELOOP, "Too many levels of symbolic links", ()),
    (_errno.ENODATA, "No data available", ()),
    (_errno.EPROTO, "Protocol error", ("protocol error",)),
    (_errno.EBADMSG, "Bad message", ("bad message",)),
    (_errno.EOPNOTSUPP, "Operation not supported", ("operation not supported",)),
    (_errno.EMSGSIZE, "Message too long", ()),
    (_errno.EPROTOTYPE, "Protocol wrong type for socket", ()),
    (_errno.EAFNOSUPPORT, "Address family not supported by protocol", ()),
    (_errno.EADDRINUSE, "Address already in use", ()),
    (_errno.EADDRNOTAVAIL, "Cannot assign requested address", ()),
    (_errno.ENOTCONN, "Transport endpoint is not connected", ()),
    (_errno.EILSEQ, "Invalid or incomplete multibyte or wide character", ()),
    (_errno.ENETUNREACH, "Network is unreachable", ()),
    (_errno.ECONNRESET, "Connection reset by peer", ()),
    (_errno.ETIMEDOUT, "Connection timed out", ()),
    (_errno.ECONNREFUSED, "Connection refused", ()),
    (_errno.EHOSTUNREACH, "No route to host", ()),
    (_errno.ESTALE, "Stale file handle", ()),
    (_errno.EDQUOT, "Disk quota exceeded", ()),
    (_errno.ECANCELED, "Operation canceled", ()),
)

INTERNAL: Final = "internal error"  # with EIO: what a peer sees of our bugs

# A handler may raise these, and only its request fails. SystemExit too: argparse calls sys.exit(), which is for programs that do one thing.
FAILURE: Final = (Exception, SystemExit)

_WORDING: Final = {number: wording for number, wording, _ in TABLE}
_ERRNO: Final = {word: number for number, wording, more in TABLE for word in (wording, *more)}

# The number that one of Python's classes means where an error has none, as in `PermissionError("only its owner may")`.
_NUMBERS: Final[dict[type[OSError], int]] = {
    PermissionError: _errno.EACCES,
    FileNotFoundError: _errno.ENOENT,
    FileExistsError: _errno.EEXIST,
    NotADirectoryError: _errno.ENOTDIR,
    IsADirectoryError: _errno.EISDIR,
    TimeoutError: _errno.ETIMEDOUT,
    BlockingIOError: _errno.EAGAIN,
    InterruptedError: _errno.EINTR,
    ProcessLookupError: _errno.ESRCH,
    ChildProcessError: _errno.ECHILD,
    BrokenPipeError: _errno.EPIPE,
    ConnectionAbortedError: _errno.ECONNABORTED,
    ConnectionRefusedError: _errno.ECONNREFUSED,
    ConnectionResetError: _errno.ECONNRESET,
}
_MAX_ERRNO: Final = 4095  # Linux's include/linux/err.h: no system call returns more

_CLASSES: dict[type[OSError], type["NineError"]] = {}


class NineError(OSError):
    """An error that the peer sees: an errno, and words for people.

    `NineError(errno.EBUSY)` takes the table's wording; `NineError(errno.EINVAL, "usage: online N...")` says more. `.errno` is Linux's number,
    `.ename` the words. The object is also an instance of Python's own class for that errno. `.filename` may be set, as on any OSError.
    """

    errno: int
    ename: str
    told: bool = False
    """Whether the audit log has it already."""

    def __new__(cls, number: int, ename: str | None = None) -> "NineError":
        python = type(OSError(number, ""))
        if python is OSError or issubclass(cls, python):
            return super().__new__(cls, number, ename or wording(number))
        both = _CLASSES.get(python)
        if both is None:
            both = _CLASSES[python] = type(f"Nine{python.__name__}", (NineError, python), {})
        return super().__new__(both, number, ename or wording(number))

    def __init__(self, number: int, ename: str | None = None) -> None:
        super().__init__(number, ename or wording(number))
        self.ename = ename or wording(number)

    def __str__(self) -> str:
        return self.ename if self.filename is None else f"{self.ename}: {self.filename!r}"

    def __reduce__(self) -> Any:
        return (NineError, (self.errno, self.ename), {"filename": self.filename})


class ProtocolError(Exception):
    """A peer broke the framing, so nothing after it can be understood: its connection ends."""


def wording(number: int) -> str:
    """Return the words for an errno: the table's, else the C library's."""
    return _WORDING.get(number) or os.strerror(number)


def from_wire(number: int, ename: str | None = None) -> NineError:
    """Return the error that a number from a peer means. A number that no error has says only that there is an error: it is EIO, or what `ename`
    means.

    9P2000.u's own mark for "no number" (ERUNDEF) is such a number: all ones, in 16 bits or in 32.
    """
    if is_errno(number):
        return NineError(number, ename)
    return NineError(_errno.EIO) if ename is None else from_ename(ename)


def is_errno(number: int) -> bool:
    """Tell whether a number can be an errno of Linux."""
    return 0 < number <= _MAX_ERRNO


def from_ename(ename: str) -> NineError:
    """Return the error that a 9P2000 server's words mean; words that are in no table are EIO and do not change."""
    number = _ERRNO.get(ename)
    if number is None:  # some servers add to a known wording: "file not found: 'x'", "'x' file does not exist"
        number = next(
            (n for word, n in _ERRNO.items() if ename.startswith(word + ":") or ename.endswith(" " + word)), _errno.EIO
        )
    return NineError(number, ename)


def translate(error: OSError | ValueError) -> NineError:
    """Return an error of a server's own as the error that a peer may see.

    The peer gets the words that an author gave: a ValueError is EINVAL with its text, `OSError(EIO, "device gone")` is EIO with those words. An
    error of the kernel has the table's words. The paths in an OSError belong to this machine, and the peer never sees them. Where there is no
    number, the class gives it; a number that Linux does not have is EIO.
    """
    if isinstance(error, NineError):
        return error
    if isinstance(error, ValueError):
        return NineError(_errno.EINVAL, _on_one_line(str(error)))
    number, words = error.errno, error.strerror
    if number is None:
        number = next((n for python, n in _NUMBERS.items() if isinstance(error, python)), _errno.EIO)
        words = str(error.args[0]) if len(error.args) == 1 else None
    if not isinstance(number, int) or not is_errno(number):
        number = _errno.EIO
    said = _on_one_line(words) if isinstance(words, str) and words != os.strerror(number) else None
    return NineError(number, said)


def _on_one_line(text: str) -> str | None:
    """Return text as an error's words: one line of UTF-8, None if nothing is left."""
    return " ".join(text.encode(errors="backslashreplace").decode().split("\n")).strip() or None
