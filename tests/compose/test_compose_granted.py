"""What a guest sees of the namespace: its line proves which it is, and nothing is there but what it was granted.

The guest is a client on k1's line; k2 is another kernel, reached by the fast way; k0 is the host, reached as `exec!` is, by the composer's own nodes.
"""

import errno
import os
import stat as st
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from mk9p.auth import ROOT, GuestPolicy
from mk9p.authority.book import Book
from mk9p.authority.policy import Rules
from mk9p.client import Client, connect
from mk9p.compose.granted import Grant, merged
from mk9p.compose.namespace import Namespace
from mk9p.compose.remote import Remote
from mk9p.compose.rights import Granted, Holder, Right
from mk9p.composing import namespace
from mk9p.dial import TRANSPORTS, Peer, SocketLink, dial
from mk9p.errors import NineError
from mk9p.kernels import Kernels
from mk9p.scope import ALL, R
from mk9p.server import Server
from mk9p.specs import Spec, kernel_tree
from mk9p.testing import SOON, Line, serving_at, until
from mk9p.tree import Ctl, Dir, Handle, Log, Node, Open, Text
from mk9p.wire import NOFID, Dialect
from mk9p.wire import messages as m
from tests.servers.trees import names

HIDDEN = ("", "/ctl", "/ns", "/events", "/all/x", "/srv/x", "/kernels/ctl", "/kernels/k2/ctl", "/stats")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has the files of others to give")


@attrs.define(eq=False)
class Machine:
    """The served namespace, and where the guest k1 comes to it."""

    ns: Namespace
    line: str
    outside: Client
    server: Server
    done: list[tuple[str, str]]  # what was written to ctl files: whose, and what
    events: Log  # of `kernels`

    def say(self, what: str, *args: str) -> None:
        """Change what k1 is granted, as the word of its ctl does."""
        self.events.emit(what, "k1", *args)


def kernel(done: list[tuple[str, str]], name: str) -> dict[str, Node]:
    """Return the files of a small kernel's tree; its `ctl` is for root alone to write."""
    return {"name": Text(f"{name}\n"), "ctl": Ctl({"do": lambda what: done.append((name, what))})}


@asynccontextmanager
async def machine(tmp_path: Path, *grants: str, called: str = "k1", script: str = "") -> AsyncIterator[Machine]:
    done: list[tuple[str, str]] = []
    (tmp_path / "s").mkdir()
    for name in ("k0", "k2"):
        home = tmp_path / name
        home.mkdir()
        (home / "file").write_text(f"of {name}\n")
        (home / "secret").write_text("for its owner\n")
        (home / "secret").chmod(0o600)
        os.chown(home / "secret", 4711, 4711)
        (home / "dir").mkdir()
    config = "backend qemu\ncpus 1\n" + "".join(f"grant {grant}\n" for grant in grants)
    where = {name: f"unix!{tmp_path}/s/{name}" for name in ("k0", "own", "k2", "line", "ns")}
    status = f"state active\ndial {where['own']}\nlisten {where['line']}\n"
    events = Log()
    alone = Text("alone", exclusive=True)
    kernels = Dir(
        {
            "events": events,
            "ctl": Ctl({}),
            "alone": alone,
            called: Dir({"status": Text(status), "config": Text(config)}),
        }
    )
    with trio.fail_after(SOON):
        async with (
            trio.open_nursery() as nursery,
            kernel_tree([Spec("fs", str(tmp_path / "k0"), {"name": "data"})]) as fs0,
            kernel_tree([Spec("fs", str(tmp_path / "k2"), {"name": "data"})]) as fs2,
            serving_at(where["own"], Dir(kernel(done, "own"), {"fs": Dir()})),
            serving_at(where["k0"], Dir({"cmd": Dir({"ctl": Ctl({})})}, *fs0.children)),
            serving_at(where["k2"], Dir(kernel(done, "k2") | {"log": Log()}, *fs2.children)),
        ):
            ns = namespace(nursery, {"kernels": kernels})
            for name in ("k0", "k2"):
                ns.mount(where[name], f"/k/{name}")
            far = ns.table.points["/k/k0"][0].node
            assert isinstance(far, Remote)
            far.server.many = False
            await ns.run(script)
            async with serving_at(where["ns"], ns.root) as host, connect(where["ns"]) as outside:
                nursery.start_soon(Kernels(kernels, ns, host.server, nursery).watch)
                events.emit("started", called, 1)
                events.emit("active", called, where["own"])
                await until(lambda: (tmp_path / "s/line").exists() and ns.table.points.get(f"/k/{called}"))
                yield Machine(ns, where["line"], outside, host.server, done, events)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def guest(tmp_path: Path, *grants: str, **more: Any) -> AsyncIterator[tuple[Machine, Client]]:
    async with machine(tmp_path, *grants, **more) as one, connect(one.line, uname="root", n_uname=0) as client:
        yield one, client


