"""`mk9p top` for hands: a screen that answers to keys. top_board.py looks at the kernels; this module shows what is known.

`Screen` is what a user sees and has chosen. It knows no terminal: keys change it, `lines` gives its lines, so tests can press keys too. rich writes
the lines: it knows terminals, their colours and NO_COLOR.

    q  end            up down PgUp PgDn  choose a process    Enter  its details      k  end it, after a question
    /  filter         left right         sort by a column    r      turn the order   p  pause      h  this help
"""

from collections.abc import AsyncIterator, Callable, Sequence
from operator import itemgetter
from typing import Any, Final

import attrs
import trio

from mk9p.clients import terminal
from mk9p.clients.figures import figure, text_of
from mk9p.clients.top_board import KERNEL, PROCESS, Board
from mk9p.clients.top_table import columns, duration
from mk9p.errors import NineError
from mk9p.ktext import split_lines
from mk9p.stdio import printable
from mk9p.tree import join, split

KEYS: Final = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1bOC": "right",
    b"\x1bOD": "left",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\r": "enter",
    b"\n": "enter",
    b"\x1b": "escape",
    b"\x7f": "backspace",
    b"\x08": "backspace",
}
HELP: Final = ("q end", "↑↓ choose", "Enter details", "k kill", "/ filter", "←→ sort", "r turn", "p pause", "h help")
DETAILS: Final = ("args", "cwd", "exe", "ctl")
_TROUBLE: Final = ("away", "silent", "failed", "dead")
_LEAST: Final = 5  # lines that processes keep, however many kernels there are; fewer on a small terminal
_NARROW: Final = 8  # characters of a kernel's or a user's name that the smallest terminal shows
_MANUAL: Final = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]

Line = tuple[str, str]
"""A line, and its style for rich."""


