"""Starting a program: fork, the few calls that prepare the child, exec. The caller gets the error of any of them.

Why not `subprocess`: it waits for the exec inside the call, which on a slow file system stops the whole server. It changes directory before it
changes user, so a user gets into directories that are closed to them. And a controlling terminal needs a function in the child anyway. Here the
child reports what went wrong through a pipe that exec closes, and the server waits for that pipe as for any other.

Between fork and exec the child only makes system calls on things that were prepared before: it has one thread of many, and nobody will ever free
the locks of the others. All signals are blocked meanwhile; otherwise a handler would write into the parent's own wake-up pipe.
"""

import errno
import fcntl
import os
import signal
import termios
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NoReturn

import attrs
import trio

from mk9p.auth import NO_ID, Principal
from mk9p.errors import NineError, wording
from mk9p.ktext import split_words

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LINE: Final = 3  # the descriptor of a command that has a line
MOMENT: Final = 1.0  # seconds: a child that was killed ends in milliseconds


@attrs.frozen
class User:
    """The user that a command runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = "/"

    @classmethod
    def of(cls, word: str | int) -> "User":
        """Return a user of this machine by name or number; raises EINVAL for an unknown name. A number needs no entry in the user database."""
        import pwd  # read from disk only where a command is started

        try:
            entry = pwd.getpwuid(int(word)) if str(word).isdecimal() else pwd.getpwnam(str(word))
        except KeyError:
            # setresuid(2) takes NO_ID for "leave it as it is", and the server is root
            if not str(word).isdecimal() or int(word) >= NO_ID:
                raise NineError(errno.EINVAL, f"no user {word}") from None
            return cls(str(word), int(word), nobodys_group(), ())
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir or "/")

    @classmethod
    def who(cls, who: Principal) -> "User":
        """Return the user that a principal is: in the groups that they have, and in no other that the user database has for them."""
        user = cls.of(who.uid)
        if who.uid == 0 or (not who.groups and who.gid is None):  # nothing but a number is known of them
            return user
        if not who.groups:
            return attrs.evolve(user, gid=nobodys_group(), groups=())
        return attrs.evolve(user, gid=who.gid if who.gid in who.groups else min(who.groups), groups=tuple(who.groups))


@lru_cache(maxsize=1)
def nobodys_group() -> int:
    """Return a group that is nobody's, for a user who is in none: the highest number that this user namespace has for it."""
    with open("/proc/self/gid_map") as lines:
        ranges = [(int(first), int(count)) for first, _, count in map(split_words, lines)]
    last = max(first + count - 1 for first, count in ranges)
    return last - 1 if last in (NO_ID - 1, 65534) else last


