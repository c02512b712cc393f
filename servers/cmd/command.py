"""One conversation of `cmd`: the settings from words, then the command, its pipes, its end.

It counts opens as Inferno's cmd(3) does: closing the last reader of `data` breaks the command's output, closing the last writer ends its input,
`killonclose` ends the command with the last `ctl`, and closing the last file of all ends it in any case. A terminal does not break in this way: it
is one thing for both directions, and hangs up with the conversation.
"""

import errno
import fcntl
import os
import socket
import struct
import termios
import time
from collections import Counter

import attrs
import trio

from mk9p import signals
from mk9p.auth import LOCAL, Principal
from mk9p.errors import NineError
from mk9p.itself import itself
from mk9p.servers.cmd.files import CountedCtl, Data, Errors, Line, Wait
from mk9p.servers.cmd.pipes import Pipe, Stderr, Terminal
from mk9p.servers.cmd.running import Commands, Running
from mk9p.servers.cmd.spawn import PATH, Spec, User, spawn
from mk9p.tree import Dir, Stream, Text, join, quote, settings

LINES = 256  # of a namespace's script, which become words of a command: more than anybody types


@attrs.define(eq=False)
class Command:
    """One conversation (mk9p.tree.Conversation): settings first, the rest from `exec` on. `who` opened it, and commands run as that user."""

    commands: Commands
    number: int
    who: Principal
    user: User
    directory: str = "/"
    environment: dict[str, str] = attrs.field(factory=dict)
    niceness: int | None = None
    window: tuple[int, int] | None = None
    killonclose: bool = False
    opens: Counter[str] = attrs.field(factory=Counter)
    started: trio.Event = attrs.field(factory=trio.Event)
    starting: bool = False
    name: str = ""
    running: Running | None = None
    stdin: Pipe | Terminal | None = None
    stdout: Pipe | Terminal | None = None
    stderr: Stderr | None = None
    line: Terminal | None = None
    namespace: list[str] = attrs.field(factory=list)  # lines of a script that makes its own

    @classmethod
    def of(cls, commands: Commands, number: int, who: Principal) -> "Command":
        """Begin a conversation: root's commands run as this server does, and everybody else's as that user."""
        return cls(commands, number, who, User.who(who) if who.uid else User.of(os.geteuid()))

    def tree(self) -> Dir:
        return Dir(
            {
                "ctl": CountedCtl(
                    {
                        "dir": self.set_dir,
                        "env": self.set_env,
                        "user": self.set_user,
                        "nice": self.nice,
                        "size": self.size,
                        "killonclose": self.set_killonclose,
                        "ns": self.ns,
                        "exec": self.exec,
                        "closein": self.closein,
                        "kill": self.kill,
                    },
                    self.settings,
                    self.opens,
                    self.closed,
                ),
                "data": Stream(per_open=lambda how: Data(self, how), mode=0o600),
                "line": Stream(per_open=lambda _: Line(self), mode=0o600),
                "stderr": Stream(per_open=lambda _: Errors(self), mode=0o400),
                "status": Text(self.status),
                "wait": Stream(per_open=lambda _: Wait(self), mode=0o444),
            }
        )

    @property
    def state(self) -> str:
        if self.running is None:
            return "Open"
        return "Done" if self.running.ended.is_set() else "Execute"

    @property
    def terminal(self) -> Terminal | None:
        return self.stdin if isinstance(self.stdin, Terminal) else None

    def status(self) -> str:
        """Render Inferno's line, and the pid: `cmd/N opens state dir arg0 pid`."""
        opens = sum(self.opens[name] for name in ("ctl", "data", "wait"))
        pid = self.running.pid if self.running else 0
        return f"cmd/{self.number} {opens} {self.state} {quote(self.directory)} {quote(self.name)} {pid}\n"

    def settings(self) -> str:
        lines = settings({"dir": self.directory, "user": self.user.name, "nice": self.niceness or 0})
        if self.environment:
            lines += join(["env", *(f"{key}={value}" for key, value in self.environment.items())]) + "\n"
        if self.window:
            lines += f"size {self.window[0]} {self.window[1]}\n"
        lines += "".join(f"ns {line}\n" for line in self.namespace)
        return lines + ("killonclose\n" if self.killonclose else "")

    def _before_exec(self) -> None:
        if self.starting or self.running:
            raise NineError(errno.EBUSY, "the command has been started already")

    def _after_exec(self) -> Running:
        if self.running is None:
            raise NineError(errno.ESRCH, "no command has been started")
        return self.running

    def set_dir(self, d: str) -> None:
        """Run the command in a directory, which its user must be able to reach; a relative one is below `/`."""
        self._before_exec()
        self.directory = os.path.join("/", d)

    def set_env(self, *k_v: str | None) -> None:
        """Add variables `K=V` to the environment."""
        self._before_exec()
        pairs = [word.partition("=") for word in k_v if word]
        if not pairs or not all(key and equals for key, equals, _ in pairs):
            raise NineError(errno.EINVAL, "usage: env K=V...")
        self.environment.update({key: value for key, _, value in pairs})

    def set_user(self, u: str) -> None:
        """Run the command as another user; only root may say this."""
        self._before_exec()
        user = User.of(u)
        if user.uid == self.who.uid:
            user = User.who(self.who)
        if self.who.uid not in (0, user.uid):
            raise NineError(errno.EPERM, f"only root may run commands as {u}")
        self.user = user

    def nice(self, n: int) -> None:
        """Set the nice value that the command starts with, or that of its whole process group. Only root may lower it."""
        if not -20 <= n <= 19:
            raise NineError(errno.EINVAL, "nice goes from -20 to 19")
        if self.who.uid != 0 and n < (self.niceness or 0):
            raise NineError(errno.EPERM, "only root may lower a nice value")
        if self.running:
            self.running.renice(n)
        self.niceness = n

    def size(self, rows: int, cols: int) -> None:
        """Ask for a terminal of a size before `exec`. After it, change the size; SIGWINCH tells the command."""
        if not (0 <= rows <= 65535 and 0 <= cols <= 65535):
            raise NineError(errno.EINVAL, "rows and columns go from 0 to 65535")
        if self.running:
            if self.terminal is None:
                raise NineError(errno.ENOTTY, "the command was started without a terminal")
            if self.terminal.fd is not None:
                _resize(self.terminal.fd, rows, cols)
        self.window = rows, cols

    def ns(self, *line: str) -> None:
        """Give the command a namespace of its own, and add a line to the script that makes it: `mount`, `bind`, `unmount` (namespace(6))."""
        self._before_exec()
        if len(self.namespace) >= LINES:
            raise NineError(errno.E2BIG, f"a script has {LINES} lines at most")
        self.namespace.append(join(line))

    def set_killonclose(self) -> None:
        """End the command when the last `ctl` is closed, even if other files are open."""
        self.killonclose = True

    def closein(self) -> None:
        """End the command's input; a terminal gets its end-of-file character."""
        self._after_exec()
        if self.terminal is None:
            assert self.stdin is not None
            self.stdin.close()
        elif self.terminal.fd is not None:
            os.write(self.terminal.fd, termios.tcgetattr(self.terminal.fd)[6][termios.VEOF])

    def kill(self, signal_: str = "KILL") -> None:
        """Send a signal to the command's process group, SIGKILL by default."""
        self._after_exec().send(signals.number(signal_))

    async def exec(self, cmd: str, *args: str | None) -> None:
        """Start the command, once in a conversation. If anything fails, this write gets the error, and everything is as before."""
        self._before_exec()
        self.starting = True
        argv = (cmd, *(word for word in args if word is not None))
        if self.namespace:
            argv = (
                *itself(),
                "newns",
                "-p",
                "-d",
                self.directory,
                *(word for line in self.namespace for word in ("-s", line)),
                "--",
                *argv,
            )
        ours: socket.socket | None = None
        theirs: socket.socket | None = None
        try:
            if self.opens["line"]:
                ours, theirs = socket.socketpair()
            fd = None if theirs is None else theirs.fileno()
            if self.window is None:
                await self._exec(argv, fd)
            else:
                await self._exec_on_terminal(argv, self.window, fd)
            if ours is not None and self.opens["line"]:  # it may have been closed meanwhile
                self.line = Terminal(ours.detach())
        finally:
            self.starting = False
            for end in (ours, theirs):
                if end is not None:
                    end.close()
        self.name = cmd
        self.started.set()

    async def _exec(self, argv: tuple[str, ...], line: int | None) -> None:
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for mine in (1, 0, 0):  # this side writes to stdin, and reads stdout and stderr
                ends = os.pipe2(os.O_CLOEXEC)
                ours.append(ends[mine])
                theirs.append(ends[1 - mine])
            began = time.monotonic_ns()
            self.running = Running(*await spawn(self._spec(argv, (theirs[0], theirs[1], theirs[2]), line)), began)
        except BaseException:
            _close(ours)
            raise
        finally:
            _close(theirs)
        self.commands.watch(self.running)
        self.stdin, self.stdout, self.stderr = Pipe(ours[0]), Pipe(ours[1]), Stderr(ours[2])
        if not self.opens["stderr"]:
            self.stderr.ignore(self.commands.nursery)

    async def _exec_on_terminal(self, argv: tuple[str, ...], window: tuple[int, int], line: int | None) -> None:
        master, slave = os.openpty()
        try:
            _resize(master, *window)
            if os.geteuid() == 0:
                # so its user can open the terminal's name in /dev again, as after login
                os.fchown(slave, self.user.uid, -1)
            began = time.monotonic_ns()
            self.running = Running(*await spawn(self._spec(argv, (slave, slave, slave), line, tty=True)), began)
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        self.commands.watch(self.running)
        self.stdin = self.stdout = Terminal(master)

    def _spec(self, argv: tuple[str, ...], stdio: tuple[int, int, int], line: int | None, *, tty: bool = False) -> Spec:
        user = self.user
        env = {"PATH": PATH, "HOME": user.home, "USER": user.name, "LOGNAME": user.name, **self.environment}
        other = user if user.uid != os.geteuid() else None
        # who came from elsewhere has not logged in here: sudo and the like are not for them
        bounded = self.who.proof not in LOCAL and user.uid != 0
        return Spec(
            argv,
            env,
            "/" if self.namespace else self.directory,
            stdio,
            user=other,
            nice=self.niceness,
            tty=tty,
            bounded=bounded,
            line=line,
        )

    def closed(self, name: str) -> None:
        """Note that the last open of this kind was closed."""
        if name == "ctl" and self.killonclose and self.running:
            self.commands.hang_up(self.running)
        elif name == "stdin" and self.stdin and self.terminal is None:
            self.stdin.close()
        elif name == "stdout" and self.stdout and self.terminal is None:
            self.stdout.close()
        elif name == "line" and self.line:
            self.line.close()
        elif name == "stderr" and self.stderr:
            self.stderr.ignore(self.commands.nursery)

    def close(self) -> None:
        """End the command and close its pipes, that of its errors last: otherwise a shell that cleans up dies when it says `Hangup`."""
        for pipe in (self.stdin, self.stdout, self.line):
            if pipe:
                pipe.close()
        if self.stderr:
            assert self.running is not None
            if self.state == "Done":
                self.stderr.close()
            else:
                self.running.last = self.stderr
        if self.running:
            self.commands.hang_up(self.running)


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("=4H", rows, columns, 0, 0))


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
