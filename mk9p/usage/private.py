"""The commands that give programs a namespace of their own, directories to others, and tasks to kernels."""

import argparse
from typing import Any, Final

from mk9p.usage.common import Checks, Parser, Parsers, number, parser_of, take_keys


class WithCommand(Parser):
    """A parser of words that may be followed by `--` and a command."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Take the words before the first `--`, and leave the others as `command`."""
        words = list(args)
        at = words.index("--") if "--" in words else len(words)
        chosen, rest = super().parse_known_args(words[:at], namespace)
        chosen.command = words[at + 1 :]
        return chosen, rest


def _cpu(name: str) -> Parser:
    parser = WithCommand(
        prog=f"mk9p {name}",
        description="Run a command, or a shell, in a kernel, in a mount namespace of its own that has the caller's namespace at /mnt/term.",
        usage="mk9p cpu [-nt] [-d DIR] [-e NAME=VALUE]... [-x DIR [-P PATTERNS] [-r]] KERNEL [-- COMMAND [ARG...]]",
    )
    parser.add_argument("-n", "--no-input", action="store_true", help="give it no input, as from /dev/null: for loops")
    parser.add_argument(
        "-t",
        "--terminal",
        action="store_true",
        help="give the command a terminal; a shell has one if there is one here",
    )
    parser.add_argument("-d", "--dir", help="where to run it (/, and with -x what is given)")
    parser.add_argument(
        "-e", "--env", metavar="NAME=VALUE", action="append", default=[], help="a variable of its environment"
    )
    parser.add_argument(
        "-x",
        "--export",
        metavar="DIR",
        help="have this directory of this machine at /mnt/term, instead of the namespace",
    )
    parser.add_argument("-P", "--patterns", metavar="FILE", help="with -x: what of it is there, as for mk9p export")
    parser.add_argument("-r", "--readonly", action="store_true", help="nothing at /mnt/term can be changed")
    parser.add_argument(
        "--cap",
        metavar="FILE",
        help="have only what this capability gives there (mk9p grant); else $MK9P_CAP, without -x",
    )
    parser.add_argument("--at", metavar="DIR", dest="place", default="/mnt/term", help="where it is (%(default)s)")
    parser.add_argument("kernel", metavar="KERNEL", help="a name in k/, or the path of a kernel's tree")
    return parser


def _newns(name: str) -> Parser:
    parser = WithCommand(
        prog=f"mk9p {name}",
        description="Run a command in a mount namespace of its own, which a script of namespace(6) makes: mount, bind, unmount.",
        usage="mk9p newns [-np] [-s LINE]... [FILE] [-- COMMAND [ARG...]]",
    )
    parser.add_argument("-n", dest="empty", action="store_true", help="nothing is there but what the script says")
    parser.add_argument("-p", dest="make", action="store_true", help="make directories for mounts that are missing")
    parser.add_argument(
        "-s",
        metavar="LINE",
        dest="lines",
        action="append",
        default=[],
        help="a line of the script (again for more), before FILE",
    )
    parser.add_argument("-d", "--dir", help="where to run it; else where this is run, if that is there too, else /")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the script; - is the standard input")
    return parser


def _export(name: str) -> Parser:
    parser = parser_of(
        name,
        "Serve a directory of this machine, as exportfs(4).",
        usage="mk9p export [-P FILE] [-r] [-v] DIR DIAL",
    )
    parser.add_argument(
        "-P",
        "--patterns",
        metavar="FILE",
        help="what of it: a regular expression a line, after + for paths that must match all of these, after - for those that may match none",
    )
    parser.add_argument("-r", "--readonly", action="store_true", help="refuse every change")
    parser.add_argument("--trust", action="store_true", help="believe the user names that come over tcp and vsock")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log connections; twice: more")
    take_keys(parser)
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("dial", metavar="DIAL", help="where to listen; fd!0!1 is the standard input and output")
    return parser


def _tf(name: str) -> Parser:
    parser = parser_of(name, "Run a graph of tasks over kernels, or list all task forces.")
    words = parser.add_subparsers(dest="word", metavar="run | status | move | kill")
    run = words.add_parser(
        "run",
        help="run the force of a file to its end",
        description="Run the tasks of FILE in their kernels: together or not at all. The exit status is that of the task that ended the force.",
    )
    run.add_argument("-v", "--verbose", action="store_true", help="show where tasks start, and how they end")
    run.add_argument("file", metavar="FILE", help="the graph (mk9p help tf); - is the standard input")
    parser.add_argument("--json", action="store_true", help="as JSON: for scripts")
    status = words.add_parser("status", help="all forces, the same as no word; or the tasks of one")
    status.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as JSON: for scripts")
    status.add_argument("force", metavar="N", type=number, nargs="?", help="the number of a force")
    move = words.add_parser("move", help="move a task to another kernel while it runs")
    kill = words.add_parser("kill", help="end a force")
    for each in (move, kill):
        each.add_argument("force", metavar="N", type=number, help="the number of a force")
    move.add_argument("task", metavar="TASK")
    move.add_argument("kernel", metavar="KERNEL", help="a name in k/")
    return parser


def _wrong_cpu(chosen: argparse.Namespace) -> str:
    if chosen.patterns and not chosen.export:
        return "-P says what of a directory is there: give one with -x"
    if chosen.cap and chosen.export:
        return "--cap is for the namespace, and -x is for a directory instead"
    return "" if chosen.place.startswith("/") else f"--at {chosen.place}: want a path from the root"


def _wrong_newns(chosen: argparse.Namespace) -> str:
    return "" if chosen.file is not None or chosen.lines or chosen.empty else "no script: give FILE, or lines with -s"


PARSERS: Final[Parsers] = {"cpu": _cpu, "newns": _newns, "export": _export, "tf": _tf}
CHECKS: Final[Checks] = {"cpu": _wrong_cpu, "newns": _wrong_newns}
