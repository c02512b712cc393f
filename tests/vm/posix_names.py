"""Cases of names: opening, making, removing, renaming (posix_cases.py)."""

import os
import socket
import stat as st

from tests.vm.posix_case import MOST, USER, as_user, call, case, get, mode, opened, owner, p, put


def opening() -> None:
    case("open/creates", lambda: opened("a", os.O_CREAT | os.O_RDWR, lambda fd: os.fstat(fd).st_size), 0)
    case("open/mode", lambda: (opened("m", os.O_CREAT | os.O_WRONLY, perm=0o751), mode("m"))[1], 0o751)
    case(
        "open/umask",
        lambda: (os.umask(0o077), opened("u", os.O_CREAT | os.O_RDWR, perm=0o666), os.umask(0), mode("u"))[3],
        0o600,
    )
    case("open/excl", lambda: opened("a", os.O_CREAT | os.O_EXCL | os.O_RDWR), "EEXIST")
    case("open/none", lambda: opened("none", os.O_RDONLY), "ENOENT")
    case("open/below-file", lambda: opened("a/b", os.O_RDONLY), "ENOTDIR")
    case("open/directory-write", lambda: opened(".", os.O_WRONLY), "EISDIR")
    case("open/O_DIRECTORY", lambda: opened("a", os.O_RDONLY | os.O_DIRECTORY), "ENOTDIR")
    case("open/trunc", lambda: (put("t", b"123"), opened("t", os.O_WRONLY | os.O_TRUNC), get("t"))[2], b"")
    case(
        "open/append",
        lambda: (
            put("t", b"1"),
            opened("t", os.O_WRONLY | os.O_APPEND, lambda fd: (os.lseek(fd, 0, 0), os.write(fd, b"2"))),
            get("t"),
        )[2],
        b"12",
    )
    case("open/long-name", lambda: opened(MOST, os.O_CREAT | os.O_RDWR))
    case("open/too-long-name", lambda: opened(MOST + "x", os.O_CREAT | os.O_RDWR), "ENAMETOOLONG")
    case(
        "open/read-only-made",
        lambda: opened("ro", os.O_CREAT | os.O_EXCL | os.O_RDWR, lambda fd: os.write(fd, b"x"), 0o444),
        1,
    )
    case("open/user-refused", as_user(lambda: opened("m", os.O_RDWR)), "EACCES")
    case(
        "open/O_NOFOLLOW",
        lambda: (call(os.symlink, "a", p("lnk")), opened("lnk", os.O_RDONLY | os.O_NOFOLLOW)),
        "ELOOP",
    )
    case(
        "open/through-link",
        lambda: opened("lnk", os.O_RDONLY, lambda fd: os.fstat(fd).st_ino == os.stat(p("a")).st_ino),
        True,
    )
    case(
        "open/dangling-creates",
        lambda: (
            call(os.symlink, "new-target", p("dang")),
            opened("dang", os.O_CREAT | os.O_RDWR),
            os.path.exists(p("new-target")),
        )[2],
        True,
    )
    case(
        "open/loop",
        lambda: (call(os.symlink, "l2", p("l1")), call(os.symlink, "l1", p("l2")), opened("l1", os.O_RDONLY)),
        "ELOOP",
    )
    case("open/O_TMPFILE", lambda: opened(".", os.O_TMPFILE | os.O_RDWR))


