"""`mk9p newns [-np] [-s LINE]... [FILE] [-- COMMAND [ARG...]]`: a command in a namespace of its own, which a script of namespace(6) makes.

This process makes a mount namespace, puts into it what the script says, and becomes the command. So the command has its terminal, its signals and its
exit status without anybody between, and the namespace lasts as long as one of its programs.

* `mount [-cru] [-w SECONDS] ADDR OLD [SPEC]` mounts a 9P server: by v9fs where root mounts and the kernel has it, else by FUSE, which `-u` asks for.
* `bind [-abcr] NEW OLD` shows a file or a directory at another name too. `-a` and `-b` make a union of two directories, by overlayfs: it is
  read-only, because Linux's unions have no such thing as bind(1)'s `-c`.
* `unmount [NEW] OLD` takes away what the script has put there.

Servers are dialled before anything is mounted. NEW is looked for in the namespace as the script has made it so far; with `-n`, which begins with an
empty one, names that the script has not made are those of the caller.

Without root, the process makes a user namespace first, in which it stays who it is.
"""

import errno
import os
import signal
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from mk9p.auth import ROOT, Principal
from mk9p.clients import private
from mk9p.clients.private_mounts import Line, line
from mk9p.compose.table import Flags, clean, within
from mk9p.dial import parse
from mk9p.errors import NineError, translate
from mk9p.ktext import split_lines
from mk9p.stdio import complain, read_text
from mk9p.tree.words import Phrase, Word, run, uncomment
from mk9p.usage import parsed

NOT_THERE: Final = 127  # exit statuses of a shell
NOT_RUN: Final = 126
SHELL: Final = "/bin/sh"


