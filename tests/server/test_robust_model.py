"""A server and its fids against a model: whatever a client does, in whatever order, a fid is what the manual says it is."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mk9p.server import Limits, Server
from mk9p.testing import in_thread, joined, serving
from mk9p.tree import Dir, Node, Stream, Text
from mk9p.wire import NOFID, TABLE, Dialect, decode
from mk9p.wire import messages as m

FIDS = st.integers(0, 6)
MAX_FIDS = 5
WAITS: tuple[str, ...] = ("stream",)  # a read of it waits for ever
FILES = {
    ("text",): b"text " * 5000,
    ("ctl",): b"word 1\n",
    ("few", "a"): b"a",
    ("few", "b"): b"b",
    ("deep", "er", "text"): b"deep\n",
    WAITS: b"",
}
DIRS = [(), ("few",), ("deep",), ("deep", "er")]
PATHS = st.sampled_from([*FILES, *DIRS, ("none",), ("few", "none"), ("text", "x"), ("few", ".."), ("..",)])


@attrs.define
class Known:
    """What the model knows of a fid."""

    path: tuple[str, ...]
    opened: int | None = None


def tree() -> Dir:
    """Return the tree that the model is of."""

    def file(path: tuple[str, ...]) -> Node:
        return (
            Stream(trio.sleep_forever, mode=0o666)
            if path == WAITS
            else Text(FILES[path], lambda text: None, mode=0o666)
        )

    def directory(path: tuple[str, ...]) -> Dir:
        files = {each[-1]: file(each) for each in FILES if each[:-1] == path}
        return Dir(files, {each[-1]: directory(each) for each in DIRS if each and each[:-1] == path})

    return directory(())


def where(path: tuple[str, ...], names: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Return how far a walk goes, and to where."""
    for done, name in enumerate(names):
        if path in FILES:
            return done, path
        if name == "..":
            path = path[:-1]
            continue
        path = (*path, name)
        if path not in FILES and path not in DIRS:
            return done, path
    return len(names), path


@contextmanager
def served() -> Iterator[tuple[Server, Any]]:
    """A server in a thread of its own, and the other end of a link to it."""
    with in_thread(serving(tree(), limits=Limits(fids=MAX_FIDS))) as (server, call), call(joined, server) as ours:
        ours.settimeout(10)
        yield server, ours