async def refused(what: Any) -> int:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which is looked at by who asks
        await what
    return caught.value.errno or 0


@asynccontextmanager
async def raw(address: str, dialect: Dialect = Dialect.L) -> AsyncIterator[Line]:
    """Give a client by hand, which has said Tversion and attached as root: its fid 0 is its root."""
    link = await dial(address)
    assert isinstance(link, SocketLink)
    talk = Line(trio.SocketStream(trio.socket.from_stdlib_socket(link.sock.dup())), dialect)
    try:
        await talk.start()
        yield talk
    finally:
        await talk.stream.aclose()
        link.close()


def test_whatever_is_said_on_a_guests_line_it_is_the_guest() -> None:
    policy = GuestPolicy(kernel="k1")
    for uname, number in (("root", 0), ("", 0xFFFFFFFF), ("k0", 0xFFFFFFFF), ("guest:k2", 0xFFFFFFFF), ("none", 65534)):
        for uid in (None, 0, os.geteuid(), 4711):
            for transport in TRANSPORTS.values():
                who = policy.attach(uname, number, Peer(transport, "", uid))
                assert (who.name, who.groups) == ("guest:k1", frozenset())
                assert who.uid not in (0, os.geteuid(), 4711)


async def test_the_line_tells_who_comes_and_what_is_granted(tmp_path: Path) -> None:
    async with machine(tmp_path, "/k/k2 rw", "/k/k0/fs/data ro") as one:
        for uname, number in (("root", 0), ("root", None), ("k0", None), ("guest:k2", 7), ("", 0)):
            async with connect(one.line, uname=uname, n_uname=number) as client:
                assert await client.read("auth/whoami") == (
                    "principal guest:k1\nproof guest\nsubtree /\nops rwcnd\n"
                    "grant /k/k1 rw\ngrant /k/k2 rw\ngrant /k/k0/fs/data ro\n"
                )


async def test_without_a_grant_there_is_its_own_tree_and_whoami_alone(tmp_path: Path) -> None:
    async with guest(tmp_path) as (one, client):
        assert await names(client) == ["auth", "k"]
        assert await names(client, "k") == ["k1"]
        assert await names(client, "auth") == ["whoami"]
        assert await client.read("k/k1/name") == "own\n"
        await client.write("k/k1/ctl", "do this\n")
        assert one.done == [("own", "this")]
        for path in (*HIDDEN[1:], "/k/k0", "/k/k0/cmd/ctl", "/k/k2/name", "/k/k2/fs/data/file", "/k/error", "/error"):
            assert await refused(client.walk(path)) == errno.ENOENT, path


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_no_dots_and_no_tree_asked_for_lead_out(tmp_path: Path, dialect: Dialect) -> None:
    async with machine(tmp_path, "/k/k2/fs/data rw") as one, raw(one.line, dialect) as talk:
        up = ("..",) * 3
        for base in (("k", "k1"), ("k", "k1", "fs"), ("k", "k2", "fs", "data", "dir"), ("auth",), ()):
            for names in ((*up, "ctl"), (*up, *up, "k", "k0"), (*up, "k", "k2", "ctl"), ("..", "k0"), (*up, "kernels")):
                way = [*base, *names]
                reply = await talk.rpc(m.Twalk, 1, 0, 9, tuple(way[:16]))
                assert not (isinstance(reply, m.Rwalk) and len(reply.qids) == len(way)), way
        # a fid that has gone over to the other server comes back as the guest
        assert isinstance(await talk.rpc(m.Twalk, 1, 0, 5, ("k", "k2", "fs", "data", "dir")), m.Rwalk)
        for way in ([*up, "ctl"], [*up, "..", "k0"], [*up, "..", "..", "ctl"]):
            reply = await talk.rpc(m.Twalk, 1, 5, 6, tuple(way))
            assert not (isinstance(reply, m.Rwalk) and len(reply.qids) == len(way)), way
        more = () if dialect is Dialect.P9 else (0,)
        for aname in ("/k/k0", "k/k2", "..", "../..", "/k/k2/fs/data/../../ctl", "/kernels", "/ctl"):
            reply = await talk.rpc(m.Tattach, 1, 7, NOFID, "root", aname, *more)
            if isinstance(reply, m.Rattach):  # `..` and what only leads to the grant are there
                reply = await talk.rpc(m.Twalk, 1, 7, 8, ("ctl",))
                assert not isinstance(reply, m.Rwalk), aname
                await talk.rpc(m.Tclunk, 1, 7)


