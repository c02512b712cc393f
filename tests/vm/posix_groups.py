"""More cases, by pjdfstest's groups: what it asserts of each call, for each kind of file and as each kind of user (posix_cases.py).

USER is known to the server by its number, OTHER is not. Neither is in a group that the server does not know of: that is a case of its own.
"""

import os
import subprocess
import sys
from functools import partial

from tests.vm.posix_case import OTHER, USER, advances, as_user, call, case, get, mode, opened, owner, p, put, times
from tests.vm.posix_kinds import DIRECTORY, KINDS, NO_LINK, fails, free, new


def groups() -> None:
    os.mkdir(p(DIRECTORY))
    os.chmod(p(DIRECTORY), 0o777)
    for group in (chmod, chown, links, making, opening):
        group()


def chmod() -> None:
    for kind in NO_LINK:
        for perm in (0o111, 0o4751, 0o2750, 0o1777, 0o7777, 0):
            name = new(kind)
            case(
                f"chmod/{kind}-{perm:o}",
                partial(lambda name, perm: (call(os.chmod, p(name), perm), mode(name))[1], name, perm),
                perm,
            )
        name = new(kind, uid=USER, gid=USER)
        case(
            f"chmod/{kind}-owner",
            as_user(partial(lambda name: (call(os.chmod, p(name), 0o700), mode(name))[1], name)),
            0o700,
        )
        case(f"chmod/{kind}-other", as_user(partial(lambda name: os.chmod(p(name), 0o777), name), OTHER), "EPERM")
        case(
            f"chmod/{kind}-ctime", partial(lambda name: advances(name, 2, lambda: os.chmod(p(name), 0o711)), name), True
        )
        case(
            f"chmod/{kind}-refused-ctime",
            partial(
                lambda name: (
                    lambda was: (as_user(lambda: fails(os.chmod, p(name), 0), OTHER)(), times(name)[2] == was)[1]
                )(times(name)[2]),
                name,
            ),
            True,
        )
    link = new("symlink")
    target = new()
    os.unlink(p(link))
    os.symlink(os.path.basename(target), p(link))
    case("chmod/through-link", lambda: (call(os.chmod, p(link), 0o604), mode(target))[1], 0o604)
    for uid in (USER, OTHER):
        name = new("dir", uid=uid, gid=uid)
        case(
            f"chmod/sticky-dir-{uid}",
            as_user(partial(lambda name: (call(os.chmod, p(name), 0o1755), mode(name))[1], name), uid),
            0o1755,
        )
    name = new(uid=USER, gid=OTHER)
    case("chmod/setgid-foreign", as_user(lambda: (call(os.chmod, p(name), 0o2755), mode(name))[1]), 0o755)
    case(
        "fchmod/owner",
        as_user(lambda: opened(name, os.O_RDONLY, lambda fd: (call(os.fchmod, fd, 0o604), mode(name))[1])),
        0o604,
    )


