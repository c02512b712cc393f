"""Who may do what in an exported directory: the host's kernel decides, asked as the user who asks."""

import os
import stat as st
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from mk9p.auth import NONE, ROOT, Principal
from mk9p.servers.fs import nodes
from mk9p.servers.fs.export import Export
from mk9p.servers.fs.identity import Own
from mk9p.tree import NOW, Change, Open, settle
from mk9p.wire import messages as m
from tests.servers.exported import also, exported
from tests.servers.trees import opened

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acting as others needs root")

ANN = Principal("ann", 4201, frozenset({4201, 4300}), gid=4201)
BOB = Principal("bob", 4202, frozenset({4202, 4300}), gid=4202)
STRANGER = Principal("4203", 4203)
WRITE = Open(ANN, read=True, write=True, records=True)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[Path, nodes.FsNode]]:
    """An exported directory in which everybody may make files."""
    path = tmp_path
    while path != Path("/tmp") and path != Path("/"):
        path.chmod(path.stat().st_mode | 0o755)
        path = path.parent
    (tmp_path / "x").mkdir()
    (tmp_path / "x").chmod(0o777)
    export = Export()
    yield tmp_path / "x", nodes.root(export, str(tmp_path / "x"))
    export.close()


def credentials() -> tuple[str, ...]:
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return tuple(line for line in lines if line.startswith(("Uid", "Gid", "Groups", "CapEff", "CapPrm")))


async def make(root: nodes.FsNode, name: str, who: Principal, perm: int = 0o644) -> None:
    _, handle = await settle(root.create(name, perm, attrs.evolve(WRITE, who=who)))
    await settle(handle.close())


async def test_what_is_made_belongs_to_its_maker(shared: tuple[Path, nodes.FsNode]) -> None:
    path, root = shared
    before = credentials()
    await make(root, "f", ANN, 0o666)
    root.mkdir("d", 0o777, BOB)
    root.symlink("s", "f", STRANGER)
    await make(root, "r", ROOT)
    found = {name: os.lstat(path / name) for name in "fdsr"}
    assert [(stat.st_uid, stat.st_gid) for stat in found.values()] == [
        (4201, 4201),
        (4202, 4202),
        (4203, root.export.identity.gids[0]),
        (0, 0),
    ]
    assert st.S_IMODE(found["f"].st_mode) == 0o666  # the client's umask has been applied already, and ours is not
    assert credentials() == before


async def test_what_is_made_has_the_group_that_was_asked_for_if_its_maker_is_in_it(
    shared: tuple[Path, nodes.FsNode],
) -> None:
    path, root = shared
    await make(root, "in", attrs.evolve(ANN, gid=4300))
    await make(root, "out", attrs.evolve(ANN, gid=0))
    await make(root, "stranger", attrs.evolve(STRANGER, gid=0))
    await make(root, "root", attrs.evolve(ROOT, gid=4300))
    assert (path / "in").stat().st_gid == 4300
    assert (path / "out").stat().st_gid in ANN.groups
    assert (path / "stranger").stat().st_gid == root.export.identity.gids[0]
    assert (path / "root").stat().st_gid == 4300
    (path / "sg").mkdir()
    os.chown(path / "sg", 0, 4300)
    (path / "sg").chmod(0o2777)
    await make(await settle(root.walk("sg", BOB)), "f", BOB)
    assert (path / "sg/f").stat().st_gid == 4300


async def test_a_user_of_whom_no_groups_are_known_is_in_none(shared: tuple[Path, nodes.FsNode]) -> None:
    """Not in nogroup, nor in the one that the files have which another such user made."""
    path, root = shared
    await make(root, "other-s", Principal("4204", 4204), 0o660)
    for group in (65534, 4203, *root.export.identity.gids):
        for name, mode in ((f"closed{group}", 0o660), (f"open{group}", 0o606)):
            (path / name).touch()
            os.chown(path / name, 1234, group)
            (path / name).chmod(mode)
        with pytest.raises(PermissionError):
            await opened(root, f"closed{group}", who=STRANGER)
        await settle((await opened(root, f"open{group}", who=STRANGER)).close())
    with pytest.raises(PermissionError):
        await opened(root, "other-s", who=STRANGER)


