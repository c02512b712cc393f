"""`mk9p grant|narrow|revoke`: capabilities. Only `narrow` needs no server: whoever has a capability can narrow it."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mk9p import state
from mk9p.authority.grants import Capability, Terms, narrow, shown
from mk9p.client import Client
from mk9p.client.capability import LONGEST, VARIABLE, text_of
from mk9p.clients.common import in_namespace, say_to
from mk9p.errors import NineError
from mk9p.stdio import complain, take
from mk9p.tree.words import fields, join
from mk9p.usage import parsed

CTL: Final = "auth/ctl"


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands."""
    chosen = parsed(arguments)
    if arguments[0] == "narrow":
        return _narrow(chosen)
    work = _grant if arguments[0] == "grant" else _revoke
    return in_namespace(lambda ns: work(ns, chosen))


async def _grant(ns: Client, chosen: argparse.Namespace) -> int:
    words = ["grant", chosen.path, chosen.ops]
    for word, value in (("to", chosen.to), ("for", chosen.term), ("from", chosen.delay), ("in", chosen.kernel)):
        words += [] if value is None else [word, str(value)]
    give((await said(ns, words)).strip("\n"), chosen.file)
    return 0


async def said(ns: Client, words: Sequence[str]) -> str:
    """Write a line to `auth/ctl`, and return the answer."""
    async with await ns.open(CTL, "r+") as ctl:
        return await say_to(ns, ctl, CTL, join(words))


def give(text: str, file: str | None) -> None:
    """Give the user a capability: in a new file that nobody else can read, or on the standard output. Raises EEXIST, and as open(2)."""
    if file is None:
        print(text)
        return
    try:
        state.make(Path(file).absolute(), f"{text}\n".encode())
    except NineError:
        raise
    except OSError as error:
        raise NineError(error.errno or 0, f"{file}: {error.strerror}") from None


def _narrow(chosen: argparse.Namespace) -> int:
    text = given(chosen.cap)
    now = int(time.time())
    terms = Terms.of(
        chosen.path,
        chosen.ops,
        to=chosen.to,
        kernel=chosen.kernel,
        since=None if chosen.delay is None else now + chosen.delay,
        until=None if chosen.term is None else now + (chosen.delay or 0) + chosen.term,
    )
    if terms == Terms():
        print(end=described(shown(text)))
        return 0
    give(narrow(text, terms), chosen.file)
    return 0


def given(cap: str | None) -> str:
    """Return the text of the capability that the user names: a file, `-` for the standard input, else $MK9P_CAP."""
    import os

    if cap == "-":
        data = b""
        while len(data) <= LONGEST and (more := take(0, LONGEST)):
            data += more
        return text_of(data.decode(errors="replace").strip("\n"))
    cap = cap if cap is not None and "/" in cap else f"./{cap}" if cap else os.environ.get(VARIABLE)
    if not cap:
        complain(f"mk9p narrow: no capability: say --cap FILE, or ${VARIABLE}")
        sys.exit(2)
    return text_of(cap)


def described(found: Capability) -> str:
    """Return what a capability gives, as lines."""
    said: dict[str, object] = {"id": found.id, "path": found.path or "/", "ops": found.ops}
    said |= {key: value for key, value in (("to", found.to), ("in", found.kernel)) if value is not None}
    said |= {key: value for key, value in (("since", found.since), ("until", found.until)) if value is not None}
    return fields(said)


async def _revoke(ns: Client, chosen: argparse.Namespace) -> int:
    for name in [*chosen.ids, *([given(chosen.cap)] if chosen.cap else [])]:
        await said(ns, ["revoke", name])
    return 0
