"""The rest of pjdfstest's groups: removing, renaming, lengths and times, and names that cannot be (posix_groups.py)."""

import os
import stat as st
from typing import TYPE_CHECKING, Any

from tests.vm.posix_case import MOST, OTHER, USER, advances, as_user, case, get, mode, opened, p, put, times
from tests.vm.posix_kinds import DIRECTORY, KINDS, free, new

if TYPE_CHECKING:
    from collections.abc import Callable


def changes() -> None:
    for group in (removing, renaming, truncating, times_set, errors):
        group()


def removing() -> None:
    for kind in KINDS:
        remove = os.rmdir if kind == "dir" else os.unlink
        other = os.unlink if kind == "dir" else os.rmdir
        what = "rmdir" if kind == "dir" else "unlink"
        case(
            f"{what}/{kind}",
            lambda kind=kind, remove=remove: (lambda gone: (remove(p(gone)), os.path.lexists(p(gone)))[1])(new(kind)),
            False,
        )
        case(
            f"{what}/{kind}-parent",
            lambda kind=kind, remove=remove: (lambda gone: advances(DIRECTORY, 1, lambda: remove(p(gone))))(new(kind)),
            True,
        )
        case(
            f"{what}/{kind}-wrong-call",
            lambda kind=kind, other=other: other(p(new(kind))),
            "EISDIR" if kind == "dir" else "ENOTDIR",
        )
        shut = new("dir", perm=0o755)
        name = new(kind, uid=USER, gid=USER, into=shut)
        case(f"{what}/{kind}-no-write", as_user(lambda name=name, remove=remove: remove(p(name))), "EACCES")
        os.chmod(p(shut), 0o700)
        case(f"{what}/{kind}-no-search", as_user(lambda name=name, remove=remove: remove(p(name))), "EACCES")
        for uid, another in ((USER, OTHER), (OTHER, USER)):
            sticky = new("dir", uid=4, gid=4, perm=0o1777)
            name = new(kind, uid=uid, gid=uid, into=sticky)
            case(
                f"{what}/{kind}-sticky-other-{uid}",
                as_user(lambda name=name, remove=remove: remove(p(name)), another),
                "EPERM",
            )
            case(f"{what}/{kind}-sticky-owner-{uid}", as_user(lambda name=name, remove=remove: remove(p(name)), uid))
            own = new("dir", uid=uid, gid=uid, perm=0o1777)
            name = new(kind, uid=another, gid=another, into=own)
            case(f"{what}/{kind}-sticky-own-dir-{uid}", as_user(lambda name=name, remove=remove: remove(p(name)), uid))


def renaming() -> None:
    for kind in KINDS:
        name, to = new(kind), free()
        before = os.lstat(p(name)).st_ino
        case(
            f"rename/of-{kind}",
            lambda name=name, to=to, before=before: (
                os.rename(p(name), p(to)),
                os.lstat(p(to)).st_ino == before,
                os.path.lexists(p(name)),
            )[1:],
            (True, False),
        )
        case(f"rename/{kind}-parent", lambda to=to: advances(DIRECTORY, 1, lambda: os.rename(p(to), p(free()))), True)
        over = "dir" if kind == "dir" else "regular"
        case(
            f"rename/{kind}-over",
            lambda kind=kind, over=over: (
                lambda one, two: (os.rename(p(one), p(two)), st.S_IFMT(os.lstat(p(two)).st_mode) == _type(kind))[1]
            )(new(kind), new(over)),
            True,
        )
        case(
            f"rename/{kind}-wrong-kind",
            lambda kind=kind: os.rename(p(new(kind)), p(new("regular" if kind == "dir" else "dir"))),
            "ENOTDIR" if kind == "dir" else "EISDIR",
        )
        for uid, another in ((USER, OTHER), (OTHER, USER)):
            sticky = new("dir", uid=4, gid=4, perm=0o1777)
            name = new(kind, uid=uid, gid=uid, into=sticky)
            case(
                f"rename/{kind}-sticky-other-{uid}",
                as_user(lambda name=name, sticky=sticky: os.rename(p(name), p(free(sticky))), another),
                "EPERM",
            )
            theirs = new(kind, uid=another, gid=another, into=sticky)
            case(
                f"rename/{kind}-sticky-over-other-{uid}",
                as_user(lambda name=name, theirs=theirs: os.rename(p(name), p(theirs)), uid),
                "EPERM",
            )
            case(
                f"rename/{kind}-sticky-owner-{uid}",
                as_user(lambda name=name, sticky=sticky: os.rename(p(name), p(free(sticky))), uid),
            )
    shut = new("dir", perm=0o755)
    name = new(into=shut)
    case("rename/no-write-from", as_user(lambda: os.rename(p(name), p(free()))), "EACCES")
    mine = new(uid=USER, gid=USER)
    case("rename/no-write-to", as_user(lambda: os.rename(p(mine), p(free(shut)))), "EACCES")
    parent, child = new("dir"), new("dir")
    case("rename/dir-nlink", lambda: (os.rename(p(child), p(parent + "/c")), os.stat(p(parent)).st_nlink)[1], 3)
    case("rename/dotdot", lambda: os.stat(p(parent + "/c/..")).st_ino == os.stat(p(parent)).st_ino, True)


def _type(kind: str) -> int:
    return {"regular": st.S_IFREG, "dir": st.S_IFDIR, "fifo": st.S_IFIFO, "socket": st.S_IFSOCK, "symlink": st.S_IFLNK}[
        kind
    ]