@attrs.frozen(eq=False)
class Step:
    """A line of the script, by its number: `mount WHAT OLD`, `bind WHAT OLD`, `unmount [WHAT] OLD`."""

    number: int
    word: str
    what: str
    old: str
    flags: Flags = attrs.field(factory=Flags)
    spec: str = ""


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p newns`; return only if the command cannot be run."""
    chosen = parsed(arguments)
    steps = read("\n".join(chosen.lines))
    if chosen.file is not None:
        steps += read(read_text(chosen.file), chosen.file)
    command = chosen.command or [os.environ.get("SHELL") or SHELL]
    here = os.getcwd()
    build(steps, empty=chosen.empty, make=chosen.make)
    try:
        os.chdir(chosen.dir or here)
    except OSError as error:
        if chosen.dir:
            raise NineError(error.errno or errno.EIO, f"{chosen.dir}: {error.strerror}") from None
        os.chdir("/")
    return become(command)


def become(command: Sequence[str]) -> int:
    """Become a program; return the status of a shell that cannot run it, after saying why."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would pass that on
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        complain(f"mk9p newns: {command[0]}: {os.strerror(error.errno or errno.EIO)}")
        return NOT_THERE if error.errno == errno.ENOENT else NOT_RUN


def read(script: str, file: str = "") -> list[Step]:
    """Return the steps of a script. Raises EINVAL for what is no such line, with its number."""
    steps: list[Step] = []
    for number, text in enumerate(split_lines(script), 1):
        try:
            run(_words(steps, number), uncomment(text), ROOT)
        except OSError as error:
            raise _at(number, file, error) from None
    return steps


def _at(number: int, file: str, error: OSError) -> NineError:
    said = translate(error)
    return NineError(said.errno, f"{f'{file}: ' if file else ''}line {number}: {said.ename}")


def _words(steps: list[Step], number: int) -> dict[str, Word]:
    def mount(words: list[str], who: Principal) -> Any:
        flags = Flags.parse(words)
        if flags is None or len(words) not in (2, 3):
            return NotImplemented
        if flags.order != "replace":
            raise NineError(errno.EOPNOTSUPP, "a server in a union: mount it elsewhere, and bind that")
        parse(words[0])
        steps.append(Step(number, "mount", words[0], _path(words[1]), flags, words[2] if len(words) > 2 else ""))
        return None

    def bind(words: list[str], who: Principal) -> Any:
        flags = Flags.parse(words)
        if flags is None or flags.wait or flags.untrusted or len(words) != 2:
            return NotImplemented
        if flags.create and flags.order != "replace":
            raise NineError(errno.EOPNOTSUPP, "-c: a union of Linux's directories is read-only")
        steps.append(Step(number, "bind", _path(words[0]), _path(words[1]), flags))
        return None

    def unmount(words: list[str], who: Principal) -> Any:
        if len(words) not in (1, 2):
            return NotImplemented
        what = words[0] if len(words) == 2 else ""
        steps.append(Step(number, "unmount", _path(what) if what.startswith("/") else what, _path(words[-1])))
        return None

    functions: list[tuple[Callable[[list[str], Principal], Any], str]] = [
        (mount, "mount [-cru] [-w SECONDS] ADDR OLD [SPEC]"),
        (bind, "bind [-abcr] NEW OLD"),
        (unmount, "unmount [NEW] OLD"),
    ]
    return {f.__name__: Phrase(f.__name__, f, (), text=usage) for f, usage in functions}


def _path(path: str) -> str:
    if not path.startswith("/"):
        raise NineError(errno.EINVAL, f"not a path from the root: {path!r}")
    return clean(path) or "/"


def build(steps: Sequence[Step], *, empty: bool = False, make: bool = False) -> None:
    """Move this process into a namespace that these steps make. `empty`: of nothing else; `make`: make directories for mounts that are missing.

    Raises the error of the first step that fails, with its number; what was begun ends with this process.
    """
    root = private.may_mount()
    if not root:
        private.own_users()
    lines: dict[Step, Line] = {}
    for step in steps:
        if step.word == "mount":
            try:
                lines[step] = line(step.what, step.spec, step.flags, root=root)
            except OSError as error:
                raise _at(step.number, "", error) from None
    private.own_mounts()
    made = Made(lines, empty=empty, make=make)
    for step in steps:
        try:
            made.do(step)
        except OSError as error:
            raise _at(step.number, "", error) from None
    made.names.enter()


class Made:
    """A namespace that steps are making."""

    def __init__(self, lines: dict[Step, Line], *, empty: bool, make: bool) -> None:
        self.lines, self.empty, self.make = lines, empty, make or empty
        self.points: list[tuple[str, str]] = []  # where something was put, and what
        self.names = private.Names.empty() if empty else private.Names.present()

    def do(self, step: Step) -> None:
        """Do a step. Raises OSError."""
        if step.word == "unmount":
            self._unmount(step)
            return
        if step.word == "mount":
            made = self.lines[step].mount()
        else:
            made = self._bound(step)
            if step.flags.readonly:
                private.make_readonly(made)
        at = self._point(step.old, made)
        if stat.S_ISDIR(os.fstat(made).st_mode) != stat.S_ISDIR(os.fstat(at).st_mode):
            raise NineError(errno.ENOTDIR, f"{step.old}: one is a directory, and the other is not")
        self.names.place(made, at)
        self.points.append((step.old, step.what))
        if step.word == "mount":
            # the first answer of the server's root: what is wrong with it is said now, and not by the command
            fd = self._found(step.old)
            try:
                os.stat(f"/proc/self/fd/{fd}")
            finally:
                os.close(fd)

    def _found(self, path: str, *, new: bool = False) -> int:
        """Return a descriptor of a path. `new`: what is to be bound, which may be the caller's."""
        try:
            if new and self.empty and not any(within(path, old) for old, _ in self.points):
                return os.open(path, os.O_PATH | os.O_CLOEXEC)
            return self.names.find(path)
        except OSError as error:
            raise NineError(error.errno or errno.EIO, f"{path}: {os.strerror(error.errno or errno.EIO)}") from None

    def _bound(self, step: Step) -> int:
        at = self._found(step.what, new=True)
        try:
            if step.flags.order == "replace":
                return private.tree(at)
            under = self._found(step.old)
            try:
                if not all(stat.S_ISDIR(os.fstat(fd).st_mode) for fd in (at, under)):
                    raise NineError(errno.EINVAL, "inconsistent mount")
                both = (at, under) if step.flags.order == "before" else (under, at)
                return private.union([f"/proc/self/fd/{fd}" for fd in both], f"{step.what} {step.old}")
            finally:
                os.close(under)
        finally:
            os.close(at)

    def _point(self, path: str, made: int) -> int:
        """Return a descriptor of where to put a mount. Where it is missing, make it, if that is wanted."""
        try:
            return self._found(path)
        except FileNotFoundError:
            if not self.make:
                raise
        above, _, name = path.rpartition("/")
        at = self._directory(above or "/")
        try:
            if stat.S_ISDIR(os.fstat(made).st_mode):
                os.mkdir(name, dir_fd=at)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=at))
        finally:
            os.close(at)
        return self._found(path)

    def _directory(self, path: str) -> int:
        """Return a descriptor of a directory in which a mount point can be made: of the path, or of a private one that is empty as that is."""
        try:
            at = self._found(path)
        except FileNotFoundError:
            above, _, name = path.rpartition("/")
            at = self._directory(above or "/")
            try:
                os.mkdir(name, dir_fd=at)
            finally:
                os.close(at)
            return self._found(path)
        if self.empty or path == "/" or os.listdir(f"/proc/self/fd/{at}"):
            return at
        # an empty directory gets a file system in memory, so that nothing is left on the machine's own
        self.names.place(private.filesystem("tmpfs", ["source=mk9p", "mode=755", "nosuid", "nodev"], path), at)
        return self._found(path)

    def _unmount(self, step: Step) -> None:
        mine = [what for old, what in self.points if old == step.old]
        if not mine or (step.what and mine[-1] != step.what):
            raise NineError(errno.EINVAL, "not mounted")
        for what in reversed(mine):
            self.names.take(step.old)
            self.points.remove((step.old, what))
            if step.what:
                return