def chown() -> None:
    for kind in KINDS:
        name = new(kind)
        case(
            f"chown/{kind}",
            partial(lambda name: (call(os.lchown, p(name), 123, 456), owner(name))[1], name),
            (123, 456),
        )
        case(
            f"chown/{kind}-group",
            partial(lambda name: (call(os.lchown, p(name), -1, 7), owner(name))[1], name),
            (123, 7),
        )
        case(
            f"chown/{kind}-user", partial(lambda name: (call(os.lchown, p(name), 8, -1), owner(name))[1], name), (8, 7)
        )
        case(f"chown/{kind}-other", as_user(partial(lambda name: os.lchown(p(name), USER, USER), name)), "EPERM")
        case(
            f"chown/{kind}-ctime", partial(lambda name: advances(name, 2, lambda: os.lchown(p(name), 9, 9)), name), True
        )
        mine = new(kind, uid=USER, gid=OTHER)
        case(
            f"chown/{kind}-to-own-group",
            as_user(partial(lambda mine: (call(os.lchown, p(mine), -1, USER), owner(mine))[1], mine)),
            (USER, USER),
        )
        case(f"chown/{kind}-same-uid", as_user(partial(lambda mine: os.lchown(p(mine), USER, USER), mine)))
        case(f"chown/{kind}-give-away", as_user(partial(lambda mine: os.lchown(p(mine), OTHER, -1), mine)), "EPERM")
        case(f"chown/{kind}-foreign-group", as_user(partial(lambda mine: os.lchown(p(mine), -1, OTHER), mine)), "EPERM")
    for perm, left in ((0o6755, 0o755), (0o4555, 0o555), (0o2755, 0o755), (0o6666, 0o2666)):
        name = new(uid=USER, gid=USER, perm=perm)
        case(
            f"chown/{perm:o}-by-owner",
            as_user(partial(lambda name: (call(os.chown, p(name), USER, USER), mode(name))[1], name)),
            left,
        )
        root = new(perm=perm)
        case(
            f"chown/{perm:o}-by-root", partial(lambda root: (call(os.chown, p(root), 5, 6), mode(root))[1], root), left
        )
    name = new("dir", uid=USER, gid=USER, perm=0o6755)
    case("chown/dir-keeps-bits", as_user(lambda: (call(os.chown, p(name), USER, USER), mode(name))[1]), 0o6755)


def links() -> None:
    for kind in KINDS:
        if kind == "dir":
            continue
        name, other = new(kind), free()

        def linked(name: str = name, other: str = other) -> tuple[int, bool]:
            os.link(p(name), p(other), follow_symlinks=False)
            one, two = os.lstat(p(name)), os.lstat(p(other))
            return one.st_nlink, (one.st_ino, one.st_mode) == (two.st_ino, two.st_mode)

        case(f"link/of-{kind}", linked, (2, True))
        case(
            f"link/{kind}-ctime",
            partial(lambda name: advances(name, 2, lambda: os.link(p(name), p(free()), follow_symlinks=False)), name),
            True,
        )
        case(
            f"link/{kind}-parent",
            partial(
                lambda name: advances(DIRECTORY, 1, lambda: os.link(p(name), p(free()), follow_symlinks=False)), name
            ),
            True,
        )
        case(
            f"link/{kind}-exists",
            partial(lambda name, other: os.link(p(name), p(other), follow_symlinks=False), name, other),
            "EEXIST",
        )
        case(
            f"unlink/{kind}-count",
            partial(lambda name, other: (call(os.unlink, p(other)), os.lstat(p(name)).st_nlink)[1], name, other),
            3,
        )
    shut = new("dir", perm=0o755)
    mine = new(uid=OTHER, gid=OTHER)
    case("link/no-write", as_user(lambda: os.link(p(mine), p(free(shut))), OTHER), "EACCES")
    os.chmod(p(shut), 0o700)
    case("link/no-search", as_user(lambda: os.link(p(mine), p(free(shut))), OTHER), "EACCES")
    case("link/none", lambda: os.link(p("none"), p(free())), "ENOENT")


def making() -> None:
    for kind, make in KINDS.items():
        for uid in (0, USER, OTHER):
            name = free()
            case(
                f"make/{kind}-owner-{uid}",
                partial(
                    lambda name, make, uid: (
                        as_user(lambda: make(p(name)), uid)() if uid else make(p(name)),
                        owner(name)[0],
                    )[1],
                    name,
                    make,
                    uid,
                ),
                uid,
            )
        name = free()
        case(
            f"make/{kind}-group",
            partial(lambda name, make: (as_user(lambda: make(p(name)))(), owner(name)[1])[1], name, make),
            USER,
        )
        case(f"make/{kind}-parent", partial(lambda make: advances(DIRECTORY, 1, lambda: make(p(free()))), make), True)
        case(
            f"make/{kind}-exists",
            partial(lambda make, kind: make(p(new(kind))), make, kind),
            "EADDRINUSE" if kind == "socket" else "EEXIST",
        )
        case(
            f"make/{kind}-over-link",
            partial(lambda make: make(p(new("symlink"))), make),
            "EADDRINUSE" if kind == "socket" else "EEXIST",
        )
        case(f"make/{kind}-below-file", partial(lambda make: make(p(new()) + "/x"), make), "ENOTDIR")
        shut = new("dir", perm=0o755)
        case(f"make/{kind}-no-write", as_user(partial(lambda make, shut: make(p(free(shut))), make, shut)), "EACCES")
        group = new("dir", gid=4300, perm=0o2777)
        case(
            f"make/{kind}-setgid-dir",
            partial(lambda make, group: (lambda made: (make(p(made)), owner(made)[1])[1])(free(group)), make, group),
            4300,
        )
        if kind in ("regular", "dir", "fifo"):
            case(f"make/{kind}-umask", partial(lambda kind: _masked(kind), kind), 0o700 if kind == "dir" else 0o600)


