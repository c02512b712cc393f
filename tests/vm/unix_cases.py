"""What 9P2000.u can say, on a mounted directory: `python3 -m tests.vm.unix_cases DIR` prints `ok NAME` or `FAIL NAME: what came` for each.

Run as root in a guest; `plain` as a second argument: the mount is of 9P2000, which cannot say most of it.
"""

import os
import stat as st
import sys
from functools import partial

from tests.vm.posix_case import USER, as_user, call, case, mode, p, put

PLAIN = sys.argv[2:] == ["plain"]
MODES = (0o755,) if PLAIN else (0o755, 0o4755, 0o2755, 0o1755, 0o7777)

os.umask(0)


def linked() -> tuple[bool, int, bytes]:
    put("a", b"content")
    os.link(p("a"), p("b"))
    put("a", b"more content")
    with open(p("b"), "rb") as file:
        return os.path.samefile(p("a"), p("b")), os.stat(p("b")).st_nlink, file.read()


def pointed() -> tuple[str, bytes]:
    put("target", b"there")
    os.symlink("target", p("pointer"))
    with open(p("pointer"), "rb") as file:
        return os.readlink(p("pointer")), file.read()


def changed(name: str, wanted: int) -> int:
    os.chmod(p(name), wanted)
    return mode(name)


def gone(name: str) -> list[str]:
    os.unlink(p(name))
    return [n for n in os.listdir(p()) if n == name]


def special() -> str:
    os.mkfifo(p("pipe"), 0o640)
    return "pipe" if st.S_ISFIFO(os.lstat(p("pipe")).st_mode) else "no pipe"


def onto() -> None:
    put("one", b"1")
    put("two", b"2")
    os.rename(p("one"), p("two"))


def kept() -> list[bytes]:
    found = []
    for name in ("one", "two"):
        with open(p(name), "rb") as file:
            found.append(file.read())
    return found


def moved() -> bytes:
    os.rename(p("one"), p("three"))
    with open(p("three"), "rb") as file:
        return file.read()


def appended() -> bytes:
    fds = [os.open(p("log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666) for _ in range(2)]
    for fd, text in zip(fds * 2, (b"a", b"b", b"c", b"d"), strict=True):
        os.write(fd, text)
    for fd in fds:
        os.close(fd)
    with open(p("log"), "rb") as file:
        return file.read()


def overwritten() -> bytes:
    put("shared", b"0123456789", 0o666)
    as_user(lambda: put("shared", b"short"))()
    with open(p("shared"), "rb") as file:
        return file.read()


def times() -> tuple[float, float]:
    put("old")
    os.utime(p("old"), (1_000_000_000, 1_100_000_000))
    stat = os.stat(p("old"))
    return stat.st_atime, stat.st_mtime


os.chmod(p(), 0o1777) if not PLAIN else os.chmod(p(), 0o777)
if not PLAIN:
    case("sticky/of-the-mount", lambda: mode(""), 0o1777)
    case("link", linked, (True, 2, b"more content"))
    case("link/removed", lambda: gone("b"), [])
    case("link/of-one", lambda: os.stat(p("a")).st_nlink, 1)
    case("symlink", pointed, ("target", b"there"))
    case("readlink/of-a-file", lambda: os.readlink(p("a")), "EINVAL")
    case("mkfifo", special, "pipe")
    case("append", appended, b"abcd")
    case("touch/not-mine", as_user(lambda: os.utime(p("log"))))
case("mknod/device", lambda: os.mknod(p("null"), st.S_IFCHR | 0o666, os.makedev(1, 3)), "EPERM")
put("f")
os.mkdir(p("d"))
for wanted in MODES:
    case(f"chmod/file/{wanted:o}", partial(lambda wanted: changed("f", wanted), wanted), wanted)
    case(f"chmod/directory/{wanted:o}", partial(lambda wanted: changed("d", wanted), wanted), wanted)
case("chmod/not-mine", as_user(lambda: os.chmod(p("f"), 0o666)), "EPERM")
case("rename/onto", onto, "EEXIST")
case("rename/onto/kept", kept, [b"1", b"2"])
case("rename", moved, b"1")
case("truncate", lambda: (call(os.truncate, p("two"), 5), os.stat(p("two")).st_size)[1], 5)
case("utime", times, (1_000_000_000, 1_100_000_000))
case("write/not-mine", overwritten, b"short")
case("mkdir/is-there", lambda: os.mkdir(p("d")), "EEXIST")
case("fsync", lambda: os.fsync(os.open(p("f"), os.O_RDWR)))
if not PLAIN:
    case("create/not-mine", as_user(lambda: os.stat(put("mine")).st_uid), USER)