async def test_none_owns_nothing(shared: tuple[Path, nodes.FsNode]) -> None:
    """Not what `nobody` owns, nor what it made itself, nor what has the numbers that it acts by."""
    path, root = shared
    await make(root, "made", NONE, 0o660)
    for uid, gid in ((65534, 65534), *zip(root.export.identity.uids, root.export.identity.gids, strict=True)):
        name = f"of{uid}"
        (path / name).touch()
        os.chown(path / name, uid, gid)
        (path / name).chmod(0o660)
    path.chmod(0o1777)
    for name in os.listdir(path):
        node = root.walk(name, NONE)
        for attempt in (
            lambda node=node: node.open(Open(NONE)),
            lambda node=node: node.change(Change(mode=0o777), NONE),
            lambda node=node: node.change(Change(mtime=0), NONE),
            lambda node=node: node.change(Change(length=0), NONE),
            lambda name=name: root.remove(name, NONE),
            lambda name=name: root.rename(name, root, "mine", NONE),
            lambda name=name: root.rename(name, root, "made" if name != "made" else "of65534", NONE),
        ):
            with pytest.raises(PermissionError):
                attempt()


async def test_the_group_of_a_message_arrives(tmp_path: Path) -> None:
    async with exported(tmp_path) as files:
        await files.create("f", gid=4300)
        await files.ask(m.Tmkdir, 0, "d", 0o755, 4301)
        await files.ask(m.Tsymlink, 0, "s", "f", 4302)
        assert [os.lstat(tmp_path / name).st_gid for name in "fds"] == [4300, 4301, 4302]


async def test_bits_groups_and_sticky_directories_count(shared: tuple[Path, nodes.FsNode]) -> None:
    path, root = shared
    await make(root, "private", ANN, 0o600)
    await make(root, "group", attrs.evolve(ANN, gid=4300), 0o660)
    private, group = await settle(root.walk("private", BOB)), await settle(root.walk("group", BOB))
    with pytest.raises(PermissionError):
        await opened(private, "", who=BOB)
    await settle((await opened(group, "", "w", who=BOB)).close())
    with pytest.raises(PermissionError):
        await opened(group, "", who=STRANGER)
    for change in (Change(mode=0o777), Change(uid=4202), Change(mtime=1), Change(length=0)):
        with pytest.raises(PermissionError):
            await settle(private.change(change, BOB))
    await settle(group.change(Change(length=0, mtime=NOW, atime=NOW), BOB))  # who may write may also say now
    path.chmod(0o1777)
    with pytest.raises(PermissionError):
        root.remove("private", BOB)
    with pytest.raises(PermissionError):
        root.rename("private", root, "mine", BOB)
    root.remove("private", ANN)
    (path / "closed").mkdir(mode=0o700)
    closed = await settle(root.walk("closed", ANN))
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: closed.walk("f", ANN),
        lambda: closed.entries(ANN),
        lambda: closed.open(Open(ANN)),
        lambda: closed.mkdir("d", 0o755, ANN),
    )
    for attempt in attempts:
        with pytest.raises(PermissionError):
            await settle(attempt())


