"""Cases of contents, attributes and locks (posix_cases.py)."""

import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

from tests.vm.posix_case import TOP, as_user, call, case, get, opened, p, put, said


def contents() -> None:
    case("truncate/shrink", lambda: (put("c", b"123456"), call(os.truncate, p("c"), 3), get("c"))[2], b"123")
    case("truncate/grow", lambda: (call(os.truncate, p("c"), 6), get("c"))[1], b"123\0\0\0")
    case(
        "truncate/big",
        lambda: (call(os.truncate, p("c"), 5 << 30), os.stat(p("c")).st_size, call(os.truncate, p("c"), 0))[1],
        5 << 30,
    )
    case("truncate/directory", lambda: os.truncate(TOP, 0), "EISDIR")
    case("truncate/negative", lambda: os.truncate(p("c"), -1), "EINVAL")
    case("truncate/user", as_user(lambda: os.truncate(p("c"), 0)), "EACCES")
    case("ftruncate/read-only-fd", lambda: opened("c", os.O_RDONLY, lambda fd: os.ftruncate(fd, 0)), "EINVAL")
    case(
        "ftruncate/mode-taken-away",
        lambda: (
            call(os.mkdir, p("own")),
            call(os.chmod, p("own"), 0o777),
            as_user(
                lambda: opened(
                    "own/f",
                    os.O_CREAT | os.O_RDWR,
                    lambda fd: (
                        os.write(fd, b"123"),
                        call(os.fchmod, fd, 0),
                        call(os.ftruncate, fd, 1),
                        os.fstat(fd).st_size,
                    )[3],
                )
            )(),
        )[2],
        1,
    )
    case(
        "write/beyond-4gib",
        lambda: opened(
            "big", os.O_CREAT | os.O_RDWR, lambda fd: (os.pwrite(fd, b"end", 5 << 30), os.pread(fd, 3, 5 << 30))[1]
        ),
        b"end",
    )
    case(
        "write/two-fds",
        lambda: opened(
            "w2",
            os.O_CREAT | os.O_RDWR,
            lambda one: opened("w2", os.O_RDONLY, lambda two: (os.write(one, b"seen"), os.read(two, 9))[1]),
        ),
        b"seen",
    )
    case("write/read-only-fd", lambda: opened("c", os.O_RDONLY, lambda fd: os.write(fd, b"x")), "EBADF")
    case(
        "fsync/file",
        lambda: opened("c", os.O_RDWR, lambda fd: (os.write(fd, b"x"), call(os.fsync, fd), call(os.fdatasync, fd))[1]),
    )
    case("fsync/directory", lambda: opened(".", os.O_RDONLY | os.O_DIRECTORY, os.fsync))
    case(
        "fallocate",
        lambda: opened(
            "fa", os.O_CREAT | os.O_RDWR, lambda fd: (call(os.posix_fallocate, fd, 0, 10000), os.fstat(fd).st_size)[1]
        ),
        10000,
    )
    case(
        "names/odd",
        lambda: (
            call(os.mkdir, p("odd")),
            [put(f"odd/{name}") for name in ("a b", "c\nd", "é", "-x", "*")],
            sorted(os.listdir(p("odd"))),
        )[2],
        sorted(["a b", "c\nd", "é", "-x", "*"]),
    )
    case("names/not-utf-8", lambda: opened("odd/" + os.fsdecode(b"\xff"), os.O_CREAT | os.O_RDWR))
    case(
        "readdir/many",
        lambda: (call(os.mkdir, p("many")), [put(f"many/{i}") for i in range(500)], len(os.listdir(p("many"))))[2],
        500,
    )
    case(
        "readdir/types",
        lambda: (
            sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in os.scandir(p("types")))
            if not call(os.mkdir, p("types"))
            and not call(os.mkdir, p("types/d"))
            and not call(os.symlink, "x", p("types/l"))
            and put("types/f")
            else None
        ),
        [("d", True, False), ("f", False, False), ("l", False, True)],
    )
    case(
        "mmap/shared-read",
        lambda: (put("mm", b"mapped"), opened("mm", os.O_RDONLY, lambda fd: bytes(mmap.mmap(fd, 6, prot=1))))[1],
        b"mapped",
    )
    case("mmap/shared-write", lambda: opened("mm", os.O_RDWR, lambda fd: mmap.mmap(fd, 6).close()))


