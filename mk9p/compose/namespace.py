"""`Namespace`: the composed namespace, and the words that change it.

    ctl ns events     mount, bind, unmount · the mount table as a script that makes it again · what changed, and servers' comings and goings
    k/NAME            where kernels' trees are mounted
    all/PART/K.X      the same part of every kernel (all.py)
    srv               posted services

The words are those of namespace(6) and bind(1); `table.py` says what they mean. A mount only notes the server, and the first walk into it dials,
so a script can run while kernels are still booting. For the same reason a bind of a name on a server that cannot be reached now is accepted, and
so are all binds of a script. But on `ctl` a bind of a name that does not exist is ENOENT, as in Plan 9.
"""

import errno
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import attrs
import trio

from mk9p.auth import ROOT, Principal
from mk9p.compose.all import All
from mk9p.compose.far import Far
from mk9p.compose.resolve import Resolver
from mk9p.compose.table import Flags, Item, Table, clean
from mk9p.compose.union import Root
from mk9p.errors import NineError, translate
from mk9p.ktext import split_lines
from mk9p.tree import Ctl, Dir, Log, Node, Text, join, settle, split
from mk9p.tree.paths import PATH
from mk9p.tree.words import Phrase, Word, run, uncomment, word
from mk9p.wire import QTDIR

Mounter: TypeAlias = Callable[[str, str, Flags], Node]
"""Makes the root of a server's tree from an address, the name of the tree there (aname), and the flags of the mount. Waits for nothing."""

KERNELS: Final = "/k"

PATIENCE: Final = 1.0  # seconds that a bind waits to see whether its name exists: then its server counts as unreachable

