"""fd, char and exec: lines that are descriptors, not connections.

**O_NONBLOCK belongs to the open file, not to the descriptor**: setting it on an inherited one sets it for the shell that has the same terminal,
and for everybody else who inherited it. So what was there is put back when the link closes; a process killed meanwhile leaves it set, and no call
gets around that. Terminals have their termios put back likewise.

A character line has no beginning: there may be bytes from before it was opened, or from a conversation that died, in the middle of a frame too, and
nobody hangs up. So it is marked lossy, under whatever name it comes: a terminal, a virtio port, the socket that QEMU has for one. A pipe ends.
"""

import errno
import fcntl
import os
import select
import socket
import stat
import subprocess
import termios
import threading
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import attrs
import trio

from mk9p.dial.address import Dial
from mk9p.dial.link import FdLink, Peer, SocketLink
from mk9p.dial.unix import connect_unix

STARTS: Final = 16  # commands that may be under way to their start at once
GRACE: Final = 2.0  # s that a command has to end by itself once it is told to; ssh takes a few ms

_starting: Final = trio.lowlevel.RunVar[trio.CapacityLimiter]("mk9p commands being started")


# fd


def open_fds(dial: Dial) -> FdLink | SocketLink:
    """Return the link over descriptors that this process was started with. Raises NineError."""
    numbers = dial.rest.split("!")
    if len(numbers) != 2 or not all(each.isascii() and each.isdigit() for each in numbers):
        raise dial.refuse(errno.EINVAL, "want fd!READ!WRITE, two numbers of descriptors")
    rfd, wfd = map(int, numbers)
    for fd, wrong, what in ((rfd, os.O_WRONLY, "reading"), (wfd, os.O_RDONLY, "writing")):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        except (OSError, OverflowError):
            raise dial.refuse(errno.EBADF, f"descriptor {fd} is not open") from None
        if flags & os.O_ACCMODE == wrong:
            raise dial.refuse(errno.EBADF, f"descriptor {fd} is not open for {what}")
        _check_waits(dial, fd)
    restore = [partial(os.set_blocking, fd, True) for fd in sorted({rfd, wfd}) if os.get_blocking(fd)]
    for fd in (rfd, wfd):
        os.set_blocking(fd, False)
    peer = Peer("fd", f"{rfd}!{wfd}", private=True, loopback=True)
    if rfd == wfd and stat.S_ISSOCK(os.fstat(rfd).st_mode):
        return SocketLink(socket.socket(fileno=rfd), peer, on_close=[*restore])
    lossy = any(stat.S_ISCHR(os.fstat(fd).st_mode) for fd in (rfd, wfd))
    return FdLink(rfd, wfd, peer=peer, lossy=lossy, on_close=[*restore])


def _check_waits(dial: Dial, fd: int) -> None:
    try:
        with select.epoll() as epoll:
            epoll.register(fd, 0)
    except PermissionError:  # epoll_ctl(2): a regular file, a directory, /dev/null
        raise dial.refuse(
            errno.EINVAL, "a file that cannot be waited for: want a pipe, a socket or a terminal"
        ) from None


# char


async def dial_char(dial: Dial) -> FdLink | SocketLink:
    link = await open_char(dial)
    if link is None:
        raise dial.refuse(errno.ECONNREFUSED, "nobody is at the other end of the line")
    return link


async def open_char(dial: Dial) -> FdLink | SocketLink | None:
    """Open the device, or connect to the socket that stands for it; None if nobody is at the other end. Raises OSError."""
    device = dial.rest
    peer = Peer("char", device, private=True)
    mode = os.stat(device).st_mode
    if stat.S_ISSOCK(mode):  # the other end of one that QEMU's -chardev or UML made
        return SocketLink(await connect_unix(dial, device), peer, lossy=True)
    if not stat.S_ISCHR(mode):
        raise dial.refuse(errno.ENODEV, "neither a character device nor a unix socket")
    fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_waits(dial, fd)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        # A virtio port whose host side is not open says so, and would read as ended.
        if any(events & select.POLLHUP for _, events in poll.poll(0)):
            os.close(fd)
            return None
        link = FdLink(fd, fd, peer=peer, lossy=True)
        if os.isatty(fd):
            link.on_close.append(partial(_set_tty, fd, _set_raw(fd)))
    except BaseException:
        os.close(fd)
        raise
    return link


