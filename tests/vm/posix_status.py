"""Cases of status: bits, owners, times (posix_cases.py)."""

import os
import time

from tests.vm.posix_case import TOP, USER, advances, as_user, call, case, get, mode, opened, owner, p, put, times


def status() -> None:
    case("chmod/bits", lambda: (put("s"), call(os.chmod, p("s"), 0o7751), mode("s"))[2], 0o7751)
    case("chmod/user", as_user(lambda: os.chmod(p("s"), 0o777)), "EPERM")
    case("chmod/fchmod", lambda: opened("s", os.O_RDONLY, lambda fd: (call(os.fchmod, fd, 0o640), mode("s"))[1]), 0o640)
    case(
        "chmod/foreign-group",
        lambda: (call(os.chown, p("s"), USER, 4300), as_user(lambda: os.chmod(p("s"), 0o2755))(), mode("s"))[2],
        0o755,
    )
    case("chown/both", lambda: (call(os.chown, p("s"), 5, 6), owner("s"))[1], (5, 6))
    case(
        "chown/clears-setuid",
        lambda: (call(os.chmod, p("s"), 0o6755), call(os.chown, p("s"), 7, 8), mode("s"))[2],
        0o755,
    )
    case("chown/user", as_user(lambda: os.chown(p("s"), USER, -1)), "EPERM")
    case(
        "chown/own-group",
        lambda: (call(os.chown, p("s"), USER, USER), as_user(lambda: os.chown(p("s"), -1, 4300), USER, 4300)()),
        None,
    )
    case("chown/link", lambda: (call(os.symlink, "s", p("ls")), call(os.lchown, p("ls"), 9, 9), owner("ls"))[2], (9, 9))
    case(
        "chown/fchown", lambda: opened("s", os.O_RDONLY, lambda fd: (call(os.fchown, fd, 1, 2), owner("s"))[1]), (1, 2)
    )
    case(
        "write/clears-setuid",
        lambda: (
            put("su"),
            call(os.chown, p("su"), USER, USER),
            call(os.chmod, p("su"), 0o6777),
            as_user(lambda: opened("su", os.O_WRONLY, lambda fd: os.write(fd, b"x")))(),
            mode("su"),
        )[4],
        0o777,
    )
    case(
        "utime/ns",
        lambda: (call(os.utime, p("s"), ns=(1_000000001, 2_999999999)), times("s")[:2])[1],
        (1_000000001, 2_999999999),
    )
    case(
        "utime/before-1970",
        lambda: (call(os.utime, p("s"), ns=(-5_000000000, -1)), times("s")[:2])[1],
        (-5_000000000, -1),
    )
    case("utime/now", lambda: (call(os.utime, p("s")), abs(times("s")[1] - time.time_ns()) < 100_000000000)[1], True)
    case(
        "utime/link",
        lambda: (call(os.utime, p("ls"), ns=(3_000000000, 4_000000000), follow_symlinks=False), times("ls")[:2])[1],
        (3_000000000, 4_000000000),
    )
    case("utime/user-now", lambda: (call(os.chmod, p("s"), 0o666), as_user(lambda: os.utime(p("s")))()), None)
    case("utime/user-set", as_user(lambda: os.utime(p("s"), ns=(1, 1))), "EPERM")
    case("times/write-mtime", lambda: advances("s", 1, lambda: put("s", b"more")), True)
    case("times/chmod-ctime", lambda: advances("s", 2, lambda: os.chmod(p("s"), 0o600)), True)
    case("times/link-ctime", lambda: advances("s", 2, lambda: os.link(p("s"), p("s-link"))), True)
    case("times/create-parent", lambda: (call(os.mkdir, p("tp")), advances("tp", 1, lambda: put("tp/f")))[1], True)
    case("times/unlink-parent", lambda: advances("tp", 1, lambda: os.unlink(p("tp/f"))), True)
    case(
        "access/bits",
        lambda: (
            put("ac"),
            call(os.chmod, p("ac"), 0o640),
            as_user(lambda: os.access(p("ac"), os.R_OK, effective_ids=True))(),
        )[2],
        False,
    )
    case("access/group", lambda: (call(os.chown, p("ac"), 0, 4300), as_user(lambda: get("ac"), USER, 4300)())[1], b"")
    case(
        "search/no-x",
        lambda: (
            call(os.mkdir, p("nx")),
            put("nx/f"),
            call(os.chmod, p("nx"), 0o644),
            as_user(lambda: os.stat(p("nx/f")))(),
        ),
        "EACCES",
    )
    case("statvfs", lambda: os.statvfs(TOP).f_namemax, 255)
    case(
        "lseek/data-of-sparse",
        lambda: opened(
            "sp",
            os.O_CREAT | os.O_RDWR,
            lambda fd: (os.pwrite(fd, b"x", 1 << 20), os.fstat(fd).st_blocks * 512 < 1 << 20)[1],
        ),
        True,
    )