# errors of a walk when a server is away; any other error is its answer
_AWAY: Final = frozenset(
    {
        errno.EIO,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENODEV,
        errno.ENXIO,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)


class Sharing(Protocol):
    """Gives mount points to other composers (sharing.py)."""

    async def share(self, old: str) -> None:
        """Give others what is at OLD."""

    async def unshare(self, old: str) -> None:
        """Take it away, everywhere."""


@attrs.define(eq=False)
class Namespace:
    """A namespace that begins with the composer's own files and `extra` beside them (`kernels`, `lease`, ...).

    `mounter` makes the tree of a mounted server. `root` is the Node to serve; `events` is the log, to which others may add. `keep` is called with
    the commands that make the table, each time that it has changed; if it raises, nothing has changed.
    """

    mounter: Mounter
    extra: Mapping[str, Node] = attrs.field(factory=dict)
    events: Log = attrs.field(factory=Log)
    keep: Callable[[list[str]], None] = attrs.field(default=lambda commands: None)
    far: Far | None = None
    """The kernels of other machines."""
    table: Table = attrs.field(factory=Table, init=False)
    # by address and tree: whether it is up, since when, and why not
    seen: dict[tuple[str, str], tuple[str, int, str]] = attrs.field(factory=dict, init=False)
    sharing: "Sharing | None" = attrs.field(default=None, init=False)
    own: frozenset[str] = attrs.field(init=False)
    """The names at its top that are its own, whatever is mounted."""
    resolver: Resolver = attrs.field(init=False)
    root: Root = attrs.field(init=False)
    forgets: Callable[[str], Awaitable[None]] | None = attrs.field(default=None, init=False)
    """Forgets a machine of the federation."""

    def __attrs_post_init__(self) -> None:
        ctl = Ctl({}, self.script)
        ctl.words = self._words(believe=False) | {"forget": word("forget", self.forget)}
        made: dict[str, Node] = {
            "ctl": ctl,
            "ns": Text(self.script),
            "events": self.events,
            "mounts": Text(self.mounts),
            "k": self.far or Dir(),
            "all": All(self.kernels, lambda names, who: self.root.route(names, who)),
            "srv": Dir(),
        }
        mine = Dir({**made, **self.extra})
        self.own = frozenset(mine.children[0])
        self.resolver = Resolver(self.table, mine)
        self.root = Root(self.resolver)
        if self.far is not None:
            self.far.resolver = self.resolver

    # -- the words

    def mount(self, address: str, old: str, spec: str = "", *, flags: Flags | None = None) -> None:
        """Put the tree `spec` of the server at a dial string at `old`; raises what `mounter` says of the address."""
        flags = flags or Flags()
        old = clean(old)
        if len(address) > PATH or len(spec) > PATH:
            raise NineError(errno.ENAMETOOLONG)
        if "\n" in address or "\n" in spec:  # the table is kept, and shown, a mount a line
            raise NineError(errno.EINVAL, "an address of several lines")
        known = (
            item.node
            for item in self.table.items()
            if (item.kind, item.what, item.spec, item.wait, item.untrusted)
            == ("mount", address, spec, flags.wait, flags.untrusted)
        )
        node = next(known, None) or self.mounter(address, spec, flags)
        item = Item("mount", address, spec, flags.create, flags.readonly, flags.wait, flags.untrusted, node)
        self._change(old, lambda: self.table.put(old, item, flags.order))
        self._tell(item, old, flags)

    async def bind(
        self, new: str, old: str, *, flags: Flags | None = None, who: Principal = ROOT, believe: bool = False
    ) -> None:
        """Show what is at the name `new` at `old` too.

        Raises ENOENT, or whatever the tree with `new` says, and EINVAL for a union of something that is no directory. It does not check this if
        the server is away or the bind is to be accepted as it is: then a union skips what turns out to be a file. It waits for `new` at most a
        second; if cancelled, nothing is bound.
        """
        flags = flags or Flags()
        new, old = clean(new), clean(old)
        item = Item("bind" if new != old else "under", new if new != old else "", "", flags.create, flags.readonly)
        # a script runs again, or the flags change: the first bind has checked the name
        there = self.table.find(item, old)
        qtype = there.qtype if there is not None else await self._qtype(new, who, believe=believe)
        item = attrs.evolve(item, qtype=qtype)
        if not believe and item.qtype & QTDIR == 0 and (flags.order != "replace" or not old):
            raise NineError(errno.EINVAL, "inconsistent mount")
        self._change(old, lambda: self.table.put(old, item, flags.order))
        self._tell(item, old, flags)

    def unmount(self, old: str, new: str | None = None) -> None:
        """Remove what is at `old`: all of it, or the server of the address or the bind of the path `new`. Raises EINVAL, "not mounted"."""
        old = clean(old)
        self._change(old, lambda: self.table.take(old, new))
        self.events.emit("unmount", *([new] if new is not None else []), old or "/")

    async def forget(self, host: str) -> None:
        """Forget the kernels of a machine that is gone for ever. Raises EOPNOTSUPP where there is no federation, and what that says."""
        if self.forgets is None:
            raise NineError(errno.EOPNOTSUPP, "this composer is in no federation")
        await self.forgets(host)

    def script(self) -> str:
        """Return the commands that make this namespace from a new one, one a line."""
        return "".join(line + "\n" for line in self.table.script())

    async def run(self, script: str, *, who: Principal = ROOT) -> None:
        """Run a script of namespace(6): one command a line, `#` begins a comment. The first line that fails ends it, and the error has its number."""
        words = self._words(believe=True)
        for number, line in enumerate(split_lines(script), 1):
            try:
                await settle(run(words, uncomment(line), who))
            except OSError as error:
                said = translate(error)
                raise NineError(said.errno, f"line {number}: {said.ename}") from None

    # -- comings and goings

    def up(self, address: str, spec: str) -> None:
        """Note in `events` and `mounts` that a mounted server answers."""
        self.seen[address, spec] = "up", time.time_ns(), ""
        self.events.emit("up", self.name(address, spec))

    def down(self, address: str, spec: str, reason: str) -> None:
        """Note in `events` and `mounts` that a mounted server is gone."""
        self.seen[address, spec] = "down", time.time_ns(), reason
        self.events.emit("down", self.name(address, spec), reason)

    def failed(self, address: str, spec: str, reason: str) -> None:
        """Note in `mounts` why a mounted server cannot be reached: a later attempt may know better, and one that was never up is down too."""
        state, since, _ = self.seen.get((address, spec), ("idle", 0, ""))
        self.seen[address, spec] = "down", since if state == "down" else time.time_ns(), reason

    def mounts(self) -> str:
        """Return a line for each mount: its path, address, state, since when, and why it is down."""
        lines = []
        for old, items in self.table.points.items():
            for item in items:
                if item.kind == "mount":
                    state, since, reason = self.seen.get((item.what, item.spec), ("idle", item.since, ""))
                    lines.append(join([old or "/", item.what, state, str(since), *([reason] if reason else [])]) + "\n")
        return "".join([*lines, *(self.far.mounts() if self.far is not None else ())])

    def name(self, address: str, spec: str) -> str:
        """Return the name of a mounted server for people: the NAME of /k/NAME, another path where it is, else its address."""
        points = [
            point
            for point, items in self.table.points.items()
            if any((item.kind, item.what, item.spec) == ("mount", address, spec) for item in items)
        ]
        for point in points:
            if point.startswith(KERNELS + "/"):
                return point[len(KERNELS) + 1 :]
        return points[0] or "/" if points else address

    # -- how it is done

    def _change(self, old: str, change: Callable[[], object]) -> None:
        before = self.table.points.get(old, ())
        change()
        try:
            self.keep(self.table.script())
        except BaseException:
            self.table.set(old, before)
            raise

    def _tell(self, item: Item, old: str, flags: Flags) -> None:
        self.events.emit(*split(item.command(old, flags.order)))

    async def _qtype(self, new: str, who: Principal, *, believe: bool) -> int:
        with trio.move_on_after(PATIENCE):
            try:
                return (await self.resolver.elements(new, who))[0].node.qtype
            except OSError as error:
                if error.errno not in _AWAY and not believe:
                    raise
        return QTDIR

    async def kernels(self, who: Principal) -> Node:
        """Return the directory of all kernels."""
        return await settle(self.root.walk(KERNELS[1:], who))

    def _shared(self) -> "Sharing":
        if self.sharing is None:
            raise NineError(errno.EOPNOTSUPP, "this composer shares with nobody: it needs --store etcd!HOST:PORT")
        return self.sharing

    def _words(self, *, believe: bool) -> dict[str, Word]:
        def mount(words: list[str], who: Principal) -> Any:
            flags = Flags.parse(words)
            if flags is None or len(words) not in (2, 3):
                return NotImplemented
            return self.mount(*words, flags=flags)

        def bind(words: list[str], who: Principal) -> Any:
            flags = Flags.parse(words)
            if flags is None or flags.wait or flags.untrusted or len(words) != 2:
                return NotImplemented
            return self.bind(*words, flags=flags, who=who, believe=believe)

        def unmount(words: list[str], who: Principal) -> Any:
            if len(words) not in (1, 2):
                return NotImplemented
            return self.unmount(words[-1], words[0] if len(words) == 2 else None)

        def share(words: list[str], who: Principal) -> Any:
            return self._shared().share(words[0]) if len(words) == 1 else NotImplemented

        def unshare(words: list[str], who: Principal) -> Any:
            return self._shared().unshare(words[0]) if len(words) == 1 else NotImplemented

        functions: list[tuple[Callable[[list[str], Principal], Any], str]] = [
            (mount, "mount [-abcru] [-w SECONDS] ADDR OLD [SPEC]"),
            (bind, "bind [-abcr] NEW OLD"),
            (unmount, "unmount [NEW] OLD"),
            (share, "share OLD"),
            (unshare, "unshare OLD"),
        ]
        return {f.__name__: Phrase(f.__name__, f, (), text=usage) for f, usage in functions}