@pytest.mark.parametrize("name", ["k0", "k2"])
async def test_what_is_granted_ro_is_read_whole_and_changed_in_nothing(tmp_path: Path, name: str) -> None:
    top = f"k/{name}/fs/data"
    async with guest(tmp_path, f"/{top} ro", "/k/k2/name rw") as (one, client):
        assert await client.read(f"{top}/file") == f"of {name}\n"
        assert await client.read(f"{top}/secret") == "for its owner\n"
        assert set(await names(client, top)) == {"file", "secret", "dir"}
        for path in HIDDEN:
            assert path == "" or await refused(client.walk(path)) == errno.ENOENT
        assert await refused(client.walk("k/k2/ctl")) == errno.ENOENT
        changes: list[Any] = [
            client.write(f"{top}/file", "no\n"),
            client.open(f"{top}/file", "r+"),
            client.create(f"{top}/new", 0o666),
            client.mkdir(f"{top}/new", 0o777),
            client.remove(f"{top}/file"),
            client.remove(f"{top}/dir"),
            client.rename(f"{top}/file", f"{top}/other"),
        ]
        for change in changes:
            assert await refused(change) == errno.EROFS
        for dialect in (Dialect.P9, Dialect.U):
            async with raw(one.line, dialect) as talk:
                (tmp_path / name / "file").chmod(0o755)
                for mode in (0x10, 0x11, 0x12, 0x13, 0x40, 0x43, 1, 2):
                    await talk.rpc(m.Twalk, 1, 0, 5, (*top.split("/"), "file"))
                    reply = await talk.rpc(m.Topen, 1, 5, mode)
                    assert not isinstance(reply, m.Ropen), mode
                    await talk.rpc(m.Tclunk, 1, 5)
        async with raw(one.line) as talk:
            await talk.rpc(m.Twalk, 1, 0, 5, (*top.split("/"), "file"))
            await talk.rpc(m.Twalk, 1, 0, 6, tuple(top.split("/")))
            for message in (
                (m.Tsetattr, 5, 1, 0o4777, 0, 0, 0, 0, 0, 0, 0),
                (m.Tsetattr, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0),
                (m.Tsymlink, 6, "l", "/etc/shadow", 0),
                (m.Tlink, 6, 5, "l"),
                (m.Tmknod, 6, "l", st.S_IFIFO | 0o666, 0, 0, 0),
                (m.Tlcreate, 6, "l", os.O_RDWR, 0o666, 0),
                (m.Trenameat, 6, "file", 6, "l"),
                (m.Tunlinkat, 6, "file", 0),
            ):
                reply = await talk.rpc(message[0], 1, *message[1:])
                assert isinstance(reply, m.Rlerror), message
            asked = ((m.Txattrcreate, 5, "user.x", 1, 0), (m.Twrite, 5, 0, b"x"), (m.Tclunk, 5))
            said = [await talk.rpc(message[0], 1, *message[1:]) for message in asked]
            assert m.Rlerror in map(type, said), said
        assert os.listxattr(tmp_path / name / "file") == []
        assert (tmp_path / name / "file").read_text() == f"of {name}\n"
        assert {each.name for each in (tmp_path / name).iterdir()} == {"file", "secret", "dir"}