@attrs.frozen
class Spec:
    """What to start. `stdio` are three descriptors of the server. `tty` says that they are a terminal, which becomes the command's own. `user`
    None means the server's user. `bounded`: no program that it runs gets more rights than it has, by setuid bits or otherwise. `line` is a fourth
    descriptor, which becomes 3."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    stdio: tuple[int, int, int]
    user: User | None = None
    nice: int | None = None
    tty: bool = False
    bounded: bool = False
    line: int | None = None

    def programs(self) -> list[str]:
        """Return the paths where the program may be, in the order of PATH."""
        name = self.argv[0]
        return (
            [name] if "/" in name else [os.path.join(at or ".", name) for at in self.env.get("PATH", PATH).split(":")]
        )


async def spawn(spec: Spec) -> tuple[int, int]:
    """Start a program and return its pid and a pidfd, when the program runs.

    It leads a session and a process group of its own, with only the three descriptors, default signals and umask 022. Raises the error of the call
    that failed, after the child is gone. If cancelled, it kills the child, and does not wait for its end here.
    """
    programs = spec.programs()
    report, tell = os.pipe2(os.O_CLOEXEC)
    pid = pidfd = -1
    try:
        if tell == LINE:
            tell = fcntl.fcntl(tell, fcntl.F_DUPFD_CLOEXEC, LINE + 1)
            os.close(LINE)
        pid = _fork(spec, programs, tell)
        os.close(tell)
        tell = -1
        pidfd = os.pidfd_open(pid)
        await trio.lowlevel.wait_readable(report)
        said = os.read(report, 64).decode()
        if said:
            number, what = split_words(said)
            raise NineError(int(number), f"{_blamed(spec, what)}: {wording(int(number))}")
        return pid, pidfd
    except BaseException as error:
        if pid > 0:
            os.kill(pid, signal.SIGKILL)  # nobody has waited for the child yet, so the number is still its own
            if pidfd >= 0 and isinstance(error, trio.Cancelled):
                trio.lowlevel.spawn_system_task(_reap, pid, pidfd)
                raise
            os.waitpid(pid, 0)  # noqa: ASYNC222  # it has ended, or has only begun: this takes a moment
        if pidfd >= 0:
            os.close(pidfd)
        raise
    finally:
        os.close(report)
        if tell >= 0:
            os.close(tell)


async def _reap(pid: int, pidfd: int) -> None:
    """Wait for the end of a child that was killed in its exec. If its program lies in a mount whose server does not answer, that may be never.

    If cancelled, because this server ends, it waits for a moment only.
    """
    try:
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            with trio.move_on_after(MOMENT, shield=True):
                await trio.lowlevel.wait_readable(pidfd)
                os.waitpid(pid, 0)  # noqa: ASYNC222  # it has ended
    finally:
        os.close(pidfd)


def _blamed(spec: Spec, what: str) -> str:
    if what == "user" and spec.user is not None:
        return f"user {spec.user.name}"
    return {"dir": f"dir {spec.cwd}", "exec": spec.argv[0]}.get(what, what)


@lru_cache(maxsize=1)
def _rights() -> tuple[Callable[[], int], Callable[[], int]]:
    """Return two functions that call the kernel and nothing else: one gives up all capabilities, one those of programs that are run later."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    none = (ctypes.c_uint32 * 6)()
    arguments = [ctypes.c_ulong(value) for value in (38, 1, 0, 0, 0)]  # PR_SET_NO_NEW_PRIVS
    return lambda: libc.capset(header, none), lambda: libc.prctl(*arguments)


def _fork(spec: Spec, programs: list[str], tell: int) -> int:
    _rights()
    caught = [n for n in signal.valid_signals() if signal.getsignal(n) not in (signal.SIG_DFL, None)]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside other threads. The child then does only what is safe (see above).
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _child(spec, programs, tell, caught)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _child(spec: Spec, programs: list[str], tell: int, caught: Sequence[int]) -> NoReturn:
    """Become the program; this process never returns from here."""
    what = "start"
    try:
        os.setsid()
        _descriptors(spec, tell)
        if spec.tty:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if spec.nice is not None:
            what = "nice"
            os.setpriority(os.PRIO_PROCESS, 0, spec.nice)
        if spec.user is not None:
            what = "user"
            os.setgroups(spec.user.groups)
            os.setresgid(spec.user.gid, spec.user.gid, spec.user.gid)
            os.setresuid(spec.user.uid, spec.user.uid, spec.user.uid)
            # setresuid(2) leaves the inheritable ones
            if spec.user.uid != 0 and _rights()[0]():
                raise PermissionError(errno.EPERM, "")
        if spec.bounded and _rights()[1]():
            raise PermissionError(errno.EPERM, "")
        what = "dir"
        os.chdir("/")
        os.chdir(spec.cwd)
        os.umask(0o022)
        for number in caught:
            # an ignored signal stays ignored over exec, and Python ignores SIGPIPE
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        what = "exec"
        refused: OSError | None = None
        for program in programs:
            try:
                os.execve(program, spec.argv, spec.env)
            except (FileNotFoundError, NotADirectoryError) as error:
                refused = refused or error
            except PermissionError as error:
                refused = error  # as in execvp(3): go on looking, but report this at the end
        raise refused or FileNotFoundError(errno.ENOENT, "")
    except OSError as error:
        os.write(tell, f"{error.errno or errno.EIO} {what}".encode())
    except BaseException:
        os.write(tell, f"{errno.EIO} {what}".encode())
    finally:
        os._exit(127)


def _descriptors(spec: Spec, tell: int) -> None:
    """Make the three descriptors 0, 1, 2, and close all others except `tell`, also those that this server was started with."""
    for fd, source in enumerate(spec.stdio):
        os.dup2(source, fd)
    if spec.line is not None:
        os.dup2(spec.line, LINE)
    os.closerange(LINE if spec.line is None else LINE + 1, tell)
    os.closerange(tell + 1, max(os.sysconf("SC_OPEN_MAX"), 65536))
