"""The command on programs that can be moved."""

import argparse
from typing import Final

from mk9p.usage.common import Checks, Parser, Parsers, parser_of, reads

LIMITS: Final = ("memory", "fuel", "time", "cpu", "output", "files")


@reads("PATH[:AT]:ro|rw, as /fs/data:/d:ro")
def _grant(text: str) -> tuple[str, str, bool]:
    """Read `PATH[:AT]:ro|rw`: the path, where the program finds it, and whether it may only read."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or parts[-1] not in ("ro", "rw") or not parts[0].startswith("/"):
        raise ValueError(text)
    return parts[0], parts[-2], parts[-1] == "ro"


@reads("WHAT=N, WHAT one of memory fuel time cpu output files")
def _limit(text: str) -> str:
    what, _, n = text.partition("=")
    if what not in LIMITS or not (n.isascii() and n.isdigit()):
        raise ValueError(text)
    return text


@reads("SECONDS:PATH")
def _checkpoint(text: str) -> tuple[str, str]:
    """Read `SECONDS:PATH`."""
    seconds, _, path = text.partition(":")
    if not path.startswith("/") or float(seconds) <= 0:
        raise ValueError(text)
    return seconds, path


@reads("NAME=VALUE")
def _variable(text: str) -> str:
    if text.find("=") < 1:
        raise ValueError(text)
    return text


@reads("KERNEL/N, as k1/0")
def _program(text: str) -> str:
    if not text.rpartition("/")[2].isdigit():
        raise ValueError(text)
    return text


def _wasm(name: str) -> Parser:
    parser = parser_of(
        name, "Programs (wasm modules) that see what they are granted, and that go on on another kernel."
    )
    words = parser.add_subparsers(dest="word", metavar="WORD", required=True)
    run = words.add_parser(
        "run",
        help="run a program in a kernel",
        description="Run a program in a kernel: its input, output, signals and exit status are this process's.",
        usage="mk9p wasm run [-n] [-g PATH[:AT]:ro|rw]... [-e NAME=VALUE]... [-l WHAT=N]... [--checkpoint SECONDS:PATH] "
        "[--restart WHEN] [--to KERNEL]... [--follow] KERNEL FILE [ARG...]",
    )
    run.add_argument("-n", "--no-input", action="store_true", help="give it no input, as from /dev/null: for loops")
    run.add_argument(
        "-g",
        "--grant",
        metavar="PATH[:AT]:ro|rw",
        type=_grant,
        action="append",
        default=[],
        help="let it see this directory of the namespace, as AT: served from here, as you (again for more)",
    )
    run.add_argument(
        "-e",
        "--env",
        metavar="NAME=VALUE",
        type=_variable,
        action="append",
        default=[],
        help="a variable of its environment",
    )
    run.add_argument(
        "-l",
        "--limit",
        metavar="WHAT=N",
        type=_limit,
        action="append",
        default=[],
        help="end it above this: memory, output (bytes), time, cpu (ms), fuel (instructions), files",
    )
    run.add_argument(
        "--checkpoint",
        metavar="SECONDS:PATH",
        type=_checkpoint,
        help="write its state to this file of the namespace so often, as a whole or not at all",
    )
    run.add_argument(
        "--restart",
        metavar="WHEN",
        default="never",
        help="when its kernel is gone, let it go on elsewhere from its last checkpoint: 'never|on-failure|always [max N] [in SECONDS]'",
    )
    run.add_argument(
        "--to",
        metavar="KERNEL",
        action="append",
        default=[],
        help="let it go on in this kernel alone (again for more); without it, in any that has wasm",
    )
    run.add_argument("--follow", action="store_true", help="stay its terminal when it is moved")
    run.add_argument("kernel", metavar="KERNEL", help="a name in k/, or the path of a kernel's tree")
    run.add_argument("file", metavar="FILE", help="a module, or a state that was saved")
    run.add_argument("args", metavar="ARG", nargs=argparse.REMAINDER, help="its arguments")
    listed = words.add_parser("ps", help="list the programs of all kernels, or of these")
    listed.add_argument("--json", action="store_true", help="as JSON: for scripts")
    listed.add_argument("kernels", metavar="KERNEL", nargs="*", help="a name in k/")
    move = words.add_parser(
        "move",
        help="let a program go on on another kernel",
        description="Freeze a program, copy it, start it on another kernel, and only then forget it. If that fails, it goes on where it was.",
    )
    move.add_argument("program", metavar="KERNEL/N", type=_program, help="as `mk9p wasm ps` shows it, or a path")
    move.add_argument("kernel", metavar="KERNEL", help="where it is to go on: a name in k/, or the path of a tree")
    save = words.add_parser("save", help="freeze a program into a file; `run` goes on with it")
    save.add_argument("--keep", action="store_true", help="let it go on here, too")
    save.add_argument("program", metavar="KERNEL/N", type=_program, help="as `mk9p wasm ps` shows it, or a path")
    save.add_argument("file", metavar="FILE")
    show = words.add_parser("show", help="show what is in a state that was saved")
    show.add_argument("--json", action="store_true", help="as JSON: for scripts")
    show.add_argument("file", metavar="FILE")
    return parser


PARSERS: Final[Parsers] = {"wasm": _wasm}
CHECKS: Final[Checks] = {}
