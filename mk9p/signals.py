"""Signals and the ends of processes in words, as files give them: `note`, `kill`, `wait`.

A signal has its name with or without SIG (`INT`, `SIGINT`), Plan 9's word for the note (`interrupt`, `kill`, `hangup`, `alarm`), or its number on
this machine. The end of a process is '' for success, as in Plan 9's wait(2), else `exit N` or `signal NAME`. It is exact, so a program that ran a
command from elsewhere can end as the command did.
"""

import errno
import os
import signal
from typing import Final

from mk9p.errors import NineError

__all__ = ["NOTES", "ending", "exit_code", "name", "number"]

NOTES: Final = {"interrupt": "INT", "kill": "KILL", "hangup": "HUP", "alarm": "ALRM"}


def number(word: str) -> int:
    """Return the number of a signal by its name, note or number; raises EINVAL for any other word."""
    name = NOTES.get(word, word).upper().removeprefix("SIG")
    base, sign, plus = name.partition("+")
    found = signal.Signals.__members__.get(f"SIG{base}")
    if name.isdecimal():
        value = int(name)
    elif found is not None and (not sign or (base == "RTMIN" and plus.isdecimal())):
        value = found + int(plus or 0)
    else:
        value = 0
    if not 0 < value <= signal.SIGRTMAX:
        raise NineError(errno.EINVAL, f"unknown signal {word!r}")
    return value


def name(value: int) -> str:
    """Return the name of a signal: `SIGTERM`, `SIGRTMIN+3`, or its number where it has none."""
    if signal.SIGRTMIN < value < signal.SIGRTMAX:
        return f"SIGRTMIN+{value - signal.SIGRTMIN}"
    return signal.Signals(value).name if value in signal.Signals.__members__.values() else str(value)


def ending(status: int) -> str:
    """Return in words what wait(2) gave for a process that has ended."""
    if os.WIFSIGNALED(status):
        return f"signal {name(os.WTERMSIG(status))}"
    code = os.WEXITSTATUS(status)
    return f"exit {code}" if code else ""


def exit_code(words: str) -> int:
    """Return the exit status that a shell gives for an ending in words: 0, N, or 128 and the signal's number; 1 for words of another kind."""
    kind, _, what = words.partition(" ")
    if kind == "signal":
        return 128 + number(what)
    if kind == "exit" and what.isdecimal():
        return int(what)
    return 1 if words else 0
