"""The commands on kernels, and on a lab of several."""

import argparse
from typing import Final

from mk9p.usage.common import PATIENCE, PROXY, Checks, Parser, Parsers, TextHelp, number, parser_of, seconds


def _run(name: str) -> Parser:
    parser = parser_of(
        name,
        "Run a command in a kernel: its input, output, signals and exit status are this process's.",
        usage="mk9p run [-nt] [-d DIR] [-e NAME=VALUE]... KERNEL -- COMMAND [ARG...]",
    )
    parser.add_argument("-n", "--no-input", action="store_true", help="give it no input, as from /dev/null: for loops")
    parser.add_argument("-t", "--terminal", action="store_true", help="give the command a terminal")
    parser.add_argument("-d", "--dir", help="where to run it (/)")
    parser.add_argument(
        "-e", "--env", metavar="NAME=VALUE", action="append", default=[], help="a variable of its environment"
    )
    parser.add_argument("kernel", metavar="KERNEL", help="a name in k/, or the path of a kernel's tree")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments")
    return parser


def _no_command(chosen: argparse.Namespace) -> str:
    if chosen.command[:1] == ["--"]:
        del chosen.command[0]
    return "" if chosen.command else "no command: give one after --"


def _ps(name: str) -> Parser:
    parser = parser_of(
        name,
        "List the processes of all kernels, or of these. "
        f"When nothing comes from a kernel for {PATIENCE:g} seconds, show what it has sent.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON: for scripts")
    parser.add_argument("kernels", metavar="KERNEL", nargs="*", help="a name in k/")
    return parser


def _top(name: str) -> Parser:
    parser = parser_of(name)
    parser.add_argument(
        "-d", "--delay", type=seconds, default=2.0, metavar="SECONDS", help="time between two screens (2)"
    )
    parser.add_argument("-n", type=number, default=0, metavar="COUNT", help="end after COUNT screens; 0: never (0)")
    parser.add_argument("--once", dest="n", action="store_const", const=1, help="as -n 1: for scripts")
    parser.add_argument(
        "-p", "--processes", type=number, default=10, metavar="COUNT", help="how many of the busiest to show (10)"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON instead of each screen")
    parser.add_argument("kernels", metavar="KERNEL", nargs="*")
    return parser


def _console(name: str) -> Parser:
    parser = parser_of(
        name,
        ("Attach to a kernel's console: show its history and what comes, and send it what you type. Ctrl-] detaches."),
    )
    parser.add_argument("kernel", metavar="KERNEL", help="a name in kernels/, or the path of a console")
    return parser


def _socks(name: str) -> Parser:
    parser = parser_of(name)
    parser.add_argument("-l", metavar="HOST:PORT", dest="listen", default=PROXY, help=f"where to listen, else {PROXY}")
    parser.add_argument("kernel", metavar="KERNEL", help="a name in k/, or the path of a kernel's tree")
    return parser


def _no_address(chosen: argparse.Namespace) -> str:
    _, colon, port = chosen.listen.rpartition(":")
    return "" if colon and port.isascii() and port.isdigit() else f"-l {chosen.listen}: want HOST:PORT"


_LAB: Final = """FILE has a table for each kernel. Its lines are words of kernels/NAME/ctl (`mk9p help kernels`); `kernel` is what `load` takes:

  [k1]
  backend = "qemu"
  kernel = "6.1"
  cpus = 2
  memory = "768M"
  grants = ["/k/k2 rw", "/k/k0/fs/data ro"]

`grants` says what the guest may use of the namespace, as root there: ro, rw, or letters of rwcnd. Without it the guest has only its own k/NAME and
auth/whoami.
`mk9p up --print` prints the lab that starts without FILE.
"""


def _up(name: str) -> Parser:
    parser = Parser(
        prog=f"mk9p {name}",
        description="Start kernels and their namespace.",
        epilog=_LAB,
        formatter_class=TextHelp,
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay; Ctrl-C ends the lab")
    parser.add_argument("--no-mount", action="store_true", help="do not mount the namespace on this machine")
    parser.add_argument(
        "--print", action="store_true", help="print the lab that starts without FILE, and start nothing"
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="a lab in TOML; by default two kernels, k1 in QEMU and k2 in user-mode Linux",
    )
    return parser


def _down(name: str) -> Parser:
    return parser_of(name, "End what `mk9p up` started, and leave nothing.")


def _demo(name: str) -> Parser:
    parser = parser_of(name, "Start two kernels, show a short session with them, end them.")
    parser.add_argument(
        "which",
        metavar="driver",
        nargs="?",
        choices=("driver",),
        help="another session: a kernel that has only a USB stick and a network card panics, and its user goes on",
    )
    parser.add_argument("--keep", action="store_true", help="leave the lab up, as `mk9p up` does")
    return parser


def _apply(name: str) -> Parser:
    parser = parser_of(
        name,
        "Write the words that make of the kernels, the pool and the mounts what a lab file says, and show them. "
        "The namespace then puts right what drifts from it.",
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only show the words")
    parser.add_argument(
        "--restart",
        action="store_true",
        help="halt and start kernels for settings that they do not take while they run",
    )
    parser.add_argument("--once", action="store_true", help="do not keep the file in kernels/desired")
    parser.add_argument("file", metavar="FILE", help="a lab file; - is the standard input")
    return parser


def _diff(name: str) -> Parser:
    parser = parser_of(
        name,
        "Show what differs from a lab file, as words that would change it. The exit status is 1 if something does.",
    )
    parser.add_argument("file", metavar="FILE", help="a lab file; - is the standard input")
    return parser


PARSERS: Final[Parsers] = {
    "apply": _apply,
    "diff": _diff,
    "run": _run,
    "ps": _ps,
    "top": _top,
    "console": _console,
    "socks": _socks,
    "up": _up,
    "down": _down,
    "demo": _demo,
}
CHECKS: Final[Checks] = {"run": _no_command, "socks": _no_address}
