"""`cons` and `consctl`, after cons(3): the kernel's console as a file of output and of input.

Output goes to /dev/console unchanged. Others use the input too, so the rules are:
* A terminal gives each byte to one reader. Where a process has the console as its controlling terminal (a getty, a shell, somebody who typed
  `mk9p serve` there), a read here would steal every other line from it. So it gets EBUSY and the name of that process. A guest that boots straight
  into its daemon has no such process, and there the server has all input.
* The server reads the terminal only while somebody here waits for input. What people type meanwhile stays in the kernel's own buffer (4 KB) for
  the next reader.
* Everybody who has `cons` open gets everything from their first read on, a line at a time, or in raw mode what there is. The server keeps the last
  `HISTORY` messages for slow readers. A reader that was slower still gets an error that says how much it missed, and goes on with the oldest
  message that is kept.

There is no task in the background: one of the waiting readers holds the turn and reads for all. When it is cancelled, the next one takes the turn.
"""

import errno
import fcntl
import os
import sys
import termios
from collections import deque
from typing import Any, Literal

import trio

from mk9p.errors import NineError
from mk9p.terminals import CC, IFLAG, LFLAG, attributes, user
from mk9p.tree import Ctl, Handle, Maybe, Open, ThroughHandle, settle

HISTORY = 256
_CHUNK = 4096
_TIOCGDEV = 0x40045432 if os.uname().machine.startswith(("alpha", "mips", "ppc", "sparc")) else 0x80045432
_RAW_IFLAG = termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON
_RAW_LFLAG = termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG


class Console:
    """The terminal at `path`; its input is shared by those who hold it. `root` is where /proc is."""

    def __init__(self, path: str, root: str) -> None:
        self.path, self.root = path, root
        self.fd, self.holders = -1, 0
        self.messages: deque[bytes] = deque(maxlen=HISTORY)
        self.next = 0
        self.turn = trio.Lock()

    def hold(self) -> None:
        """Keep the input open until `release`; raises EBUSY where it belongs to another program."""
        if not self.holders:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                if owner := self.user(fd):
                    raise NineError(errno.EBUSY, f"console input belongs to {owner}")
            except BaseException:
                os.close(fd)
                raise
            self.fd = fd
        self.holders += 1

    def release(self) -> None:
        self.holders -= 1
        if not self.holders:
            os.close(self.fd)
            self.fd = -1
            self.messages.clear()

    def user(self, fd: int) -> str | None:
        """Return the process whose controlling terminal `fd` is, in words.

        TIOCGDEV tells the real terminal behind /dev/console, as the number that proc_pid_stat(5) shows as tty_nr.
        """
        if not os.isatty(fd):
            return None  # a made-up console may be a pipe or a file, which controls nobody
        return user(int.from_bytes(fcntl.ioctl(fd, _TIOCGDEV, bytes(4)), sys.byteorder), self.root)

    async def fill(self) -> None:
        """Wait for input and add it as one message. If cancelled, it has read nothing."""
        while True:
            try:
                self.messages.append(os.read(self.fd, _CHUNK))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.fd)
            else:
                self.next += 1
                return


class Use:
    """One open of `cons`: output at once, input from the first read on."""

    def __init__(self, console: Console, how: Open) -> None:
        self.console = console
        self.seq: int | None = None
        self.turn = trio.Lock()
        self.fd = os.open(console.path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK) if how.write else -1

    async def receive(self) -> bytes:
        """Wait for the next message of input; b"" is a ^D. Raises EBUSY where the input belongs to another program, EIO after a loss."""
        console = self.console
        if self.seq is None:
            console.hold()
            self.seq = console.next
        if self.seq == console.next:
            async with console.turn:
                if self.seq == console.next:
                    await console.fill()
        oldest = console.next - len(console.messages)
        if self.seq < oldest:
            missed, self.seq = oldest - self.seq, oldest
            raise NineError(errno.EIO, f"too slow: {missed} messages of console input were lost")
        self.seq += 1
        return console.messages[self.seq - 1 - oldest]

    def send(self, data: bytes) -> Maybe[int]:
        """Write to the console; return how much it took at once, so the writer can go on from there. Waits only while it takes nothing."""
        if not self.turn.locked():
            try:
                return os.write(self.fd, data)
            except BlockingIOError:
                pass
        return self._send(data)

    async def _send(self, data: bytes) -> int:
        async with self.turn:
            while True:
                try:
                    return os.write(self.fd, data)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self.fd)

    def close(self) -> None:
        if self.seq is not None:
            self.console.release()
        if self.fd >= 0:
            os.close(self.fd)


class Consctl(Ctl):
    """How input is taken: `rawon`, `rawoff`, `echo on|off`. As cons(3) says, everything is as before when nobody has the file open for writing any
    more: a client that dies leaves no raw console behind."""

    def __init__(self, console: Console) -> None:
        super().__init__({"rawon": self.rawon, "rawoff": self.rawoff, "echo": self.echo}, self.settings)
        self.console = console
        self.before: list[Any] | None = None  # the terminal's attributes before this server's first change
        self.raw = False
        self.echoes: bool | None = None  # None: as the mode says
        self.writers = 0

    def rawon(self) -> None:
        """Give each byte as it is typed, without editing and echo, also the characters for signals and flow control. Output does not change."""
        self.raw, self.echoes = True, None
        self.apply()

    def rawoff(self) -> None:
        """Give whole lines, edited and echoed, as the terminal was set before."""
        self.raw, self.echoes = False, None
        self.apply()

    def echo(self, how: Literal["on", "off"]) -> None:
        """Show what is typed, or not."""
        self.echoes = how == "on"
        self.apply()

    def apply(self) -> None:
        if self.before is None:
            self.console.hold()
            try:
                self.before = attributes(self.console.fd)
            except BaseException:
                self.console.release()
                raise
        now = [*self.before[:CC], list(self.before[CC])]
        if self.raw:
            now[IFLAG] &= ~_RAW_IFLAG
            now[LFLAG] &= ~_RAW_LFLAG
            now[CC][termios.VMIN], now[CC][termios.VTIME] = 1, 0
        if self.echoes is not None:
            now[LFLAG] = now[LFLAG] | termios.ECHO if self.echoes else now[LFLAG] & ~termios.ECHO
        attributes(self.console.fd, now)

    def settings(self) -> str:
        """Return the terminal's real state, whoever set it."""
        fd = os.open(self.console.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            lflag = attributes(fd)[LFLAG]
        finally:
            os.close(fd)
        return f"raw{'off' if lflag & termios.ICANON else 'on'}\necho {'on' if lflag & termios.ECHO else 'off'}\n"

    def open(self, how: Open) -> Maybe[Handle]:
        handle = super().open(how)
        assert isinstance(handle, Handle)
        if not how.write:
            return handle
        self.writers += 1
        return _Held(handle, self)

    def closed(self) -> None:
        """Count one writer less; after the last one the terminal is as it was."""
        self.writers -= 1
        if self.writers or self.before is None:
            return
        before, self.before, self.raw, self.echoes = self.before, None, False, None
        try:
            attributes(self.console.fd, before)
        finally:
            self.console.release()


class _Held(ThroughHandle):
    """An open ctl that reports when it is closed."""

    def __init__(self, handle: Handle, ctl: Consctl) -> None:
        super().__init__(handle)
        self.ctl = ctl

    async def close(self) -> None:
        await settle(super().close())
        self.ctl.closed()