class Conversation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.context = served()
        self.server, self.sock = self.context.__enter__()
        (self.connection,) = self.server.connections
        self.fids: dict[int, Known] = {}
        self.waiting: dict[int, int] = {}  # tag -> fid of a read that waits
        self.tags = 100
        assert isinstance(self.ask(m.Tversion, 8192, "9P2000.L"), m.Rversion)

    def teardown(self) -> None:
        self.context.__exit__(None, None, None)

    # the wire

    def send(self, tag: int, cls: type[m.Message], *fields: Any) -> None:
        codec = TABLE[Dialect.L][cls.type]
        assert codec is not None
        self.sock.sendall(codec.pack(tag, *fields))

    def receive(self) -> m.Message:
        frame = self.sock.recv(4)
        while len(frame) < int.from_bytes(frame[:4], "little"):
            frame += self.sock.recv(int.from_bytes(frame[:4], "little") - len(frame))
        return decode(Dialect.L, frame)

    def ask(self, cls: type[m.Message], *fields: Any) -> Any:
        self.tags += 1
        self.send(self.tags, cls, *fields)
        reply = self.receive()
        assert reply.tag == self.tags, reply
        return reply

    def wrong(self, reply: Any, *numbers: int) -> None:
        assert isinstance(reply, m.Rlerror), reply
        assert reply.ecode in numbers, reply

    # what may be done

    @rule(fid=FIDS)
    def attach(self, fid: int) -> None:
        reply = self.ask(m.Tattach, fid, NOFID, "root", "", 0xFFFFFFFF)
        if fid in self.fids:
            self.wrong(reply, errno.EEXIST)
        elif len(self.fids) >= MAX_FIDS:
            self.wrong(reply, errno.EMFILE)
        else:
            assert isinstance(reply, m.Rattach), reply
            self.fids[fid] = Known(())

    @rule(fid=FIDS, newfid=FIDS, names=PATHS)
    def walk(self, fid: int, newfid: int, names: tuple[str, ...]) -> None:
        reply = self.ask(m.Twalk, fid, newfid, names)
        known = self.fids.get(fid)
        if known is None:
            return self.wrong(reply, errno.EBADF)
        if newfid != fid and newfid in self.fids:
            return self.wrong(reply, errno.EEXIST)
        if names and newfid == fid and known.opened is not None:
            return self.wrong(reply, errno.EBADF)
        done, path = where(known.path, names)
        if done < len(names):
            if done == 0:
                return self.wrong(reply, errno.ENOENT, errno.ENOTDIR)
            assert len(reply.qids) == done, reply
            return None
        if newfid != fid and len(self.fids) >= MAX_FIDS:
            return self.wrong(reply, errno.EMFILE)
        assert isinstance(reply, m.Rwalk), reply
        assert len(reply.qids) == len(names), reply
        if newfid != fid:
            self.fids[newfid] = Known(path)
        else:
            known.path = path
        return None

    @rule(fid=FIDS, mode=st.sampled_from([0, 1, 2]))
    def open(self, fid: int, mode: int) -> None:
        reply = self.ask(m.Tlopen, fid, mode)
        known = self.fids.get(fid)
        if known is None or known.opened is not None:
            self.wrong(reply, errno.EBADF)
        elif known.path in DIRS and mode:
            self.wrong(reply, errno.EISDIR)
        else:
            assert isinstance(reply, m.Rlopen), reply
            known.opened = mode

    @rule(fid=FIDS, offset=st.sampled_from([0, 3, 30000]), count=st.sampled_from([0, 5, 9000]))
    def read(self, fid: int, offset: int, count: int) -> None:
        known = self.fids.get(fid)
        if known is not None and known.path == WAITS and known.opened in (0, 2):
            return
        reply = self.ask(m.Tread, fid, offset, count)
        if known is None or known.opened not in (0, 2):
            return self.wrong(reply, errno.EBADF)
        if known.path in DIRS:
            return self.wrong(reply, errno.EISDIR)
        assert isinstance(reply, m.Rread), reply
        assert bytes(reply.data) == FILES[known.path][offset : offset + min(count, 8192 - 24)]

    @precondition(lambda self: any(k.path == WAITS and k.opened in (0, 2) for k in self.fids.values()))
    @rule()
    def begin_to_read(self) -> None:
        """Ask for what never comes; whatever is asked meanwhile is answered."""
        fid = next(fid for fid, k in self.fids.items() if k.path == WAITS and k.opened in (0, 2))
        self.tags += 1
        self.send(self.tags, m.Tread, fid, 0, 100)
        self.waiting[self.tags] = fid

    @precondition(lambda self: self.waiting)
    @rule()
    def flush(self) -> None:
        assert isinstance(self.ask(m.Tflush, self.waiting.popitem()[0]), m.Rflush)

    @precondition(lambda self: self.waiting)
    @rule()
    def use_its_tag_again(self) -> None:
        tag = next(iter(self.waiting))
        self.send(tag, m.Tgetattr, 0, 1)
        reply = self.receive()
        assert reply.tag == tag
        self.wrong(reply, errno.EINVAL)

    @rule(fid=FIDS)
    def stat(self, fid: int) -> None:
        reply = self.ask(m.Tgetattr, fid, 0x7FF)
        if fid not in self.fids:
            self.wrong(reply, errno.EBADF)
        else:
            assert isinstance(reply, m.Rgetattr), reply
            assert bool(reply.mode & 0o040000) == (self.fids[fid].path in DIRS)

    @rule(fid=FIDS)
    def clunk(self, fid: int) -> None:
        reply = self.ask(m.Tclunk, fid)
        if self.fids.pop(fid, None) is None:
            self.wrong(reply, errno.EBADF)
        else:
            assert isinstance(reply, m.Rclunk), reply

    @rule(fid=FIDS)
    def remove(self, fid: int) -> None:
        """It cannot be removed, but the fid is gone (remove(5))."""
        reply = self.ask(m.Tremove, fid)
        self.wrong(reply, errno.EPERM, errno.EBUSY, errno.EBADF)
        self.fids.pop(fid, None)

    @rule()
    def version(self) -> None:
        """Everything begins anew."""
        assert isinstance(self.ask(m.Tversion, 8192, "9P2000.L"), m.Rversion)
        self.fids.clear()
        self.waiting.clear()

    # what is so at all times

    @invariant()
    def the_tables_agree(self) -> None:
        self.ask(m.Tflush, 0xFFF0)  # answered after everything before
        session = self.connection.session
        assert {fid: f.how is not None for fid, f in session.fids.items()} == {
            fid: known.opened is not None for fid, known in self.fids.items()
        }
        assert set(session.tags) == set(self.waiting)


def test_a_conversation_is_as_the_manual_says(long: bool) -> None:
    Conversation.TestCase.settings = settings(
        max_examples=2000 if long else 60,
        stateful_step_count=50,
        suppress_health_check=list(HealthCheck),
    )
    Conversation.TestCase("runTest").runTest()
