"""`child`: a process that always ends with the test that started it."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from typing import IO, Any

from mk9p.testing.waiting import SOON


@contextmanager
def child(
    command: Sequence[str | PathLike[str]], says: str = "", *, grace: float = 5.0, **options: Any
) -> Iterator["subprocess.Popen[str]"]:
    """Run a command while the block runs, and return when it has printed `says`: `with child(["mk9p", "serve", …], "listening on") as process`.

    `options` are those of Popen. Its streams are text, and `says` is looked for in each line of standard error, or of standard output if only that
    is a pipe. Raises AssertionError with everything that it printed if it ends without the words. At the end of the block it is asked to end,
    killed after `grace` seconds, and waited for; its pipes are closed.
    """
    if says and not {"stdout", "stderr"} & options.keys():
        options["stderr"] = subprocess.PIPE
    process = subprocess.Popen([*map(str, command)], **{"text": True, **options})
    try:
        if says:
            hear(process, says)
        yield process
    finally:
        _end(process, grace)


def hear(process: "subprocess.Popen[str]", says: str) -> str:
    """Return the first line of a process that has `says` in it, from standard error if that is a pipe. Raises AssertionError at its end."""
    pipe: IO[str] | None = process.stderr or process.stdout
    assert pipe is not None
    said = []
    for line in pipe:
        if says in line:
            return line
        said.append(line)
    raise AssertionError(f"it ended without {says!r}: {''.join(said)}")


def _end(process: "subprocess.Popen[str]", grace: float) -> None:
    try:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        process.kill()
        process.wait(SOON)
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                # what was written to it last may have no reader
                with suppress(OSError):
                    pipe.close()
