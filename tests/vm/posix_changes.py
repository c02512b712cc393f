"""The rest of pjdfstest's groups: removing, renaming, lengths and times, and names that cannot be (posix_groups.py)."""

import os
import stat as st
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.vm.posix_case import MOST, OTHER, USER, advances, as_user, call, case, get, mode, opened, p, put, times
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
            partial(
                lambda kind, remove: (lambda gone: (remove(p(gone)), os.path.lexists(p(gone)))[1])(new(kind)),
                kind,
                remove,
            ),
            False,
        )
        case(
            f"{what}/{kind}-parent",
            partial(
                lambda kind, remove: (lambda gone: advances(DIRECTORY, 1, lambda: remove(p(gone))))(new(kind)),
                kind,
                remove,
            ),
            True,
        )
        case(
            f"{what}/{kind}-wrong-call",
            partial(lambda kind, other: other(p(new(kind))), kind, other),
            "EISDIR" if kind == "dir" else "ENOTDIR",
        )
        shut = new("dir", perm=0o755)
        name = new(kind, uid=USER, gid=USER, into=shut)
        case(f"{what}/{kind}-no-write", as_user(partial(lambda name, remove: remove(p(name)), name, remove)), "EACCES")
        os.chmod(p(shut), 0o700)
        case(f"{what}/{kind}-no-search", as_user(partial(lambda name, remove: remove(p(name)), name, remove)), "EACCES")
        for uid, another in ((USER, OTHER), (OTHER, USER)):
            sticky = new("dir", uid=4, gid=4, perm=0o1777)
            name = new(kind, uid=uid, gid=uid, into=sticky)
            case(
                f"{what}/{kind}-sticky-other-{uid}",
                as_user(partial(lambda name, remove: remove(p(name)), name, remove), another),
                "EPERM",
            )
            case(
                f"{what}/{kind}-sticky-owner-{uid}",
                as_user(partial(lambda name, remove: remove(p(name)), name, remove), uid),
            )
            own = new("dir", uid=uid, gid=uid, perm=0o1777)
            name = new(kind, uid=another, gid=another, into=own)
            case(
                f"{what}/{kind}-sticky-own-dir-{uid}",
                as_user(partial(lambda name, remove: remove(p(name)), name, remove), uid),
            )


