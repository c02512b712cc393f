"""`check_tree`: what every tree must do, whatever it shows. A resource server's test calls it once, and then only tests its own rules.

It checks this, over the wire as 9P2000.L unless said otherwise:
* walking, stat and listing say the same of every file, and a listing gives the same names twice;
* qids are the same in two instances of the tree, and no two files of one have the same;
* names that no file can have, and files that do not exist, are refused with the right errno; `..` of the root is the root;
* a user who is nobody gets what the bits give to others, and no more;
* a file reads the same in pieces as at once, and reading changes neither status nor content if these did not change before;
* a file that can be written takes the truncation that `echo x > file` sends;
* beside each `ctl` there is `error`, which tells this user in words, with the usage, why an unknown word was refused;
* opening `clone` makes a conversation, which is gone when the file is closed;
* a read that waits can be cancelled at any moment, and the next one gets what a reader gets that was never cancelled.
"""

import errno
import stat as st
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from fnmatch import fnmatch

import attrs
import trio
import trio.testing

from mk9p.auth import NONE, READ, WRITE, may
from mk9p.client import Client, requests
from mk9p.client.client import split
from mk9p.client.files import File
from mk9p.testing.mounted import mounted
from mk9p.tree import Node, Stat
from mk9p.wire import QTDIR, Qid

PATIENCE = 0.1  # seconds in which nothing happens: then a file waits
LONGEST = 20.0  # seconds: the limit when something happens all the time
MOST = 1 << 18  # bytes of a file that are compared
ENDLESS = 1 << 24  # bytes: a file without a length that has more has no end, or keeps nothing of what was read
_WORD = "no-such-word-at-all"

Made = Node | AbstractAsyncContextManager[Node]


async def check_tree(make: Callable[[], Made], *, but: Iterable[str] = (), most: int = 12) -> list[str]:
    """Check a tree that `make()` makes, each time it is called; raises AssertionError with the path and what is wrong there.

    `make` is a resource server's `tree` with its arguments, or any function that returns a Node or an async context manager of one. `but`:
    patterns (fnmatch) of the paths of files that it must not open, because they are somebody's terminal, or never the same. In directories with
    more than `most` entries it checks only the first ones. Returns the paths that it checked.
    """
    async with _made(make) as tree:
        check = _Check(tree, tuple(but), most)
        await check.run()
    async with _made(make) as again, mounted(again) as client:
        for path, stat in check.found.items():
            if not check.passing(path):
                qid = (await client.stat(path)).qid
                assert qid is not None
                assert stat.qid is not None
                assert (qid.type, qid.path) == (stat.qid.type, stat.qid.path), (
                    f"/{path}: another qid in another instance"
                )
    return list(check.found)


@asynccontextmanager
async def _made(make: Callable[[], Made]) -> AsyncIterator[Node]:
    made = make()
    if isinstance(made, Node):
        yield made
        return
    async with made as tree:
        yield tree