@pytest.mark.parametrize("name", ["k0", "k2"])
async def test_what_is_granted_rw_is_used_as_root_there(tmp_path: Path, name: str) -> None:
    top = f"k/{name}/fs/data"
    async with guest(tmp_path, f"/{top} rw") as (one, client):
        await client.write(f"{top}/secret", "changed\n")
        assert any(c.backends for c in one.server.connections) == (name == "k2")  # by the fast way
        await client.mkdir(f"{top}/dir/deeper", 0o700)
        async with await client.create(f"{top}/dir/deeper/new", 0o640) as file:
            await file.write(b"new\n")
        await client.rename(f"{top}/dir/deeper/new", f"{top}/dir/moved")
        assert await client.read(f"{top}/dir/moved") == "new\n"
        await client.remove(f"{top}/dir/deeper")
        home = tmp_path / name
        assert (home / "secret").read_text() == "changed\n"
        made = (home / "dir/moved").stat()
        assert (made.st_uid, made.st_gid, st.S_IMODE(made.st_mode)) == (0, 0, 0o640)
        assert await refused(client.remove(top)) in (errno.EACCES, errno.EBUSY, errno.EPERM)
        assert await refused(client.mkdir(f"k/{name}/fs/other", 0o777)) in (errno.EACCES, errno.EPERM)


@pytest.mark.parametrize("name", ["k0", "k2"])
async def test_what_is_granted_is_not_taken_away_from_where_it_stands(tmp_path: Path, name: str) -> None:
    way = ("k", name, "fs", "data")
    async with machine(tmp_path, f"/{'/'.join(way)}/dir rw", f"/{'/'.join(way)}/file rw") as one, raw(one.line) as talk:
        for last in ("dir", "file"):
            for message in (
                (m.Tremove, 5),
                (m.Trename, 5, 6, "in"),
                (m.Trename, 5, 7, "out"),
                (m.Trenameat, 7, last, 6, "in"),
                (m.Trenameat, 7, last, 7, "other"),
                (m.Tunlinkat, 7, last, 0x200 if last == "dir" else 0),
            ):
                for fid, names in ((5, (*way, last)), (6, (*way, "dir")), (7, way)):
                    await talk.rpc(m.Twalk, 1, 0, fid, names)
                reply = await talk.rpc(message[0], 1, *message[1:])
                assert isinstance(reply, m.Rlerror), (last, message)
                for fid in (5, 6, 7):
                    await talk.rpc(m.Tclunk, 1, fid)
        assert {each.name for each in (tmp_path / name).iterdir()} == {"file", "secret", "dir"}
        assert list((tmp_path / name / "dir").iterdir()) == []


async def test_no_number_of_a_fid_is_the_other_server_s_root(tmp_path: Path) -> None:
    """The relay has a fid there itself, of the server's root, by a number that a client may say too."""
    async with machine(tmp_path, "/share/dir rw") as one:
        one.ns.mount(f"unix!{tmp_path}/s/k2", "/share", "fs/data")
        async with connect(one.line) as client:
            await (await client.create("share/dir/mine")).aclose()
        async with raw(one.line) as talk:
            await talk.rpc(m.Twalk, 1, 0, 5, ("share", "dir", "mine"))
            await talk.rpc(m.Twalk, 1, 0, 6, ("share", "dir"))
            for number in (0xFFFFFFFE, 0xFFFFFFFD, NOFID):
                for message in (
                    (m.Trenameat, 6, "mine", number, "out"),
                    (m.Trename, 5, number, "out"),
                    (m.Tlink, number, 5, "out"),
                    (m.Tlink, 6, number, "in"),
                    (m.Twalk, number, 7, ("secret",)),
                    (m.Twalk, number, 7, ()),
                    (m.Tgetattr, number, 0x7FF),
                    (m.Tclunk, number),
                ):
                    reply = await talk.rpc(message[0], 1, *message[1:])
                    assert isinstance(reply, m.Rlerror), message
        assert {each.name for each in (tmp_path / "k2").iterdir()} == {"file", "secret", "dir"}
        assert [each.name for each in (tmp_path / "k2" / "dir").iterdir()] == ["mine"]


