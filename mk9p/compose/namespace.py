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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import trio

from mk9p.auth import ROOT, Principal
from mk9p.compose.all import All
from mk9p.compose.resolve import Resolver
from mk9p.compose.table import Flags, Item, Table, clean
from mk9p.compose.union import Root
from mk9p.errors import NineError, translate
from mk9p.ktext import split_lines
from mk9p.tree import Ctl, Dir, Log, Node, Text, settle, split
from mk9p.tree.paths import PATH
from mk9p.tree.words import Word, run
from mk9p.wire import QTDIR

Mounter: TypeAlias = Callable[[str, str], Node]
"""Makes the root of a server's tree from an address and the name of the tree there (aname). Waits for nothing."""

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


@attrs.frozen
class Command(Word):
    """A command with flags in front, which a signature cannot express: the usage line is given, and the function gets all words and the user who
    asks."""

    text: str = ""

    @property
    def usage(self) -> str:
        return self.text

    def call(self, words: Sequence[str], who: Principal) -> Any:
        """Call the function; raises EINVAL with the usage where it returns NotImplemented, for words that do not fit."""
        done = self.function(list(words), who)
        if done is NotImplemented:
            raise self.wrong()
        return done


@attrs.define(eq=False)
class Namespace:
    """A namespace that begins with the composer's own files and `extra` beside them (`kernels`, `lease`, ...).

    `mounter` makes the tree of a mounted server. `root` is the Node to serve; `events` is the log, to which others may add.
    """

    mounter: Mounter
    extra: Mapping[str, Node] = attrs.field(factory=dict)
    events: Log = attrs.field(factory=Log)
    table: Table = attrs.field(factory=Table, init=False)
    resolver: Resolver = attrs.field(init=False)
    root: Root = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        ctl = Ctl({}, self.script)
        ctl.words = self._words(believe=False)
        made: dict[str, Node] = {
            "ctl": ctl,
            "ns": Text(self.script),
            "events": self.events,
            "k": Dir(),
            "all": All(self._kernels),
            "srv": Dir(),
        }
        self.resolver = Resolver(self.table, Dir({**made, **self.extra}))
        self.root = Root(self.resolver)

    # -- the words

    def mount(self, address: str, old: str, spec: str = "", *, flags: Flags | None = None) -> None:
        """Put the tree `spec` of the server at a dial string at `old`; raises what `mounter` says of the address."""
        flags = flags or Flags()
        old = clean(old)
        if len(address) > PATH or len(spec) > PATH:
            raise NineError(errno.ENAMETOOLONG)
        known = (
            item.node for item in self.table.items() if (item.kind, item.what, item.spec) == ("mount", address, spec)
        )
        node = next(known, None) or self.mounter(address, spec)
        item = Item("mount", address, spec, flags.create, flags.readonly, node)
        self.table.put(old, item, flags.order)
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
        self.table.put(old, item, flags.order)
        self._tell(item, old, flags)

    def unmount(self, old: str, new: str | None = None) -> None:
        """Remove what is at `old`: all of it, or the server of the address or the bind of the path `new`. Raises EINVAL, "not mounted"."""
        old = clean(old)
        self.table.take(old, new)
        self.events.emit("unmount", *([new] if new is not None else []), old or "/")

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
        """Note in `events` that a mounted server answers."""
        self.events.emit("up", self.name(address, spec))

    def down(self, address: str, spec: str, reason: str) -> None:
        """Note in `events` that a mounted server is gone."""
        self.events.emit("down", self.name(address, spec), reason)

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

    async def _kernels(self, who: Principal) -> Node:
        return await settle(self.root.walk(KERNELS[1:], who))

    def _words(self, *, believe: bool) -> dict[str, Word]:
        def mount(words: list[str], who: Principal) -> Any:
            flags = Flags.parse(words)
            if flags is None or len(words) not in (2, 3):
                return NotImplemented
            return self.mount(*words, flags=flags)

        def bind(words: list[str], who: Principal) -> Any:
            flags = Flags.parse(words)
            if flags is None or len(words) != 2:
                return NotImplemented
            return self.bind(*words, flags=flags, who=who, believe=believe)

        def unmount(words: list[str], who: Principal) -> Any:
            if len(words) not in (1, 2):
                return NotImplemented
            return self.unmount(words[-1], words[0] if len(words) == 2 else None)

        functions: list[tuple[Callable[[list[str], Principal], Any], str]] = [
            (mount, "mount [-abcr] ADDR OLD [SPEC]"),
            (bind, "bind [-abcr] NEW OLD"),
            (unmount, "unmount [NEW] OLD"),
        ]
        return {f.__name__: Command(f.__name__, f, (), text=usage) for f, usage in functions}


def uncomment(line: str) -> str:
    """Return a line without its comment: from a `#` that begins a word and is not quoted."""
    quoted = False
    for at, char in enumerate(line):
        if char == "'":
            quoted = not quoted
        elif char == "#" and not quoted and (at == 0 or line[at - 1] in " \t"):
            return line[:at]
    return line