async def test_access_lists_count_and_not_only_bits(shared: tuple[Path, nodes.FsNode]) -> None:
    path, root = shared
    (path / "f").write_text("for bob")
    (path / "f").chmod(0o600)
    # user::rw-, user:4202:r--, group::---, mask::r--, other::--- (acl(5), include/uapi/linux/posix_acl_xattr.h)
    entries = ((1, 6, 0xFFFFFFFF), (2, 4, 4202), (4, 0, 0xFFFFFFFF), (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))
    acl = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + who.to_bytes(4, "little") for tag, perm, who in entries
    )
    try:
        os.setxattr(path / "f", "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("no access lists on this file system")
    f = await settle(root.walk("f", BOB))
    handle = await opened(f, "", who=BOB)
    assert bytes(await settle(handle.read(0, 100))) == b"for bob"
    await settle(handle.close())
    with pytest.raises(PermissionError):
        await opened(f, "", who=ANN)
    assert await settle(f.xattr("system.posix_acl_access", BOB)) == acl


async def test_a_user_has_no_capability_of_the_server_s(shared: tuple[Path, nodes.FsNode]) -> None:
    path, root = shared
    await make(root, "f", ANN, 0o755)
    f = await settle(root.walk("f", ANN))
    for name in ("trusted.x", "security.capability"):
        with pytest.raises(PermissionError):
            await settle(f.set_xattr(name, b"\1\0\0\2" + bytes(16), ANN))
    with pytest.raises(PermissionError):
        await settle(f.change(Change(uid=0), ANN))
    await settle(f.change(Change(mode=0o6755), ANN))
    assert (path / "f").stat().st_mode & 0o7777 == 0o6755
    handle = await opened(f, "", "w", who=ANN)
    await settle(handle.write(0, memoryview(b"x")))  # writing takes setuid away, as it would at home
    await settle(handle.close())
    assert (path / "f").stat().st_mode & 0o7777 == 0o755


async def test_two_users_of_one_connection(tmp_path: Path, shared: tuple[Path, nodes.FsNode]) -> None:
    path, _ = shared
    async with exported(path) as files:
        daemon = await also(files, "daemon")
        await daemon.create("f", mode=0o600)
        assert (path / "f").stat().st_uid == 1
        assert await files.read(await files.open("f")) == b""
        (path / "r").write_text("root's")
        (path / "r").chmod(0o600)
        with pytest.raises(PermissionError):
            await daemon.open("r")
        with pytest.raises(PermissionError):
            await daemon.ask(m.Tsetattr, await daemon.walk("r"), 0x1, 0o777, 0, 0, 0, 0, 0, 0, 0)
        (path / "d").mkdir(mode=0o700)
        with pytest.raises(PermissionError):
            await daemon.open("d")
        with pytest.raises(PermissionError):
            await daemon.ask(m.Twalk, await daemon.walk("d"), daemon.new(), ("below",))


async def test_the_identity_is_the_calling_thread_s_alone(shared: tuple[Path, nodes.FsNode]) -> None:
    _, root = shared
    before, seen = credentials(), list[tuple[str, ...]]()
    with root.export.acting(ANN):
        thread = threading.Thread(target=lambda: seen.append(credentials()))
        os.stat("/proc/thread-self")
        inside = credentials()
    thread.start()
    thread.join()
    uid = next(line for line in inside if line.startswith("Uid")).split()
    assert uid[4] == "4201"  # real, effective, saved, file system
    assert next(line for line in inside if line.startswith("CapEff")).split()[1].strip("0") == ""
    assert seen == [before]
    assert credentials() == before


def test_a_server_without_the_capability_is_alone() -> None:
    own = Own()
    assert own.may_be_others
    own.effective &= ~0x80  # CAP_SETUID
    assert not own.may_be_others


def test_a_server_that_is_not_root_changes_nothing_for_others(shared: tuple[Path, nodes.FsNode]) -> None:
    """In a process of its own: a test that gave root away could not go on."""
    path, _ = shared
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(4201, 4201, 4201)
            os.setresuid(4201, 4201, 4201)
            export = Export()
            root = nodes.root(export, str(path))
            said: list[object] = [export.identity.alone, root.guards]
            for who in (ANN, ROOT, BOB):
                try:
                    root.mkdir(who.name, 0o755, who)
                    said.append("made")
                except PermissionError as error:
                    said.append(str(error))
            os.write(writer, repr(said).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        assert answer.read() == repr(
            [True, False, "made", "made", "the server is not root, and can change nothing for other users"]
        )
    os.waitpid(pid, 0)
    assert (path / "root").stat().st_uid == 4201