@attrs.define(eq=False)
class _Check:
    tree: Node
    but: tuple[str, ...]
    most: int
    found: dict[str, Stat] = attrs.field(factory=dict)

    async def run(self) -> None:
        async with mounted(self.tree) as root, mounted(self.tree, uname="none") as nobody:
            await self._names(root, "")
            await self._look(root, "")
            places = [stat.qid.path for stat in self.found.values() if stat.qid is not None]
            assert len(set(places)) == len(places), "two files have one qid"
            assert (await root.walk(".."))[-1] == root.qid, "/..: not the root"
            for path, stat in self.found.items():
                async with _unless_gone(root, path):
                    await self._rights(nobody, path, stat)
                    if stat.is_dir:
                        await self._names(root, path)
                    elif not any(fnmatch(path, pattern) for pattern in self.but):
                        await self._file(root, path, stat)

    def passing(self, path: str) -> bool:
        """Tell whether a path is in a directory of which only some entries were checked: then it may be one that comes and goes."""
        parent = path.rpartition("/")[0]
        inside = sum(1 for other in self.found if other.rpartition("/")[0] == parent and other)
        return inside >= self.most or any(part.isdecimal() for part in path.split("/"))

    async def _look(self, root: Client, path: str) -> None:
        """Walk, stat and list everything."""
        entries = await _entries(root, path)
        names = list(entries)
        if len(names) < self.most and not any(name.isdecimal() for name in names):
            assert list(await _entries(root, path)) == names, f"/{path}: not listed twice the same"
        for name in names[: self.most]:
            where, listed = f"{path}/{name}".lstrip("/"), entries[name]
            try:
                stat = await root.stat(where)
                (*_, qid) = await root.walk(where)
            except FileNotFoundError:
                continue  # gone meanwhile
            assert stat.qid == qid, f"/{where}: walk and stat tell different qids"
            assert qid.path == listed.path, f"/{where}: walk and listing tell different qids"
            assert qid.type & QTDIR == listed.type & QTDIR, f"/{where}: walk and listing tell different kinds"
            assert stat.is_dir == bool(qid.type & QTDIR), f"/{where}: its mode and its qid tell different kinds"
            assert st.S_IFMT(stat.mode), f"/{where}: its mode has no kind of file"
            self.found[where] = stat
            if stat.is_dir:
                async with _unless_gone(root, where):
                    await self._look(root, where)
            elif not st.S_ISLNK(stat.mode):
                async with _unless_gone(root, where):
                    await _refused(root.walk(f"{where}/x"), errno.ENOTDIR, f"/{where}/x")

    async def _names(self, root: Client, path: str) -> None:
        """Check the answers for names that lead nowhere."""
        await _refused(root.stat(f"{path}/no such file here"), errno.ENOENT, f"/{path}: a name that is not there")
        await _refused(root.stat(f"{path}/{'n' * 300}"), (errno.ENOENT, errno.ENAMETOOLONG), f"/{path}: a long name")
        for name in ("\0", "a\0b"):
            await _refused(root.stat(f"{path}/{name}"), (errno.EINVAL, errno.EBADMSG), f"/{path}: a name with a NUL")

    async def _rights(self, nobody: Client, path: str, stat: Stat) -> None:
        """Check that nobody gets what the bits give to others. Directories above the file may be closed to them, too."""
        if (
            any(not _may(self.found[above], 1) for above in _above(path) if above)
            or stat.is_dir
            or st.S_ISLNK(stat.mode)
        ):
            return
        for want, mode in ((READ, "r"), (WRITE, "r+"), (WRITE, "w")):
            wants = want if mode != "r+" else READ | WRITE
            if not _may(stat, wants):
                await _refused(nobody.open(path, mode), (errno.EACCES, errno.EPERM), f"/{path}: `none` opens it {mode}")

    async def _file(self, root: Client, path: str, stat: Stat) -> None:
        name = path.rpartition("/")[2]
        if stat.mode & 0o222 and st.S_ISREG(stat.mode) and not stat.length:
            await self._truncated(root, path)
        if name == "clone":
            await self._conversation(root, path)
            return
        if name.endswith("ctl") and stat.mode & 0o200:
            await self._ctl(root, path)
        if stat.mode & 0o444 and st.S_ISREG(stat.mode):
            await self._reads(root, path)

    async def _truncated(self, root: Client, path: str) -> None:
        try:
            file = await root.open(path, "r+" if self.found[path].mode & 0o444 else "w")
        except OSError:
            return  # the kernel or the hardware refuses it
        refusal: OSError | None = None
        async with file:
            try:
                await file.truncate(0)
            except OSError as error:
                refusal = error
        assert refusal is None, f"/{path}: refuses size=0: {refusal}"

    async def _reads(self, root: Client, path: str) -> None:
        before = await root.stat(path)
        try:
            file = await root.open(path)
        except OSError:
            return
        async with file:
            most = MOST if before.length else ENDLESS
            size = 0

            async def through() -> None:
                nonlocal size
                empty = 0
                while size < most and empty < 2:  # the first empty read may be only the end of a record
                    data = await file.pread(1 << 16, size)
                    size, empty = size + len(data), 0 if data else empty + 1

            try:
                if not await _finishes(through):
                    await self._waits(root, path)
                    return
            except OSError:
                return
            if size >= ENDLESS:  # it has no end, and a read from its beginning gives other bytes
                return
            first = await file.pread(7, 0)  # renders it again
            pieces = first + await _all(file, 1000, len(first))
            again = await _all(file, 1 << 16, 1)
            assert again[: MOST - 1] == pieces[1:MOST], f"/{path}: in pieces it is not the same as at once"
            if len(pieces) < MOST:
                end = await file.pread(100, len(pieces) + 1000)
                assert end == b"", f"/{path}: behind its end there is more"
        stat = await root.stat(path)
        assert stat._replace(atime=0) == before._replace(atime=0, length=stat.length), (
            f"/{path}: reading it has changed its status"
        )

    async def _waits(self, root: Client, path: str) -> None:
        """Cancel a read at each of its moments; then it must give what readers get that were never cancelled."""
        async with AsyncExitStack() as opened:
            try:
                first, *others = [await opened.enter_async_context(await root.open(path)) for _ in range(3)]
            except OSError:
                return  # there can be only one reader
            expected = [await _soon(other) for other in others]
            for moment in range(6):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(first.pread, 1 << 16, 0)
                        for _ in range(moment):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
            if _same(*expected):  # otherwise each reader has its own, or it changes by itself
                assert _same(await _soon(first), expected[0]), f"/{path}: a cancelled read has lost something"

    async def _ctl(self, root: Client, path: str) -> None:
        error = path.removesuffix("ctl") + "error"
        assert not (await root.stat(error)).is_dir, f"/{error}: is no file"
        async with await root.open(path, "r+" if self.found[path].mode & 0o444 else "w") as file:
            await _refused(file.write(f"{_WORD}\n".encode()), errno.EINVAL, f"/{path}: an unknown word")
        said = await root.read(error)
        assert _WORD in said, f"/{error}: it says {said!r}, and not what was wrong"
        assert "usage:" in said, f"/{error}: it says {said!r}, and not how it is right"

    async def _conversation(self, root: Client, path: str) -> None:
        parent = path.rpartition("/")[0]
        before = [entry.name for entry in await root.listdir(parent)]
        async with await root.open(path, "r+") as file:
            number = (await file.pread(100, 0)).decode().strip()
            assert number, f"/{path}: reading it does not tell the number"
            inside = [entry.name for entry in await root.listdir(f"{parent}/{number}")]
            assert "ctl" in inside, f"/{parent}/{number}: has no ctl"
        after = [entry.name for entry in await root.listdir(parent)]
        assert after == before, f"/{parent}/{number}: a conversation that nobody has open is still there"