def _masked(kind: str) -> int:
    name = free()
    before = os.umask(0o077)
    try:
        KINDS[kind](p(name))
    finally:
        os.umask(before)
    return mode(name)


def opening() -> None:
    reads, writes = os.O_RDONLY, os.O_WRONLY
    for uid in (USER, OTHER):
        for perm in range(8):
            for mine in (True, False):
                name = new(uid=uid if mine else 4, gid=4, perm=perm << 6 if mine else perm)
                for flags, bits in (
                    (reads, 4),
                    (writes, 2),
                    (os.O_RDWR, 6),
                    (reads | os.O_TRUNC, 6),
                    (writes | os.O_TRUNC, 2),
                ):
                    wanted = None if perm & bits == bits else "EACCES"
                    case(
                        f"open/{uid}-{'own' if mine else 'other'}-{perm}-{flags}",
                        as_user(partial(lambda name, flags: opened(name, flags), name, flags), uid),
                        wanted,
                    )
        name = new(uid=uid, gid=uid, perm=0o077)
        case(
            f"open/{uid}-owner-has-less-than-others",
            as_user(partial(lambda name: opened(name, reads), name), uid),
            "EACCES",
        )
    for flags in (writes, os.O_RDWR, reads | os.O_TRUNC, writes | os.O_CREAT):
        case(f"open/dir-{flags}", partial(lambda flags: opened(new("dir"), flags), flags), "EISDIR")
    name = new(perm=0o777)
    program = p(name)
    with open(sys.executable, "rb") as source, open(program, "wb") as target:
        target.write(source.read())
    case("open/execute", lambda: subprocess.run([program, "-c", "pass"], check=True).returncode, 0)
    case(
        "open/execute-user",
        as_user(lambda: subprocess.run([program, "-c", "pass"], check=True, user=USER).returncode),
        0,
    )
    case("open/excl-link", lambda: opened(new("symlink"), os.O_CREAT | os.O_EXCL), "EEXIST")
    case(
        "open/trunc-times",
        lambda: (
            lambda name: (
                advances(name, 1, lambda: opened(name, writes | os.O_TRUNC)),
                advances(name, 2, lambda: opened(name, writes | os.O_TRUNC)),
            )
        )(put(free()) and new()),
        (True, True),
    )
    name = new(perm=0o666)
    put(name, b"0123456789", 0)
    for uid in (USER, OTHER):
        case(
            f"open/trunc-not-owner-{uid}",
            as_user(lambda: (opened(name, writes | os.O_TRUNC, lambda fd: os.write(fd, b"x")), get(name))[1], uid),
            b"x",
        )
    for perm, left in ((0o4777, 0o777), (0o6777, 0o777), (0o2777, 0o777)):
        for how, flags in (("write", writes), ("append", writes | os.O_APPEND), ("trunc", writes | os.O_TRUNC)):
            name = new(perm=perm)
            case(
                f"write/{perm:o}-{how}-not-owner",
                partial(
                    lambda name, flags: (
                        as_user(lambda: opened(name, flags, lambda fd: os.write(fd, b"x")))(),
                        mode(name),
                        get(name),
                    )[1:],
                    name,
                    flags,
                ),
                (left, b"x"),
            )