async def test_nothing_goes_from_one_grant_to_another_that_may_only_be_read(tmp_path: Path) -> None:
    async with guest(tmp_path, "/k/k2/fs/data/dir rw", "/k/k2/fs/data/file ro") as (one, client):
        await (await client.create("k/k2/fs/data/dir/mine")).aclose()
        assert await client.read("k/k2/fs/data/file") == "of k2\n"
        assert await refused(client.walk("k/k2/fs/data/secret")) == errno.ENOENT
        async with raw(one.line) as talk:
            way = ("k", "k2", "fs", "data")
            for fid, names in ((5, (*way, "file")), (6, (*way, "dir")), (7, way), (8, (*way, "dir", "mine"))):
                await talk.rpc(m.Twalk, 1, 0, fid, names)
            for message in (
                (m.Tlink, 6, 5, "hard"),
                (m.Trenameat, 7, "file", 6, "taken"),
                (m.Trenameat, 6, "mine", 7, "out"),
                (m.Trename, 5, 6, "taken"),
                (m.Trename, 8, 7, "out"),
                (m.Tlink, 7, 8, "out"),
            ):
                reply = await talk.rpc(message[0], 1, *message[1:])
                assert isinstance(reply, m.Rlerror), message
        assert {each.name for each in (tmp_path / "k2").iterdir()} == {"file", "secret", "dir"}
        assert [each.name for each in (tmp_path / "k2/dir").iterdir()] == ["mine"]


async def test_a_session_sees_at_once_what_is_granted_now_and_nothing_that_no_longer_is(tmp_path: Path) -> None:
    async with guest(tmp_path) as (one, client):
        for path, mode in (("/k/k2/fs/data", "ro"), ("/k/k0", "rw"), ("/", "rw")):
            assert path == "/" or await refused(client.walk(path)) == errno.ENOENT
            one.say("granted", path, mode)
            await client.walk(path)
            assert f"grant {path} {mode}\n" in await client.read("auth/whoami")
            one.say("ungranted", path)
            assert path == "/" or await refused(client.walk(path)) == errno.ENOENT
            assert await names(client) == ["auth", "k"]
            assert await names(client, "k") == ["k1"]


@pytest.mark.parametrize("name", ["k0", "k2"])
async def test_files_that_are_open_end_with_their_grant_and_others_stay(tmp_path: Path, name: str) -> None:
    top = f"k/{name}/fs/data"
    async with guest(tmp_path, f"/{top}/secret rw", f"/{top}/dir rw", f"/{top}/file ro") as (one, client):
        await (await client.create(f"{top}/dir/kept")).aclose()
        kept, file = await client.open(f"{top}/dir/kept", "r+"), await client.open(f"{top}/file")
        taken = await client.open(f"{top}/secret", "r+")
        assert await taken.pread(3, 0) == b"for"
        one.say("ungranted", f"/{top}/secret")
        assert await refused(taken.pread(3, 0)) in (errno.EACCES, errno.EIO)
        assert await refused(taken.pwrite(b"no", 0)) in (errno.EACCES, errno.EIO)
        assert await refused(client.walk(f"{top}/secret")) == errno.ENOENT
        await kept.pwrite(b"kept", 0)
        assert await file.pread(2, 0) == b"of"
        one.say("granted", f"/{top}/file", "rw")
        await client.write(f"{top}/file", "changed\n")
        for each in (kept, file, taken):
            await each.aclose()
    assert (tmp_path / name / "secret").read_text() == "for its owner\n"
    assert (tmp_path / name / "dir/kept").read_text() == "kept"


@pytest.mark.parametrize("name", ["k0", "k2"])
async def test_who_may_only_read_from_now_on_writes_to_no_open_file(tmp_path: Path, name: str) -> None:
    top = f"k/{name}/fs/data"
    async with guest(tmp_path, f"/{top} rw") as (one, client), raw(one.line) as talk:
        written = await client.open(f"{top}/file", "r+")
        await talk.rpc(m.Twalk, 1, 0, 5, tuple(top.split("/")))
        one.say("granted", f"/{top}", "ro")
        assert await refused(written.pwrite(b"no", 0)) in (errno.EROFS, errno.EIO)
        assert await refused(client.write(f"{top}/file", "no\n")) == errno.EROFS
        assert await client.read(f"{top}/file") == f"of {name}\n"
        # a directory that was walked to before is still there, and is judged by what is granted now
        assert isinstance(await talk.rpc(m.Twalk, 1, 5, 6, ("file",)), m.Rwalk)
        reply = await talk.rpc(m.Tmkdir, 1, 5, "new", 0o777, 0)
        assert isinstance(reply, m.Rlerror)
        assert reply.ecode == errno.EROFS
        one.say("ungranted", f"/{top}")
        for message in (
            (m.Tgetattr, 5, 0x7FF),
            (m.Twalk, 5, 7, ("file",)),
            (m.Tgetattr, 6, 0x7FF),
            (m.Twalk, 6, 7, ()),
        ):
            said = await talk.rpc(message[0], 1, *message[1:])
            assert isinstance(said, m.Rlerror) or message[0] is m.Twalk, message
        assert isinstance(await talk.rpc(m.Tlopen, 1, 6, os.O_RDONLY), m.Rlerror)
        await written.aclose()
    assert {each.name for each in (tmp_path / name).iterdir()} == {"file", "secret", "dir"}
    assert (tmp_path / name / "file").read_text() == f"of {name}\n"