def attributes() -> None:
    path = put("xa")
    case("xattr/set-get", lambda: (call(os.setxattr, path, "user.a", b"v"), os.getxattr(path, "user.a"))[1], b"v")
    case("xattr/create-exists", lambda: os.setxattr(path, "user.a", b"w", os.XATTR_CREATE), "EEXIST")
    case("xattr/replace-none", lambda: os.setxattr(path, "user.none", b"w", os.XATTR_REPLACE), "ENODATA")
    case("xattr/get-none", lambda: os.getxattr(path, "user.none"), "ENODATA")
    case(
        "xattr/long",
        lambda: (call(os.setxattr, path, "user.l", b"x" * 3000), len(os.getxattr(path, "user.l")))[1],
        3000,
    )
    case("xattr/empty", lambda: (call(os.setxattr, path, "user.e", b""), os.getxattr(path, "user.e"))[1], b"")
    case("xattr/list", lambda: {"user.a", "user.l", "user.e"} <= set(os.listxattr(path)), True)
    case("xattr/remove", lambda: (call(os.removexattr, path, "user.a"), "user.a" in os.listxattr(path))[1], False)
    case("xattr/remove-none", lambda: os.removexattr(path, "user.a"), "ENODATA")
    case("xattr/user-refused", as_user(lambda: os.setxattr(path, "user.b", b"v")), "EACCES")


def locking() -> None:
    put("lk", b"0" * 100)
    write = fcntl.LOCK_EX | fcntl.LOCK_NB

    def child(work: Callable[[], Any]) -> str:
        """Run in another process and return what it raised, "" if nothing."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os.write(writer, b"-")
            except Exception as failure:
                os.write(writer, said(failure).encode())
            finally:
                os._exit(0)
        os.close(writer)
        answer = os.read(reader, 100).decode()
        os.close(reader)
        os.waitpid(pid, 0)
        return answer.replace("-", "")

    def other(start: int, length: int) -> str:
        return child(lambda: opened("lk", os.O_RDWR, lambda fd: fcntl.lockf(fd, write, length, start)))

    def asked(start: int) -> str:
        def ask(fd: int) -> Any:
            wish = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, start, 1, 0)
            return struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, wish))[0]

        return child(lambda: opened("lk", os.O_RDWR, lambda fd: None if ask(fd) == fcntl.F_WRLCK else 1 / 0))

    def whole(fd: int) -> None:
        fcntl.lockf(fd, write, 10, 20)
        case("lock/conflict", lambda: other(25, 1), "EAGAIN")
        case("lock/beside", lambda: other(30, 5), "")
        case("lock/getlk", lambda: asked(22), "")
        fcntl.lockf(fd, fcntl.LOCK_UN, 5, 20)
        case("lock/part-unlocked", lambda: (other(20, 5), other(25, 5)), ("", "EAGAIN"))
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 20)
        case(
            "lock/shared",
            lambda: child(
                lambda: opened("lk", os.O_RDWR, lambda two: fcntl.lockf(two, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 20))
            ),
            "",
        )

    opened("lk", os.O_RDWR, whole)
    case("lock/closed", lambda: other(20, 10), "")

    def two(one: int) -> None:
        fcntl.flock(one, write)
        case("flock/conflict", lambda: opened("lk", os.O_RDWR, lambda fd: fcntl.flock(fd, write)), "EAGAIN")

    opened("lk", os.O_RDWR, two)
    case("flock/closed", lambda: opened("lk", os.O_RDWR, lambda fd: fcntl.flock(fd, write)))
    case("flock/exclusive-of-read-only", lambda: opened("lk", os.O_RDONLY, lambda fd: fcntl.flock(fd, write)))
    case(
        "lock/one-process-two-fds",
        lambda: opened(
            "lk",
            os.O_RDWR,
            lambda a: opened("lk", os.O_RDWR, lambda b: (fcntl.lockf(a, write), fcntl.lockf(b, write))[1]),
        ),
    )
