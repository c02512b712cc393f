"""The commands on who may do what."""

import argparse
import re
from typing import Final

from mk9p.usage.common import Checks, Parser, Parsers, parser_of, reads

OPS: Final = "rwcnd"
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_EPILOG: Final = (
    "Whoever has the text of a capability can use it: keep it in a file that nobody else can read (-o FILE). A client shows it with "
    "`mk9p --cap FILE COMMAND`, $MK9P_CAP, `mk9p mount --cap FILE`, or connect(cap=...)."
)


@reads("a time, as 90s, 15m, 1h or 7d")
def seconds(text: str) -> int:
    """Read a term: `90`, `90s`, `15m`, `1h`, `7d`, `2w`."""
    found = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text)
    if found is None or not (value := int(found[1]) * _UNITS[found[2]]):
        raise ValueError(text)
    return value


def _limits(parser: Parser) -> None:
    parser.add_argument("--to", metavar="NAME", help="only this user, cert:NAME or guest:NAME may use it")
    parser.add_argument("--for", metavar="TIME", dest="term", type=seconds, help="how long from now: 90s, 15m, 1h, 7d")
    parser.add_argument("--from", metavar="TIME", dest="delay", type=seconds, help="it begins so long from now")
    parser.add_argument("--in", metavar="KERNEL", dest="kernel", help="only by the line of this kernel")
    parser.add_argument(
        "-o", metavar="FILE", dest="file", help="make this file with it, for this user alone; else it is printed"
    )


def _grant(name: str) -> Parser:
    parser = parser_of(name, "Make a capability: text that gives whoever has it OPS on PATH and below.", epilog=_EPILOG)
    _limits(parser)
    parser.add_argument("path", metavar="PATH", type=_path, help="a path of the namespace: /k/k1/cpu")
    parser.add_argument(
        "ops",
        metavar="OPS",
        type=_ops,
        help="letters: r read, w write stored data, c write to ctl files, n create, d remove",
    )
    return parser


def _narrow(name: str) -> Parser:
    parser = parser_of(
        name,
        "Make a narrower capability of one, without asking anybody; without limits, show what it gives.",
        epilog="PATH and OPS are as for `mk9p grant`. " + _EPILOG,
    )
    _limits(parser)
    parser.add_argument("--cap", metavar="FILE", help="the capability; else $MK9P_CAP; - is the standard input")
    parser.add_argument("path", metavar="PATH", nargs="?", type=_path)
    parser.add_argument("ops", metavar="OPS", nargs="?", type=_ops)
    return parser


def _revoke(name: str) -> Parser:
    parser = parser_of(name, "End a capability and all that was narrowed from it, and the sessions that use them.")
    parser.add_argument("--cap", metavar="FILE", help="the capability, if its ID is not known; - is the standard input")
    parser.add_argument("ids", metavar="ID", nargs="*", help="as auth/grants shows it")
    return parser


def _lease(name: str) -> Parser:
    parser = parser_of(name, "Run a command while a path is leased, or list all leases.")
    words = parser.add_subparsers(dest="word", metavar="list | take")
    parser.add_argument("--json", action="store_true", help="as JSON: for scripts")
    listed = words.add_parser("list", help="show who has what, or waits for it; the same as no word")
    listed.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as JSON: for scripts")
    take = words.add_parser(
        "take",
        help="run a command while PATH is leased",
        description="Take a lease of PATH, run COMMAND while it is held, and give it back. COMMAND is ended if the lease is lost.",
        usage="mk9p lease take [--shared] [--for TIME] [--wait TIME] PATH|CLAIM -- COMMAND [ARG...]",
    )
    take.add_argument("--shared", action="store_true", help="together with others who have a shared one")
    take.add_argument(
        "--for",
        metavar="TIME",
        dest="term",
        type=seconds,
        default=30,
        help="the term, which is renewed as long as COMMAND runs (30s)",
    )
    take.add_argument("--wait", metavar="TIME", type=seconds, help="wait for it so long")
    take.add_argument(
        "path", metavar="PATH", type=_wanted, help="or a claim, '{cpus 2 arch x86_64}': what is free of some kernel"
    )
    take.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments")
    return parser


def _no_command(chosen: argparse.Namespace) -> str:
    if chosen.word != "take":
        return ""
    if chosen.command[:1] == ["--"]:
        del chosen.command[0]
    if not chosen.command:
        return "no command: give one after --"
    return "options come before PATH" if chosen.command[0].startswith("-") else ""


@reads("a path from the root, as /k/k1/cpu")
def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(text)
    return text


@reads("a path from the root, as /k/k1/cpu, or a claim, as '{cpus 2}'")
def _wanted(text: str) -> str:
    if not text.startswith(("/", "{")):
        raise ValueError(text)
    return text


@reads("letters of rwcnd")
def _ops(text: str) -> str:
    if not text or len(set(text)) != len(text) or not set(text) <= set(OPS):
        raise ValueError(text)
    return text


def _nothing(chosen: argparse.Namespace) -> str:
    return "" if chosen.ids or chosen.cap else "say an ID, or --cap FILE"


PARSERS: Final[Parsers] = {"grant": _grant, "narrow": _narrow, "revoke": _revoke, "lease": _lease}
CHECKS: Final[Checks] = {"revoke": _nothing, "lease": _no_command}