def _set_raw(fd: int) -> list[Any]:
    """Make a terminal a plain line, as cfmakeraw(3) does and without modem control, and return what it was."""
    was = _get_tty(fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = _get_tty(fd)
    iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    iflag &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON | termios.IXOFF | termios.IXANY)
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8 | termios.CLOCAL | termios.CREAD
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0  # with VMIN 0 an empty line would read as ended
    _set_tty(fd, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])
    return was


def _get_tty(fd: int) -> list[Any]:
    try:
        return termios.tcgetattr(fd)
    except termios.error as error:  # no OSError
        raise OSError(*error.args) from None


def _set_tty(fd: int, attributes: list[Any]) -> None:
    try:
        # Not TCSADRAIN or TCSAFLUSH: they wait for the other end to read.
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    except termios.error as error:  # no OSError
        if error.args[0] != errno.EIO:  # hung up: there is no terminal any more
            raise OSError(*error.args) from None


# exec


async def dial_exec(dial: Dial) -> FdLink:
    """Start the command and return the link that is its standard input and output. Raises OSError; cancelled, nothing runs."""
    import shlex  # few ever dial a command

    try:
        words = shlex.split(dial.rest)
    except ValueError as error:
        raise dial.refuse(errno.EINVAL, f"{error}: quote as in sh") from None
    if not words:
        raise dial.refuse(errno.EINVAL, "want exec!COMMAND")
    # Two pipes and no socketpair: bash takes a socket as its standard input for rshd's and reads ~/.bashrc. O_NONBLOCK is ours alone: the ends of a
    # pipe are two open files.
    with ExitStack() as theirs, ExitStack() as ours:
        stdin, wfd = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, stdin)
        ours.callback(os.close, wfd)
        rfd, stdout = os.pipe2(os.O_CLOEXEC)
        theirs.callback(os.close, stdout)
        ours.callback(os.close, rfd)
        os.set_blocking(rfd, False)
        os.set_blocking(wfd, False)
        start = _Start(words, stdin, stdout, theirs.pop_all())
        try:
            process = await trio.to_thread.run_sync(start.run, abandon_on_cancel=True, limiter=_limiter())
        except FileNotFoundError:
            raise dial.refuse(errno.ENOENT, f"no such command {words[0]!r}") from None
        except trio.Cancelled:
            start.give_up()
            raise
        ours.pop_all()
    peer = Peer("exec", f"pid {process.pid}", pid=process.pid, private=True, loopback=True)
    return FdLink(rfd, wfd, peer=peer, on_close=[partial(_end, process)])


@attrs.define(eq=False)
class _Start:
    """The start of a command in a thread, which may be given up at any time: execve(2) reads the program, and its file system may never answer."""

    words: list[str]
    stdin: int
    stdout: int
    ends: ExitStack  # closes these
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _begun: bool = attrs.field(default=False, init=False)
    _given_up: bool = attrs.field(default=False, init=False)
    _process: "subprocess.Popen[bytes] | None" = attrs.field(default=None, init=False)

    def run(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._given_up:
                raise ProcessLookupError
            self._begun = True
        with self.ends:
            # With vfork(2) all threads would wait for execve, for the interpreter is locked meanwhile; and the program may be a file that this very
            # process serves. A group to be, our own, makes it fork(2).
            process = subprocess.Popen(self.words, stdin=self.stdin, stdout=self.stdout, group=os.getegid())
        with self._lock:
            self._process = process
            if self._given_up:
                _end(process)
        return process

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if not self._begun:
                self.ends.close()
            if self._process is not None:
                _end(self._process)


def _limiter() -> trio.CapacityLimiter:
    """Return what bounds the commands that are being started: one that never is keeps its thread."""
    try:
        return _starting.get()
    except LookupError:
        _starting.set(limiter := trio.CapacityLimiter(STARTS))
        return limiter


def _end(process: "subprocess.Popen[Any]") -> None:
    """End a command without waiting for it, in a thread: that works outside trio.run and while it ends, and keeps this process until it is done."""
    if process.poll() is None:
        threading.Thread(target=_reap, args=(process,), name=f"mk9p-reap-{process.pid}").start()


def _reap(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