def removing() -> None:
    case("unlink/file", lambda: (put("x"), call(os.unlink, p("x")), os.path.exists(p("x")))[2], False)
    case("unlink/none", lambda: os.unlink(p("x")), "ENOENT")
    case("unlink/directory", lambda: (call(os.mkdir, p("d")), call(os.unlink, p("d"))), "EISDIR")
    case(
        "unlink/open-read",
        lambda: (put("x", b"still"), opened("x", os.O_RDWR, lambda fd: (call(os.unlink, p("x")), os.read(fd, 9))[1]))[
            1
        ],
        b"still",
    )
    case(
        "unlink/open-write",
        lambda: (
            put("x"),
            opened("x", os.O_RDWR, lambda fd: (call(os.unlink, p("x")), os.write(fd, b"ab"), os.pread(fd, 9, 0))[2]),
        )[1],
        b"ab",
    )
    case(
        "unlink/open-fstat",
        lambda: (put("x"), opened("x", os.O_RDWR, lambda fd: (call(os.unlink, p("x")), os.fstat(fd).st_nlink)[1]))[1],
        0,
    )
    case(
        "unlink/link-left",
        lambda: (put("x", b"1"), call(os.link, p("x"), p("y")), call(os.unlink, p("x")), os.stat(p("y")).st_nlink)[3],
        1,
    )
    case(
        "unlink/sticky",
        lambda: (
            call(os.mkdir, p("st")),
            call(os.chmod, p("st"), 0o1777),
            put("st/f"),
            as_user(lambda: os.unlink(p("st/f")))(),
        ),
        "EPERM",
    )
    case("unlink/no-write", as_user(lambda: os.unlink(p("y"))), "EACCES")
    case("rmdir/empty", lambda: (call(os.mkdir, p("e")), call(os.rmdir, p("e"))))
    case("rmdir/full", lambda: (call(os.mkdir, p("e")), put("e/f"), call(os.rmdir, p("e"))), "ENOTEMPTY")
    case("rmdir/file", lambda: os.rmdir(p("e/f")), "ENOTDIR")
    case("rmdir/none", lambda: os.rmdir(p("none")), "ENOENT")
    case("rmdir/dot", lambda: os.rmdir(p("e/.")), "EINVAL")
    case("rmdir/dotdot", lambda: os.rmdir(p("e/..")), "ENOTEMPTY")


def making() -> None:
    case("mkdir/mode", lambda: (call(os.mkdir, p("k"), 0o751), mode("k"))[1], 0o751)
    case("mkdir/exists", lambda: os.mkdir(p("k")), "EEXIST")
    case("mkdir/nlink", lambda: (call(os.mkdir, p("k/1")), call(os.mkdir, p("k/2")), os.stat(p("k")).st_nlink)[2], 4)
    case("mkdir/long", lambda: os.mkdir(p(MOST + "x")), "ENAMETOOLONG")
    case("mkdir/below-none", lambda: os.mkdir(p("none/d")), "ENOENT")
    case(
        "mkdir/setgid-inherits",
        lambda: (
            call(os.mkdir, p("sg")),
            call(os.chown, p("sg"), 0, 4300),
            call(os.chmod, p("sg"), 0o2775),
            call(os.mkdir, p("sg/d")),
            (os.stat(p("sg/d")).st_gid, bool(mode("sg/d") & st.S_ISGID)),
        )[4],
        (4300, True),
    )
    case("create/setgid-inherits", lambda: (put("sg/f"), os.stat(p("sg/f")).st_gid)[1], 4300)
    case(
        "mkdir/owner",
        lambda: (
            call(os.mkdir, p("pub")),
            call(os.chmod, p("pub"), 0o777),
            as_user(lambda: os.mkdir(p("pub/d")))(),
            owner("pub/d")[0],
        )[3],
        USER,
    )
    case("create/owner", lambda: (as_user(lambda: put("pub/f"))(), owner("pub/f")[0])[1], USER)
    case("symlink/owner", lambda: (as_user(lambda: os.symlink("x", p("pub/s")))(), owner("pub/s")[0])[1], USER)
    case("symlink/target", lambda: (call(os.symlink, "a" * 1000, p("sl")), os.readlink(p("sl")))[1], "a" * 1000)
    case("symlink/size", lambda: os.lstat(p("sl")).st_size, 1000)
    case("symlink/exists", lambda: os.symlink("x", p("sl")), "EEXIST")
    case("link/nlink", lambda: (put("l0"), call(os.link, p("l0"), p("l9")), os.stat(p("l0")).st_nlink)[2], 2)
    case("link/same-inode", lambda: os.path.samefile(p("l0"), p("l9")), True)
    case("link/exists", lambda: os.link(p("l0"), p("l9")), "EEXIST")
    case("link/directory", lambda: os.link(p("k"), p("k9")), "EPERM")
    case(
        "link/symlink",
        lambda: (call(os.link, p("sl"), p("sl2"), follow_symlinks=False), st.S_ISLNK(os.lstat(p("sl2")).st_mode))[1],
        True,
    )
    case("mknod/regular", lambda: (call(os.mknod, p("reg"), st.S_IFREG | 0o640), mode("reg"))[1], 0o640)
    case("mkfifo", lambda: os.mkfifo(p("fifo")))
    case("mknod/device", lambda: os.mknod(p("null"), st.S_IFCHR | 0o666, os.makedev(1, 3)))

    def bound() -> None:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(p("sock"))

    case("socket/bind", bound)