def truncating() -> None:
    for how, cut in (
        ("truncate", lambda name, size: os.truncate(p(name), size)),
        ("ftruncate", lambda name, size: opened(name, os.O_RDWR, lambda fd: os.ftruncate(fd, size))),
    ):
        for size in (0, 5, 10, 1234567):
            name = new()
            put(name, b"0123456789")
            case(
                f"{how}/{size}",
                lambda name=name, size=size, cut=cut: (cut(name, size), os.stat(p(name)).st_size, get(name)[:10])[1:],
                (size, b"0123456789"[:size]),
            )
        name = new()
        case(f"{how}/mtime", lambda name=name, cut=cut: advances(name, 1, lambda: cut(name, 77)), True)
        case(f"{how}/ctime", lambda name=name, cut=cut: advances(name, 2, lambda: cut(name, 78)), True)
        for uid in (USER, OTHER):
            name = new(perm=0o666)
            case(
                f"{how}/not-owner-{uid}",
                as_user(lambda name=name, cut=cut: (cut(name, 5), os.stat(p(name)).st_size)[1], uid),
                5,
            )
            shut = new(perm=0o644)
            case(f"{how}/no-write-{uid}", as_user(lambda shut=shut, cut=cut: cut(shut, 5), uid), "EACCES")
        name = new(perm=0o4777)
        case(
            f"{how}/setuid-not-owner",
            lambda name=name, cut=cut: (as_user(lambda: cut(name, 5))(), mode(name))[1],
            0o777,
        )
        case(f"{how}/none", lambda cut=cut: cut("none", 0), "ENOENT")
        case(f"{how}/below-file", lambda cut=cut: cut(new() + "/x", 0), "ENOTDIR")
    case("truncate/too-large", lambda: os.truncate(p(new()), (1 << 63) - 1), "EFBIG")


def times_set() -> None:
    for kind in ("regular", "dir", "fifo", "socket", "symlink"):
        for uid in (0, USER, OTHER):
            name = new(kind, uid=uid, gid=uid)

            def set_both(name: str = name) -> tuple[int, int]:
                os.utime(p(name), ns=(1_900_000_000_000_000_000, 1_950_000_000_000_000_000), follow_symlinks=False)
                return times(name)[:2]

            case(
                f"utimensat/{kind}-{uid}",
                as_user(set_both, uid) if uid else set_both,
                (1_900_000_000_000_000_000, 1_950_000_000_000_000_000),
            )
        case(
            f"utimensat/{kind}-ctime",
            lambda name=name: advances(name, 2, lambda: os.utime(p(name), ns=(5, 5), follow_symlinks=False)),
            True,
        )
        case(
            f"utimensat/{kind}-not-owner",
            as_user(lambda name=name: os.utime(p(name), ns=(5, 5), follow_symlinks=False)),
            "EPERM",
        )
    for uid in (USER, OTHER):
        name = new(perm=0o666)
        case(f"utimensat/now-not-owner-{uid}", as_user(lambda name=name: os.utime(p(name)), uid))
        shut = new(perm=0o644)
        case(f"utimensat/now-no-write-{uid}", as_user(lambda shut=shut: os.utime(p(shut)), uid), "EACCES")


def errors() -> None:
    """Names and ways that cannot be."""
    deep = "/".join(["a"] * 2100)
    loop = free()
    os.symlink(os.path.basename(loop), p(loop))
    file = new()
    calls: dict[str, Callable[[str], Any]] = {
        "chmod": lambda path: os.chmod(path, 0o644),
        "chown": lambda path: os.chown(path, 5, 5),
        "mkdir": os.mkdir,
        "mkfifo": os.mkfifo,
        "open": lambda path: os.close(os.open(path, os.O_RDONLY)),
        "create": lambda path: os.close(os.open(path, os.O_RDWR | os.O_CREAT)),
        "rmdir": os.rmdir,
        "symlink": lambda path: os.symlink("x", path),
        "truncate": lambda path: os.truncate(path, 5),
        "unlink": os.unlink,
        "utimensat": lambda path: os.utime(path, (5, 5)),
        "link": lambda path: os.link(p(file), path),
        "rename": lambda path: os.rename(path, p(free())),
    }
    for what, call in calls.items():
        case(f"{what}/name-of-256", lambda call=call: call(p(DIRECTORY, MOST + "x")), "ENAMETOOLONG")
        case(f"{what}/path-of-4200", lambda call=call: call(p(DIRECTORY, deep)), "ENAMETOOLONG")
        case(f"{what}/loops", lambda call=call: call(p(loop, "x")), "ELOOP")
        case(f"{what}/below-regular", lambda call=call: call(p(file, "x")), "ENOTDIR")
        if what not in ("mkdir", "mkfifo", "symlink", "link", "create"):
            case(f"{what}/none-there", lambda call=call: call(p(DIRECTORY, "none")), "ENOENT")
        case(f"{what}/parent-none", lambda call=call: call(p(DIRECTORY, "none", "x")), "ENOENT")
    longest = f"{DIRECTORY}/{MOST}"
    case("names/255", lambda: (put(longest, b"x"), get(longest), os.unlink(p(longest)))[1], b"x")
    case(
        "symlink/1023",
        lambda: (lambda name: (os.symlink("a" * 1023, p(name)), os.readlink(p(name)) == "a" * 1023)[1])(free()),
        True,
    )
    case(
        "symlink/4095",
        lambda: (lambda name: (os.symlink("a" * 4095, p(name)), len(os.readlink(p(name))))[1])(free()),
        4095,
    )
