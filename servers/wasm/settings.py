"""What is said of a program before it starts: arguments, environment, grants, limits."""

import errno
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from mk9p.dial import parse
from mk9p.errors import NineError
from mk9p.tree import join, settings

MEMORY: Final = 256 << 20  # bytes of memory, where nothing else was said
_MOST_MEMORY: Final = 1 << 32  # what a module of 32 bits can have
_WORDS: Final = 1 << 17  # bytes of arguments and environment each, as Linux has for one
_GRANTS: Final = 64
_EVERY: Final = (0.1, 86400.0)  # seconds between two checkpoints

Limit = Literal["memory", "fuel", "time", "cpu", "output", "files"]


def cleaned(path: str) -> str:
    """Return a path of the namespace without doubled and last slashes. Raises EINVAL for `.` and `..`."""
    names = [name for name in path.split("/") if name]
    if any(name in (".", "..") for name in names) or "\0" in path:
        raise NineError(errno.EINVAL, f"no path for a grant: {path!r}")
    return "/" + "/".join(names)


@attrs.define
class Settings:
    """The settings of one program. `limits` has what is left of each limit that was set, `said` which of them were set here."""

    args: list[str] = attrs.field(factory=list)
    env: dict[str, str] = attrs.field(factory=dict)
    grants: dict[str, tuple[str, bool]] = attrs.field(factory=dict)  # AT -> (PATH, read-only)
    limits: dict[str, int] = attrs.field(factory=lambda: {"memory": MEMORY})
    said: set[str] = attrs.field(factory=set)
    namespace: str = ""
    checkpoint: tuple[float, str] | None = None  # every so many seconds, to this path

    def set_namespace(self, dial: str) -> None:
        """Set where the namespace is. Raises EINVAL for what is no address, and for one that is a command."""
        if parse(dial).transport.starts:
            raise NineError(errno.EINVAL, f"namespace: a program's files start no command: {dial:.80}")
        self.namespace = dial

    def add_args(self, words: list[str]) -> None:
        """Add arguments; the first of all is the program's own name."""
        if sum(len(word) + 1 for word in (*self.args, *words)) > _WORDS:
            raise NineError(errno.E2BIG)
        self.args += words

    def add_env(self, words: list[str]) -> None:
        """Add variables `K=V`."""
        pairs = [word.partition("=") for word in words]
        if not pairs or not all(key and equals for key, equals, _ in pairs):
            raise NineError(errno.EINVAL, "usage: env K=V...")
        new = {**self.env, **{key: value for key, _, value in pairs}}
        if sum(len(key) + len(value) + 2 for key, value in new.items()) > _WORDS:
            raise NineError(errno.E2BIG)
        self.env = new

    def add_grant(self, words: list[str]) -> None:
        """Add `PATH [AT] ro|rw`."""
        if len(words) not in (2, 3) or words[-1] not in ("ro", "rw") or not words[0].startswith("/"):
            raise NineError(errno.EINVAL, "usage: grant PATH [AT] ro|rw")
        path = cleaned(words[0])
        at = path if len(words) == 2 else words[1]
        if at != "." and not at.startswith("/"):
            raise NineError(errno.EINVAL, f"a program finds its files by absolute paths: {at!r} is none")
        at = at if at == "." else cleaned(at)
        if at not in self.grants and len(self.grants) >= _GRANTS:
            raise NineError(errno.E2BIG, f"at most {_GRANTS} grants")
        self.grants[at] = path, words[-1] == "ro"

    def set_limit(self, what: Limit, n: int) -> None:
        """Set a limit."""
        if n < 1 or (what == "memory" and n > _MOST_MEMORY) or n >= 1 << 63:
            raise NineError(errno.EINVAL, f"limit {what}: {n} is out of range")
        self.limits[what] = n
        self.said.add(what)

    def set_checkpoint(self, words: list[str]) -> None:
        """Take `every SECONDS to PATH`, or `never`."""
        if words == ["never"]:
            self.checkpoint = None
            return
        usage = NineError(errno.EINVAL, "usage: checkpoint every SECONDS to PATH|never")
        if len(words) != 4 or words[::2] != ["every", "to"] or not words[3].startswith("/"):
            raise usage
        try:
            seconds = float(words[1])
        except ValueError:
            raise usage from None
        least, most = _EVERY
        if not least <= seconds <= most:
            raise NineError(errno.EINVAL, f"checkpoint every {least:g} to {most:g} seconds: {words[1]}")
        path = cleaned(words[3])
        if path == "/":
            raise usage
        self.checkpoint = seconds, path

    def come(self, head: Mapping[str, Any]) -> None:
        """Become those of a program whose state came, by its head: its arguments, environment and grants; a grant that was said here replaces its
        own, and of limits the narrower one holds. Raises EBADMSG for a limit that nobody knows."""
        came = Settings()
        came.add_args(head["args"])
        if head["env"]:
            came.add_env(head["env"])
        for path, at, readonly in head["grants"]:
            came.add_grant([path, at, "ro" if readonly else "rw"])
        for what, n in head["limits"].items():
            if what not in ("memory", "fuel", "time", "cpu", "output", "files"):
                raise NineError(errno.EBADMSG, f"a state with a limit of {what!r}")
            came.set_limit(what, n)
        self.args, self.env, self.grants = came.args, came.env, {**came.grants, **self.grants}
        own = {what: n for what, n in self.limits.items() if what in self.said}
        self.limits = {**came.limits, **{what: min(n, came.limits.get(what, n)) for what, n in own.items()}}

    def ns(self) -> str:
        """Return the grants as words that could be written."""
        return "".join(
            join(["grant", path, at, "ro" if readonly else "rw"]) + "\n" for at, (path, readonly) in self.grants.items()
        )

    def words(self) -> str:
        """Return all settings as words that could be written."""
        lines = join(["arg", *self.args]) + "\n" if self.args else ""
        lines += join(["env", *(f"{key}={value}" for key, value in self.env.items())]) + "\n" if self.env else ""
        lines += settings({"namespace": self.namespace}) if self.namespace else ""
        lines += self.ns() + "".join(f"limit {what} {n}\n" for what, n in self.limits.items())
        if self.checkpoint is not None:
            lines += join(["checkpoint", "every", f"{self.checkpoint[0]:g}", "to", self.checkpoint[1]]) + "\n"
        return lines

    def carried(self) -> dict[str, object]:
        """Return what goes with a program into its process, and into its state: `args`, `env`, `grants`."""
        return {
            "args": self.args,
            "env": [f"{key}={value}" for key, value in self.env.items()],
            "grants": [(path, at, readonly) for at, (path, readonly) in self.grants.items()],
        }

    def left(self, real: int, cpu: int, fuel: int | None) -> dict[str, int]:
        """Return what is left of the limits after a run of so many ms; `fuel`: what the engine counted, if it did."""
        left = dict(self.limits)
        for what, spent in (("time", real), ("cpu", cpu)):
            if what in left:
                left[what] = max(1, left[what] - spent)
        if fuel is not None and "fuel" in left:
            left["fuel"] = max(1, fuel)
        return left