@pytest.mark.parametrize("path", ["/events", "/k/k2/log"])
async def test_who_waits_in_a_file_that_is_granted_no_more_waits_no_more(tmp_path: Path, path: str) -> None:
    async with guest(tmp_path, f"{path} rw") as (one, client):
        ended: list[int] = []
        file = await client.open(path)

        async def read_on() -> None:
            while True:
                await file.read(4096)

        async def wait() -> None:
            ended.append(await refused(read_on()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until(lambda: any(c.in_flight for c in one.server.connections))
            one.say("ungranted", path)
        assert ended[0] in (errno.EACCES, errno.EIO)
        await file.aclose()


async def test_what_was_being_opened_when_its_grant_ended_is_closed_and_not_open() -> None:
    opens, closed = trio.Event(), list[Handle]()

    class Kept(Handle):
        def close(self) -> None:
            closed.append(self)

    class Slow(Text):
        async def open(self, how: Open) -> Handle:
            await opens.wait()
            return Kept()

    right = Right("/slow", Holder("guest:k1", 0, by="/slow"), ALL)
    refusals: list[int] = []

    async def opening() -> None:
        refusals.append(await refused(Granted(Slow(""), right).open(Open(ROOT))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(opening)
        await trio.testing.wait_all_tasks_blocked()
        assert right.become(0)
        opens.set()
    assert refusals == [errno.EACCES]
    assert len(closed) == 1
    assert not right.opened


async def test_what_a_guest_alone_had_open_is_free_when_its_grant_ends(tmp_path: Path) -> None:
    async with guest(tmp_path, "/kernels/alone rw") as (one, client):
        held = await client.open("kernels/alone")
        assert await refused(one.outside.open("kernels/alone")) == errno.EBUSY
        one.say("ungranted", "/kernels/alone")
        async with await one.outside.open("kernels/alone") as file:
            assert await file.read(10) == b"alone"
        assert await refused(held.read(10)) == errno.EACCES
        await held.aclose()


async def test_a_grant_that_cannot_be_is_refused_and_nothing_has_happened(tmp_path: Path) -> None:
    async with guest(tmp_path, "/k/k2 rw") as (one, client):
        lines = len(one.events.lines)
        for path, mode in (("/k/k2/fs", "ro"), ("/x" * 5000, "ro")):
            with pytest.raises(NineError):
                one.say("granted", path, mode)
        assert len(one.events.lines) == lines
        assert "grant /k/k2 rw\n" in await client.read("auth/whoami")


async def test_a_life_of_a_kernel_that_is_over_has_no_session_left(tmp_path: Path) -> None:
    """Nor do its open files: another guest may come by the same line."""
    async with guest(tmp_path, "/k/k2 rw") as (one, client):
        file = await client.open("k/k2/name")
        one.events.emit("dead", "k1", "killed")
        await until(lambda: client.connection.gone is not None)
        assert await refused(file.read(10)) == errno.EIO
        assert await one.outside.read("k/k2/name") == "k2\n"


async def test_what_others_bind_over_a_guests_own_tree_is_not_its_own(tmp_path: Path) -> None:
    async with guest(tmp_path) as (one, client):
        await one.ns.run("bind -a /k/k0/cmd /k/k1\nbind /k/k0/fs/data /k/k1/fs\n")
        assert (await one.outside.read("k/k1/fs/file")) == "of k0\n"
        assert await refused(client.walk("k/k1/fs/file")) == errno.ENOENT
        assert set(await names(client, "k/k1")) == {"name", "ctl", "error", "fs"}


async def test_a_grant_is_of_a_path_and_of_what_is_bound_below_it(tmp_path: Path) -> None:
    async with guest(tmp_path, "/shared rw", script="bind -c /k/k0/fs/data/dir /shared/here\n") as (_, client):
        assert await names(client, "shared") == ["here"]
        async with await client.create("shared/here/new") as file:
            await file.write(b"new\n")
        assert (tmp_path / "k0/dir/new").read_text() == "new\n"
        assert await refused(client.walk("k/k0")) == errno.ENOENT
        assert await refused(client.walk("shared/here/../../ctl")) == errno.ENOENT


async def test_a_part_of_all_kernels_is_granted_by_its_own_path_alone(tmp_path: Path) -> None:
    async with guest(tmp_path, "/all/fs ro") as (one, client):
        assert await names(client, "all") == ["fs"]
        assert await client.read("all/fs/k2.data/file") == "of k2\n"
        assert await refused(client.write("all/fs/k2.data/file", "no\n")) == errno.EROFS
        assert await refused(client.walk("all/cmd")) == errno.ENOENT
        assert one.done == []


async def test_the_words_of_the_namespace_work_where_they_are_granted(tmp_path: Path) -> None:
    async with guest(tmp_path, "/ctl rw", "/ns ro") as (one, client):
        await client.write("ctl", "bind /k/k2 /x\n")
        assert "bind /k/k2 /x\n" in await client.read("ns")
        assert await one.outside.read("x/name") == "k2\n"
        assert await refused(client.walk("x")) == errno.ENOENT


async def test_to_whom_all_is_granted_the_whole_namespace_is_there(tmp_path: Path) -> None:
    async with guest(tmp_path, "/ rw") as (one, client):
        assert set(await names(client)) >= {"auth", "ctl", "k", "kernels", "all", "srv"}
        assert "grant / rw\n" in await client.read("auth/whoami")
        assert await client.read("k/k2/name") == "k2\n"
        await client.write("k/k2/ctl", "do that\n")
        assert one.done == [("k2", "that")]


async def test_a_guest_named_as_the_host_is_does_not_get_the_host(tmp_path: Path) -> None:
    async with guest(tmp_path, called="k0") as (_, client):
        assert "principal guest:k0\n" in await client.read("auth/whoami")
        assert await refused(client.walk("k/k0")) == errno.ENOENT


async def test_a_listing_shows_what_is_there_of_what_is_granted(tmp_path: Path) -> None:
    async with guest(tmp_path, "/k/k2/name ro", "/k/k2/absent ro", "/k/k9 rw", "/k/k2/fs rw") as (_, client):
        assert await names(client, "k") == ["k1", "k2"]
        assert {entry.name: entry.is_dir for entry in await client.listdir("k/k2")} == {"name": False, "fs": True}


@pytest.mark.parametrize(
    ("grants", "kept"),
    [
        (["/k/k2 rw", "/k/k2/fs rw"], ["/k/k2 rw"]),
        (["/k/k2/fs ro", "/k/k2 ro"], ["/k/k2 ro"]),
        (["/k/k2 rw", "/k/k22 ro"], ["/k/k2 rw", "/k/k22 ro"]),
        (["/a/../k ro"], ["/k ro"]),
        (["/ ro", "/k ro"], ["/ ro"]),
    ],
)
def test_a_grant_that_lies_in_another_is_one_with_it(grants: list[str], kept: list[str]) -> None:
    assert [str(grant) for grant in merged(Grant.parse(line.split()) for line in grants)] == kept


@pytest.mark.parametrize("line", ["k/k2 ro", "/k/k2", "/k/k2 ro rw", "", "/k x", "/k rr", "/k rO"])
def test_a_grant_that_says_something_else_is_refused(line: str) -> None:
    with pytest.raises(NineError, match=r"usage: grant PATH ro\|rw\|OPS|OPS are letters of rwcnd"):
        Grant.parse(line.split())


async def test_letters_of_a_grant_allow_what_they_say_and_nothing_else(tmp_path: Path) -> None:
    async with guest(tmp_path, "/k/k2 rc", "/k/k0/fs/data rwn") as (one, client):
        lines = list[str]()
        one.server.authority.audit.sinks.append(lines.append)
        assert (await client.read("auth/whoami")).endswith(
            "ops rwcnd\ngrant /k/k1 rw\ngrant /k/k2 rc\ngrant /k/k0/fs/data rwn\n"
        )
        assert await client.read("k/k2/fs/data/secret") == "for its owner\n"
        await client.write("k/k2/ctl", "do this")
        assert one.done == [("k2", "this")]
        for change in (
            client.write("k/k2/fs/data/file", "no"),
            client.create("k/k2/fs/data/new", 0o666),
            client.remove("k/k2/fs/data/file"),
            client.rename("k/k2/fs/data/file", "k/k2/fs/data/other"),
            client.rename("k/k2/fs/data/file", "k/k0/fs/data/other"),
            client.remove("k/k0/fs/data/file"),
            client.write("k/k0/fs/data/my.ctl", "no"),
        ):
            assert await refused(change) in (errno.EACCES, errno.EXDEV, errno.ENOENT)
        await client.write("k/k0/fs/data/file", "changed")
        await (await client.create("k/k0/fs/data/new", 0o666)).aclose()
        assert (tmp_path / "k0/file").read_text() == "changed"
        assert (tmp_path / "k2/file").read_text() == "of k2\n"
        assert any("k2/fs/data/file EACCES" in line for line in lines)


@pytest.mark.parametrize("before", ["rw", "rwcnd", "rwc"])
async def test_letters_that_are_taken_away_end_what_was_open_by_them(tmp_path: Path, before: str) -> None:
    async with guest(tmp_path, f"/k/k2 {before}") as (one, client):
        command = await client.open("k/k2/ctl", "w")
        one.say("granted", "/k/k2", "rwd")
        assert await refused(command.pwrite(b"do that", 0)) in (errno.EACCES, errno.EIO, errno.EROFS)
        assert await refused(client.write("k/k2/ctl", "do that")) == errno.EACCES
        assert one.done == []
        await client.write("k/k2/fs/data/file", "changed")
        assert (tmp_path / "k2/file").read_text() == "changed"
        one.say("granted", "/k/k2", "ro")
        assert await refused(client.write("k/k2/fs/data/file", "no")) == errno.EROFS
        assert await client.read("k/k2/fs/data/file") == "changed"


def test_grants_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(NineError, match="/k/k2/fs rw lies in /k/k2 ro"):
        merged([Grant("/k/k2", R), Grant("/k/k2/fs", ALL)])


async def test_the_host_itself_sees_all_as_before(tmp_path: Path) -> None:
    async with machine(tmp_path) as one:
        assert await one.outside.read("k/k2/name") == "k2\n"
        assert (await one.ns.resolver.elements("/k/k1", ROOT))[0].node is not None


async def test_rules_take_from_a_guest_what_it_was_granted_and_give_it_nothing(tmp_path: Path) -> None:
    rules = (
        "deny guest:k1 w /k/k2/fs/data/file\ndeny guest:k1 rwcnd /k/k0/**\nallow guest:k1 rwcnd /**\ndeny guest:* r /"
    )
    with pytest.raises(NineError, match="line 4: WHO is a name"):
        Rules.parse(rules, lambda name: 0)
    async with machine(tmp_path, "/k/k2/fs/data rw", "/k/k0/fs/data ro") as one:
        one.server.authority.book = Book(Rules.parse(rules.rpartition("\n")[0], lambda name: 0))
        async with connect(one.line, uname="root", n_uname=0) as client:
            assert await client.read("k/k2/fs/data/file") == "of k2\n"
            assert await refused(client.write("k/k2/fs/data/file", "no")) == errno.EACCES
            await client.write("k/k2/fs/data/secret", "changed\n")
            assert await names(client, "k") == ["k1", "k2"]
            assert await refused(client.read("k/k0/fs/data/file")) == errno.EACCES
            for path in HIDDEN[1:]:
                assert await refused(client.walk(path)) == errno.ENOENT
            assert await client.read("k/k1/name") == "own\n"
            assert (await client.read("auth/whoami")).startswith("principal guest:k1\n")
        assert await one.outside.read("k/k0/fs/data/file") == "of k0\n"
    assert (tmp_path / "k2/secret").read_text() == "changed\n"