@attrs.define
class Screen:
    """What is shown: figures of the last look, what is chosen, and what the user types."""

    kernels: list[dict[str, Any]] = attrs.field(factory=list)
    processes: list[dict[str, Any]] = attrs.field(factory=list)
    args: dict[tuple[str, int], str] = attrs.field(factory=dict)
    chosen: tuple[str, int] | None = None
    sort: str = "cpu%"
    turned: bool = False
    filter: str = ""
    typing: bool = False
    asked: bool = False
    paused: bool = False
    helping: bool = False
    details: list[str] | None = None
    told: str = ""
    over: bool = False
    page: int = 10

    def rows(self) -> list[dict[str, Any]]:
        """Return the processes that fit the filter, in the chosen order."""
        words = self.filter.lower()
        found = [row for row in self.processes if words in f"{row['kernel']} {row['user']} {self.command(row)}".lower()]
        falls = self.sort in ("cpu%", "size")
        return sorted(found, key=itemgetter(self.sort, "kernel", "pid"), reverse=falls != self.turned)

    def command(self, row: dict[str, Any]) -> str:
        """Return the command line of a process, where it is known and there is one, else its name."""
        return self.args.get((row["kernel"], row["pid"])) or row["name"]

    def at(self, rows: Sequence[dict[str, Any]]) -> int:
        """Return which of the rows is chosen: the first, if the chosen one is not there any more."""
        return next((i for i, row in enumerate(rows) if (row["kernel"], row["pid"]) == self.chosen), 0)

    def _chosen(self) -> dict[str, Any] | None:
        """Return the row of the chosen process; None if it is not there any more."""
        return next((row for row in self.processes if (row["kernel"], row["pid"]) == self.chosen), None)

    def press(self, key: str) -> str:
        """Take a key; return what the program is to do: "", "kill" or "details"."""
        if self.typing:
            self._type(key)
            return ""
        if self.asked:
            self.asked = False
            return "kill" if key == "y" and self._chosen() is not None else ""
        if self.details is not None or self.helping:
            self.details, self.helping = None, False
            self.over = key == "q"
            return ""
        self.told = ""
        return self._command(key)

    def _type(self, key: str) -> None:
        if key in ("enter", "escape"):
            self.typing = False
            self.filter = self.filter if key == "enter" else ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1 and key.isprintable():
            self.filter += key

    def _command(self, key: str) -> str:
        rows = self.rows()
        step = {"up": -1, "down": 1, "page up": -self.page, "page down": self.page}.get(key)
        if step is not None and rows:
            row = rows[min(max(self.at(rows) + step, 0), len(rows) - 1)]
            self.chosen = row["kernel"], row["pid"]
        elif key in ("left", "right"):
            self.sort = PROCESS[(PROCESS.index(self.sort) + (1 if key == "right" else -1)) % len(PROCESS)]
        elif key == "r":
            self.turned = not self.turned
        elif key == "/":
            self.typing, self.filter = True, ""
        elif key == "p":
            self.paused = not self.paused
        elif key in ("h", "?"):
            self.helping = True
        elif key == "q":
            self.over = True
        elif key in ("k", "enter") and rows:
            row = rows[self.at(rows)]
            self.chosen = row["kernel"], row["pid"]
            self.asked = key == "k"
            return "details" if key == "enter" else ""
        return ""

    def lines(self, width: int, height: int) -> list[Line]:
        """Return the lines of a terminal of this size, with their styles. What servers say does nothing to the terminal."""
        return [(printable(line), style) for line, style in self._lines(width, height)]

    def _lines(self, width: int, height: int) -> list[Line]:
        if self.helping or self.details is not None:
            text = split_lines(_MANUAL) if self.details is None else self.details
            # a command line is longer than a terminal is wide, and is what somebody wants to see here
            text = [line[at : at + width] for line in map(printable, text) for at in range(0, max(len(line), 1), width)]
            return [*((line, "") for line in text[: height - 1]), ("any key: back", "dim")]
        widest = max(_NARROW, width // 5)
        shown = self._kernels(height - 3 - max(2, min(_LEAST, height // 3)), widest)
        rows = self.rows()
        at = self.at(rows)
        space = max(1, height - len(shown) - 2)
        self.page = space
        top = max(0, min(at - space // 2, len(rows) - space))
        named = [row | {"name": self.command(row)} for row in rows[top : top + space]]
        table = columns(PROCESS, named, marked=self.sort, widest=widest)
        shown.append((table[0], "bold reverse"))
        shown += [(line, "reverse" if top + i == at else "") for i, line in enumerate(table[1:])]
        shown += [("", "")] * (height - 1 - len(shown))
        return [*shown[: height - 1], self._foot()]

    def _kernels(self, room: int, widest: int) -> list[Line]:
        """Return the lines of the kernels, at most `room` below their names. If there are more, those in trouble come first."""
        if room < 1:
            return []
        some, more = self.kernels, 0
        if len(some) > room:
            some = sorted(self.kernels, key=lambda row: row["state"] not in _TROUBLE)[: room - 1]
            more = len(self.kernels) - len(some)
        head, *table = columns(KERNEL, some, widest=widest)
        found = [(line, _style(row)) for line, row in zip(table, some, strict=True)]
        if more:
            bad = sum(row["state"] in _TROUBLE for row in self.kernels) - sum(row["state"] in _TROUBLE for row in some)
            found.append((f"… and {more} more" + (f", {bad} of them in trouble" if bad else ""), "red" if bad else ""))
        return [(head, "bold reverse"), *found]

    def _foot(self) -> Line:
        if self.typing:
            return f"/{self.filter}", "bold"
        if self.asked:
            row = self._chosen()
            if row is None:
                return "it is not there any more; any key", "bold red"
            return f"end {row['pid']} {row['name']} on {row['kernel']}? y n", "bold red"
        if self.told:
            return self.told, "bold red"
        state = " ".join(["paused"] * self.paused + [f"/{self.filter}"] * bool(self.filter))
        return f"{state}  {'  '.join(HELP)}".strip(), "dim"


def _style(row: dict[str, Any]) -> str:
    if row["state"] in _TROUBLE:
        return "red"
    return "yellow" if row["age"] is not None else ""


async def keys(take: Callable[[int], Any] = terminal.take) -> AsyncIterator[str]:
    """Give the keys that are pressed, by name or as their character, until the terminal ends."""
    while data := await take(64):
        while data:
            found = max((code for code in KEYS if data.startswith(code)), key=len, default=data[:1])
            if found == b"\x1b" and data[1:2] in (b"[", b"O"):  # a key that nothing is bound to
                end = next((i for i, byte in enumerate(data[2:], 3) if 0x40 <= byte <= 0x7E), len(data))
                data = data[end:]
                continue
            data = data[len(found) :]
            yield KEYS.get(found, found.decode(errors="replace"))


async def show(board: Board, delay: float) -> int:
    """Show the board until the user ends it; return the exit status."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    screen = Screen()
    console = Console(highlight=False)

    def drawn() -> Text:
        width, height = console.size
        lines = [Text(line[:width].ljust(width), style) for line, style in screen.lines(width, height)]
        return Text("\n", no_wrap=True, overflow="crop").join(lines)

    with terminal.cbreak(), Live(screen=True, auto_refresh=False, console=console) as live:

        async def looking() -> None:
            while True:
                if not screen.paused:
                    screen.kernels, screen.processes = board.rows(), board.processes()
                    live.update(drawn(), refresh=True)
                    await _learn(board, screen)
                    live.update(drawn(), refresh=True)
                await trio.sleep(delay)
                await board.find()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(looking)
            nursery.start_soon(_resized, lambda: live.update(drawn(), refresh=True))
            async for key in keys():
                done = screen.press(key)
                if done:
                    await _do(board, screen, done)
                if screen.over:
                    break
                live.update(drawn(), refresh=True)
            nursery.cancel_scope.cancel()
    return 0


async def _resized(redraw: Callable[[], None]) -> None:
    from signal import SIGWINCH

    with trio.open_signal_receiver(SIGWINCH) as signals:
        async for _ in signals:
            redraw()


async def _learn(board: Board, screen: Screen) -> None:
    """Read the command lines that are not known of the processes that are shown, or of all, if there is a filter; forget those of others."""
    rows = screen.processes if screen.filter else screen.rows()[: screen.page]
    wanted = {(row["kernel"], row["pid"]) for row in rows}
    everybody = {(row["kernel"], row["pid"]) for row in screen.processes}
    screen.args = {key: text for key, text in screen.args.items() if key in everybody}

    async def one(key: tuple[str, int]) -> None:
        with trio.move_on_after(delay_of(board)):
            try:
                screen.args[key] = (await text_of(board.ns, _path(board, key, "args"))).strip("\n")
            except OSError:
                screen.args[key] = ""  # it is kept from us, or the process has ended: its name is shown

    async with trio.open_nursery() as nursery:
        for key in wanted - screen.args.keys():
            nursery.start_soon(one, key)


def delay_of(board: Board) -> float:
    """Return how long command lines may hold up the next screen, in seconds."""
    return min(board.delay, 1.0)


def _path(board: Board, key: tuple[str, int], name: str) -> str:
    return f"{board.places.get(key[0], '')}proc/{key[1]}/{name}"


async def _do(board: Board, screen: Screen, what: str) -> None:
    assert screen.chosen is not None
    kernel, pid = screen.chosen
    try:
        with trio.fail_after(2.0):
            if what == "kill":
                await board.ns.write(_path(board, screen.chosen, "ctl"), "kill")
                screen.told = f"{pid} on {kernel} was told to end"
            else:
                screen.details = await _details(board, screen.chosen)
    except trio.TooSlowError:
        screen.told = f"{kernel} does not answer"
    except NineError as error:
        screen.told = f"{pid} on {kernel}: {error.strerror}"


async def _details(board: Board, key: tuple[str, int]) -> list[str]:
    """Return what the files of a process say, as lines."""
    kernel, pid = key
    lines = [join(["process", pid, "on", kernel]), ""]
    status = split(await text_of(board.ns, _path(board, key, "status")))
    if len(status) >= 15:
        name, user, state, utime, stime, rtime = status[:6]
        times = " ".join(
            f"{what} {duration((figure(ms) or 0) // 1000)}"
            for what, ms in (("user", utime), ("system", stime), ("age", rtime))
        )
        lines += [
            f"{name}  {user}  {state}  {times}",
            f"nice {status[10]}  parent {status[12]}  threads {status[13]}  cpu {status[14]}",
            "",
        ]
    for name in DETAILS:
        try:
            text = await text_of(board.ns, _path(board, key, name))
        except NineError as error:
            text = f"({error.strerror})"
        lines += [f"{name:5} {line}" for line in split_lines(text)]
    return lines