def renaming() -> None:
    for kind in KINDS:
        name, to = new(kind), free()
        before = os.lstat(p(name)).st_ino
        case(
            f"rename/of-{kind}",
            partial(
                lambda name, to, before: (
                    call(os.rename, p(name), p(to)),
                    os.lstat(p(to)).st_ino == before,
                    os.path.lexists(p(name)),
                )[1:],
                name,
                to,
                before,
            ),
            (True, False),
        )
        case(
            f"rename/{kind}-parent",
            partial(lambda to: advances(DIRECTORY, 1, lambda: os.rename(p(to), p(free()))), to),
            True,
        )
        over = "dir" if kind == "dir" else "regular"
        case(
            f"rename/{kind}-over",
            partial(
                lambda kind, over: (
                    lambda one, two: (
                        call(os.rename, p(one), p(two)),
                        st.S_IFMT(os.lstat(p(two)).st_mode) == _type(kind),
                    )[1]
                )(new(kind), new(over)),
                kind,
                over,
            ),
            True,
        )
        case(
            f"rename/{kind}-wrong-kind",
            partial(lambda kind: os.rename(p(new(kind)), p(new("regular" if kind == "dir" else "dir"))), kind),
            "ENOTDIR" if kind == "dir" else "EISDIR",
        )
        for uid, another in ((USER, OTHER), (OTHER, USER)):
            sticky = new("dir", uid=4, gid=4, perm=0o1777)
            name = new(kind, uid=uid, gid=uid, into=sticky)
            case(
                f"rename/{kind}-sticky-other-{uid}",
                as_user(partial(lambda name, sticky: os.rename(p(name), p(free(sticky))), name, sticky), another),
                "EPERM",
            )
            theirs = new(kind, uid=another, gid=another, into=sticky)
            case(
                f"rename/{kind}-sticky-over-other-{uid}",
                as_user(partial(lambda name, theirs: os.rename(p(name), p(theirs)), name, theirs), uid),
                "EPERM",
            )
            case(
                f"rename/{kind}-sticky-owner-{uid}",
                as_user(partial(lambda name, sticky: os.rename(p(name), p(free(sticky))), name, sticky), uid),
            )
    shut = new("dir", perm=0o755)
    name = new(into=shut)
    case("rename/no-write-from", as_user(lambda: os.rename(p(name), p(free()))), "EACCES")
    mine = new(uid=USER, gid=USER)
    case("rename/no-write-to", as_user(lambda: os.rename(p(mine), p(free(shut)))), "EACCES")
    parent, child = new("dir"), new("dir")
    case("rename/dir-nlink", lambda: (call(os.rename, p(child), p(parent + "/c")), os.stat(p(parent)).st_nlink)[1], 3)
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
                partial(
                    lambda name, size, cut: (cut(name, size), os.stat(p(name)).st_size, get(name)[:10])[1:],
                    name,
                    size,
                    cut,
                ),
                (size, b"0123456789"[:size]),
            )
        name = new()
        case(f"{how}/mtime", partial(lambda name, cut: advances(name, 1, lambda: cut(name, 77)), name, cut), True)
        case(f"{how}/ctime", partial(lambda name, cut: advances(name, 2, lambda: cut(name, 78)), name, cut), True)
        for uid in (USER, OTHER):
            name = new(perm=0o666)
            case(
                f"{how}/not-owner-{uid}",
                as_user(partial(lambda name, cut: (cut(name, 5), os.stat(p(name)).st_size)[1], name, cut), uid),
                5,
            )
            shut = new(perm=0o644)
            case(f"{how}/no-write-{uid}", as_user(partial(lambda shut, cut: cut(shut, 5), shut, cut), uid), "EACCES")
        name = new(perm=0o4777)
        case(
            f"{how}/setuid-not-owner",
            partial(lambda name, cut: (as_user(lambda: cut(name, 5))(), mode(name))[1], name, cut),
            0o777,
        )
        case(f"{how}/none", partial(lambda cut: cut("none", 0), cut), "ENOENT")
        case(f"{how}/below-file", partial(lambda cut: cut(new() + "/x", 0), cut), "ENOTDIR")
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
            partial(lambda name: advances(name, 2, lambda: os.utime(p(name), ns=(5, 5), follow_symlinks=False)), name),
            True,
        )
        case(
            f"utimensat/{kind}-not-owner",
            as_user(partial(lambda name: os.utime(p(name), ns=(5, 5), follow_symlinks=False), name)),
            "EPERM",
        )
    for uid in (USER, OTHER):
        name = new(perm=0o666)
        case(f"utimensat/now-not-owner-{uid}", as_user(partial(lambda name: os.utime(p(name)), name), uid))
        shut = new(perm=0o644)
        case(f"utimensat/now-no-write-{uid}", as_user(partial(lambda shut: os.utime(p(shut)), shut), uid), "EACCES")


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
    for what, ask in calls.items():
        case(f"{what}/name-of-256", partial(lambda ask: ask(p(DIRECTORY, MOST + "x")), ask), "ENAMETOOLONG")
        case(f"{what}/path-of-4200", partial(lambda ask: ask(p(DIRECTORY, deep)), ask), "ENAMETOOLONG")
        case(f"{what}/loops", partial(lambda ask: ask(p(loop, "x")), ask), "ELOOP")
        case(f"{what}/below-regular", partial(lambda ask: ask(p(file, "x")), ask), "ENOTDIR")
        if what not in ("mkdir", "mkfifo", "symlink", "link", "create"):
            case(f"{what}/none-there", partial(lambda ask: ask(p(DIRECTORY, "none")), ask), "ENOENT")
        case(f"{what}/parent-none", partial(lambda ask: ask(p(DIRECTORY, "none", "x")), ask), "ENOENT")
    longest = f"{DIRECTORY}/{MOST}"
    case("names/255", lambda: (put(longest, b"x"), get(longest), call(os.unlink, p(longest)))[1], b"x")
    case(
        "symlink/1023",
        lambda: (lambda name: (call(os.symlink, "a" * 1023, p(name)), os.readlink(p(name)) == "a" * 1023)[1])(free()),
        True,
    )
    case(
        "symlink/4095",
        lambda: (lambda name: (call(os.symlink, "a" * 4095, p(name)), len(os.readlink(p(name))))[1])(free()),
        4095,
    )