@asynccontextmanager
async def _unless_gone(root: Client, path: str) -> AsyncIterator[None]:
    """Ignore what is wrong with a file if the file is gone by then: interfaces and processes of a real kernel come and go."""
    try:
        yield
    except (AssertionError, OSError):
        try:
            await root.stat(path)
        except (FileNotFoundError, ProcessLookupError):
            return
        raise


async def _entries(root: Client, path: str) -> dict[str, Qid]:
    """Return what the listing itself says of a directory."""
    c = root.connection
    fid, _ = await requests.walk(c, root.root, split(path))
    try:
        found = await requests.entries(c, fid)
    finally:
        c.clunk_nowait(fid)
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names), f"/{path}: a name is listed twice"
    return {name: qid for name, qid, _ in found}


async def _finishes(work: Callable[[], Awaitable[None]]) -> bool:
    """Tell whether something comes to its end; if it waits, cancel it. Raises what it raised.

    It waits, and is not slow, if nothing else happens either: a machine with much else to do may take long for everything.
    """
    finished, error = False, None

    async def run() -> None:
        nonlocal finished, error
        try:
            await work()
        except OSError as caught:
            error = caught
        finished = True
        idle.cancel()

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(LONGEST) as idle:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked(PATIENCE)
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
    return finished


async def _soon(file: File) -> bytes:
    """Return what a reader gets at the beginning, nothing if it would have to wait."""
    got = b""

    async def read() -> None:
        nonlocal got
        got = await file.pread(1 << 16, 0)

    await _finishes(read)
    return got


def _same(one: bytes, other: bytes) -> bool:
    """Tell whether two readers got the same: one may have got more of it in one go."""
    return bool(one) and bool(other) and (one.startswith(other) or other.startswith(one))


async def _all(file: File, piece: int, at: int = 0) -> bytes:
    """Read a file from `at` to its end, or as much as is compared."""
    content = b""
    while len(content) < MOST and (data := await file.pread(piece, at + len(content))):
        content += data
    return content


async def _refused(what: Awaitable[object], number: int | tuple[int, ...], where: str) -> None:
    refusal: OSError | None = None
    try:
        await what
    except OSError as error:
        refusal = error
    assert refusal is not None, f"{where}: is not refused"
    assert refusal.errno in (number if isinstance(number, tuple) else (number,)), (
        f"{where}: is refused with {refusal!r}"
    )


def _may(stat: Stat, want: int) -> bool:
    return may(NONE, stat.mode, stat.uid, stat.gid, want)


def _above(path: str) -> Iterable[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path
