"""What the cases of POSIX share: run one and print what came of it (posix_cases.py)."""

import errno
import os
import stat as st
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

P = ParamSpec("P")
TOP = sys.argv[1]
USER, OTHER = 65534, 65533
MOST = "x" * 255


def said(failure: BaseException) -> str:
    number = failure.errno if isinstance(failure, OSError) else None
    return errno.errorcode.get(number or 0, "") or f"{type(failure).__name__}: {failure}"


def case(name: str, work: Callable[[], Any], wanted: Any = None) -> None:
    """Run a case: it shall raise `wanted`, the name of an errno, or return it; None: whatever, but raise nothing."""
    try:
        got = work()
        good = wanted is None or got == wanted
    except Exception as failure:
        got = said(failure)
        good = got == wanted
    print(f"ok {name}" if good else f"FAIL {name}: {got!r}, want {wanted!r}", flush=True)


def call(function: Callable[P, object], *args: P.args, **keywords: P.kwargs) -> Any:
    """Call a function that returns nothing where an expression is wanted."""
    return function(*args, **keywords)


@contextmanager
def user(uid: int = USER, *groups: int) -> Iterator[None]:
    os.setgroups(groups)
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])


def as_user(work: Callable[[], Any], uid: int = USER, *groups: int) -> Callable[[], Any]:
    def run() -> Any:
        with user(uid, *groups):
            return work()

    return run


def p(*names: str) -> str:
    return os.path.join(TOP, *names)


def put(name: str, data: bytes = b"", mode: int = 0o644) -> str:
    fd = os.open(p(name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.write(fd, data)
    os.close(fd)
    return p(name)


def get(name: str) -> bytes:
    with open(p(name), "rb") as file:
        return file.read()


def mode(name: str) -> int:
    return st.S_IMODE(os.lstat(p(name)).st_mode)


def owner(name: str) -> tuple[int, int]:
    now = os.lstat(p(name))
    return now.st_uid, now.st_gid


def opened(name: str, flags: int, work: Callable[[int], Any] = lambda fd: None, perm: int = 0o644) -> Any:
    fd = os.open(p(name), flags, perm)
    try:
        return work(fd)
    finally:
        os.close(fd)


def times(name: str) -> tuple[int, int, int]:
    now = os.lstat(p(name))
    return now.st_atime_ns, now.st_mtime_ns, now.st_ctime_ns


def advances(name: str, which: int, work: Callable[[], Any]) -> bool:
    """Tell whether an operation moves a time of a file (0 atime, 1 mtime, 2 ctime)."""
    before = times(name)[which]
    time.sleep(0.02)  # two ticks of the host's clock
    work()
    return times(name)[which] > before
