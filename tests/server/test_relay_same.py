"""The fast way, the general one and a server without a composer answer the same: random requests, in random bursts, compared reply by reply."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mk9p.compose.remote import Remote
from mk9p.testing import Memory
from mk9p.tree.qids import Foreign
from mk9p.wire import L_CREAT, L_EXCL, L_TRUNC, Qid, unpack_dirents
from mk9p.wire import messages as m
from tests.server.relaying import ON, Lab, a_tree, lab, pack, replies, walk
from tests.server.talk import Talk, talking

Request = tuple[Any, ...]

names = st.sampled_from(["d", "e", "f", "g", "h", "x", "none"])
fids = st.integers(2, 5)
flags = st.sampled_from([0, 1, 2, 0 | L_TRUNC, 1 | L_TRUNC])
offsets = st.integers(0, 12)
paths = st.lists(st.one_of(names, names, st.just("..")), max_size=3).map(tuple)

requests = st.one_of(
    st.tuples(st.just(m.Twalk), fids, fids, paths),
    st.tuples(st.just(m.Twalk), st.just(ON), fids, st.lists(names, min_size=1, max_size=3).map(tuple)),
    st.tuples(st.just(m.Tclunk), fids),
    st.tuples(st.just(m.Tclunk), fids),
    st.tuples(st.just(m.Tremove), fids),
    st.tuples(st.just(m.Tlopen), fids, flags),
    st.tuples(st.just(m.Tlopen), fids, flags),
    st.tuples(st.just(m.Tlcreate), fids, names, st.just(2 | L_CREAT | L_EXCL), st.just(0o644), st.just(0)),
    st.tuples(st.just(m.Tread), fids, offsets, offsets),
    st.tuples(st.just(m.Twrite), fids, offsets, st.binary(max_size=8)),
    st.tuples(st.just(m.Tgetattr), fids, st.just(0x7FF)),
    st.tuples(st.just(m.Treaddir), fids, st.just(0), st.just(4096)),
    st.tuples(st.just(m.Tsetattr), fids, st.just(8), *[st.just(0)] * 3, offsets, *[st.just(0)] * 4),
    st.tuples(st.just(m.Tmkdir), fids, names, st.just(0o755), st.just(0)),
    st.tuples(st.just(m.Tsymlink), fids, names, st.just("target"), st.just(0)),
    st.tuples(st.just(m.Tmknod), fids, names, st.just(0o010644), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just(m.Treadlink), fids),
    st.tuples(st.just(m.Tstatfs), fids),
    st.tuples(st.just(m.Tfsync), fids, st.just(0)),
    st.tuples(st.just(m.Tunlinkat), fids, names, st.sampled_from([0, 0x200])),
    st.tuples(st.just(m.Tlink), fids, fids, names),
    st.tuples(st.just(m.Trenameat), fids, names, fids, names),
    st.tuples(st.just(m.Trename), fids, fids, names),
    st.tuples(st.just(m.Txattrwalk), fids, fids, st.sampled_from(["", "user.a", "user.none"])),
    st.tuples(st.just(m.Txattrcreate), fids, st.just("user.b"), st.just(2), st.just(0)),
    st.tuples(st.just(m.Tlock), fids, st.just(1), st.just(0), st.just(0), st.just(0), st.just(1), st.just("c")),
    st.tuples(st.just(m.Tgetlock), fids, st.just(1), st.just(0), st.just(0), st.just(1), st.just("c")),
    st.tuples(st.just(m.Tflush), st.just(4711)),
)
TIMES = [f"{which}time_{unit}" for which in "amc" for unit in ("sec", "nsec")]
BEGIN: list[Request] = [(m.Twalk, ON, 2, ("d",)), (m.Twalk, ON, 3, ("d", "f")), (m.Twalk, 2, 4, ("e",))]


def the_tree() -> Memory:
    tree = a_tree()
    tree.at("d/f").attributes["user.a"] = b"value"
    return tree


async def converse(talk: Talk, script: list[Request], burst: int) -> list[Any]:
    """Send a script in bursts; returns its replies."""
    answered: list[Any] = []
    for at in range(0, len(script), burst):
        part = script[at : at + burst]
        await talk.raw(b"".join(pack(cls, tag, *fields) for tag, (cls, *fields) in enumerate(part)))
        got = await replies(talk, len(part))
        answered += [got[tag] for tag in range(len(part))]
    return answered


async def composed(path: Path, script: list[Request], burst: int, *, fast: bool) -> list[Any]:
    async with lab(path, the_tree(), fast=fast) as found:
        far = far_server(found)
        far.server.paths = Foreign(b"the same")  # the address is another each time
        talk = await found.client()
        got = await converse(talk, script, burst)
        assert bool(found.crossings) == fast
        return got


def far_server(found: Lab) -> Remote:
    node = found.ns.table.points["/k0"][0].node
    assert isinstance(node, Remote)
    return node


async def direct(script: list[Request], burst: int) -> list[Any]:
    async with talking(the_tree()) as talk:
        await walk(talk, 0, ON)
        return await converse(talk, script, burst)


def said(reply: Any, request: Request, paths: bool = False) -> Any:
    """Return what a reply says; without `paths`, what it says but for qid.path. Of two errors in one request, any may be told."""
    if isinstance(reply, m.Rlerror):
        if request[0] in (m.Trename, m.Trenameat, m.Tlink):
            return "error"
        new = request[0] in (m.Twalk, m.Txattrwalk)
        return "error in a fid" if new and reply.ecode in (errno.EEXIST, errno.EBADF) else reply.ecode
    if isinstance(reply, m.Rreaddir):
        # `..` of what is right below a mount point: its path is the mount point's here and the tree's root there
        listed = unpack_dirents(reply.data)
        return [(name, qid.type, qid.path if paths and name != ".." else 0) for qid, _, _, name in listed]
    if reply.type == m.Rgetattr.type:  # each way has a tree of its own, which is changed at its own time
        reply = attrs.evolve(reply, **dict.fromkeys(TIMES, 0))
    values = [bytes(value) if isinstance(value, memoryview) else value for value in reply.values()]
    if not paths:
        if isinstance(reply, m.Rwalk):
            return [qid.type for qid in reply.qids]
        values = [value._replace(path=0) if isinstance(value, Qid) else value for value in values]
    return [type(reply), *values]


@given(st.lists(requests, min_size=4, max_size=40), st.integers(1, 7))
@settings(max_examples=int(os.environ.get("RELAY_EXAMPLES", "60")))
def test_all_ways_answer_the_same(script: list[Request], burst: int) -> None:
    whole = BEGIN + script

    async def compare() -> None:
        bare = await direct(whole, burst)
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            fast = await composed(Path(one), whole, burst, fast=True)
            # the general way may do what was sent in one go in another order, where it waits
            general = await composed(Path(two), whole, burst, fast=False) if burst == 1 else None
        above = moved = False
        for number, request in enumerate(whole):
            # a walk up may have left the tree, or come to the mount point, which is the composer's
            above = above or (request[0] is m.Twalk and ".." in request[-1])
            where = f"{number}: {request[0].__name__}{request[1:]}"
            if not above:
                assert (where, said(fast[number], request)) == (where, said(bare[number], request))
            if general is not None:
                paths = not moved  # the general way keeps the path that a file had when it was walked to
                assert (where, said(fast[number], request, paths)) == (where, said(general[number], request, paths))
            moved = moved or request[0] in (m.Trename, m.Trenameat)

    trio.run(compare)
