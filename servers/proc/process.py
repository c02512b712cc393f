"""The files of one process. Each is made at its first walk, so a listing of all processes costs one node for each and no more.

`status` and `wait` are for everybody, as in Linux's own /proc. The others belong only to the process's guard (procfs.py); the arguments too,
because they are often private. The check comes at each use, not only at open: when a process runs a set-uid program after its files were opened,
they are closed to that user.
"""

import errno
import os
from collections.abc import Callable
from functools import partial

import trio

from mk9p.auth import READ, WRITE, Principal, may
from mk9p.errors import NineError
from mk9p.servers.proc import texts
from mk9p.servers.proc.control import Control
from mk9p.servers.proc.ending import Ending
from mk9p.servers.proc.procfs import Pid
from mk9p.tree import Buffer, Content, Ctl, Dir, File, Handle, Lazy, Maybe, Node, Open, Stat, StreamHandle, Text


def _owned(stat: Stat, owner: tuple[int, int]) -> Stat:
    """Return a status with its owner brought up to date: the same object while nothing changed."""
    uid, gid = owner
    return stat if stat.uid == uid and stat.gid == gid else stat._replace(uid=uid, gid=gid)


class _Part(File):
    """A file of a process; `owner` says whose it is now, `open_` makes its handles."""

    descriptors = 1  # as `mem` has

    def __init__(self, mode: int, owner: Callable[[], tuple[int, int]], open_: Callable[[Open], Maybe[Handle]]) -> None:
        super().__init__(mode)
        self.owner, self.opened = owner, open_

    def stat(self) -> Stat:
        self._stat = _owned(self._stat, self.owner())
        return self._stat

    def open(self, how: Open) -> Maybe[Handle]:
        return self.opened(how)


class _Ctl(Ctl):
    """The ctl of a process; each word itself checks who may use it (control.py)."""

    def __init__(self, control: Control) -> None:
        super().__init__(control.words(), control.settings, mode=0o600)
        self.pid = control.pid

    def stat(self) -> Stat:
        self._stat = _owned(self._stat, self.pid.guard())
        return self._stat


def _allowed(pid: Pid, who: Principal, want: int) -> None:
    if not may(who, 0o600, *pid.guard(), want):
        raise NineError(errno.EACCES)


class _Descriptor:
    """An open file. Its last user closes it: a thread that was given up may still read from it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class _Memory(Handle):
    """The memory of a process, as it was at open: Linux binds the descriptor to the program that runs at that time.

    Reads go to a thread of their own, because memory may lie on a file system that does not answer. Nobody waits for a cancelled read.
    """

    def __init__(self, pid: Pid, how: Open) -> None:
        self.pid, self.who = pid, how.who
        flags = (os.O_RDWR if how.read else os.O_WRONLY) if how.write else os.O_RDONLY
        with pid.directory() as directory:
            self.file = _Descriptor(os.open("mem", flags | os.O_CLOEXEC, dir_fd=directory))
        _allowed(pid, how.who, READ)  # after open: the check is about what is bound now

    async def _run(self, function: Callable[[_Descriptor], Buffer | int], offset: int, want: int) -> Buffer | int:
        _allowed(self.pid, self.who, want)
        if offset >= 1 << 63:
            raise NineError(errno.EIO, "no memory at this address")
        act = partial(function, self.file)
        return await trio.to_thread.run_sync(act, abandon_on_cancel=True, limiter=self.pid.procfs.slow)

    async def read(self, offset: int, count: int) -> Buffer:
        got = await self._run(lambda file: os.pread(file.fd, count, offset), offset, READ)
        assert not isinstance(got, int)
        return got

    async def write(self, offset: int, data: memoryview) -> int:
        copy = bytes(data)
        took = await self._run(lambda file: os.pwrite(file.fd, copy, offset), offset, WRITE)
        assert isinstance(took, int)
        return took

    def close(self) -> None:
        del self.file


class Process(Dir):
    """The directory of one process."""

    def __init__(self, pid: Pid) -> None:
        self.pid = pid
        self.made: dict[str, Callable[[], Node]] = {
            "args": lambda: _Part(0o400, pid.guard, self._text(texts.args, slow=True)),
            "ctl": lambda: _Ctl(Control(pid)),
            "cwd": lambda: _Part(0o400, pid.guard, self._text(texts.cwd)),
            "environ": lambda: _Part(0o400, pid.guard, self._text(texts.environ, slow=True)),
            "error": self._error,
            "exe": lambda: _Part(0o400, pid.guard, self._text(texts.exe)),
            "fd": lambda: _Part(0o400, pid.guard, self._text(texts.fd, slow=True)),
            "maps": lambda: _Part(0o400, pid.guard, self._text(texts.maps, slow=True)),
            "mem": lambda: _Part(0o600, pid.guard, partial(_Memory, pid)),
            "note": lambda: _Part(0o200, pid.guard, self._note),
            "ns": lambda: _Part(0o400, pid.guard, self._text(texts.ns, slow=True)),
            "status": lambda: _Part(0o444, pid.owner, Text(partial(texts.status, pid)).open),
            "wait": lambda: _Part(0o444, pid.owner, lambda how: StreamHandle.of(Ending.of(pid), how)),
        }
        self.files = Lazy(lambda: self.made, lambda name: self.made[name]())
        super().__init__(self.files)

    def stat(self) -> Stat:
        self._stat = _owned(self._stat, self.pid.owner())
        return self._stat

    def _error(self) -> Node:
        ctl = self.files["ctl"]
        assert isinstance(ctl, Ctl)
        return ctl.error_file()

    async def _slow(self, render: Callable[[int], bytes]) -> bytes:
        """Render in a thread what a stuck process can hold up."""

        def act() -> bytes:
            with self.pid.directory() as directory:
                return render(directory)

        return await trio.to_thread.run_sync(act, abandon_on_cancel=True, limiter=self.pid.procfs.slow)

    def _text(self, render: Callable[[int], bytes], *, slow: bool = False) -> Callable[[Open], Maybe[Handle]]:
        def open_(how: Open) -> Maybe[Handle]:
            def read() -> Maybe[Content]:
                _allowed(self.pid, how.who, READ)
                if slow:
                    return self._slow(render)
                with self.pid.directory() as directory:
                    return render(directory)

            return Text(read).open(how)

        return open_

    def _note(self, how: Open) -> Maybe[Handle]:
        return Text(write=partial(Control(self.pid).note, how.who)).open(how)
