"""The file behind what is seen: what it has now, what the manual says of it, and writing a word to a ctl."""

import errno
import re
from functools import lru_cache
from typing import Any, Final

import trio

from mk9p.client import Client
from mk9p.clients.explain import explained
from mk9p.errors import NineError

MOST: Final = 1 << 16  # bytes that are shown
LONG: Final = (
    30.0  # seconds for a file, which an operator may have to allow, and for a word: to load a kernel takes some
)
WAITS: Final = 0.5  # seconds for a file that may wait, such as events
_PIECE: Final = 1 << 14
_WIDTH: Final = 78
_WORD: Final = re.compile(r"^ *- `([^`]+)` (.*(?:\n +[^- ].*)*)", re.MULTILINE)
_EXAMPLE: Final = re.compile(r":?\s+`(?:echo|printf)[^`]*`")
# opening it makes something (clone), takes something away from who waits for it (a console, a channel), or has no end
_LEFT: Final = ("clone", "console", "cons", "data", "kmsg", "listen", "raw", "wait", "random", "zero", "null", "mem")


async def shown(client: Client, path: str) -> dict[str, Any]:
    """Return what the page shows of a file: its kind, content, and what the manual says. Raises NineError if it does not exist."""
    with trio.move_on_after(LONG):
        stat = await client.stat(path)
        name = path.rstrip("/").rpartition("/")[2]
        answer: dict[str, Any] = {"path": path, "kind": "file", "text": "", "note": "", "ctl": is_ctl(name)}
        if stat.is_dir:
            entries = await client.listdir(path)
            answer["kind"] = "directory"
            answer["entries"] = [{"name": entry.name, "directory": entry.is_dir} for entry in entries[:1000]]
        elif name in _LEFT:
            answer["note"] = "reading this file changes or takes something, so the page does not"
        else:
            answer["text"], answer["note"] = await _content(client, path)
        manual = await trio.to_thread.run_sync(told, path)
        return {**answer, "manual": manual, "words": usages(manual) if answer["ctl"] else []}
    raise NineError(errno.ETIMEDOUT, f"{path}: no answer within {LONG:g} s")


def usages(manual: str) -> list[dict[str, str]]:
    """Return the words of a ctl that a piece of the manual lists, and what each does."""
    found = []
    for usage, what in _WORD.findall(manual):
        words = _EXAMPLE.sub("", " ".join(what.replace("\n", " ").split(" ")))
        found.append({"usage": usage, "what": re.sub(" +", " ", words).rstrip(" .:")})
    return found


async def _content(client: Client, path: str) -> tuple[str, str]:
    """Return the beginning of a file, and a note if that is not all."""
    data, note = b"", ""
    async with await client.open(path) as file:
        with trio.move_on_after(WAITS) as scope:
            # one empty answer may be the mark behind a record of a file that waits; two are the end
            empty = 0
            while len(data) < MOST and empty < 2:
                piece = await file.read(_PIECE)
                data += piece
                empty = 0 if piece else empty + 1
        if scope.cancelled_caught:
            note = "this file waits for more"
    if len(data) >= MOST:
        note = f"the first {MOST} bytes"
    return data.decode(errors="replace"), note


def is_ctl(name: str) -> bool:
    """Tell whether a file of that name takes words."""
    return name.endswith("ctl")


async def say(client: Client, path: str, words: str) -> None:
    """Write a line to a ctl. Raises NineError with the words of the refusal, EPERM for a file that is no ctl."""
    if not is_ctl(path.rpartition("/")[2]) or "\n" in words or not words.strip():
        raise NineError(errno.EPERM, "the page writes one line, to files named ctl")
    with trio.move_on_after(LONG):
        await client.write(path, words + "\n")
        return
    raise NineError(errno.ETIMEDOUT, f"{path}: no answer within {LONG:g} s")


@lru_cache(maxsize=1000)
def told(path: str) -> str:
    """Return what the manual says of a path, "" if it says nothing. Blocks."""
    try:
        return explained(path, _WIDTH)
    except FileNotFoundError:
        return ""