def renaming() -> None:
    case("rename/file", lambda: (put("r1", b"1"), call(os.rename, p("r1"), p("r2")), get("r2"))[2], b"1")
    case("rename/over", lambda: (put("r3", b"3"), call(os.rename, p("r3"), p("r2")), get("r2"))[2], b"3")
    case("rename/across", lambda: (call(os.mkdir, p("rd")), call(os.rename, p("r2"), p("rd/r")), get("rd/r"))[2], b"3")
    case(
        "rename/inode",
        lambda: (lambda ino: (call(os.rename, p("rd/r"), p("r")), os.stat(p("r")).st_ino == ino)[1])(
            os.stat(p("rd/r")).st_ino
        ),
        True,
    )
    case(
        "rename/open",
        lambda: opened("r", os.O_RDWR, lambda fd: (call(os.rename, p("r"), p("rn")), os.write(fd, b"X"), get("rn"))[2]),
        b"X",
    )
    case(
        "rename/over-open",
        lambda: (
            put("o1", b"1"),
            put("o2", b"2"),
            opened("o2", os.O_RDONLY, lambda fd: (call(os.rename, p("o1"), p("o2")), os.read(fd, 9))[1]),
        )[2],
        b"2",
    )
    case(
        "rename/dir",
        lambda: (call(os.mkdir, p("q1")), put("q1/f", b"f"), call(os.rename, p("q1"), p("q2")), get("q2/f"))[3],
        b"f",
    )
    case(
        "rename/dir-over-empty",
        lambda: (call(os.mkdir, p("q3")), call(os.rename, p("q2"), p("q3")), get("q3/f"))[2],
        b"f",
    )
    case("rename/dir-over-full", lambda: (call(os.mkdir, p("q4")), call(os.rename, p("q4"), p("q3"))), "ENOTEMPTY")
    case("rename/dir-over-file", lambda: (put("qf"), call(os.rename, p("q3"), p("qf"))), "ENOTDIR")
    case("rename/file-over-dir", lambda: os.rename(p("qf"), p("q3")), "EISDIR")
    case("rename/into-itself", lambda: os.rename(p("q3"), p("q3/x")), "EINVAL")
    case("rename/none", lambda: os.rename(p("none"), p("x")), "ENOENT")
    case(
        "rename/same-file",
        lambda: (call(os.link, p("qf"), p("qg")), call(os.rename, p("qf"), p("qg")), os.path.exists(p("qf")))[2],
        True,
    )
    case("rename/long", lambda: os.rename(p("qf"), p(MOST + "x")), "ENAMETOOLONG")
    case(
        "rename/cwd",
        lambda: (
            call(os.chdir, p("q3")),
            call(os.rename, p("q3"), p("q5")),
            sorted(os.listdir(".")),
            call(os.chdir, "/"),
        )[2],
        ["f"],
    )
